"""Confidence intervals of a task's scores: the percentile bootstrap over its examples.

A resample draws as many units as there are, with replacement. A unit is an example, or a group of
examples where the task groups them (the answers to a question of MultiRC, the rows of a query of
ReCoRD), because a group's examples are not independent. The interval reflects which examples are in
the validation set; it says nothing about another seed of training.

All metrics but Spearman's correlation are functions of sums over examples, so that a resample is
one product of matrices. Tests hold each of them to `Task.score` of the resampled examples.
"""

import collections
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from model.evaluation.scores import TaskScores
from model.tasks import metrics
from model.tasks.registry import Task
from model.tasks.values import Raw

Floats = npt.NDArray[np.float64]

RESAMPLES = 1_000
#: Of the interval: from the 2.5th to the 97.5th percentile.
LEVEL = 0.95
_AT_ONCE = 1 << 24  # counts of units, in memory


class Interval(NamedTuple):
    """The ends of a confidence interval, on the scale of the score."""

    low: float
    high: float


def intervals(
    found: TaskScores, resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL
) -> dict[str, Interval]:
    """Return the confidence interval of each score, and of the task's ``column``.

    NaN where a score is undefined in a resample, such as a correlation of equal predictions. Empty
    without scores.
    """
    if not found.scores:
        return {}
    by_name = resampled_scores(found.task, found.raws, found.predictions, resamples, seed)
    by_name["column"] = sum(by_name[name] for name in found.task.summary) / len(found.task.summary)
    ends = [50 * (1 - level), 50 * (1 + level)]
    return {
        name: Interval(*(float(end) for end in np.percentile(values, ends)))
        for name, values in by_name.items()
    }


def resampled_scores(
    task: Task, raws: Sequence[Raw], predictions: Sequence[str], resamples: int, seed: int
) -> dict[str, Any]:
    """Return the scores of resamples: by name, an array [resamples]."""
    gold, parsed, groups = task.compared(raws, predictions)
    places: dict[Any, int] = {}
    unit_of = np.array([places.setdefault(group, len(places)) for group in groups])
    units = len(places)
    all_statistics = [_STATISTICS[metric] for metric in task.metrics]
    tables = [
        _summed(statistics.of_examples(gold, parsed, groups), unit_of, units)
        for statistics in all_statistics
    ]
    scores: dict[str, list[Any]] = {name: [] for name in task.metric_names}
    rng = np.random.default_rng(seed)
    at_once = max(1, _AT_ONCE // units)
    for start in range(0, resamples, at_once):
        counts = np.stack(
            [
                np.bincount(rng.integers(units, size=units), minlength=units)
                for _ in range(min(at_once, resamples - start))
            ]
        ).astype(np.float64)
        found: list[Any] = []
        for statistics, table in zip(all_statistics, tables, strict=True):
            found += statistics.of_sums(counts @ table, counts, unit_of, gold, parsed)
        for name, values in zip(task.metric_names, found, strict=True):
            scores[name].append(values)
    return {name: np.concatenate(parts) for name, parts in scores.items()}


def _summed(table: Floats, unit_of: npt.NDArray[np.int64], units: int) -> Floats:
    """Return the sums over the examples of each unit; a first column counts units."""
    sums = np.zeros((units, table.shape[1] + 1))
    np.add.at(sums[:, 1:], unit_of, table)
    sums[:, 0] = 1
    return sums


class _Statistics(NamedTuple):
    """How a metric follows from sums over examples.

    ``of_examples`` takes gold values, parsed predictions and groups, and returns an array
    [examples, statistics]. ``of_sums`` takes sums [resamples, 1 + statistics], of which the first
    is the number of units, how often each resample has each unit, the unit of each example, and
    gold and parsed; it returns an array [resamples] for each of the metric's names.
    """

    of_examples: Callable[[Sequence[Any], Sequence[Any], Sequence[Any]], Floats]
    of_sums: Callable[..., Sequence[Any]]


def _means(of_examples: Callable[..., Iterable[Sequence[float]]]) -> _Statistics:
    """Return the statistics of a metric that is a mean over examples, as a share.

    ``of_examples`` takes gold values and parsed predictions, and returns each example's shares.
    """

    def table(gold: Sequence[Any], parsed: Sequence[Any], _: object) -> Floats:
        return np.array([(1.0, *row) for row in of_examples(gold, parsed)], np.float64)

    def of_sums(sums: Floats, *_: object) -> Sequence[Any]:
        return list(100 * (sums[:, 2:] / sums[:, 1:2]).T)

    return _Statistics(table, of_sums)


def _whole_groups(gold: Sequence[Any], parsed: Sequence[Any], groups: Sequence[Any]) -> Floats:
    """Return each example's share of its group, 0 if a prediction of the group is wrong."""
    wrong = {
        group for group, label, guess in zip(groups, gold, parsed, strict=True) if label != guess
    }
    sizes = collections.Counter(groups)
    return np.array([[(group not in wrong) / sizes[group]] for group in groups], np.float64)


def _confusion(classes: int, of_matrix: Callable[[Any], Any], flip: bool = False) -> _Statistics:
    """Return the statistics of a metric of the confusion matrix [..., gold, parsed].

    The last class is that of invalid predictions; with ``flip`` they count as the wrong label.
    """

    def table(gold: Sequence[Any], parsed: Sequence[Any], _: object) -> Floats:
        cells = np.zeros((len(gold), classes + 1, classes + 1))
        for place, (label, guess) in enumerate(zip(gold, parsed, strict=True)):
            if flip and guess not in (0, 1):
                guess = 1 - label
            cells[place, label, guess if guess in range(classes) else classes] = 1
        return cells.reshape(len(gold), -1)

    def of_sums(sums: Floats, *_: object) -> Sequence[Any]:
        return [100 * of_matrix(sums[:, 1:].reshape(-1, classes + 1, classes + 1))]

    return _Statistics(table, of_sums)


def _f1s(matrix: Any) -> Any:
    """Return the F1 of each class [resamples, classes], 0 for a class that does not occur."""
    right = np.diagonal(matrix, axis1=1, axis2=2)
    total = matrix.sum(1) + matrix.sum(2)
    return np.divide(2 * right, total, out=np.zeros_like(total), where=total > 0)


def _matthews(matrix: Any) -> Any:
    right = np.trace(matrix, axis1=1, axis2=2)
    gold, parsed = matrix.sum(2), matrix.sum(1)
    total = gold.sum(1)
    covariance = right * total - (gold * parsed).sum(1)
    spread = (total**2 - (gold**2).sum(1)) * (total**2 - (parsed**2).sum(1))
    return np.divide(covariance, np.sqrt(spread), out=np.zeros_like(covariance), where=spread > 0)


def _correlations(
    _: Floats,
    counts: Floats,
    unit_of: npt.NDArray[np.int64],
    gold: Sequence[float],
    parsed: Sequence[float],
) -> Sequence[Any]:
    weights = counts[:, unit_of]
    x, y = (np.where(np.isfinite(values), values, -1.0) for values in (gold, parsed))
    pearson = [_correlation(row, x, y) for row in weights]
    spearman = [_correlation(row, _ranks(row, x), _ranks(row, y)) for row in weights]
    return np.array(pearson), np.array(spearman)


def _correlation(weights: Floats, x: Floats, y: Floats) -> float:
    """Return Pearson's correlation of values that occur ``weights`` times, NaN if one is equal."""
    x, y = x - np.average(x, weights=weights), y - np.average(y, weights=weights)
    spread = math.sqrt(float(weights @ x**2) * float(weights @ y**2))
    return 100 * float(weights @ (x * y)) / spread if spread > 1e-12 else math.nan


def _ranks(weights: Floats, values: Floats) -> Floats:
    """Return mean ranks of values that occur ``weights`` times."""
    _, places = np.unique(values, return_inverse=True)
    of_value = np.bincount(places, weights)
    ranks: Floats = (np.cumsum(of_value) - of_value / 2)[places]
    return ranks


def _right(gold: Any, parsed: Any) -> tuple[float]:
    return (float(gold == parsed),)


def _squad_of_example(answers: Any, prediction: Any) -> tuple[float, ...]:
    scores = metrics.SQUAD([answers], [prediction], [0])
    return tuple(score / 100 for score in scores.values())


_STATISTICS: dict[metrics.Metric, _Statistics] = {
    metrics.ACCURACY: _means(partial(map, _right)),
    metrics.MATTHEWS: _confusion(2, _matthews),
    metrics.F1: _confusion(2, lambda matrix: _f1s(matrix)[:, 1], flip=True),
    metrics.MEAN_F1: _confusion(3, lambda matrix: _f1s(matrix)[:, :3].mean(1)),
    metrics.GROUP_MATCH: _Statistics(
        _whole_groups, lambda sums, *_: [100 * sums[:, 1] / sums[:, 0]]
    ),
    metrics.CORRELATIONS: _Statistics(
        lambda gold, *_: np.zeros((len(gold), 0)),
        _correlations,  # no sums: ranks are of all
    ),
    metrics.SQUAD: _means(partial(map, _squad_of_example)),
    metrics.ROUGE: _means(metrics.rouge_of_examples),
    metrics.BLEU: _Statistics(
        lambda gold, parsed, _: np.array(metrics.bleu_counts(gold, parsed), np.float64),
        lambda sums, *_: [np.array([metrics.bleu_of_counts(row) for row in sums[:, 1:]])],
    ),
}
