"""Cleaned files and removals as a build leaves them, made of pages that tests invent."""

import dataclasses
import pathlib
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from c4_filters.recipes import Recipe
from pipelines.corpus import layout
from pipelines.corpus.cleaned import CLEANED_SCHEMA, shard_order, write_cleaned
from pipelines.corpus.removals import write_removals

ANY = Recipe(name="any", languages=(), min_language_probability=0.0, bad_words=False)
LATE = dataclasses.replace(
    ANY, name="late", order="dedup_first", dedup_unit="lines", dedup_window=1
)
# Three sentences a line, so that a page of one line left is a page still.
LINES = [
    "The river is high today. Nobody crosses it now. We wait for the ferry.",
    "It rained for nine days. The mill stood still. The miller played cards.",
    "A barge came down at noon. It carried bricks and tiles. They were all wet.",
]


@dataclasses.dataclass
class Page:
    """A cleaned page, and what deduplication takes from it."""

    key: int
    lines: list[str]
    gone: list[bool]  # by unit, which is a line here
    outdated: bool = False
    validation: bool = False
    number: int = 0

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def row(self) -> dict[str, Any]:
        starts = np.cumsum([0] + [len(line) + 1 for line in self.lines[:-1]]).tolist()
        return {
            "url": f"http://{self.number}.example/",
            "text": self.text,
            "timestamp": "2019-04-18T10:00:00Z",
            "content_type": "text/plain",
            "content_length": "9",
            "language": None,
            "language_probability": None,
            "validation": self.validation,
            "page_key": self.key,
            "digest": self.number.to_bytes(16, "big"),
            "lines": len(self.lines),
            "unit_starts": starts,
            "offset": self.number,
            "inner_offset": 0,
            "record_id": None,
        }


def write_file(folder: pathlib.Path, name: str, pages: list[Page]) -> None:
    table = pa.Table.from_pylist([page.row() for page in pages], CLEANED_SCHEMA)
    order = shard_order(table)
    write_cleaned(layout.cleaned(str(folder), name), table.take(order), {})
    gone = [mark for place in order for mark in pages[place].gone]
    outdated = [pages[place].outdated for place in order]
    write_removals(
        layout.removals(str(folder), name),
        np.array(outdated, bool),
        np.array(gone, bool),
        None,
        None,
        "",
    )


@st.composite
def some_pages(draw: st.DrawFn) -> list[Page]:
    pages = []
    for number in range(draw(st.integers(0, 12))):
        lines = draw(st.lists(st.sampled_from(LINES), min_size=1, max_size=4))
        pages.append(
            Page(
                key=draw(st.sampled_from([0, 9, 2**63 - 1, 2**63, 2**64 - 1])),
                lines=lines,
                gone=draw(st.lists(st.booleans(), min_size=len(lines), max_size=len(lines))),
                outdated=draw(st.integers(0, 4)) == 0,
                validation=draw(st.booleans()),
                number=number,
            )
        )
    return pages
