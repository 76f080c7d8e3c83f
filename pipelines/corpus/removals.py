"""Removal files: what is removed from a cleaned file later, why, and which page keeps each copy.

One bit for each page and each unit (1: it is removed), and 8 bytes for each removed one that name
the keeper:

unit
    The rank of the page that keeps the smallest copy, as in its fingerprint file. Where urls are
    deduplicated after cleaning (recipes ``en`` and most others) that is the page's key; where they
    are deduplicated before (``tfds``), the md5 key of its url as written; where they are not
    deduplicated, the first 8 bytes of its digest.
page
    For a duplicate url the first 8 bytes, little-endian, of the digest of the page that stays: it
    has the removed page's own key, so the key cannot tell them apart. For a near duplicate the rank
    of the page that stays, as for units. 0: no page stays in its place.

A byte for each removed page says why it is removed: its place in `PAGE_VERDICTS`. A file whose
removed pages are all duplicate urls leaves these bytes out.

Bits, reasons and keepers are cut into blocks of 65,536 pages or units, a section each. The bits
come last, next to the table, so that one small read fetches all of them in most files.

A file belongs to one build: it holds that build's id, and every build writes it again.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from c4_filters.verdicts import PageVerdict
from pipelines.corpus.cleaned import CleanedFile
from pipelines.corpus.closing import Closing
from pipelines.corpus.container import Container, DamagedFileError, Part, write_container

#: What can become of a cleaned page before its units are judged; the first: it stays.
PAGE_VERDICTS = (
    PageVerdict.KEPT,
    PageVerdict.DUPLICATE_URL,
    PageVerdict.OPTED_OUT,
    PageVerdict.NEAR_DUPLICATE,
)

_Bools: TypeAlias = npt.NDArray[np.bool_]
_UInt8s: TypeAlias = npt.NDArray[np.uint8]
_UInt64s: TypeAlias = npt.NDArray[np.uint64]

_DUPLICATE = PAGE_VERDICTS.index(PageVerdict.DUPLICATE_URL)
_KIND = "removals"
_BLOCK = 1 << 16  # pages or units
_REMOVED = np.arange(1, len(PAGE_VERDICTS), dtype=np.uint8)


class OtherBuildError(ValueError):
    """A kept file belongs to another build. The message names it and says what to do."""

    def __str__(self) -> str:
        return (
            f"{self.args[0]} belongs to another build: is another build running in this folder? If "
            "not, run the same build again"
        )


def write_removals(
    path: str,
    pages: _UInt8s | _Bools,
    units: _Bools,
    page_keepers: _UInt64s | None,
    unit_keepers: _UInt64s | None,
    build_id: str,
) -> None:
    """Write a removal file in one atomic step.

    Args:
        path: The file to write.
        pages: uint8 ``[pages]``, what becomes of each page of the cleaned file: its place in
            `PAGE_VERDICTS`. Bool: whether its url is a duplicate.
        units: Bool ``[units]``, whether each unit is removed.
        page_keepers: ``[removed pages]``, the keeper of each; None to store none.
        unit_keepers: ``[removed units]``, the keeper of each; None to store none.
        build_id: The build that the file belongs to.

    Raises:
        ValueError: The number of keepers differs from the number of removals.
    """
    codes = pages.astype(np.uint8)
    named = {"page": (codes > 0, page_keepers), "unit": (units, unit_keepers)}
    for name, (gone, keepers) in named.items():
        if keepers is not None and keepers.shape != (np.count_nonzero(gone),):
            raise ValueError(
                f"{path}: keepers of {len(keepers)} {name}s for {np.count_nonzero(gone)} removed"
            )
    head = {"build_id": build_id, "pages": len(pages), "units": len(units)}
    write_container(path, _KIND, head, _parts(named, codes))


def _parts(named: dict[str, tuple[_Bools, _UInt64s | None]], codes: _UInt8s) -> Iterator[Part]:
    for name, (gone, keepers) in named.items():
        if keepers is None:
            continue
        at = 0
        for first in range(0, len(gone), _BLOCK):
            count = int(np.count_nonzero(gone[first : first + _BLOCK]))
            data = keepers[at : at + count].astype("<u8").tobytes()
            yield Part(f"{name} keepers", data)
            at += count
    if codes.max(initial=0) > _DUPLICATE:
        for first in range(0, len(codes), _BLOCK):
            block = codes[first : first + _BLOCK]
            yield Part("page verdicts", block[block > 0].tobytes())
    for name, (gone, _) in named.items():
        for first in range(0, len(gone), _BLOCK):
            yield Part(f"{name}s", np.packbits(gone[first : first + _BLOCK]).tobytes())


class Removals(Closing):
    """An open removal file. It reads only the requested ranges.

    Attributes:
        path: The file.
        page_count: Pages of the cleaned file.
        unit_count: Units of the cleaned file.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is damaged, of another version, or of another build; the message names it.
    """

    def __init__(self, path: str, build_id: str | None = None) -> None:
        """Open a file. It must belong to the build ``build_id``, unless that is None."""
        self.path = path
        self._file = Container(path, _KIND)
        try:
            head = self._file.head
            self.page_count, self.unit_count = (self._count(name) for name in ("pages", "units"))
            places: dict[str, list[int]] = {}
            for number, section in enumerate(self._file.sections):
                places.setdefault(section.name, []).append(number)
            self._pages = _Blocks(self._file, self.page_count, places, "page")
            self._units = _Blocks(self._file, self.unit_count, places, "unit")
            if build_id is not None and head.get("build_id") != build_id:
                raise OtherBuildError(path)
        except ValueError:
            self._file.close()
            raise

    def _count(self, name: str) -> int:
        count = self._file.head.get(name)
        if type(count) is not int or count < 0:
            raise DamagedFileError(self.path, f"{count!r:.40} {name}")
        return count

    def close(self) -> None:
        """Close the file. Safe to call more than once."""
        self._file.close()

    def forget(self) -> None:
        """Free what was fetched, apart from the end of the file."""
        self._file.forget()

    def hold(self) -> None:
        """Fetch what `pages` and `units` take with one read, and close the file."""
        sections = self._file.sections
        wanted = [at for at, each in enumerate(sections) if not each.name.endswith("keepers")]
        if wanted:
            self._file.hold(wanted[0], wanted[-1])
        self.close()

    def pages(self, first: int, count: int) -> _UInt8s:
        """Return places in `PAGE_VERDICTS`, of ``count`` pages from ``first`` on: ``[count]``."""
        return self._pages.codes(first, count)

    def units(self, first: int, count: int) -> _Bools:
        """Return whether each of ``count`` units from ``first`` on is removed, ``[count]``."""
        return self._units.gone(first, count)

    def keepers(self) -> tuple[_UInt64s, _UInt64s]:
        """Return the keepers of all removed pages, and of all removed units."""
        return self._pages.keepers(), self._units.keepers()

    def keeper_of_page(self, page: int) -> int | None:
        """Return the keeper of a page (see the module), or None for a page that stays."""
        return self._pages.keeper(page)

    def keeper_of_unit(self, unit: int) -> int | None:
        """Return the keeper of a unit (see the module), or None for a unit that stays."""
        return self._units.keeper(unit)


def open_removals(path: str, cleaned: CleanedFile, build_id: str | None) -> Removals:
    """Open the removals of a cleaned file.

    Args:
        path: The removal file.
        cleaned: The cleaned file.
        build_id: The build that the removals must belong to; None for any.

    Raises:
        OSError: The file cannot be read.
        ValueError: As for `Removals`; the message names it.
    """
    removals = Removals(path, build_id)
    if (removals.page_count, removals.unit_count) != (cleaned.pages, cleaned.units):
        removals.close()
        raise OtherBuildError(path)
    return removals


class _Blocks:
    """The bits and keepers of all pages, or of all units."""

    def __init__(
        self, file: Container, count: int, places: dict[str, list[int]], name: str
    ) -> None:
        self._file = file
        self._count = count
        self._name = name
        self._bits: Sequence[int] = places.get(f"{name}s", [])
        self._verdicts: Sequence[int] = places.get(f"{name} verdicts", [])
        self._keepers: Sequence[int] = places.get(f"{name} keepers", [])
        blocks = -(-count // _BLOCK)
        optional = {len(self._verdicts), len(self._keepers)}
        if len(self._bits) != blocks or not optional <= {0, blocks}:
            raise DamagedFileError(file.path, f"{len(self._bits)} blocks of {count} {name}s")
        self._last: tuple[int, _Bools] = (-1, np.empty(0, np.bool_))
        self._last_codes: tuple[int, _UInt8s] = (-1, np.empty(0, np.uint8))
        self._last_keepers: tuple[int, _UInt64s] = (-1, np.empty(0, np.uint64))

    def gone(self, first: int, count: int) -> _Bools:
        return self._range(first, count, self._block)

    def codes(self, first: int, count: int) -> _UInt8s:
        """Return why each is removed; 0: it stays."""
        return self._range(first, count, self._codes_of).astype(np.uint8, copy=False)

    def _range(self, first: int, count: int, block_of: Callable[[int], Any]) -> npt.NDArray[Any]:
        end = first + count
        if not 0 <= first <= end <= self._count:
            raise DamagedFileError(
                self._file.path, f"no {self._name}s {first} to {end} among {self._count}"
            )
        parts = [np.empty(0, np.bool_)]
        for block in range(first // _BLOCK, -(-end // _BLOCK)):
            base = block * _BLOCK
            parts.append(block_of(block)[max(0, first - base) : end - base])
        return np.concatenate(parts)

    def _codes_of(self, block: int) -> _UInt8s:
        if self._last_codes[0] != block:  # as bits, asked for in order
            bits = self._block(block)
            codes = bits.astype(np.uint8)
            if self._verdicts:
                data = np.frombuffer(self._file.read(self._verdicts[block]), np.uint8)
                if len(data) != np.count_nonzero(bits) or not np.isin(data, _REMOVED).all():
                    raise DamagedFileError(self._file.path, f"wrong verdicts of {self._name}s")
                codes[bits] = data
            self._last_codes = block, codes
        return self._last_codes[1]

    def keeper(self, place: int) -> int | None:
        if not self.gone(place, 1)[0]:
            return None
        if not self._keepers:
            raise ValueError(f"{self._file.path} does not say who keeps {self._name}s")
        block, at = divmod(place, _BLOCK)
        bits = self._block(block)
        if self._last_keepers[0] != block:
            self._last_keepers = block, self._keepers_of(block)
        return int(self._last_keepers[1][np.count_nonzero(bits[:at])])

    def keepers(self) -> _UInt64s:
        """Return the keepers of all that are removed, ``[removed]``."""
        parts = [self._keepers_of(block) for block in range(len(self._keepers))]
        return np.concatenate([np.empty(0, np.uint64), *parts])

    def _keepers_of(self, block: int) -> _UInt64s:
        data: _UInt64s = np.frombuffer(self._file.read(self._keepers[block]), "<u8")
        if len(data) != np.count_nonzero(self._block(block)):
            raise DamagedFileError(self._file.path, f"{len(data)} keepers of {self._name}s")
        return data

    def _block(self, block: int) -> _Bools:
        if self._last[0] != block:  # ranges are asked for in order, as a rule
            count = min(_BLOCK, self._count - block * _BLOCK)
            data = np.frombuffer(self._file.read(self._bits[block]), np.uint8)
            if len(data) != -(-count // 8):
                raise DamagedFileError(self._file.path, f"{len(data)} bytes for {count} bits")
            self._last = block, np.unpackbits(data, count=count).view(np.bool_)
        return self._last[1]
