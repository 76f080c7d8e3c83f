"""Fine-tuning whose folder is in an object store."""

import re

import pytest

from model.evaluation.best_files import kept_best
from model.evaluation.trained import open_trained
from model.training.metrics import read_rows
from model.training.model_folders import load_params
from model.tuning.base_model import open_base_model
from testing.helpers import run_c4
from testing.material import material, quick_xla
from tests.model.tuning.own_task import write_pairs

__all__ = ["material", "quick_xla"]

RUN = "gs://bucket/tuned"


@pytest.fixture
def finetune(material, quick_xla, tmp_path):
    """Fine-tune a model with new parameters, whose scores vary much."""
    pairs = write_pairs(tmp_path / "own.tsv", 100)

    def run(out, **options):
        more = [word for name, value in options.items() for word in (f"--{name}", value)]
        return run_c4(
            "finetune", "--task", pairs, "--out", out, "--vocab", material.vocab, "--size", "tiny",
            "--set", "d_model=32", "--set", "d_ff=64", "--set", "d_kv=8", "--set", "num_layers=1",
            "--steps", 20, "--batch-size", 8, "--input-length", 16, "--learning-rate", 0.02,
            "--seed", 3, "--workers", 0, "--checkpoint-every", 9, "--eval-every", 4,
            "--eval-batches", 1, "--eval-limit", 8, "--report-to", "none", *more,
        )  # fmt: skip

    return run


def _cut_off_before(cloud, pattern, count, behind):
    """Accept no more writes from the ``count``-th on whose name fits, as after a kill.

    Those before one whose name has ``behind``, which another thread sends, do not count.
    """
    fitting, awaited = [], []

    def fail(method, what):
        if method == "PUT" and behind in what:
            awaited.append(what)
        elif method == "PUT" and awaited and re.search(pattern, what):
            fitting.append(what)
        return 403 if method in ("PUT", "DELETE") and len(fitting) >= count else None

    cloud.fail = fail


@pytest.mark.slow
def test_a_run_cut_off_in_an_upload_keeps_its_best_checkpoint_and_goes_on(
    finetune, cloud, tmp_path
):
    _cut_off_before(cloud, "/best/own/(?![48]/)", 3, behind="/checkpoints/9/files.json")
    refused = finetune(RUN)
    assert refused.status == 1
    assert refused.err.count("\n") == 1, refused.err
    assert "Permission denied" in refused.err
    cloud.fail = lambda method, what: None
    assert open_trained(RUN).step == kept_best(RUN)["own"]["step"] in (4, 8, 12, 16)

    done = finetune(RUN)
    assert done.status == 0, done.err
    assert "resuming from step" in done.out
    rows = read_rows(f"{RUN}/metrics.jsonl")
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 21))
    scores = {r["step"]: r["validation/own/accuracy"] for r in rows if "validation_loss" in r}
    assert list(scores) == [4, 8, 12, 16, 20]
    losses = {r["step"]: r["validation_loss"] for r in rows if "validation_loss" in r}
    best = max(scores, key=lambda step: (scores[step], -losses[step]))
    assert best > 8
    kept = kept_best(RUN)["own"]
    assert (kept["step"], kept["value"]) == (best, scores[best])
    cells = done.out.splitlines()[-1].split()
    assert [float(cell) for cell in cells[2:5]] == [kept["value"], best, scores[20]]
    folders = {name.split("/")[6] for name in cloud.objects if name.startswith(f"{RUN}/best/own/")}
    assert folders == {str(best)}
    assert open_trained(RUN).step == best
    assert open_base_model(f"{RUN}/best/own", tmp_path).config == load_params(RUN).config
    assert f"{RUN}/data/own/train.jsonl" in cloud.objects

    other = finetune(RUN, seed=4)
    assert other.status == 1
    assert f"{RUN} was begun with seed 3, now it is 4" in other.err
