"""Groups of consecutive pages: what an element of the training input is made of.

>>> from pipelines.corpus.reading import CorpusSplit, Shard
>>> corpus = CorpusSplit("DIR", "train", "parquet", (Shard("a", 300, 300), Shard("b", 5, 5)))
>>> groups = PageGroups(corpus, 128)
>>> [groups[number] for number in range(len(groups))]
[(0, 0, 128), (0, 128, 256), (0, 256, 300), (1, 0, 5)]
"""

import numpy as np

from pipelines.corpus.reading import CorpusSplit

__all__ = ["PageGroups"]


class PageGroups:
    """A split as a list of groups: up to ``group_pages`` consecutive pages of one shard."""

    def __init__(self, corpus: CorpusSplit, group_pages: int) -> None:
        if group_pages < 1:
            raise ValueError(f"group_pages must be positive, got {group_pages}")
        self._pages = [shard.pages for shard in corpus.shards]
        self._group_pages = group_pages
        self._ends = np.cumsum([-(-pages // group_pages) for pages in self._pages])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, number: int) -> tuple[int, int, int]:
        """Return the group's shard, its first page there and the page behind its last."""
        if not 0 <= number < len(self):
            raise IndexError(f"group {number} of {len(self)}")
        shard = int(np.searchsorted(self._ends, number, side="right"))
        begin = int(self._ends[shard - 1]) if shard else 0
        start = (number - begin) * self._group_pages
        return shard, start, min(start + self._group_pages, self._pages[shard])
