"""The image's recipe: what it copies and installs, and its rehearsal without Docker."""

import os
import pathlib
import re
import shlex
import tomllib
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dataflow_templates import launcher
from tests.dataflow_templates import rehearse_image
from tests.dataflow_templates.rehearse_image import Step, read_steps

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "dataflow_templates"
STEPS = read_steps((FOLDER / "Dockerfile").read_text("utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def pins(path: pathlib.Path) -> dict[str, str]:
    """Name to version of a lock file."""
    lines = path.read_text("utf-8").splitlines()
    found = [re.match(r"([a-z0-9][-a-z0-9_.]*)==([^ ;]+)", line) for line in lines]
    return {match[1]: match[2] for match in found if match}


LOCKED = pins(ROOT / "requirements" / "image.lock")
TESTED = pins(ROOT / "requirements" / "test.lock")


def copied() -> dict[str, str]:
    """Source to target of every COPY from the tree."""
    pairs = {}
    for instruction, words in STEPS:
        if instruction == "COPY" and not words.startswith("--from="):
            *sources, target = shlex.split(words)
            pairs |= dict.fromkeys(sources, target)
    return pairs


def test_what_is_copied_is_there_and_nothing_that_is_needed_is_missing() -> None:
    assert [source for source in copied() if not (ROOT / source).exists()] == []
    wanted = {PROJECT["readme"], *PROJECT["license-files"], "pyproject.toml", "setup.py"}
    packages = re.findall(r'^ {8}"(\w+)",$', (ROOT / "setup.py").read_text("utf-8"), re.MULTILINE)
    assert len(packages) > 2
    assert wanted | set(packages) <= set(copied())


def test_beam_is_of_one_version_everywhere() -> None:
    [image] = [words for instruction, words in STEPS if words.startswith("apache/beam_python")]
    version, python = re.match(r"apache/beam_python(\d\.\d+)_sdk:(\S+) AS beam", image).group(2, 1)
    assert version == LOCKED["apache-beam"] == TESTED["apache-beam"]
    others = [words for name, words in STEPS if name in ("FROM", "ARG") and "python" in words]
    assert len(others) == 3
    assert all(python in words or python.replace(".", "") in words for words in others)


def test_the_image_is_installed_from_a_lock_with_hashes_and_no_index_later() -> None:
    installs = [words for name, words in STEPS if name == "RUN" and "pip install" in words]
    assert installs == [
        "python -m pip install --no-deps --require-hashes -r tools.lock",
        "python -m pip install --no-deps --no-build-isolation --require-hashes -r image.lock",
        "python -m pip install --no-deps --no-build-isolation .",
    ]


def test_the_lock_has_every_dependency_within_its_bounds() -> None:
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["gcp"]]
    for requirement in map(Requirement, wanted):
        version = LOCKED.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement}: run `make lock`"
        assert version in requirement.specifier, f"{requirement}: run `make lock`"


def test_workers_get_the_versions_that_the_tests_ran_with() -> None:
    shared = LOCKED.keys() & TESTED.keys()
    assert len(shared) > 30
    assert {name: LOCKED[name] for name in shared} == {name: TESTED[name] for name in shared}


def test_the_launcher_is_where_dataflow_looks_and_knows_its_image() -> None:
    environment = {}
    for name, words in STEPS:
        if name == "ENV":
            environment |= dict(word.split("=", 1) for word in shlex.split(words))
    [workdir] = [words for name, words in STEPS if name == "WORKDIR"]
    assert copied()["dataflow_templates/launcher.py"] == "./"
    assert environment["FLEX_TEMPLATE_PYTHON_PY_FILE"] == f"{workdir}/launcher.py"
    assert environment[launcher.IMAGE_VARIABLE] == "${IMAGE}"
    assert Step("ARG", "IMAGE") in STEPS
    assert STEPS[-1] == Step("ENTRYPOINT", '["/opt/apache/beam/boot"]')


def test_a_rehearsal_stops_at_the_first_step_that_fails(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearse_image, "_build_without_network", lambda *_: None)
    monkeypatch.setattr(rehearse_image, "_empty_environment", lambda _: dict(os.environ))
    good = (
        "FROM x\nCOPY LICENSE ./\nCOPY samples ./s\nENV A=${IMAGE} B=2\nRUN test -d s -a $A = i\n"
    )
    rehearse_image.rehearse(tmp_path / "good", read_steps(good), "i")
    bad = good + 'RUN echo "no $B" && \\\n  false\nRUN touch after\n'
    with pytest.raises(RuntimeError, match="no 2"):
        rehearse_image.rehearse(tmp_path / "bad", read_steps(bad), "i")
    assert not (tmp_path / "bad" / "image" / "after").exists()
    with pytest.raises(RuntimeError, match="cannot rehearse ADD"):
        rehearse_image.rehearse(tmp_path / "odd", [Step("ADD", "a b")], "i")


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get("C4_REHEARSE_IMAGE"),
    reason="takes minutes and a network: C4_REHEARSE_IMAGE=1, or "
    "python -m tests.dataflow_templates.rehearse_image",
)
def test_the_image_builds_a_corpus_without_network(capsys: Any) -> None:
    assert rehearse_image.main([]) == 0, capsys.readouterr().err
    assert "built from 6 files" in capsys.readouterr().out
