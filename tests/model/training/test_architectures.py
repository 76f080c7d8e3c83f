"""Each architecture trains on pages, through the command: input, network and step fit together."""

import numpy as np
import pytest

from model.training.metrics import read_rows
from testing.helpers import run_c4

pytestmark = pytest.mark.usefixtures("quick_xla")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "objective"),
    [
        ("encoder-decoder", "deshuffle"),
        ("shared-encoder-decoder", "iid"),
        ("half-layer", "bert"),
        ("language-model", "causal_lm"),
        ("prefix-language-model", "prefix_lm"),
    ],
)
def test_architectures_and_objectives_train(material, tmp_path, architecture, objective):
    out = tmp_path / "run"
    outcome = run_c4(
        "pretrain", "--corpus", material.corpus, "--vocab", material.vocab, "--out", out,
        "--size", "tiny", "--set", "d_model=32", "--set", "d_ff=64", "--set", "d_kv=8",
        "--architecture", architecture, "--objective", objective, "--input-length", 32,
        "--batch-size", 8, "--workers", 0, "--eval-every", 0, "--steps", 25,
    )  # fmt: skip
    assert outcome.status == 0, outcome
    losses = [row["loss"] for row in read_rows(out / "metrics.jsonl")]
    assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:5])
