"""A report of an evaluation: our scores beside a row of the paper, as text and as JSON."""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from model.evaluation import bootstrap
from model.evaluation.bootstrap import Interval
from model.evaluation.published import (
    BASELINE,
    BASELINE_STD,
    COLUMNS,
    MAIN,
    averages,
    published,
    published_row,
)
from model.evaluation.scores import TaskScores
from model.tasks.registry import is_invalid
from model.text_table import text_table
from pipelines.printing import fitted


def columns_of(scores: Sequence[TaskScores]) -> dict[str, float]:
    """Return the columns of Table 16 that scores fill, the averages where they are complete.

    A test set fills the column of its validation set.
    """
    found: dict[str, float] = {}
    for entry in scores:
        found |= {name: entry.scores[metric] for name, metric in _columns(entry).items()}
    return averages(found) | found


def _columns(found: TaskScores) -> dict[str, str]:
    """Return the columns of Table 16 that an entry fills: name to metric."""
    return {
        column.name: column.metric
        for column in COLUMNS.values()
        if column.task == found.name
        and column.metric in found.scores
        and column.split.partition("_")[2] == found.split.partition("_")[2]  # (mis)matched
    }


@dataclasses.dataclass(frozen=True)
class Report:
    """The scores of a model. Raises ValueError for a row that the paper does not have.

    Attributes:
        model: where the model came from.
        split: ``validation`` or ``test``.
        scores: of each task and split that was evaluated.
        missing: the tasks that were asked for and could not be evaluated: name to reason.
        steps: of a run, the step of the checkpoint that each task was evaluated with.
        against: the paper's row that stands beside ours.
        resamples: of the bootstrap; 0 for no intervals.
        notes: what else has to be known of the scores.
    """

    model: str
    split: str
    scores: Sequence[TaskScores]
    missing: Mapping[str, str] = dataclasses.field(default_factory=dict)
    steps: Mapping[str, int | None] = dataclasses.field(default_factory=dict)
    against: str = BASELINE
    resamples: int = bootstrap.RESAMPLES
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        published_row(self.against)

    @functools.cached_property
    def intervals(self) -> list[dict[str, Interval]]:
        """The confidence intervals of each entry of ``scores``, by score."""
        if not self.resamples:
            return [{} for _ in self.scores]
        return [bootstrap.intervals(found, self.resamples) for found in self.scores]

    @property
    def columns(self) -> dict[str, float]:
        """Our values by column of Table 16."""
        return columns_of(self.scores)

    @property
    def invalid(self) -> int:
        """The number of predictions outside the labels."""
        return sum(found.invalid for found in self.scores)

    def lines(self) -> Iterator[str]:
        """Yield the report as text: the long table, the main table, and what is missing."""
        yield from text_table(self._long_rows(), right=range(1, 6))
        main = self._main_rows()
        if len(main) > 1:
            yield ""
            yield from text_table(main, right=range(1, 8))
        notes = [
            f"{found.name}: {found.invalid:,} of {len(found.predictions):,} predictions are "
            "outside the labels and count as wrong"
            for found in self.scores
            if found.invalid
        ]
        notes += self.notes
        notes += [f"{name}: not evaluated: {reason}" for name, reason in self.missing.items()]
        if notes:
            yield ""
            yield from map(fitted, notes)

    def json(self) -> dict[str, Any]:
        """Return the report as JSON values; undefined scores are null."""
        tasks: dict[str, dict[str, Any]] = {}
        for found, intervals in zip(self.scores, self.intervals, strict=True):
            tasks.setdefault(found.name, {})[found.split] = {
                "scores": _numbers(found.scores),
                "column": _number(found.column),
                "intervals": {
                    name: [_number(end) for end in interval] for name, interval in intervals.items()
                },
                "examples": len(found.predictions),
                "invalid": found.invalid,
            }
        return {
            "model": self.model,
            "split": self.split,
            "steps": dict(self.steps),
            "tasks": tasks,
            "columns": _numbers(self.columns),
            "paper": {"row": self.against, "columns": dict(published_row(self.against).values)},
            "bootstrap": {"resamples": self.resamples, "level": bootstrap.LEVEL, "seed": 0},
            "missing": dict(self.missing),
            "notes": list(self.notes),
        }

    def _long_rows(self) -> list[tuple[str, ...]]:
        paper = published_row(self.against).values
        spread = published()[BASELINE_STD].values
        level = f"{bootstrap.LEVEL:.0%} interval"
        rows: list[tuple[str, ...]] = [("", "ours", level, self.against, "its std", "examples")]
        ours = self.columns
        ends: dict[str, tuple[str, str]] = {}  # by column: the interval, and how many examples
        others: list[tuple[str, ...]] = []
        for found, of_found in zip(self.scores, self.intervals, strict=True):
            count = f"{len(found.predictions):,}"
            columns = _columns(found)
            ends |= {
                name: (_shown_interval(of_found.get(metric)), count)
                for name, metric in columns.items()
            }
            title = f"{found.task.title} ({found.split})"
            for metric in found.scores.keys() - columns.values():
                shown = _shown(found.scores[metric]), _shown_interval(of_found.get(metric))
                others.append((f"{title} {metric}", *shown, "", "", count))
            if not found.scores:
                others.append((title, "no labels", "", "", "", count))
        for column in COLUMNS.values():
            if column.name not in ours:
                continue
            interval, count = ends.get(column.name, ("", ""))
            std = _shown(spread[column.name]) if self.against == BASELINE else ""
            cells = _shown(ours[column.name]), interval, _shown(paper.get(column.name)), std, count
            rows.append((column.title, *cells))
        return [*rows, *others]

    def _main_rows(self) -> list[tuple[str, ...]]:
        ours, paper = self.columns, published_row(self.against).values
        if not set(ours) & set(MAIN):
            return []
        rows: list[tuple[str, ...]] = [("", *MAIN.values())]
        rows.append(("ours", *(_shown(ours.get(name)) for name in MAIN)))
        rows.append((self.against, *(_shown(paper.get(name)) for name in MAIN)))
        return rows


def example_lines(found: TaskScores, count: int) -> Iterator[str]:
    """Yield single examples as text: inputs, target, prediction; those predicted wrong first.

    Wrong is what is parsed as another value than the gold one; for text, what is not one of the
    gold texts.
    """
    wrong: list[tuple[int, bool, bool, bool]] = []
    right: list[tuple[int, bool, bool, bool]] = []
    for place, (raw, prediction) in enumerate(zip(found.raws, found.predictions, strict=True)):
        gold = found.task.gold(raw)
        parsed = found.task.parse(prediction, raw)
        same = parsed in gold if isinstance(gold, list) else parsed == gold
        (right if same else wrong).append((place, same, gold is not None, is_invalid(parsed)))
    for place, same, has_gold, invalid in [*wrong, *right][:count]:
        note = "right" if same else "outside the labels" if invalid else "wrong"
        yield f"{found.name} {found.split} {place:,}{f': {note}' if has_gold else ''}"
        yield f"  inputs      {found.inputs[place]}"
        if has_gold:
            yield f"  target      {found.targets[place]}"
        yield f"  prediction  {found.predictions[place]}"


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    return "undefined" if math.isnan(value) else f"{value:.2f}"


def _shown_interval(interval: Interval | None) -> str:
    return "" if interval is None else f"{_shown(interval.low)} to {_shown(interval.high)}"


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in values.items()}
