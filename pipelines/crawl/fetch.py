"""Fetch WET files: ``c4 fetch``.

A file that is being fetched is ``DIR/.c4-fetch/NAME.unfinished``; beside it, ``NAME.source`` says
which version of which address its bytes are. It gets its name in DIR when its gzip was read to its
end. After a kill the same command continues where the file ends, and fetches a file again only if
the server has another version.
"""

import concurrent.futures
import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import io
import os
import pathlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from pipelines import progress, storage
from pipelines.corpus import json_files
from pipelines.crawl.paths_file import (
    BASE_URL_HELP,
    FILES_HELP,
    Positions,
    address,
    base_of,
    read_crawl,
    read_positions,
    require_base_url,
    require_crawls,
)
from pipelines.crawl.whole_gzip import DamagedError, TooLargeError, WholeGzip, ends_whole
from pipelines.number_options import MEGABYTES
from pipelines.options import check_bounds, option
from pipelines.printing import counted
from pipelines.storage.manners import (
    FaultError,
    Manners,
    Patience,
    RefusedError,
    StoppedError,
    UnreachableError,
)
from pipelines.storage.web import Version, WebFile
from pipelines.wet.results import MAX_FILE_BYTES

_FOLDER = ".c4-fetch"
_CHUNK_BYTES = 256 << 10
_MOST_DOWNLOADS = 3  # of a file from its beginning, in one run
_SCHEMES = ("http", "https")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FetchConfig:
    """What to fetch, and where to."""

    crawl: tuple[str, ...] = option(
        "crawls such as CC-MAIN-2019-18, or lists such as wet.paths.gz, local or https://",
        nargs="+", action="extend", metavar="ID|LIST",
    )  # fmt: skip
    to: str = option("folder for the files, on this machine", metavar="DIR")
    files: Positions | None = option(FILES_HELP, default=None, metavar="A:B", read=read_positions)
    base_url: str = option(BASE_URL_HELP, default="", metavar="URL")
    connections: int = option(
        "files to fetch at once; Common Crawl asks for few", default=4, metavar="N",
        least=1, most=10,
    )  # fmt: skip
    max_file_bytes: int = option(
        f"refuse a file that unpacks to more (default: {MAX_FILE_BYTES >> 20})",
        "--max-file-mb", default=MAX_FILE_BYTES, **MEGABYTES,
    )  # fmt: skip

    def __post_init__(self) -> None:
        crawl = (self.crawl,) if isinstance(self.crawl, str) else tuple(self.crawl)
        object.__setattr__(self, "crawl", crawl)
        object.__setattr__(self, "to", os.fspath(self.to))
        check_bounds(self)
        if not self.crawl:
            raise ValueError("no crawl and no list (--crawl)")
        if not self.to or not storage.is_local(self.to):
            raise ValueError("give a folder of this machine (--to)")
        require_crawls(self.crawl)
        require_base_url(self.base_url, _SCHEMES)


class Failure(NamedTuple):
    """A file that was not fetched."""

    path: str  # its address, or what the list says
    reason: str


class Fetched(NamedTuple):
    """What a run of `fetch` did."""

    fetched: int  # files
    bytes: int  # received
    found: int  # files that were there already
    failures: tuple[Failure, ...]


class _File(NamedTuple):
    url: str
    target: pathlib.Path


def fetch(
    config: FetchConfig,
    *,
    show_progress: bool = True,
    note: Callable[[str], None] | None = None,
) -> Fetched:
    """Fetch the files that lists name.

    A file that cannot be fetched does not stop the others.

    Args:
        config: What to fetch.
        show_progress: Whether to show a progress bar on standard error.
        note: Takes lines about waits (default: print them on standard error).

    Raises:
        OSError: A list cannot be read, the folder cannot be written, another fetch writes there,
            or a server refuses all requests.
        ValueError: A list is damaged.
    """
    folder = pathlib.Path(storage.local_path(config.to)).expanduser()
    manners = Manners(note)
    files, failures = _listed(config, folder, manners)
    with _held(folder) as state:
        run = _Run(config, state, manners)
        missing = [file for file in files if not run.is_there(file)]
        run.expected = len(missing)
        shown = progress.shown(source=lambda _: run)
        with shown if show_progress and missing else contextlib.nullcontext():
            failures += run.fetch_all(missing)
    return Fetched(run.fetched, run.received, len(files) - len(missing), tuple(failures))


def _listed(
    config: FetchConfig, folder: pathlib.Path, manners: Manners
) -> tuple[list[_File], list[Failure]]:
    """Return the files to fetch, each once, and the lines of lists that name none."""
    urls: dict[str, str] = {}  # path -> address
    everything: set[str] = set()
    failures = []
    for crawl in config.crawl:
        listed, found = read_crawl(crawl, config.base_url, manners)
        failures += [Failure(listed, problem) for problem in found.problems]
        part = found.part_of(listed, config.files)
        base = base_of(listed, part, config.base_url)
        if storage.scheme(base) not in _SCHEMES:
            raise ValueError(f"the paths in {listed} are relative to no address (--base-url)")
        everything.update(found.part(None))
        for path in part:
            url = address(base, path)
            if urls.setdefault(path, url) != url:
                failures.append(Failure(url, f"has the path of {urls[path]}: give another --to"))
    # Two files of one name keep their folders, whichever of them are fetched now.
    names = Counter(path.rpartition("/")[2] for path in everything)
    return [
        _File(url, folder / (path if names[(name := path.rpartition("/")[2])] > 1 else name))
        for path, url in urls.items()
    ], failures


@contextlib.contextmanager
def _held(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Hold a folder for one fetch, and yield its folder for unfinished files, removed if empty.

    Raises:
        OSError: Another fetch runs.
    """
    state = folder / _FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            what = "another c4 fetch writes to this folder: wait for it, or give another --to"
            raise OSError(errno.EBUSY, what, str(folder)) from None
        state.mkdir(exist_ok=True)
        try:
            yield state
        finally:  # while the folder is held: the next fetch may need it
            with contextlib.suppress(OSError):  # not empty
                state.rmdir()
    finally:
        os.close(lock)


class _Run:
    """One run of `fetch`."""

    def __init__(self, config: FetchConfig, state: pathlib.Path, manners: Manners) -> None:
        self.config = config
        self.manners = manners
        self._state = state
        self._lock = threading.Lock()
        self._sizes: dict[str, int] = {}  # what this run has to receive, by address
        self.expected = 0  # files
        self.fetched = 0
        self.received = 0

    def is_there(self, file: _File) -> bool:
        """Return whether a file is there, and whole as far as its end tells."""
        if not file.target.is_file():
            return False
        if _is_gzip(file):
            with file.target.open("rb") as opened:
                found = ends_whole(opened, self.config.max_file_bytes)
        else:
            found = file.target.stat().st_size > 0
        if found:
            _remove(*self._unfinished(file))  # of a run that was killed right after the rename
        return found

    def _unfinished(self, file: _File) -> tuple[pathlib.Path, pathlib.Path]:
        """Return the paths of an unfinished file, and of what its bytes are."""
        stem, folder = file.target.name, self._state.parent
        if file.target.parent != folder:
            digest = hashlib.sha256(str(file.target.relative_to(folder)).encode()).hexdigest()
            stem = f"{digest[:16]}-{stem}"
        return self._state / f"{stem}.unfinished", self._state / f"{stem}.source"

    def fetch_all(self, files: Sequence[_File]) -> list[Failure]:
        """Fetch files, some at a time, and return those that failed."""
        failures: list[Failure] = []
        waiting = iter(files)
        threads = min(self.config.connections, len(files))
        pool = concurrent.futures.ThreadPoolExecutor(max(1, threads), "c4-fetch")
        running: dict[concurrent.futures.Future[None], _File] = {}
        wait = True
        try:
            while True:
                while len(running) < threads and (file := next(waiting, None)) is not None:
                    running[pool.submit(self._fetch, file)] = file
                if not running:
                    return failures
                done, _ = concurrent.futures.wait(
                    running, return_when=concurrent.futures.FIRST_COMPLETED
                )
                for future in done:
                    file = running.pop(future)
                    failures += _failure(file, future)
        except KeyboardInterrupt:
            wait = False  # for a read that may take 20 s
            raise
        except OSError:
            for failure in failures:  # nobody else would name them
                self.manners.note(f"c4: error: {failure.path}: {failure.reason}")
            raise
        finally:
            self.manners.stop()
            pool.shutdown(wait=wait, cancel_futures=True)

    def _fetch(self, file: _File) -> None:
        """Fetch one file, from its beginning if what is there cannot be continued.

        Raises:
            OSError: It cannot be fetched.
        """
        if file.target.is_dir():
            what = f"{file.target} is a folder: remove it, or give another --to"
            raise IsADirectoryError(errno.EISDIR, what, file.url)
        unfinished, side = self._unfinished(file)
        patience = self.manners.patience(file.url)
        downloads = _MOST_DOWNLOADS
        while True:
            downloads -= 1
            try:
                self._download(file, unfinished, side, patience)
                return
            except FaultError:
                # Ranges may be what is wrong: ask for the whole file, once.
                if not downloads or not unfinished.stat().st_size:
                    _remove(unfinished, side)
                    raise
                downloads, what = 1, "the server sends wrong parts"
                patience.progressed()
            except TooLargeError as error:
                _remove(unfinished, side)
                raise OSError(errno.EFBIG, str(error), file.url) from None
            except DamagedError as error:
                what = str(error)
            except OSError as error:
                if error.errno != errno.ESTALE:
                    if unfinished.exists() and not unfinished.stat().st_size:
                        _remove(unfinished, side)
                    raise
                what = "changed while it was fetched"
            _remove(unfinished, side)
            if not downloads:
                times = counted(_MOST_DOWNLOADS, "time")
                raise OSError(errno.EIO, f"{what} (fetched {times})", file.url)
            patience.busy(what)

    def _download(
        self, file: _File, unfinished: pathlib.Path, side: pathlib.Path, patience: Patience
    ) -> None:
        """Fetch what is missing of a file, check it, and give it its name.

        Raises:
            DamagedError: What came is not a whole gzip file.
            OSError: The transfer failed; ``ESTALE`` if the file has changed.
        """
        source = _read_source(side, file.url)
        with io.FileIO(unfinished, "r+" if source and unfinished.exists() else "w+") as part:
            arriving = _Arriving(self, file, part, side, source, patience)
            arriving.take_found()
            if source is None or not arriving.size or arriving.size != source.size:
                while not arriving.receive():
                    patience.fault("the server sends an empty file")
            arriving.require_whole()
            os.fsync(part.fileno())
        file.target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(unfinished, file.target)
        _remove(side)
        with self._lock:
            self.fetched += 1

    def note_received(self, size: int) -> None:
        """Count bytes that have arrived. Raises StoppedError if the run is to end."""
        with self._lock:
            self.received += size
        if self.manners.stopped:
            raise StoppedError("stopped")

    def expect(self, url: str, size: int) -> None:
        """Note how many bytes a file has to receive."""
        with self._lock:
            self._sizes[url] = size

    def read(self, ended: bool = False) -> tuple[str, int, int, int]:
        """Return the stage, bytes received, bytes in all as far as can be told, and 0 pages."""
        del ended
        with self._lock:
            known = len(self._sizes)
            total = sum(self._sizes.values()) * self.expected // known if known else 0
            return "fetch", self.received, max(total, self.received), 0


@dataclasses.dataclass
class _Arriving:
    """An unfinished file, checked while it grows."""

    _run: _Run
    _file: _File
    _part: io.FileIO
    _side: pathlib.Path
    _source: Version | None
    _patience: Patience
    size: int = 0

    def __post_init__(self) -> None:
        self._most = self._run.config.max_file_bytes
        self._check = WholeGzip(self._most) if _is_gzip(self._file) else None

    def take_found(self) -> None:
        """Take the bytes of earlier runs."""
        while data := self._part.read(_CHUNK_BYTES):
            self._take(data)

    def receive(self) -> int:
        """Append what is missing, and return the size of the file."""
        run, url = self._run, self._file.url
        with WebFile(
            url, manners=run.manners, start=self.size, source=self._source, patience=self._patience
        ) as stream:
            source = stream.source
            if source is not None and source != self._source:
                _write_source(self._side, url, source)
                self._source = source
            if source is not None and source.size is not None:
                run.expect(url, source.size - self.size)
            buffer = memoryview(bytearray(_CHUNK_BYTES))
            while size := stream.readinto(buffer):
                data = bytes(buffer[:size])
                _write_all(self._part, data)
                self._take(data)
                run.note_received(size)
        return self.size

    def require_whole(self) -> None:
        """Raise DamagedError unless this is a whole file."""
        if self._check is not None:
            self._check.require_whole()

    def _take(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > self._most:
            raise TooLargeError(f"is larger than {self._most >> 20:,} MB (--max-file-mb)")
        if self._check is not None:
            self._check.feed(data)


def _failure(file: _File, future: "concurrent.futures.Future[None]") -> list[Failure]:
    """Return why a file was not fetched. Raises what stops the run."""
    error = future.exception()
    if error is None or isinstance(error, StoppedError):
        return []
    if isinstance(error, RefusedError | UnreachableError) or not isinstance(error, OSError):
        raise error
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS) or (
        error.filename is not None and storage.scheme(str(error.filename)) not in _SCHEMES
    ):
        raise error  # of this machine: the others would fail too
    return [Failure(file.url, error.strerror or str(error))]


def _is_gzip(file: _File) -> bool:
    return file.target.name.endswith(".gz")


def _write_all(part: io.FileIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[part.write(view) :]


def _remove(*paths: pathlib.Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _read_source(side: pathlib.Path, url: str) -> Version | None:
    """Return the version that the bytes of an unfinished file are of; None if it is unknown."""
    found = json_files.read_object(str(side)) or {}
    etag, modified, size = found.get("etag"), found.get("modified"), found.get("size")
    if found.get("url") != url or not isinstance(etag, str) or not isinstance(modified, str):
        return None
    if size is not None and type(size) is not int:
        return None
    return Version(etag, modified, size)


def _write_source(side: pathlib.Path, url: str, source: Version) -> None:
    content = {"url": url, "etag": source.etag, "modified": source.modified, "size": source.size}
    new = side.with_suffix(".new")
    new.write_bytes(json_files.encode(content))
    os.replace(new, side)
