"""The benchmark of the input pipeline, on a corpus of a few pages."""

import re

import pytest

pytest.importorskip("sentencepiece", reason="the train extra is not installed")

from benchmarks import input_pipeline
from model.data import rows
from model.tasks.prepared import prepare
from testing.corpora import make_corpus, numbered
from testing.vocabularies import train


@pytest.fixture
def arguments(tmp_path):
    shards = numbered([150, 40])
    folder = make_corpus(tmp_path / "c", {"train": shards}, ("parquet", "tfrecord"))
    path = train(tmp_path / "vocab.model", shards[0], vocab_size=40, hard_vocab_limit=False)
    return ["input_pipeline", "--corpus", folder, "--vocab", str(path), "--repeats", "1"]


@pytest.mark.parametrize(
    "more",
    [
        ["--format", "tfrecord", "--pages", "190"],
        ["--objective", "prefix_lm", "--architecture", "prefix-language-model"],
    ],
)
def test_both_speeds_and_their_ratio(arguments, more, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", arguments + more)
    assert input_pipeline.main() == 0
    said = capsys.readouterr().out
    pages = int(re.match(r"([\d,]+) pages, ", said)[1].replace(",", ""))
    assert pages >= 190  # and what is read ahead
    assert "pipeline at " in said


def test_the_parts_of_an_account_add_up(arguments, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [*arguments, "--account"])
    monkeypatch.setattr(input_pipeline, "MOST", 1.0)  # of so few pages
    assert input_pipeline.main() == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    ns = {
        name.strip(): float(value)
        for name, value in re.findall(r"(?m)^(.{45}) *([\d.-]+)", "\n".join(lines))
    }
    clocks, whole, plain = (
        ns.pop("of these, the clocks"),
        ns.pop("whole"),
        ns.pop("whole, without clocks"),
    )
    assert ns.keys() == {*input_pipeline._PARTS, input_pipeline.REST} - {
        part for part in input_pipeline._PARTS if part.startswith("tasks: ")
    }
    assert sum(ns.values()) == pytest.approx(whole, abs=0.1)
    assert 0 < clocks < whole
    assert plain > 0
    assert not hasattr(rows.RowPacker.__call__, "__wrapped__")  # the clocks are gone


def test_workers_too(arguments, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [*arguments, "--workers", "1", "--batches", "2"])
    assert input_pipeline.main() == 0
    assert "1 workers: " in capsys.readouterr().out


def test_a_mixture_too(arguments, tmp_path, monkeypatch, capsys):
    rows = [("train", {"inputs": f"{n} 3", "targets": "4"}) for n in range(50)]
    prepare("own", rows, tmp_path / "tasks", "x")
    more = ["--data", str(tmp_path / "tasks"), "--tasks", "own"]
    monkeypatch.setattr("sys.argv", [*arguments, *more])
    assert input_pipeline.main() == 0
    alone, mixed = capsys.readouterr().out.split("mixture with tasks")
    assert "of own" not in alone
    assert "of own, " in mixed
    assert "pipeline at " in mixed
