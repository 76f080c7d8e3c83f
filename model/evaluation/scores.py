"""Scores a task: asks for a prediction of each example, and computes the task's metrics."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

from model.tasks.prepared import Prepared
from model.tasks.registry import Task
from model.tasks.values import Pair, Raw


@dataclasses.dataclass(frozen=True)
class TaskScores:
    """The scores of one split of a task, and what they come from.

    The last four have an entry for each prediction, in the order of the data. There is one
    prediction for a raw example; in the paper's form of ReCoRD one for each gold answer.

    Attributes:
        task: the task.
        split: the split.
        scores: the metrics by name, 0 to 100; empty for a split without gold labels, and for a
            task without metrics.
        column: the task's number in the paper's tables; NaN without scores.
        invalid: the number of predictions outside the task's labels, which count as wrong.
        raws: the raw examples.
        inputs: the inputs of the model.
        targets: the gold targets; of several gold answers the first.
        predictions: what the model predicted.
    """

    task: Task
    split: str
    scores: dict[str, float]
    column: float
    invalid: int
    raws: list[Raw]
    inputs: list[str]
    targets: list[str]
    predictions: list[str]

    @property
    def name(self) -> str:
        """The task's name."""
        return self.task.name


def evaluate_task(
    prepared: Prepared,
    split: str,
    predict: Callable[[Sequence[str]], Sequence[str]],
    limit: int | None = None,
) -> TaskScores:
    """Predict a split of a task and score the predictions.

    Args:
        prepared: the task's data.
        split: the name of the split.
        predict: takes inputs and returns a prediction for each, in order. It is called once, with
            inputs that differ from each other.
        limit: use only so many raw examples, the first; None for all.

    Raises ValueError if there is no such split, if it is empty, if predictions are missing, if
    only a part of the examples has a gold label, or if a metric's library is missing (extra
    ``tasks``).
    """
    task, raws = prepared.task, prepared.raws(split)[:limit]
    if not raws:
        raise ValueError(f"{task.name}: no examples in {split}: prepare the task again")
    rows = [(raw, pair) for raw in raws for pair in _scored_pairs(task, raw, split)]
    unique = list(dict.fromkeys(inputs for _, (inputs, _) in rows))
    found = list(predict(unique))
    if len(found) != len(unique):
        raise ValueError(f"{task.name}: {len(found):,} predictions for {len(unique):,} inputs")
    by_input = dict(zip(unique, found, strict=True))
    return score_predictions(task, split, rows, [by_input[inputs] for _, (inputs, _) in rows])


def score_predictions(
    task: Task, split: str, rows: Iterable[tuple[Raw, Pair]], predictions: Sequence[str]
) -> TaskScores:
    """Score predictions for (raw example, its inputs and targets); see `evaluate_task`."""
    raws, pairs = (list(part) for part in zip(*rows, strict=True))
    has_gold = any(task.gold(raw) is not None for raw in raws)
    scores = task.score(raws, predictions) if has_gold else {}
    return TaskScores(
        task=task,
        split=split,
        scores=scores,
        column=task.column(scores) if scores else math.nan,
        invalid=task.invalid(raws, predictions),
        raws=raws,
        inputs=[inputs for inputs, _ in pairs],
        targets=[targets for _, targets in pairs],
        predictions=list(predictions),
    )


def _scored_pairs(task: Task, raw: Raw, split: str) -> list[Pair]:
    """Return the pairs of an example that are scored, each on its own."""
    # Not as training data, of which training leaves examples out.
    pairs = task.examples(raw, "validation" if split == "train" else split)
    return pairs[:1] if task.one_per_group else pairs
