"""The short form of fuzzing: some inputs of each target, the same ones in every run."""

import itertools
import pathlib
import subprocess
import sys
from collections.abc import Callable

import pytest

from c4_filters import lines, sentences
from fuzz import targets
from fuzz.__main__ import TARGETS, check_of
from fuzz.mutations import mutated
from fuzz.seeds import seeds_of
from pipelines.corpus import container
from pipelines.corpus.formats import tfrecord
from pipelines.imports import pages
from pipelines.wet import records as read_wet

# What is made up has rows without values, which only its maker warns about.
pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")
ROOT = pathlib.Path(__file__).resolve().parents[2]
CHECKS = {name: check_of(name) for name in TARGETS}
INPUTS = {
    "reader": 1500,
    "lines": 3000,
    "pages": 1200,
    "sentences": 500,
    "urls": 6000,
    "growth": 30,
    "files": 400,
    "shards": 1500,
    "imports": 2000,
}


def run(target: str, count: int) -> None:
    for data in itertools.islice(mutated(seeds_of(target), 20190418), count):
        CHECKS[target](data)


@pytest.mark.slow
@pytest.mark.parametrize("target", INPUTS)
def test_no_input_breaks_a_promise(target: str) -> None:
    assert INPUTS.keys() == CHECKS.keys()
    run(target, INPUTS[target])


def test_inputs_are_the_same_in_every_run_and_differ_by_seed() -> None:
    seeds = seeds_of("urls")
    first, again, other = (list(itertools.islice(mutated(seeds, seed), 50)) for seed in (1, 1, 2))
    assert first == again != other


def loses_lines(*arguments: object) -> object:
    return lines.CleanLines("", 0, lines.PageVerdict.KEPT)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "module", "name", "broken"),
    [
        ("reader", read_wet, "short_line", lambda text: f"{text}\n"),
        ("lines", targets, "clean_text", loses_lines),
        ("pages", targets, "cut", lambda text, starts, gone: text + "x"),
        ("sentences", sentences.SentenceSplitter, "spans", lambda self, text: []),
        ("urls", targets, "page_key", lambda url: 0),
        ("files", container, "require_whole", lambda rows, may_be_null: None),
        ("shards", tfrecord._Records, "text", lambda self, record, page: None),
        ("imports", pages, "short_line", lambda text: f"{text}\n"),
    ],
)
def test_each_target_finds_a_fault(
    target: str,
    module: object,
    name: str,
    broken: Callable[..., object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert seeds_of(target)  # made by what is not broken yet
    monkeypatch.setattr(module, name, broken)
    with pytest.raises((AssertionError, AttributeError, TypeError)):
        run(target, 1000)


def test_an_input_too_costly_for_its_length_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(100))
    monkeypatch.setattr(targets.time, "process_time", lambda: float(next(seconds)))
    check = targets.timed(lambda data: None)
    with pytest.raises(AssertionError, match="s for 3 bytes"):
        check(b"abc")


@pytest.mark.slow
def test_the_command_keeps_an_input_that_fails(tmp_path: pathlib.Path) -> None:
    def fuzz(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "fuzz", *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    out = f"--out={tmp_path}"
    done = fuzz("urls", "--engine=plain", "--inputs=20", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("urls: 20 inputs, ")
    path = tmp_path / "input"
    path.write_bytes(b"http://site.example/")
    done = fuzz("urls", f"--replay={path}")
    assert (done.returncode, done.stdout) == (0, f"{path}: fine\n")
