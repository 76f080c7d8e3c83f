"""The index of a corpus: which pages have a sentence, an address or a rank.

It lies beside the kept files in ``why/index.bin``, a checked file like theirs
(`pipelines.corpus.container`). Its sections are sorted blocks of entries of 16 bytes: a key, then a
place. Each section's numbers are its first and last key and its number of entries, so that a
question reads the one block that it needs, 1 MB as a rule, also from a bucket.

========  ==========================================  ==================================
sections  key                                         entries
========  ==========================================  ==================================
units     first 8 bytes of the unit's identity        one for each unit of a cleaned page
          (`c4_filters.spans.unit_identities`)
pages     page key                                    one for each page that was read
ranks     rank                                        one for each cleaned page; none where
                                                      a page's rank is its key
========  ==========================================  ==================================

A place is 64 bits: whether it is gone (of a unit or page: deduplication removes it), whether the
rules dropped the page, the number of the WET file in the sorted list of inputs (30 bits), and the
number of the page in its cleaned file or list of dropped pages (32 bits). Entries of one key are
sorted by place, so those that stay come first.

Units are those that the recipe deduplicates, taken from the fingerprints. Where it deduplicates no
sentences, the sentences and lines of the cleaned texts are units here.

The index belongs to one corpus: its head holds a digest of what the kept files depend on (recipe,
settings, versions and inputs), and an index with another one is built again.
"""

import bisect
import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from pipelines.corpus.closing import Closing
from pipelines.corpus.container import Container, DamagedFileError, Part, write_container

_UInt64s: TypeAlias = npt.NDArray[np.uint64]
#: name of a section -> keys and places, each ``[entries]``
Entries: TypeAlias = Mapping[str, tuple[_UInt64s, _UInt64s]]

_KIND = "why"
_NAMES = ("units", "pages", "ranks")
_GONE, _DROPPED, _FILE, _ROW = 63, 62, 32, 32  # bits: two flags, where the file begins, of a row
_ENTRY_BYTES = 16
_BLOCK = 1 << 16  # entries of a section: 1 MB
_MOST_SECTIONS = 4096  # of one name; with more entries, sections are larger
_BYTES_AT_ONCE = 64 << 20  # sorted in memory, some four times over


class Place(NamedTuple):
    """Where a page is: the number of its WET file, and its row in what was kept of that file."""

    file: int
    row: int
    dropped: bool  # by the rules before deduplication: the row is one of `CleanedFile.dropped`


def pack_places(rows: npt.NDArray[Any], gone: npt.NDArray[np.bool_] | None = None) -> _UInt64s:
    """Return the places of rows of a file, ``[rows]``; ``gone`` None: the rules dropped them."""
    places = rows.astype(np.uint64)
    if gone is None:
        return places | np.uint64(1 << _DROPPED)
    return places | (gone.astype(np.uint64) << np.uint64(_GONE))


def write_index(path: str, of: str, files: Iterator[Entries]) -> None:
    """Write an index in one atomic step.

    Memory holds the entries of one file, and later `_BYTES_AT_ONCE` of all; a temporary file on
    this machine holds all of them.

    Args:
        path: The file to write.
        of: What the index belongs to.
        files: The entries of each file.

    Raises:
        OSError: A file cannot be read or written.
    """
    with tempfile.TemporaryFile(prefix="c4-why-") as spool:
        runs: dict[str, list[tuple[int, int]]] = {name: [] for name in _NAMES}
        for file, entries in enumerate(files):
            for name, (keys, places) in entries.items():
                order = np.argsort(keys)
                runs[name].append((spool.tell() // 8, len(keys)))
                spool.write(keys[order].astype("<u8").data)
                spool.write((places[order] | np.uint64(file << _FILE)).astype("<u8").data)
        spool.flush()
        words = np.empty(0, "<u8")
        if spool.tell():
            words = np.memmap(spool, "<u8", "r")
        write_container(path, _KIND, {"of": of}, _parts(words, runs))


def _parts(words: _UInt64s, runs: Mapping[str, list[tuple[int, int]]]) -> Iterator[Part]:
    for name, of_name in runs.items():
        total = sum(count for _, count in of_name)
        block = max(_BLOCK, -(-total // _MOST_SECTIONS))
        pieces = max(1, -(-total * _ENTRY_BYTES // _BYTES_AT_ONCE))
        cuts = [np.uint64((piece << 64) // pieces) for piece in range(1, pieces)]
        bounds = [
            [0, *np.searchsorted(words[at : at + count], cuts).tolist(), count]
            for at, count in of_name
        ]
        for piece in range(pieces):
            keys, places = (
                np.concatenate(
                    [np.empty(0, np.uint64)]
                    + [
                        words[start + ends[piece] : start + ends[piece + 1]]
                        for (at, count), ends in zip(of_name, bounds, strict=True)
                        for start in [at + offset * count]
                    ]
                )
                for offset in (0, 1)
            )
            order = np.lexsort((places, keys))
            keys, places = keys[order], places[order]
            for first in range(0, len(keys), block):
                part = slice(first, first + block)
                numbers = (int(keys[part][0]), int(keys[part][-1]), len(keys[part]))
                data = keys[part].astype("<u8").tobytes() + places[part].astype("<u8").tobytes()
                yield Part(name, data, numbers, compress=False)


class Index(Closing):
    """An open index. Use as a context manager."""

    def __init__(self, file: Container) -> None:
        self._file = file
        self._sections: dict[str, list[tuple[int, int, int, int]]] = {name: [] for name in _NAMES}
        for number, section in enumerate(file.sections):
            if section.name not in _NAMES or len(section.numbers) != 3:
                raise DamagedFileError(file.path, f"a section {section.name:.40}")
            self._sections[section.name].append((section.numbers[1], *section.numbers[::2], number))
        nothing = np.empty(0, np.uint64)
        self._last: tuple[int, _UInt64s, _UInt64s] = (-1, nothing, nothing)

    def close(self) -> None:
        """Close the file. Safe to call more than once."""
        self._file.close()

    def find(self, name: str, key: int, most: int | None = None) -> tuple[list[Place], int]:
        """Find the places of a key: those that stay first, each once.

        Args:
            name: Of the sections.
            key: The key.
            most: How many places to return at most; None: all.

        Returns:
            The places, and the number of entries that the key has.

        Raises:
            DamagedFileError: The index is damaged.
        """
        found: dict[Place, None] = {}
        total = 0
        sections = self._sections[name]
        for last, first, count, number in sections[bisect.bisect_left(sections, (key,)) :]:
            if first > key:
                break
            if first == last and most is not None and len(found) >= most:
                total += count
                continue
            keys, places = self._read(number, count)
            begin = np.searchsorted(keys, np.uint64(key))
            end = np.searchsorted(keys, np.uint64(key), "right")
            total += int(end - begin)
            wanted = end if most is None else min(end, begin + 4 * most)
            for place in places[begin:wanted].tolist():
                if most is None or len(found) < most:
                    found.setdefault(_place(place))
        return list(found), total

    def _read(self, number: int, count: int) -> tuple[_UInt64s, _UInt64s]:
        if self._last[0] != number:  # neighbouring keys are often asked for in turn
            words = np.frombuffer(self._file.read(number), "<u8")
            if len(words) != 2 * count:
                raise DamagedFileError(self._file.path, f"{len(words)} words in section {number}")
            self._last = number, words[:count], words[count:]
        return self._last[1], self._last[2]


def _place(place: int) -> Place:
    file = place >> _FILE & ((1 << _DROPPED - _FILE) - 1)
    return Place(file, place & ((1 << _ROW) - 1), bool(place >> _DROPPED & 1))


def find_index(path: str, of: str) -> Index | None:
    """Open an index; None if there is none that is whole and belongs to ``of``."""
    with contextlib.ExitStack() as opened:
        try:
            file = opened.enter_context(Container(path, _KIND))
            if file.head.get("of") != of:
                return None
            index = Index(file)
        except (FileNotFoundError, ValueError):  # damaged, or of another version
            return None
        opened.pop_all()
        return index
