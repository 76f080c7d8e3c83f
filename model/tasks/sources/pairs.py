"""A user's own pairs: TSV, CSV or JSONL with ``inputs`` and ``targets``."""

import csv
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence

from model.tasks.sources.files import Files
from model.tasks.sources.lines import json_lines, text_lines
from model.tasks.values import Raw, text

_COLUMNS = ("inputs", "targets")
_LONGEST_FIELD = 1 << 24


def read_pairs(path: str | os.PathLike[str]) -> Iterator[Raw]:
    """Yield the pairs of a file, each with ``inputs`` and ``targets``.

    A TSV (no quoting) or CSV (quoted as spreadsheets do) has a header that names both columns,
    and maybe others; a line of JSONL is an object with both. The file may be compressed.

    Raises ValueError, naming file and line, for anything else.
    """
    with Files(path) as files:
        if len(files.names) != 1:
            raise ValueError(f"{path}: expected one file of pairs, found {len(files.names):,}")
        name = files.names[0]
        kind = pathlib.PurePath(name).suffix.lower()
        with files.open(name) as stream:
            if kind in (".jsonl", ".json"):
                for number, row in enumerate(json_lines(stream, name), 1):
                    try:
                        yield {column: text(row, column) for column in _COLUMNS}
                    except ValueError as error:
                        raise ValueError(f"{name}: row {number:,}: {error}") from error
            elif kind in (".tsv", ".csv", ".txt"):
                lines = text_lines(stream, name)
                yield from _table(
                    _csv_rows(lines, name) if kind == ".csv" else _tsv_rows(lines), name
                )
            else:
                raise ValueError(f"{name}: pairs are read from .tsv, .csv or .jsonl files")


def _tsv_rows(lines: Iterable[str]) -> Iterator[Sequence[str]]:
    return (line.split("\t") for line in lines)


def _csv_rows(lines: Iterable[str], name: str) -> Iterator[Sequence[str]]:
    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        yield from (reader := csv.reader((f"{line}\n" for line in lines), strict=True))
    except csv.Error as error:
        raise ValueError(f"{name}: line {reader.line_num:,}: no CSV: {error}") from error
    finally:
        csv.field_size_limit(before)


def _table(rows: Iterator[Sequence[str]], name: str) -> Iterator[Raw]:
    header = next(rows, None)
    if header is None or any(column not in header for column in _COLUMNS):
        raise ValueError(
            f"{name}: the first line must be a header with the columns inputs and targets"
        )
    places = {column: header.index(column) for column in _COLUMNS}
    for number, cells in enumerate(rows, 2):
        if not any(cells):
            continue  # a blank line
        if len(cells) != len(header):
            raise ValueError(
                f"{name}: row {number:,} has {len(cells)} columns, the header {len(header)}"
            )
        yield {column: cells[place] for column, place in places.items()}
