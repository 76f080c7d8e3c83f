"""Short form of benchmarks/why.py: answers are what another reader finds in the WET records."""

import pathlib

import pytest

from benchmarks import why
from pipelines.provenance import answers
from testing.helpers import run_c4

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).resolve().parents[2]
WET = ROOT / ".." / "shared" / "wet"


def build(out: pathlib.Path, wet: pathlib.Path, recipe: str) -> str:
    outcome = run_c4("build", "--input", wet, "--output", out, "--recipe", recipe, "--quiet",
                     "--workers", "1")  # fmt: skip
    assert outcome.status == 0, outcome.err
    return str(out)


@pytest.mark.parametrize("recipe", ["en", "tfds", "en.noclean"])
def test_answers_on_samples(recipe: str, tmp_path: pathlib.Path) -> None:
    sample = ROOT / "samples" / "wet" / "sample-00000.warc.wet.gz"
    why.check(build(tmp_path / "out", sample, recipe), 60, 60, seed=3)


@pytest.mark.skipif(not WET.is_dir(), reason="no ../shared/wet here")
def test_answers_on_real_pages(tmp_path: pathlib.Path) -> None:
    why.check(build(tmp_path / "out", WET / "conv-05-recipes.warc.wet.gz", "en"), 40, 40, seed=3)


def test_a_wrong_answer_is_found(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = ROOT / "samples" / "wet" / "sample-00000.warc.wet.gz"
    out = build(tmp_path / "out", sample, "en")
    monkeypatch.setattr(answers, "_removed_lines", lambda page: {0})
    with pytest.raises(AssertionError):
        why.check(out, 60, 0, seed=3)
