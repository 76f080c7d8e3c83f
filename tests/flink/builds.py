"""What the tests on engines share: the shipped command as a process, and what it must leave."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from samples.make_samples import WET_DIR
from testing.helpers import digests, manifest_of, run_c4

WET = str(WET_DIR / "*.wet*")
SHARDS = "4"  # more than one, so that there is a stage to be disturbed


class Finished(NamedTuple):
    status: int
    err: str


def command(output: pathlib.Path, options: Sequence[str] = ()) -> list[str]:
    """``c4 build`` of the samples."""
    words = [sys.executable, "-m", "pipelines.c4_main", "build", "--input", WET]
    return [*words, "--output", str(output), "--shards", SHARDS, *options]


@contextlib.contextmanager
def started(words: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """A process in a group of its own, which does not outlive the block."""
    process = subprocess.Popen(
        words,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def finish(process: subprocess.Popen[str], seconds: float = 180) -> Finished:
    _, err = process.communicate(timeout=seconds)
    return Finished(process.returncode, err)


def run(words: Sequence[str], seconds: float = 180) -> Finished:
    with started(words) as process:
        return finish(process, seconds)


def grow(folder: pathlib.Path, options: Sequence[str]) -> None:
    """Builds against an older corpus here and on an engine: shards and names must be equal."""
    samples = [str(WET_DIR / f"sample-0000{number}.warc.wet.gz") for number in range(2)]
    older = ("--against", folder / "old")
    for name, sample, more in (("old", samples[0], ()), ("local", samples[1], older)):
        done = run_c4("build", "--input", sample, "--output", folder / name, "--shards", SHARDS,
                      "--workers", "1", "--quiet", *more)  # fmt: skip
        assert done.status == 0, done.err
    words = command(folder / "engine", [*options, *map(str, older)])
    words[words.index(WET)] = samples[1]
    engine = run(words)
    assert engine.status == 0, engine.err
    assert digests(folder / "engine") == digests(folder / "local")
    local, other = (manifest_of(folder / name) for name in ("local", "engine"))
    assert other["root_digest"] == local["root_digest"]
    assert other["counts"] == local["counts"]
    assert local["counts"]["pages_dropped"]["duplicate_url"] > 0


def wait_for(what: Callable[[], object], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "what was waited for did not come"
        time.sleep(0.05)


def cleaned(output: pathlib.Path) -> dict[pathlib.Path, int]:
    """Cleaned files and when they were written."""
    return {path: path.stat().st_mtime_ns for path in (output / "cleaned").glob("*.arrow")}


def the_error(err: str) -> str:
    """The one line that says what failed."""
    errors = [line for line in err.splitlines() if line.startswith("c4: error")]
    assert len(errors) == 1, err
    assert "Traceback" not in err
    assert "\tat " not in err, "a Java stack"
    return errors[0]


def settle(
    output: pathlib.Path, words: Sequence[str], first: Finished, expected: dict[str, str]
) -> str:
    """Lets a disturbed build end: with its corpus, or with one error and a second run.

    Nothing that was cleaned is cleaned again. Returns the error, empty when there was none.
    """
    error = ""
    if first.status:
        error = the_error(first.err)
        before = cleaned(output)
        second = run(words)
        assert second.status == 0, second.err
        assert {path: time for path, time in cleaned(output).items() if path in before} == before
    assert digests(output) == expected
    return error


def require_same_near_duplicates(folder: pathlib.Path, options: Sequence[str]) -> None:
    """An engine must drop the near duplicates that a local build drops, and write its bytes."""
    recipe = folder / "near.toml"
    recipe.write_text('name = "near"\nbase = "en.noclean"\nnear_dedup = {threshold = 0.8}\n')
    found = []
    for name, of_engine in (("local", ["--workers", "2"]), ("engine", options)):
        words = command(folder / name, ["--recipe", str(recipe), *of_engine])
        finished = run(words)
        assert finished.status == 0, finished.err
        dropped = manifest_of(folder / name)["counts"]["pages_dropped"]
        assert dropped["near_duplicate"] == 3
        found.append(digests(folder / name))
    assert found[0] == found[1]
