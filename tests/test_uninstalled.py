"""A checkout that was never installed: the libraries are there, metadata of this package is not."""

import json
import os
import pathlib
import subprocess
import sys
import sysconfig

import pytest

from pipelines.version import VERSION
from samples.make_samples import WET_DIR

ROOT = pathlib.Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """What is installed here, without anything of this package."""
    folder = tmp_path_factory.mktemp("libraries")
    for path in pathlib.Path(sysconfig.get_path("purelib")).iterdir():
        if "colossal" not in path.name:
            (folder / path.name).symlink_to(path)
    return folder


def python(libraries: pathlib.Path, *words: str) -> str:
    # -S: the interpreter's own site-packages, where this package may be installed, stay out.
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{libraries}"}
    done = subprocess.run(
        [sys.executable, "-S", *words],
        env=environment,
        cwd=libraries,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_has_no_metadata_here(libraries: pathlib.Path) -> None:
    listed = "import importlib.metadata as m; print([d.name for d in m.distributions()])"
    names = python(libraries, "-c", listed)
    assert "apache-beam" in names
    assert "colossal" not in names


def test_version_and_build_need_no_installation(
    libraries: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    command = ("-m", "pipelines.c4_main")
    assert python(libraries, *command, "--version") == f"c4 {VERSION}\n"
    options = ("--input", str(WET_DIR / "sample-00000*"), "--output", str(tmp_path / "corpus"))
    python(libraries, *command, "build", *options, "--workers", "1", "--quiet")
    manifest = json.loads((tmp_path / "corpus" / "manifest.json").read_text("utf-8"))
    assert f'"colossal-c4": "{VERSION}"' in json.dumps(manifest)
