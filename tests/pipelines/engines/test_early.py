"""Workers start before the command's own imports, if the build is going to use them."""

import os
import pathlib
import subprocess
import sys

import pytest

from pipelines import builds
from pipelines.config import BuildConfig, RunConfig
from pipelines.engines import local
from pipelines.engines.early import start_early
from pipelines.engines.local import Workers
from samples.make_samples import WET_DIR

INPUTS = [str(path) for path in sorted(WET_DIR.glob("sample-0*"))]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Workers]:
    """Workers that would have started, on a machine of two cores and for inputs of any size."""
    found: list[Workers] = []
    monkeypatch.setattr(Workers, "prepare", lambda workers: found.append(workers))
    monkeypatch.setattr(local, "cores", lambda: 2)
    monkeypatch.setattr(local, "_BYTES_WORTH_A_PROCESS", 1)
    return found


@pytest.mark.parametrize(
    "words",
    [
        ["--input", *INPUTS, "--output", "out"],
        [f"--input={WET_DIR}/sample-0*", "--output", "out", "--start-over", "--shards", "3"],
        ["--workers", "2", "--input", INPUTS[0], "--output", "out", "--s3_region_name=eu"],
    ],
)
def test_a_build_that_uses_workers_starts_them(words: list[str], started: list[Workers]) -> None:
    assert [start_early(["build", *words])] == started


@pytest.mark.parametrize(
    "words",
    [
        ["--workers", "1", "--input", *INPUTS],
        ["--input", INPUTS[0]],  # one file
        ["--input", *INPUTS, "--runner=FlinkRunner"],
        ["--input", *INPUTS, "--help"],
        ["--input", "gs://bucket/*.gz", "--workers", "2"],  # would be listed twice
        ["--input", "absent.warc.wet.gz", "--workers", "2"],
        ["--input", *INPUTS, "--workers", "two"],
        ["--input"],
        [],
    ],
)
def test_others_do_not(words: list[str], started: list[Workers]) -> None:
    assert start_early(["build", *words]) is None
    assert started == []


def test_small_inputs_start_none(started: list[Workers], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_BYTES_WORTH_A_PROCESS", 8 << 20)
    assert start_early(["build", "--input", *INPUTS]) is None


@pytest.mark.slow
def test_a_build_uses_and_ends_the_workers_that_it_is_given(tmp_path: pathlib.Path) -> None:
    workers = Workers()
    workers.prepare()
    starter = workers._starter
    assert starter is not None
    config = BuildConfig(inputs=INPUTS, output=tmp_path / "out")
    made = builds.launch(config, RunConfig(workers=2, quiet=True), workers=workers).manifest
    assert made is not None
    assert made.counts.pages_written
    assert workers._starter is starter
    assert workers._was_asked
    assert starter.poll() is not None


@pytest.mark.slow
def test_the_command_starts_workers_before_it_imports_the_build(tmp_path: pathlib.Path) -> None:
    seen = tmp_path / "seen"
    (tmp_path / "sitecustomize.py").write_text(
        "import subprocess, sys\n"
        "class Noted(subprocess.Popen):\n"
        "    def __init__(self, command, *rest, **named):\n"
        f"        with open({str(seen)!r}, 'a') as file:\n"
        "            print('pipelines.config' in sys.modules, *command[3:4], file=file)\n"
        "        super().__init__(command, *rest, **named)\n"
        "subprocess.Popen = Noted\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pipelines.c4_main", "build", "--quiet", "--workers", "2"),
            *("--input", *INPUTS, "--output", str(tmp_path / "out")),
        ],
        env={**os.environ, "PYTHONPATH": path}, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert seen.read_text() == "False pipelines.engines.local_worker\n"
