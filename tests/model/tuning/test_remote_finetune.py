"""Fine-tuning whose folder is in an object store."""

import jax
import numpy as np
import pytest

from model.evaluation.best_files import kept_best
from model.evaluation.trained import open_trained
from model.training.checkpoints import load_params
from model.training.metrics import read_rows
from model.tuning.base_model import open_base_model
from testing.helpers import run_c4
from testing.material import material, quick_xla
from tests.model.tuning.own_task import write_pairs

__all__ = ["material", "quick_xla"]

RUN = "gs://bucket/tuned"
_CLOCKS = ("seconds", "tokens_per_s", "data_wait_fraction")


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


def _without_clocks(rows):
    return [{k: v for k, v in row.items() if k not in _CLOCKS} for row in rows]


def _assert_same(one, other):
    for mine, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def _cut_off_before(cloud, part, count):
    """Accept no more writes from the ``count``-th on whose name has this part, as after a kill.

    Return the list of those, which grows.
    """
    seen = []

    def fail(method, what):
        if method in ("PUT", "DELETE") and part in what:
            seen.append(what)
        return 403 if method in ("PUT", "DELETE") and len(seen) >= count else None

    cloud.fail = fail
    return seen


@pytest.mark.slow
def test_a_run_cut_off_in_an_upload_keeps_its_best_checkpoint_and_goes_on(
    finetune, cloud, tmp_path
):
    local = tmp_path / "local"
    table = finetune(local).out.splitlines()[-2:]
    expected = kept_best(local)
    evaluated = [row for row in read_rows(local / "metrics.jsonl") if "validation_loss" in row]
    scores = [row["validation/own/accuracy"] for row in evaluated]
    assert max(scores) > scores[0], "the best checkpoint is never replaced"
    first = evaluated[0]["step"]

    _cut_off_before(cloud, f"/best/own/{expected['own']['step']}/", 3)
    refused = finetune(RUN)
    assert refused.status == 1
    assert refused.err.count("\n") == 1, refused.err
    assert "Permission denied" in refused.err
    cloud.fail = lambda method, what: None
    assert open_trained(RUN).step == kept_best(RUN)["own"]["step"] >= first

    done = finetune(RUN)
    assert done.status == 0, done.err
    assert "resuming from step" in done.out
    assert done.out.splitlines()[-2:] == table
    assert kept_best(RUN) == expected
    assert _without_clocks(read_rows(f"{RUN}/metrics.jsonl")) == _without_clocks(
        read_rows(local / "metrics.jsonl")
    )
    _assert_same(open_trained(RUN).params, open_trained(local).params)
    _assert_same(load_params(f"{RUN}/best/own").params, load_params(local / "best/own").params)
    best = {name.split("/")[6] for name in cloud.objects if name.startswith(f"{RUN}/best/own/")}
    assert best == {str(expected["own"]["step"])}
    assert (
        cloud.objects[f"{RUN}/data/own/train.jsonl"]
        == (local / "data/own/train.jsonl").read_bytes()
    )

    assert open_base_model(f"{RUN}/best/own", tmp_path).config == load_params(RUN).config
    other = finetune(RUN, seed=4)
    assert other.status == 1
    assert f"{RUN} was begun with seed 3, now it is 4" in other.err
