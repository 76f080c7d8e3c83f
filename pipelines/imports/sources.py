"""The kinds of text that ``c4 import`` reads: which files of a folder, and what reads each.

A file is a unit of work, as a WET file is. Readers are imported when their kind is asked for.
"""

import dataclasses
import importlib
import importlib.metadata
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from pipelines import storage
from pipelines.corpus import layout
from pipelines.corpus.manifest import WET as WET  # which is a source too
from pipelines.extras import missing
from pipelines.printing import size
from pipelines.storage.paths import NoInputError
from pipelines.storage.patterns import has_magic

if TYPE_CHECKING:
    from pipelines.imports.pages import Found
    from pipelines.wet.results import ReadStats

_LARGE_BYTES = 2 << 30
_PACKED = r"(\.(gz|bz2|xz|zst))?"
_HUB = "hf://"
_JSON = rf"(jsonl|ndjson|json){_PACKED}"


@dataclasses.dataclass(frozen=True)
class InputKind:
    """A kind of text.

    Attributes:
        files: The names that are taken of a folder that is given as an input.
        named: The same for people.
        counts: What the number of a page in its file counts, as ``rejects/`` names it.
        readers: End of a file name -> module and function; "" is for any other.
        package: Whose version can change the pages; none for most.
    """

    files: str
    named: str
    counts: str
    readers: dict[str, str]
    package: str | None = None

    def reader(self, path: str) -> Callable[..., Iterator["Found"]]:
        """Return what reads a file: of its path, its bytes (`Stored`) and `Limits`."""
        found = next(place for end, place in self.readers.items() if path.endswith(end))
        module, _, name = found.partition(":")
        read: Callable[..., Iterator[Found]] = getattr(
            importlib.import_module(f"pipelines.imports.{module}"), name
        )
        return read


SOURCES: dict[str, InputKind] = {
    "wikipedia": InputKind(
        rf"(?!.*(-rss|-stub-|-abstract)).*\.xml(-p\d+p\d+)?{_PACKED}",
        "dumps such as *pages-articles*.xml*.bz2",
        "page",
        {"": "wikipedia:read"},
        "mwparserfromhell",
    ),
    "books": InputKind(rf".*\.(txt|text){_PACKED}", "text files *.txt", "page", {"": "books:read"}),
    "jsonl": InputKind(rf".*\.{_JSON}", "files *.jsonl or *.json.gz", "line", {"": "jsonl:read"}),
    "parquet": InputKind(r".*\.parquet", "files *.parquet", "row", {"": "tables:read_parquet"}),
    "hf": InputKind(
        rf".*\.(parquet|arrow|{_JSON})",
        "files *.parquet, *.arrow, *.jsonl or *.json.gz",
        "row",
        {".parquet": "tables:read_parquet", ".arrow": "tables:read_arrow", "": "jsonl:read"},
    ),
    "tfds": InputKind(
        r".*\.tfrecord(-\d{5}-of-\d{5})?",
        "TFRecord files, as tfds.load(file_format='tfrecord') prepares them",
        "record",
        {"": "tables:read_tfrecord"},
    ),
}

#: Files beside the data of a folder, by our own builds and by others' libraries.
_NO_DATA = frozenset(
    (
        "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "features.json",
        "state.json", "metadata.json", "manifest.json", "build.json", "inputs.jsonl",
        "croissant.json",
    )
)  # fmt: skip
_NO_DATA_FOLDERS = frozenset((*layout.STAGE_FOLDERS, layout.BUILDERS, layout.MERGED))


def source_named(name: str) -> InputKind:
    """Return a source. Raises ValueError for an unknown name."""
    if name not in SOURCES:
        raise ValueError(f"unknown source {name!r}; known: {', '.join(SOURCES)} (--from)")
    return SOURCES[name]


def versions(name: str) -> dict[str, str]:
    """Return the versions of packages that can change the pages of a source.

    Raises:
        ValueError: A package that reads it is not installed; the message says how to install it.
    """
    package = None if name == WET else source_named(name).package
    if package is None:
        return {}
    try:
        return {package: importlib.metadata.version(package)}
    except importlib.metadata.PackageNotFoundError:
        raise ValueError(missing(f"--from {name}", "import")) from None


def input_files(name: str, inputs: Sequence[str]) -> list[storage.FileInfo]:
    """Return the files of inputs: paths, patterns and whole folders.

    Raises:
        NoInputError: An input names no file, or a folder without files of this source.
        OSError: A folder cannot be listed.
    """
    source = source_named(name)
    found: dict[str, storage.FileInfo] = {}
    for pattern in inputs:
        if name == "hf" and pattern.startswith(_HUB):
            hub = importlib.import_module("pipelines.imports.hub")
            pattern = hub.file_urls(pattern, lambda inside: _is_data(source, inside))
        for file in _files(source, pattern):
            found.setdefault(file.path, file)
    return sorted(found.values())


def _files(source: InputKind, pattern: Any) -> list[storage.FileInfo]:
    if not isinstance(pattern, str) or has_magic(pattern) or _is_file(pattern):
        return storage.match(pattern)
    inside = storage.join(pattern, "**")
    try:
        below = storage.match(inside)
    except NoInputError:
        if not storage.is_local(pattern):
            return storage.match(pattern)  # which says what is wrong
        below = []
    root = layout.absolute(pattern).rstrip("/") + "/"
    wanted = [
        file for file in below if _is_data(source, layout.absolute(file.path).removeprefix(root))
    ]
    if not wanted:
        raise NoInputError(
            f"the folder {pattern} holds no {source.named}: name the files (--input)"
        )
    return wanted


def _is_file(path: str) -> bool:
    if storage.is_local(path):
        return not os.path.isdir(os.path.expanduser(storage.local_path(path)))
    if path.startswith(("http://", "https://")):
        return True
    try:
        storage.stat(path)
    except OSError:
        return False
    return True


def _is_data(source: InputKind, inside: str) -> bool:
    """Return whether a file of a folder, by its path in it, is of this source."""
    *folders, name = inside.split("/")
    return (
        re.fullmatch(source.files, name) is not None
        and name not in _NO_DATA
        and not any(part.startswith(".") for part in (*folders, name))
        and _NO_DATA_FOLDERS.isdisjoint(folders)
    )


def require_distinct_names(name: str, paths: Sequence[str], recipe: str) -> None:
    """Raise ValueError if pages of two files may get one url, for recipes that keep one of them.

    A page without a url of its own is named by its file's name, without folders.
    """
    if name in (WET, "wikipedia"):
        return
    seen: dict[str, str] = {}
    for path in paths:
        other = seen.setdefault(path.rsplit("/", 1)[-1], path)
        if other != path:
            raise ValueError(
                f"{other} and {path} have the same name, so their pages would have the same urls "
                f"and recipe {recipe} would drop one of two as duplicates: rename one, or import "
                "them one at a time (--input)"
            )


def note_on_sizes(name: str, files: Sequence[storage.FileInfo]) -> str:
    """Return a line about files that a worker may have no memory for; empty if there are none.

    >>> note_on_sizes("jsonl", [storage.FileInfo("a.jsonl", 3 << 30)])[:50]
    'a.jsonl has 3.2 GB, and a worker holds all text of'
    """
    large = [file for file in files if file.size > _LARGE_BYTES]
    if not large:
        return ""
    more = f" ({len(large) - 1:,} more are as large)" if len(large) > 1 else ""
    return (
        f"{large[0].path} has {size(large[0].size)}{more}, and a worker holds all text of its file "
        "in memory, four bytes a byte: give the parts of a dump, or split the file"
    )


def read_source(
    name: str, path: str, stream: BinaryIO, stats: "ReadStats", limits: tuple[int, int]
) -> Iterator["Found"]:
    """Yield the pages and rejects of a file, in its order.

    Args:
        name: Of the source.
        path: The file.
        stream: Its bytes as stored, from its start.
        stats: Gets the counts, the size and the SHA-256 of the file.
        limits: Bytes of a page, and of what the file may unpack to.

    Raises:
        UnreadableSourceError: Nothing of the file can be read, or it is not of this source.
        OSError: The file cannot be read.
    """
    from pipelines.imports.inflated import BrokenError, Stored, UnreadableSourceError
    from pipelines.imports.pages import Limits, Numbered, reject

    stored, number = Stored(stream, stats), 0
    try:
        for found in source_named(name).reader(path)(path, stored, Limits(*limits)):
            number = found.number if isinstance(found, Numbered) else found.offset
            yield found
    except BrokenError as broken:
        if not number:
            raise UnreadableSourceError(str(broken)) from None
        yield reject(max(number + 1, stats.records), broken.reason, str(broken))
    stored.finish()
