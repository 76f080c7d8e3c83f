"""``c4 evaluate``: every task on mocks of its data, and what it prints and writes."""

import json
import os
import pathlib
import shutil

import pytest

from model.data.vocabulary import Vocabulary
from model.evaluation.published import COLUMNS
from model.tasks import TASKS
from model.tasks.prepared import prepare
from model.tasks.sources.libraries import read_tfds
from model.training.model_folders import save_params
from testing.helpers import run_c4
from testing.screens import lines_on_a_screen, wide
from testing.tiny_t5 import V1_0, random_params
from testing.vocabularies import train
from tests.model.tasks.extra import needs_extra

pytestmark = [needs_extra, pytest.mark.slow]
QUICK = ("--input-length", 64, "--max-new-tokens", 4, "--resamples", 20)


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    return train(tmp_path_factory.mktemp("vocabulary") / "v.model")


@pytest.fixture(scope="module")
def model(vocabulary, tmp_path_factory):
    """A model with random weights."""
    config = V1_0.replace(vocab_size=Vocabulary(vocabulary).padded_size)
    folder = tmp_path_factory.mktemp("model") / "checkpoint"
    save_params(folder, config, random_params(config), vocabulary)
    return folder


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """The data of every task: a sample of each split."""
    folder = tmp_path_factory.mktemp("data")
    for name, entry in TASKS.items():
        prepare(name, [(split, entry.sample) for split in entry.splits], folder, "samples")
    return folder


def evaluate(model, data, *options):
    return run_c4("evaluate", "--from", model, "--data", data, *QUICK, *options)


def test_every_task_runs_on_mocks_of_its_published_features(model, tmp_path):
    """The full dry run."""
    tfds = pytest.importorskip("tensorflow_datasets", reason="needs the extra tfds")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name, entry in TASKS.items():
        with tfds.testing.mock_data(num_examples=10):
            rows = list(read_tfds(entry, str(tmp_path)))
        if name in ("glue_wnli", "super_glue_wsc"):  # made-up text has no pronouns
            rows = [(split, entry.sample) for split, _ in rows]
        prepare(name, rows, tmp_path / "data", "mocks")
    report = tmp_path / "report.json"
    done = evaluate(
        model, tmp_path / "data", "--task", "all", "--limit", 8, "--show", 1, "--json", report
    )
    assert done.status == 0, done.err
    found = json.loads(report.read_text())
    scored = {name for name, entry in TASKS.items() if entry.evaluated}
    assert set(found["tasks"]) == scored
    assert {name for name in COLUMNS if name not in found["columns"]} == set()
    assert all(
        split["examples"] == 8 for task in found["tasks"].values() for split in task.values()
    )
    assert found["missing"] == {}
    assert done.out.count("  prediction  ") == len(scored) + 1  # MNLI has two sets
    assert "GLUE average" in done.out


def test_test_sets_are_predicted_for_the_servers(model, samples, cloud):
    done = evaluate(
        model, samples, "--task", "glue,super_glue", "--split", "test", "--submission",
        "gs://bucket/upload", "--json", "gs://bucket/report.json",
    )  # fmt: skip
    assert done.status == 0, done.err
    assert json.loads(cloud.objects.pop("gs://bucket/report.json"))["split"] == "test"
    names = {name.removeprefix("gs://bucket/upload/") for name in cloud.objects}
    assert len(names) == 11 + 10
    assert {"MNLI-mm.tsv", "AX.tsv", "MultiRC.jsonl", "AX-g.jsonl"} <= names
    assert "RTE.tsv: 1 predictions, 1 invalid ones became " in done.out


def test_examples_that_are_shown_fit_the_terminal(model, samples):
    lines = lines_on_a_screen(
        *("evaluate", "--from", model, "--data", samples, *map(str, QUICK)),
        *("--task", "super_glue_cb", "--show", "1"),
    )
    [at] = [n for n, line in enumerate(lines) if line.startswith("  inputs      ")]
    assert lines[at + 1].startswith(" " * len("  inputs      "))
    assert wide(lines[at:]) == []


def test_missing_data_fail_no_other_task(model, samples, tmp_path):
    shutil.copytree(samples / "glue_cola", tmp_path / "glue_cola")
    done = evaluate(model, tmp_path, "--task", "glue_cola,squad")
    assert done.status == 0, done.err
    assert f"squad: not evaluated: no data in {tmp_path}: c4 tasks prepare squad" in done.out
    done = evaluate(model, tmp_path, "--task", "squad")
    assert (done.status, done.err.count("\n")) == (1, 1)
    assert done.err.startswith(f"c4: error: nothing to evaluate: {tmp_path} has no data of squad: ")


def test_a_task_s_own_best_checkpoint_is_used(model, samples, tmp_path):
    run = tmp_path / "run"
    for task in ("glue_cola", "glue_mnli"):
        shutil.copytree(model, run / "best" / task)
    kept = {"step": 30, "metric": "accuracy", "value": 1.0, "scores": {}}
    (run / "best.json").write_text(
        json.dumps({"glue_cola": kept, "glue_mnli": {**kept, "step": 50}})
    )
    report = tmp_path / "report.json"
    done = evaluate(run, samples, "--task", "glue_cola,glue_mnli", "--json", report)
    assert done.status == 0, done.err
    assert json.loads(report.read_text())["steps"] == {"glue_cola": 30, "glue_mnli": 50}
    done = evaluate(run, samples, "--task", "glue_ax", "--split", "test", "--json", report)
    assert json.loads(report.read_text())["steps"] == {"glue_ax": 50}, done.err


def test_an_ensemble_of_equal_models_is_that_model(model, samples, tmp_path):
    reports = [tmp_path / name for name in ("one.json", "three.json")]
    for count, report in zip((1, 3), reports, strict=True):
        more = ["--from", model] * (count - 1)
        done = evaluate(model, samples, "--task", "squad", "--json", report, *more)
        assert done.status == 0, done.err
    one, three = (json.loads(report.read_text()) for report in reports)
    assert one["tasks"] == three["tasks"]
    assert three["model"] == " + ".join([str(model)] * 3)


def test_members_of_an_ensemble_have_one_size(model, vocabulary, samples, tmp_path):
    config = V1_0.replace(vocab_size=Vocabulary(vocabulary).padded_size, d_ff=48)
    save_params(tmp_path / "other", config, random_params(config), vocabulary)
    done = evaluate(model, samples, "--task", "squad", "--from", tmp_path / "other")
    assert done.err == (
        "c4: error: other has another model than checkpoint: an ensemble is of models of one size "
        "that read the same ids (--from)\n"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--task", "cola"],
            "no task 'cola', perhaps 'glue_cola': c4 tasks list",
        ),
        (["--task", "own"], "nowhere: no such folder (--from)"),
        (["--task", "all", "--submission", "x"], "--submission needs the test sets"),
        (
            ["--task", "all", "--split", "test", "--limit", "1", "--submission", "x"],
            "whole test set",
        ),
        (["--task", "all", "--json", "."], ". is a folder: name a file (--json)"),
        (["--task", "all", "--json", "no/x.json"], "no: no such folder (--json)"),
        (["--task", "all", "--split", "test", "--submission", __file__], "(--submission)"),
        (["--task", "all", "--against", ""], "--against is empty"),
        (["--task", "all", "--batch-size", "999999999"], "batch_size must be between 1 and 65"),
        (["--task", "all", "--show", "-1"], "show must be at least 0, got -1 (--show)"),
        (["--task", "all", "--limit", "0"], "limit must be at least 1, got 0 (--limit)"),
        (["--task", "all", "--against", "best"], "the paper has no row 'best'; its rows: base"),
        (["--task", "all", "--json", ""], "--json is empty"),
        (["--task", "all", "--from", ""], "--from is empty"),
        (["--task", "all", "--beams", "2", "--sample"], "--beams and --sample are two ways"),
    ],
)
def test_wrong_options_are_refused_in_a_line(options, message, tmp_path):
    done = run_c4("evaluate", "--from", pathlib.Path("nowhere"), "--data", tmp_path, *options)
    assert done.status == 1
    assert message in done.err
    assert done.err.count("\n") == 1
