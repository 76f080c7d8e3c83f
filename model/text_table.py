"""Tables of text with aligned columns."""

import sys
from collections.abc import Container, Iterator, Sequence

from pipelines.printing import broken, cells, columns_of

_LEAST_WIDTH = 12  # of the column that is narrowed


def text_table(rows: Sequence[tuple[str, ...]], right: Container[int] = ()) -> Iterator[str]:
    """Yield rows as lines with aligned columns, those of ``right`` flush right.

    On a terminal that is too narrow, gaps are one blank, and if that is not enough, the texts of
    the widest column that is not flush right are broken at blanks.

    >>> list(text_table([("name", "rate"), ("glue_cola", "0.5")], right=[1]))
    ['name       rate', 'glue_cola   0.5']
    """
    widths = [max(cells(row[column]) for row in rows) for column in range(len(rows[0]))]
    texts = [column for column in range(len(widths)) if column not in right]
    widest = max(texts, key=widths.__getitem__, default=0)
    room = (columns_of(sys.stdout) or sys.maxsize) - sum(widths)
    gap = 2 if room >= 2 * (len(widths) - 1) else 1
    over = gap * (len(widths) - 1) - room
    if over > 0:
        widths[widest] = max(min(_LEAST_WIDTH, widths[widest]), widths[widest] - over)
    for row in rows:
        for place, text in enumerate(broken(row[widest], widths[widest])):
            parts = [*row] if place == 0 else [""] * len(row)
            parts[widest] = text
            shown = []
            for column, (part, width) in enumerate(zip(parts, widths, strict=True)):
                blanks = " " * (width - cells(part))
                shown.append(blanks + part if column in right else part + blanks)
            yield (" " * gap).join(shown).rstrip()
