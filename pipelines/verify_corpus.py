"""Check a finished corpus against its manifest: files, sizes and, if asked, checksums."""

import concurrent.futures
import contextlib
import dataclasses
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from pipelines import corpus_folder, storage
from pipelines.bars import bar
from pipelines.config import KEEP
from pipelines.corpus import layout
from pipelines.corpus.card.side_files import CARD, CROISSANT, OTHER_CARD, side_files
from pipelines.corpus.container import Container, DamagedFileError, OtherVersionError
from pipelines.corpus.digests import Progress, sha256_of
from pipelines.corpus.errors import CorpusError
from pipelines.corpus.formats import FORMATS
from pipelines.corpus.manifest import Manifest, ShardFile, SideFile, read_manifest
from pipelines.corpus.root_digest import RowDigests, hashed_shards, root_digest, rows_of

NO_MANIFEST = "is missing: this is not a corpus, or its build has not finished"
_CHECKED = ("cleaned", "fingerprints", "removals")  # kept folders
_CURRENT_NAME = re.compile(r"-[0-9a-f]{32}\.(arrow|bin)$")  # version 0.1 used 8 digits


@dataclasses.dataclass(frozen=True)
class Problem:
    """One problem with one file of a corpus."""

    file: str  # name in the corpus folder
    what: str

    def __str__(self) -> str:
        return f"{self.file} {self.what}"


def manifest_problem(output: str) -> Manifest | Problem:
    """Return the manifest of a corpus, or what is wrong with it."""
    path = storage.join(output, layout.MANIFEST)
    try:
        return read_manifest(output)
    except CorpusError as error:
        what = str(error)
    if not what.startswith(f"{path} "):
        return Problem(layout.MANIFEST, NO_MANIFEST)
    return Problem(layout.MANIFEST, what.removeprefix(f"{path} "))


def shard_problems(output: str, made: Manifest) -> list[Problem]:
    """Check that every shard exists with its size."""
    sizes = storage.sizes(output)
    wrong = {shard.name: _wrong_size(sizes.get(shard.name), shard) for shard in made.shards}
    return [Problem(name, what) for name, what in wrong.items() if what]


def content_problems(output: str, made: Manifest) -> list[Problem]:
    """Check every byte of the shards; if they are as written, the root digest of their pages.

    A shard is fetched once, and its pages are read right after its bytes, before they leave the
    memory of the system.
    """
    hashed = hashed_shards(made) if made.root_digest else {}  # not of an earlier version
    named = {shard.name for shards in hashed.values() for shard in shards}
    rows: dict[str, RowDigests] = {}
    sizes = storage.sizes(output)

    def check(shard: ShardFile) -> str | None:
        if wrong := _wrong_size(sizes.get(shard.name), shard):
            return wrong
        path = storage.join(output, shard.name)
        if shard.name not in named:
            return _wrong_digest(path, shard, progress)
        with _at_hand(path) as near:
            wrong = _wrong_digest(near, shard, progress)
            if not wrong:
                rows[shard.name] = rows_of(near, shard)
        return wrong

    with _progress_bar(made) as progress:
        problems = _each(check, made.shards)
    if hashed and not problems:
        of_split = {split: [rows[each.name] for each in shards] for split, shards in hashed.items()}
        found = root_digest(made, of_split)
        if found != made.root_digest:
            what = f"has root digest {made.root_digest}, not {found}"
            problems.append(Problem(layout.MANIFEST, what))
    return problems


@contextlib.contextmanager
def _at_hand(path: str) -> Iterator[str]:
    """Yield the path of a file on this machine: its own, or that of a copy of a remote file."""
    if storage.is_local(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="c4-verify-") as folder:
        copy = os.path.join(folder, storage.last_part(path))
        storage.copy_files([(path, copy)])
        yield copy


@contextlib.contextmanager
def _progress_bar(made: Manifest) -> Iterator[Progress]:
    """Show the progress of checking the shards, in bytes, on a terminal."""
    total, lock = sum(shard.bytes for shard in made.shards), threading.Lock()
    with bar("verify", total, "B") as shown:

        def progress(n_bytes: int) -> None:
            with lock:
                shown.update(n_bytes)

        yield progress


def foreign_shards(output: str, made: Manifest) -> list[str]:
    """Return the names of files that readers of a pattern take for shards of this corpus."""
    own = {shard.name for shard in made.shards}
    suffixes = tuple(FORMATS[name].suffix for name in made.formats)
    return [
        name
        for name in storage.listdir(output)
        if name not in own and layout.is_shard(name) and name.endswith(suffixes)
    ]


def side_file_problems(output: str, made: Manifest) -> list[Problem]:
    """Check the files beside the shards, which `finish_corpus.write_side_files` writes.

    A corpus of version 0.1 lists none of them: they must exist, with any content. Versions that
    gave no root digest wrote no croissant.json.
    """

    def check(file: SideFile) -> str | None:
        path = storage.join(output, file.name)
        if not file.sha256:
            return None if storage.exists(path) else "is missing"
        try:
            wrong = _wrong_size(storage.stat(path).size, file)
        except FileNotFoundError:
            wrong = _wrong_size(None, file)
        wrong = wrong or _wrong_digest(path, file)
        if wrong not in (None, "is missing") and file.name in (CARD, OTHER_CARD):
            wrong = None  # the user has changed it, so it belongs to the user now
        return wrong

    listed = made.side_files or ()
    names = {file.name for file in listed} | (set() if made.root_digest else {CROISSANT})
    # A file that is not listed belonged to the user. If the user has deleted it, it is missing.
    others = [SideFile(name, 0, "") for name in side_files(made) if name not in names]
    return _each(check, [*listed, *others])


class _KeptFile(NamedTuple):
    name: str  # in the corpus folder
    kind: str


_File = TypeVar("_File", ShardFile, SideFile, _KeptFile)


def kept_problems(output: str, made: Manifest) -> tuple[list[Problem], int]:
    """Check every byte of the kept files, and return the problems and the number of files.

    Files of an earlier version are not counted: a build writes them again.
    """
    found = [
        _KeptFile(f"{folder}/{os.path.basename(path)}", folder)
        for folder in _CHECKED
        for path in corpus_folder.own_kept(output, [folder])
    ]
    missing = _missing(made, {file.name for file in found})
    files, older = [file for file in found if _CURRENT_NAME.search(file.name)], []

    def check(file: _KeptFile) -> str | None:
        try:
            with Container(storage.join(output, file.name), file.kind) as container:
                container.verify()
        except OtherVersionError:
            older.append(file)
        except DamagedFileError as error:
            return f"is damaged ({error.reason})"
        return None

    return missing + _each(check, files), len(files) - len(older)


def _missing(made: Manifest, found: set[str]) -> list[Problem]:
    """Return which kept files of a corpus are not among those found, by their names."""
    return [
        Problem(f"{folder}/{names[0]}{layout.STAGE_FOLDERS[folder]}", "is missing")
        for folder in _CHECKED
        if folder not in KEEP.get(made.keep, ())
        for names in (layout.file_names(file.path) for file in made.inputs)
        if found.isdisjoint(f"{folder}/{name}{layout.STAGE_FOLDERS[folder]}" for name in names)
    ]


def _wrong_size(found: int | None, entry: ShardFile | SideFile) -> str | None:
    """Return how a file of so many bytes, None if missing, differs from its entry, or None."""
    if found is None:
        return "is missing"
    return None if found == entry.bytes else f"has {found:,} bytes instead of {entry.bytes:,}"


def _wrong_digest(
    path: str, entry: ShardFile | SideFile, progress: Progress = lambda _: None
) -> str | None:
    """Return what is wrong with the content of a file, or None."""
    right = sha256_of(path, progress) == entry.sha256
    return None if right else "is damaged (checksum mismatch)"


def _each(check: Callable[[_File], str | None], files: Sequence[_File]) -> list[Problem]:
    """Check files in parallel: they may be remote, and computing digests uses every core."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(check, files))
    return [Problem(file.name, what) for file, what in zip(files, found, strict=True) if what]
