"""Import weight: what a package, or a first look at the command line, must not bring along."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
FORBIDDEN = {
    "c4_filters": {"apache_beam", "jax", "flax", "tensorflow", "tensorflow_datasets", "nltk"},
    "pipelines": {
        "jax",
        "flax",
        "tensorflow",
        "tensorflow_datasets",
        "nltk",
        "obstore",
    },
    "pipelines.corpus": {"apache_beam", "jax", "flax", "tensorflow", "tensorflow_datasets", "nltk"},
    "pipelines.storage": {"apache_beam", "jax", "pyarrow", "numpy"},
    "model": {"apache_beam", "tensorflow", "tensorflow_datasets"},
}
#: The rooms of ``pipelines`` that others may use, and that use nothing else of it.
ROOMS = (
    *("pipelines.bars", "pipelines.builders", "pipelines.corpus", "pipelines.extras"),
    *("pipelines.number_options", "pipelines.options"),
    *("pipelines.printing", "pipelines.storage", "pipelines.text_files", "pipelines.version"),
)
# Says of each module which heavy libraries are there once it is imported too.
IMPORT_EVERYTHING = """
import importlib, json, sys
heavy, rooms = set(sys.argv[1].split(",")), json.loads(sys.argv[2])
for name in sys.argv[3:]:
    importlib.import_module(name)
    found = heavy & {module.split(".")[0] for module in sys.modules}
    if rooms:
        found |= {
            module for module in sys.modules
            if module.startswith("pipelines.") and not module.startswith(tuple(rooms))
        }
    print(json.dumps([name, sorted(found)]))
"""
SHOW_HELP = """
import json, runpy, sys
sys.argv[0] = "c4"
try:
    runpy.run_module("pipelines.c4_main", run_name="__main__", alter_sys=True)
except SystemExit as end:
    status = end.code
print(json.dumps([status, sorted({module.split(".")[0] for module in sys.modules})]))
"""


def modules_of(package):
    files = [path.relative_to(ROOT) for path in (ROOT / package.replace(".", "/")).rglob("*.py")]
    names = [".".join(path.with_suffix("").parts) for path in files]
    return sorted(name.removesuffix(".__init__") for name in names)


def python(*arguments, **options):
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, **options
    )


@pytest.mark.slow
@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_comes_up_without_the_heavy_libraries_of_others(package):
    names = modules_of(package)
    assert package in names

    rooms = json.dumps(ROOMS if package in ("model", *ROOMS) else ())
    done = python("-c", IMPORT_EVERYTHING, ",".join(FORBIDDEN[package]), rooms, *names)

    assert done.returncode == 0, done.stderr
    found = dict(map(json.loads, done.stdout.splitlines()))
    assert list(found) == names
    assert {name: heavy for name, heavy in found.items() if heavy} == {}


def test_help_names_the_commands_and_imports_neither_beam_nor_arrow():
    done = python("-c", SHOW_HELP, "--help")
    *shown, last = done.stdout.splitlines()
    status, imported = json.loads(last)

    assert status == 0
    assert shown[0].startswith("usage: c4 ")
    assert any(line.split()[:1] == ["build"] for line in shown)
    heavy = {"apache_beam", "pyarrow", "numpy", "tldextract", "langdetect", "langdetect_rs"}
    assert heavy.isdisjoint(imported)


@pytest.mark.skipif(os.name != "posix", reason="needs the CPU times of child processes")
def test_help_answers_in_well_under_a_second():
    seconds = []
    for _ in range(3):
        before = os.times()
        done = python("-m", "pipelines.c4_main", "--help")
        after = os.times()
        assert done.returncode == 0, done.stderr
        seconds.append(
            after.children_user
            + after.children_system
            - before.children_user
            - before.children_system
        )
    # CPU time of the best of three; half a second is what is promised, on a machine of one's own.
    assert min(seconds) < 1.0
