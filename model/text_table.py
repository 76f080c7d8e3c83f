"""Tables of text with aligned columns."""

from collections.abc import Container, Iterator, Sequence


def text_table(rows: Sequence[tuple[str, ...]], right: Container[int] = ()) -> Iterator[str]:
    """Yield rows as lines with aligned columns, those of ``right`` flush right.

    >>> list(text_table([("name", "rate"), ("glue_cola", "0.5")], right=[1]))
    ['name       rate', 'glue_cola   0.5']
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
