"""The paper's scores, as the package ships them, and which score of which task each column is.

All of it is in the CSV files beside this module, whose lines of ``#`` are comments.
"""

import csv
import dataclasses
import functools
import importlib.resources
from collections.abc import Iterator, Mapping
from types import MappingProxyType

#: Tables 1 to 13 in full (Table 16), and the rows of Tables 14 and 15.
_FILES = ("t5_table16.csv", "t5_tables_14_15.csv")
#: The baseline, the mean of ten runs, and their standard deviation (Table 1).
BASELINE, BASELINE_STD = "baseline", "baseline_std"


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of Table 16.

    Attributes:
        name: as in the files.
        title: as in the paper.
        task: the task, empty for an average.
        metric: the score, empty for an average.
        split: the validation set, where a task has several.
        main: the title in the paper's other tables, empty where they lack the column.
    """

    name: str
    title: str
    task: str
    metric: str
    split: str
    main: str


@dataclasses.dataclass(frozen=True)
class Published:
    """A row of the paper's tables: ``values`` by column; a row may lack some.

    ``table`` is the first table that has it.
    """

    name: str
    table: int
    values: Mapping[str, float]


def _rows_of(file: str) -> Iterator[dict[str, str]]:
    text = importlib.resources.files(__package__).joinpath(file).read_text("utf-8")
    return csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))


#: The 33 columns of Table 16 by name, in its order.
COLUMNS: Mapping[str, Column] = MappingProxyType(
    {row["name"]: Column(**row) for row in _rows_of("t5_columns.csv")}
)
#: The columns of the paper's other tables, with their titles there.
MAIN: Mapping[str, str] = MappingProxyType(
    {column.name: column.main for column in COLUMNS.values() if column.main}
)
#: An average is the mean over eight tasks of the mean over each task's columns.
AVERAGES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        average: tuple(dict.fromkeys(c.task for c in COLUMNS.values() if c.task.startswith(prefix)))
        for average, prefix in (("glue_avg", "glue_"), ("superglue_avg", "super_glue_"))
    }
)


def averages(values: Mapping[str, float]) -> dict[str, float]:
    """Return the GLUE and SuperGLUE averages of columns; one that lacks a column is left out.

    >>> averages(published()["baseline"].values)["glue_avg"].__round__(2)
    83.28
    """
    found = {}
    for average, tasks in AVERAGES.items():
        columns = [[c.name for c in COLUMNS.values() if c.task == task] for task in tasks]
        if all(name in values for names in columns for name in names):
            means = [sum(values[name] for name in names) / len(names) for names in columns]
            found[average] = sum(means) / len(means)
    return found


@functools.cache
def published() -> Mapping[str, Published]:
    """Return the paper's rows by name."""
    found = {}
    for file in _FILES:
        for row in _rows_of(file):
            values = {name: float(row[name]) for name in COLUMNS if row[name]}
            name = row["experiment"]
            found[name] = Published(name, int(row["first_table"]), MappingProxyType(values))
    return MappingProxyType(found)


def published_row(name: str) -> Published:
    """Return one of the paper's rows. Raises ValueError, listing them, if there is no such row."""
    rows = published()
    if name not in rows:
        raise ValueError(f"the paper has no row {name!r}; its rows: {', '.join(rows)}")
    return rows[name]
