"""The tables of a study: our scores beside the paper's."""

import math
import pathlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from model.evaluation.published import (
    AVERAGES,
    BASELINE,
    BASELINE_STD,
    COLUMNS,
    MAIN,
    averages,
    published,
)
from model.small_files import read_json_object
from model.studies.experiments import EXPERIMENTS, Experiment, Row
from model.studies.run import ROWS
from model.studies.statistics import spread
from model.text_table import text_table
from pipelines.printing import fitted


class Scores(NamedTuple):
    """The scores of a row: by column, the values of its seeds."""

    values: Mapping[str, Sequence[float]]

    def mean(self, column: str) -> float | None:
        """Return the mean over seeds; None without any."""
        found = self.values.get(column)
        return statistics.fmean(found) if found else None

    def std(self, column: str) -> float:
        """Return the standard deviation over seeds; NaN for fewer than two."""
        return spread(self.values.get(column, ()))


def read_scores(runs: str) -> dict[tuple[str, str], Scores]:
    """Return the scores in the folder of a study, by (experiment, title of the row).

    Raises ValueError if the folder is not one of ``c4 study run``.
    """
    out = pathlib.Path(runs)
    if not (out / "study.json").is_file():
        raise ValueError(f"{runs} is not a folder of c4 study run (--runs)")
    path = out / ROWS
    rows: dict[str, Any] = read_json_object(path) if path.is_file() else {}
    found = {}
    for name, of_experiment in rows.items():
        for title, of_seeds in of_experiment.items():
            values: dict[str, list[float]] = {}
            for _, files in sorted(of_seeds.items(), key=lambda entry: int(entry[0])):
                columns: dict[str, float] = {}
                for file in files:
                    columns |= read_json_object(out / file)["columns"]
                numbers = {name: value for name, value in columns.items() if value is not None}
                for column, value in (averages(numbers) | numbers).items():
                    values.setdefault(column, []).append(value)
            found[name, title] = Scores(values)
    return found


def study_table(entry: Experiment, scores: Mapping[tuple[str, str], Scores]) -> Iterator[str]:
    """Yield a table as lines: for each row ours, if there are scores, and the paper's.

    ``*`` marks a score that differs from the baseline's by more than two standard deviations: for
    the paper those of Table 1, for ours those over the baseline's seeds, or Table 1's with fewer
    than two. ``!`` marks one of ours that differs so from the paper's.
    """
    ours = {row.title: scores.get((entry.name, row.title), Scores({})) for row in entry.rows}
    columns = _columns(list(ours.values()))
    baseline = _baseline(scores)
    spreads = published()[BASELINE_STD].values
    paper_baseline = published()[BASELINE].values
    yield fitted(f"{entry.name}: {entry.title} (section {entry.section})")
    yield ""
    header = ("", "", *(MAIN.get(name, COLUMNS[name].title) for name in columns))
    rows: list[tuple[str, ...]] = [header]
    has_ours = False
    for row in entry.rows:
        found = ours[row.title]
        paper = published()[row.paper].values
        if found.values:
            has_ours = True
            cells = [_ours(found, baseline, paper, name, spreads) for name in columns]
            rows.append((row.title, _seeds(found), *cells))
        is_test = published()[row.paper].table == 14
        cells = [
            _marked(paper.get(name), None if is_test else paper_baseline.get(name), spreads[name])
            for name in columns
        ]
        rows.append(("" if found.values else row.title, "paper", *cells))
    yield from text_table(rows, right=range(2, len(header)))
    yield ""
    yield "* differs from the baseline by more than two standard deviations"
    if has_ours:
        yield "! ours differs from the paper's by more than two standard deviations"
        seeds = len(next(iter(baseline.values.values()), ())) if baseline else 0
        source = f"{seeds} seeds of our baseline" if seeds > 1 else "Table 1"
        yield f"standard deviations: for ours, {source}; for the paper's, Table 1"


def _columns(found: Sequence[Scores]) -> list[str]:
    """Return the paper's seven columns, and tasks of ours whose benchmark is incomplete."""
    have = {name for scores in found for name in scores.values}
    more = [
        column.name
        for column in COLUMNS.values()
        if column.name in have
        and column.name not in MAIN
        and any(column.task in tasks and average not in have for average, tasks in AVERAGES.items())
    ]
    return [*MAIN, *more]


def _baseline(scores: Mapping[tuple[str, str], Scores]) -> Scores | None:
    """Return our baseline, of any experiment: that with the most seeds."""
    found = [
        scores[entry.name, row.title]
        for entry in EXPERIMENTS.values()
        for row in entry.rows
        if row.paper == BASELINE and (entry.name, row.title) in scores
    ]
    return max(found, key=lambda each: len(next(iter(each.values.values()), ())), default=None)


def _ours(
    found: Scores,
    baseline: Scores | None,
    paper: Mapping[str, float],
    column: str,
    spreads: Mapping[str, float],
) -> str:
    value = found.mean(column)
    if value is None:
        return "-"
    std = baseline.std(column) if baseline is not None else math.nan
    std = spreads[column] if math.isnan(std) else std
    shown = f"{value:.2f}"
    if len(found.values[column]) > 1:
        shown += f" ± {found.std(column):.2f}"
    other = baseline.mean(column) if baseline is not None else None
    mark = "*" if other is not None and abs(value - other) > 2 * std else ""
    if column in paper and abs(value - paper[column]) > 2 * std:
        mark += "!"
    return f"{shown}{mark or ' '}"


def _marked(value: float | None, baseline: float | None, std: float) -> str:
    if value is None:
        return "-"
    different = baseline is not None and abs(value - baseline) > 2 * std
    return f"{value:.2f}{'*' if different else ' '}"


def _seeds(found: Scores) -> str:
    count = max(len(values) for values in found.values.values())
    return f"ours, {count} seed{'s'[: count != 1]}"


def described(row: Row) -> str:
    """Return what a row trains, in a line."""
    parts = []
    if row.pretrain is None:
        parts.append("random weights")
    else:
        one = row.pretrain
        parts.append(f"{one.size} {one.architecture}, {one.objective}, corpus {one.corpus}")
        parts.append(f"{one.steps:,} steps x {one.batch_size:,}")
        if one.repeats is not None:
            parts.append(f"repeated {one.repeats:,} times")
        if one.mixing is not None:
            parts.append("mixed with tasks")
    if row.finetune is not None:
        parts.append(f"fine-tune {row.finetune.trained} {row.finetune.steps:,}")
    if row.ensemble is not None:
        parts.append(f"ensemble of {row.ensemble}s")
    return "; ".join(parts)
