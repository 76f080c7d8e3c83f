"""Scores of tasks while a model is trained on them: predict, score, keep the best."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from model.data.sources.task import TaskInput
from model.evaluation.scores import TaskScores, evaluate_task
from model.tasks.prepared import Prepared
from model.tasks.registry import Task
from model.training.evaluations import Evaluation, Evaluator
from model.tuning.best import BestCheckpoints, Standing

#: Takes parameters and inputs; returns a prediction for each input.
Predict = Callable[[Any, Sequence[str]], Sequence[str]]


class EvaluatedTask:
    """A task with validation data, and what of its scores is compared.

    Attributes:
        name: the task's name.
        prepared: its data.
        splits: its validation splits; the compared score is their mean.
        metric: how the compared score is called.
    """

    def __init__(self, prepared: Prepared, keep_best: str | None) -> None:
        """Choose the metric ``keep_best``, or by default the task's number in the paper's tables.

        Raises ValueError for a metric that the task does not have, or whose library is missing.
        """
        self.prepared, self.name = prepared, prepared.task.name
        self.splits = prepared.validation_splits
        task = prepared.task
        if keep_best is not None and keep_best not in task.metric_names:
            raise ValueError(
                f"{self.name} has no {keep_best}: its scores are "
                f"{', '.join(task.metric_names) or 'none'} (--keep-best)"
            )
        self._asked = keep_best
        names = task.summary if keep_best is None else (keep_best,)
        self.metric = names[0] if len(names) == 1 else f"mean of {', '.join(names)}"
        self._require_library()

    def _require_library(self) -> None:
        """Score gold targets, so that a library that is missing is named before training."""
        split = self.splits[0]
        raws = self.prepared.raws(split)[:2]
        self.prepared.task.score(
            raws, [self.prepared.task.examples(raw, split)[0][1] for raw in raws]
        )

    def label(self, split: str) -> str:
        """Return the name of a split in metrics: the task, and what sets the split apart."""
        return f"{self.name}{split.removeprefix('validation')}"

    def evaluate(
        self, predict: Callable[[Sequence[str]], Sequence[str]], limit: int | None
    ) -> dict[str, TaskScores]:
        """Return the scores of each validation split, of its first ``limit`` raw examples."""
        return {split: evaluate_task(self.prepared, split, predict, limit) for split in self.splits}

    def compared(self, scores: Mapping[str, Mapping[str, float]]) -> float:
        """Return the score to compare, of the scores of each split."""
        return _mean([self._of_split(each) for each in scores.values()])

    def loss(self, values: Mapping[str, float]) -> float | None:
        """Return the task's validation loss among the values of a step; None if not measured."""
        by_split = [values.get(f"validation/{self.label(split)}/loss") for split in self.splits]
        measured = [loss for loss in by_split if loss is not None]
        # With a single source, the loss of all is its own.
        return _mean(measured) if measured else values.get("validation_loss")

    def _of_split(self, scores: Mapping[str, float]) -> float:
        task: Task = self.prepared.task
        return task.column(scores) if self._asked is None else scores[self._asked]


def evaluated_tasks(tasks: Sequence[TaskInput], keep_best: str | None) -> list[EvaluatedTask]:
    """Return the tasks of a run that have validation data. Raises as `EvaluatedTask` does."""
    opened = [task.open() for task in tasks]
    return [EvaluatedTask(each, keep_best) for each in opened if each.validation_splits]


def task_evaluator(
    tasks: Sequence[EvaluatedTask], predict: Predict, best: BestCheckpoints, limit: int | None
) -> Evaluator:
    """Return an evaluator that scores tasks, and keeps the parameters where a score is the best.

    Args:
      tasks: to be scored.
      predict: parameters and inputs to predictions.
      best: where the best are kept.
      limit: raw examples of each split, the first; None for all.
    """

    def evaluate(step: int, params: Any, before: Mapping[str, float]) -> Evaluation:
        values: dict[str, float] = {}
        parts: list[str] = []
        for task in tasks:
            found = task.evaluate(functools.partial(predict, params), limit)
            for split, of_split in found.items():
                for name, score in of_split.scores.items():
                    values[f"validation/{task.label(split)}/{name}"] = score
            scores = {split: each.scores for split, each in found.items()}
            value = task.compared(scores)
            line = f"{task.name} {task.metric} {value:.2f}"
            standing = Standing(step, task.metric, value, task.loss(before))
            if best.is_beaten(task.name, standing):
                means = {
                    name: _mean([each[name] for each in scores.values()])
                    for name in next(iter(scores.values()))
                }
                best.keep(task.name, standing, means, params)
                line += " (best)"
            invalid = sum(each.invalid for each in found.values())
            if invalid:
                count = sum(len(each.predictions) for each in found.values())
                line += f", {invalid:,} of {count:,} invalid"
            parts.append(line)
        return Evaluation(values, "  ".join(parts))

    return evaluate


def scores_in(row: Mapping[str, Any], task: EvaluatedTask) -> float | None:
    """Return a task's compared score in a row of ``metrics.jsonl``; None if it has none."""
    scores: dict[str, dict[str, float]] = {}
    for split in task.splits:
        prefix = f"validation/{task.label(split)}/"
        names = task.prepared.task.metric_names
        if any(f"{prefix}{name}" not in row for name in names):
            return None
        found = {name: row[f"{prefix}{name}"] for name in names}
        scores[split] = {n: math.nan if score is None else score for n, score in found.items()}
    return task.compared(scores)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
