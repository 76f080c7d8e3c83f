"""What a worker gets: the source distribution that Beam makes, and a wheel made of that alone."""

import email
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pipelines.version import VERSION

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGES = ("c4_filters", "model", "pipelines")
BUILD_FILES = ("pyproject.toml", "setup.py", "LICENSE", "README.md", "MANIFEST.in")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# Heavy libraries, by the package that must come up without them.
FORBIDDEN = {
    "c4_filters": ("apache_beam", "jax", "flax", "tensorflow", "tensorflow_datasets", "torch"),
    "pipelines": ("jax", "flax", "tensorflow", "tensorflow_datasets", "torch"),
    "model": ("apache_beam", "tensorflow", "tensorflow_datasets", "torch"),
}
IMPORT_EVERYTHING = """
import importlib, json, pkgutil, sys
target, package_name = sys.argv[1:]
sys.path.insert(0, target)
package = importlib.import_module(package_name)
names = [m.name for m in pkgutil.walk_packages(package.__path__, package_name + ".")]
modules = [package] + [importlib.import_module(name) for name in names]
files = [module.__file__ for module in modules]
print(json.dumps({"files": files, "imported": sorted({m.split(".")[0] for m in sys.modules})}))
"""


def run(*command, cwd):
    # The repository is not on the path, or it would stand in for what was built.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done


def files_of_the_tree():
    """Everything in the packages, as paths relative to the repository."""
    return {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The source distribution, made as Beam makes it for ``--setup_file``, from a copy."""
    folder = tmp_path_factory.mktemp("sdist")
    tree = folder / "tree"
    tree.mkdir()
    for name in sorted(files_of_the_tree()):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    for name in BUILD_FILES:
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, tree / name)
    made = run(sys.executable, "setup.py", "sdist", "--dist-dir", str(folder), cwd=tree)
    assert "warning" not in made.stderr.lower(), made.stderr
    (path,) = folder.glob("*.tar.gz")
    return path


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """The wheel, built from nothing but the source distribution, without network."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps")
    run(*pip, "--wheel-dir", str(folder), str(sdist), cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder with the wheel installed and nothing else."""
    folder = tmp_path_factory.mktemp("site")
    pip = (sys.executable, "-m", "pip", "install", "--no-deps")
    run(*pip, "--target", str(folder), str(wheel), cwd=folder)
    return folder


def names_in(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.mark.slow
def test_source_distribution_holds_the_packages_the_licence_and_the_readme(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    licence_and_recipe = {"LICENSE", "README.md", "pyproject.toml", "setup.py"}
    assert files_of_the_tree() | licence_and_recipe <= names
    assert not {name for name in names if name.startswith(("test", "benchmarks", "samples"))}


@pytest.mark.slow
def test_wheel_holds_every_file_of_every_package_and_nothing_beside(wheel):
    names = {name for name in names_in(wheel) if ".dist-info/" not in name}
    assert names == files_of_the_tree()


def test_every_folder_with_code_is_a_package():
    """A folder without ``__init__.py`` works from a checkout and is missing on the workers."""
    for name in files_of_the_tree():
        folder = (ROOT / name).parent
        assert not name.endswith(".py") or (folder / "__init__.py").exists(), name


@pytest.mark.slow
def test_wheel_carries_the_metadata_of_the_project(wheel):
    (licence,) = (name for name in names_in(wheel) if name.endswith("licenses/LICENSE"))
    (metadata,) = (name for name in names_in(wheel) if name.endswith(".dist-info/METADATA"))
    (scripts,) = (name for name in names_in(wheel) if name.endswith(".dist-info/entry_points.txt"))
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
        fields = email.message_from_bytes(archive.read(metadata))
        assert b"c4 = pipelines.c4_main:main" in archive.read(scripts)
    project = PYPROJECT["project"]
    assert fields["Name"] == project["name"]
    assert fields["Version"] == VERSION
    assert fields["License-Expression"] == "Apache-2.0"
    assert fields.get_all("Provides-Extra") == list(project["optional-dependencies"])
    base = [d for d in fields.get_all("Requires-Dist") if "extra ==" not in d]
    assert len(base) == len(project["dependencies"])


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
def test_an_installed_package_comes_up_without_the_libraries_it_must_not_need(package, installed):
    command = (sys.executable, "-c", IMPORT_EVERYTHING, str(installed), package)
    answer = json_of_last_line(run(*command, cwd=installed).stdout)
    assert answer["files"]
    assert all(pathlib.Path(file).is_relative_to(installed) for file in answer["files"])
    assert package in answer["imported"]
    assert not set(FORBIDDEN[package]) & set(answer["imported"])


def json_of_last_line(text):
    return json.loads(text.strip().splitlines()[-1])


LOCKS = {path.stem: path for path in sorted((ROOT / "requirements").glob("*.lock"))}


def purposes():
    """The Makefile's table: purpose to extras."""
    rows = re.findall(
        r"^EXTRAS\.(\w+) *:=(.*)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE
    )
    return {purpose: extras.split() for purpose, extras in rows}


def lock_entries(purpose):
    """(name, marker) to (version, number of hashes) for each pin of a lock."""
    entries = {}
    for line in LOCKS[purpose].read_text(encoding="utf-8").splitlines():
        if line[:1].isalnum():
            pin, _, marker = line.rstrip(" \\").partition(" ; ")
            name, version = pin.split("==")
            last = (name, marker)
            assert last not in entries
            entries[last] = (version, 0)
        elif line.lstrip().startswith("--hash=sha256:"):
            entries[last] = (entries[last][0], entries[last][1] + 1)
        else:
            assert line.lstrip().startswith("#"), f"{line!r}: an option, or an address?"
    return entries


def test_every_purpose_has_a_lock_and_every_lock_a_purpose():
    assert purposes()["build"] == []
    assert purposes()["train"] == ["train", "tasks"]
    assert LOCKS.keys() == {"tools", *purposes()}


@pytest.mark.parametrize("purpose", purposes())
def test_a_lock_holds_every_direct_dependency_within_its_bounds(purpose):
    locked = {}
    for (name, _), (version, _) in lock_entries(purpose).items():
        locked.setdefault(name, []).append(version)
    extras = PYPROJECT["project"]["optional-dependencies"]
    wanted = [*PYPROJECT["project"]["dependencies"]]
    for extra in purposes()[purpose]:
        wanted += extras[extra]
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        assert name in locked, f"{name}: run `make lock`"
        for version in locked[name]:
            assert version in requirement.specifier, f"{requirement}: run `make lock`"


def test_the_tools_build_the_project():
    [requirement] = map(Requirement, PYPROJECT["build-system"]["requires"])
    [((name, _), (version, _))] = lock_entries("tools").items()
    assert name == requirement.name
    assert version in requirement.specifier, "run `make lock`"


@pytest.mark.parametrize("purpose", LOCKS)
def test_a_lock_gives_hashes_for_every_pin(purpose):
    assert [pin for pin, (_, hashes) in lock_entries(purpose).items() if not hashes] == []


def test_all_locks_agree():
    """One environment takes several of them, one after the other."""
    agreed = {}
    for purpose in LOCKS:
        for pin, (version, _) in lock_entries(purpose).items():
            assert agreed.setdefault(pin, version) == version, f"{pin} of {purpose}"


@pytest.mark.parametrize("purpose", purposes())
def test_what_has_a_lock_for_the_build_is_in_the_other_locks(purpose):
    """Nothing that the build needs is left out by an extra."""
    pinned = lock_entries(purpose)
    left_out = [
        (name, marker)
        for name, marker in lock_entries("build")
        if (name, marker) not in pinned and (name, "") not in pinned  # "": on every platform
    ]
    assert left_out == []


def test_the_pythons_that_are_named_are_those_that_are_found():
    classifiers = PYPROJECT["project"]["classifiers"]
    named = [c.rpartition(" :: ")[2] for c in classifiers if "Python :: 3." in c]
    script = (ROOT / "scripts" / "find_python.sh").read_text("utf-8")
    assert PYPROJECT["project"]["requires-python"] == f">={named[0]}"
    assert f"({named[0]}) <= sys" in script.replace(", ", ".")
    assert f"<= ({named[-1]})" in script.replace(", ", ".")
    assert " ".join(f"python{version}" for version in named) in script
