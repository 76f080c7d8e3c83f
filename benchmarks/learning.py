r"""Train every architecture and every objective on a corpus, and compare each with unigrams.

    python -m benchmarks.learning --corpus DIR --vocab FILE
    python -m benchmarks.learning --corpus DIR --vocab FILE --steps 3000 \
        --only encoder-decoder/span3

Runs the shipped command, `c4 pretrain`, with a model small enough for two cores. A row of the
table is one run: validation loss before training and after it, and that of the best predictor that
sees no context (the frequencies of target tokens in training, in nats a token): a model that
learns nothing but frequencies ends there. Fails unless every run of span corruption ends
`--margin` nats below it and every other run below it. Objectives whose targets are mostly in the
inputs (bert, mass) end far below, those with little context (deshuffle, prefix_lm) less so.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

import numpy as np

from benchmarks import measure
from model.data.input_config import InputConfig
from model.data.input_pipeline import make_input, validation_batches
from model.data.objectives import objective
from model.data.vocabulary import Vocabulary
from model.t5.config import ARCHITECTURES

#: Two layers of 128: a step of 32 sequences of 128 tokens takes about 0.1 s on two cores.
_MODEL = ("--size", "tiny")
_SETTINGS = (
    "--batch-size", "32", "--input-length", "128", "--warmup", "1000", "--eval-batches", "8",
)  # fmt: skip
_FREQUENCY_BATCHES = 50
_SPANS = ("span2", "span3", "span5", "span10", "iid", "iid10", "iid25", "iid50")


class Run(NamedTuple):
    """One model on one objective."""

    architecture: str
    objective: str

    def __str__(self) -> str:
        return f"{self.architecture}/{self.objective}"


#: Every objective on the paper's model, and on every architecture the baseline of table 2 with the
#: language modelling objective beside it.
RUNS = [
    *(Run("encoder-decoder", name) for name in (
        *_SPANS, "drop", "bert", "mass", "deshuffle", "prefix_lm",
    )),
    *(Run(name, "span3") for name in ARCHITECTURES if name != "encoder-decoder"),
    Run("shared-encoder-decoder", "prefix_lm"),
    Run("half-layer", "prefix_lm"),
    Run("language-model", "causal_lm"),
    Run("prefix-language-model", "prefix_lm"),
]  # fmt: skip


def unigram_loss(corpus: str, vocabulary: Vocabulary, run: Run) -> float:
    """Nats a validation token under the frequencies of training's target tokens, one added."""
    config = InputConfig(
        corpus=corpus, vocabulary=vocabulary, objective=objective(run.objective),
        architecture=run.architecture.replace("half-layer", "encoder-decoder"),
        batch_size=32, input_length=128,
    )  # fmt: skip
    counts = np.ones(vocabulary.padded_size)
    batches = make_input(config)
    for _ in range(_FREQUENCY_BATCHES):
        np.add.at(counts, _targets(next(batches)), 1)
    batches.close()
    loss = -np.log(counts / counts.sum())
    validation = [_targets(batch) for batch in validation_batches(config, 8)]
    return float(loss[np.concatenate(validation)].mean())


def _targets(batch: Any) -> np.ndarray:
    return batch["decoder_target_tokens"][batch["loss_weights"] > 0]


def train(corpus: str, vocabulary: str, run: Run, steps: int, folder: pathlib.Path) -> list[float]:
    """Return the validation losses. Raises CalledProcessError, and prints its output."""
    command = [
        *measure.C4, "pretrain", "--corpus", corpus, "--vocab", vocabulary, "--out", str(folder),
        "--architecture", run.architecture, "--objective", run.objective,
        "--steps", str(steps), "--eval-every", str(max(1, steps // 2)),
        "--checkpoint-every", str(steps), "--workers", "0", "--quiet", *_MODEL, *_SETTINGS,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
        done.check_returncode()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    first = next(row["loss"] for row in rows if "loss" in row)
    return [first, *(row["validation_loss"] for row in rows if "validation_loss" in row)]


def main() -> int:
    """Print the table; the exit status is 1 if a run learnt too little."""
    parser = measure.parser(__doc__)
    parser.add_argument("--corpus", required=True, metavar="DIR")
    parser.add_argument("--vocab", required=True, metavar="FILE")
    parser.add_argument("--steps", type=int, default=600, metavar="N")
    parser.add_argument("--margin", type=float, default=0.3, metavar="NATS")
    parser.add_argument(
        "--only", action="append", metavar="RUN", choices=[str(run) for run in RUNS],
        help="such as encoder-decoder/span3; may be repeated",
    )  # fmt: skip
    arguments = parser.parse_args()
    vocabulary = Vocabulary(arguments.vocab)
    wanted = [run for run in RUNS if arguments.only is None or str(run) in arguments.only]
    too_little = []
    print("| run | first training loss | validation loss | unigrams | below | seconds |")
    print("|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for number, run in enumerate(wanted):
            started = time.monotonic()
            folder = pathlib.Path(scratch, str(number))
            losses = train(arguments.corpus, arguments.vocab, run, arguments.steps, folder)
            seconds = time.monotonic() - started
            unigrams = unigram_loss(arguments.corpus, vocabulary, run)
            below = unigrams - losses[-1]
            print(
                f"| {run} | {losses[0]:.2f} | {losses[-1]:.2f} | {unigrams:.2f} | {below:.2f} | "
                f"{seconds:.0f} |",
                flush=True,
            )
            if not below > (arguments.margin if run.objective in _SPANS else 0):
                too_little.append(str(run))
    if too_little:
        print(f"learnt too little: {', '.join(too_little)}", file=sys.stderr)
    return 1 if too_little else 0


if __name__ == "__main__":
    sys.exit(main())
