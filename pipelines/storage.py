"""Files wherever Beam reaches them: local paths, ``gs://``, ``s3://``, ``azfs://``, ``hdfs://``.

Every file of a build is opened, listed and published here, through Beam's ``FileSystems`` and
always uncompressed as far as Beam is concerned: its own decompression takes a truncated gzip for
a whole one. Folders and names are taken literally; only `match` understands patterns.

How a file becomes visible, and what a failure leaves behind:

==================  =========================================  ==================================
where               on success                                 on an exception, or a killed worker
==================  =========================================  ==================================
local path          temporary name, fsync, rename: atomic      old file untouched; a kill leaves
                                                               ``.NAME.tmp-…``, see
                                                               `sweep_temporaries`
``hdfs://``         temporary name, old file deleted, rename   as above
``gs://`` ``s3://``  one upload, visible when it is finished   old object untouched: the upload is
``azfs://``                                                    dropped, never finished
==================  =========================================  ==================================

An upload that was dropped on ``s3://`` keeps its parts, invisible but billed, until a lifecycle
rule of the bucket (AbortIncompleteMultipartUpload) clears them.
"""

import concurrent.futures
import contextlib
import errno
import glob
import importlib.util
import io
import math
import os
import posixpath
import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple, cast

__all__ = [
    "FileInfo",
    "NoInputError",
    "changed_since",
    "create_if_absent",
    "exists",
    "is_local",
    "join",
    "listdir",
    "match",
    "open_raw",
    "read_bytes",
    "remove",
    "size",
    "stat",
    "sweep_temporaries",
    "use_options",
    "write_atomically",
]

_SCHEME = re.compile(r"([a-zA-Z][-a-zA-Z0-9+.]*)://")  # what Beam takes for a scheme
_OBJECT_STORES = frozenset({"azfs", "gs", "s3"})
#: scheme -> extra of this package that has its client, and a module of it
_CLIENTS = {
    "gs": ("gcp", "google.cloud.storage"),
    "s3": ("aws", "boto3"),
    "hdfs": ("hadoop", "hdfs"),
}
# What Beam raises, of several kinds, when it has not found one.
_OF_CLIENTS = re.compile("Unable to get filesystem|Missing .* requirement|Failed to import")
_SCATTERED_READ_BYTES = 64 << 10
_REMOVALS_AT_A_TIME = 32
_ERRNO_OF_STATUS = {401: errno.EACCES, 403: errno.EACCES, 404: errno.ENOENT}  # HTTP's
_TEMPORARY = re.compile(r"\..+\.tmp-[0-9a-f]{32}")


class FileInfo(NamedTuple):
    """A file, and what its file system knows of it without reading it."""

    path: str
    size: int  # bytes
    #: Changes whenever the content does: ``mtime:…`` ns, ``etag:…``, ``generation:…`` or
    #: ``crc32c:…``. Empty where the file system knows nothing of the content.
    identity: str = ""


class NoInputError(FileNotFoundError):
    """A pattern that names no file; the message is one line with the way out."""


def is_local(path: str) -> bool:
    """Says whether a path is one of this machine, by the absence of a scheme.

    >>> is_local("/data/crawl"), is_local("s3://bucket/crawl")
    (True, False)
    """
    return not _scheme(path)


def join(base: str, *parts: str) -> str:
    """Puts a path together, with ``/`` on every remote scheme.

    >>> join("gs://bucket/corpus", "cleaned", "a.arrow")
    'gs://bucket/corpus/cleaned/a.arrow'
    """
    return os.path.join(base, *parts) if is_local(base) else posixpath.join(base, *parts)


def use_options(options: Sequence[str]) -> None:
    """Tells the remote file systems how they are reached: Beam's options, as on a command line.

    Beam does so itself when a pipeline is made; what is read or listed before needs it earlier.
    """
    from pipelines.quiet_beam import beam

    _file_systems().set_options(beam.options.pipeline_options.PipelineOptions(list(options)))


def open_raw(path: str, scattered: bool = False) -> BinaryIO:
    """Opens a file for reading its bytes as they are stored, whatever its suffix says.

    Args:
        path: Where it is.
        scattered: Small parts will be read, here and there: a remote file is then not fetched
            16 MB at a time, as Beam does, but 64 kB.

    Raises:
        OSError: The file is missing or cannot be read.
    """
    with _naming(path):
        file = _file_systems().open(path, compression_type=_uncompressed())
    if scattered and not is_local(path):
        if hasattr(file, "_chunk_size"):  # google-cloud-storage's BlobReader
            file._chunk_size = _SCATTERED_READ_BYTES
        elif isinstance(file, io.BufferedReader):  # s3, azfs, hdfs
            file = io.BufferedReader(file.detach(), _SCATTERED_READ_BYTES)
    return cast(BinaryIO, file)


def read_bytes(path: str) -> bytes:
    """All bytes of a file.

    Raises:
        OSError: The file is missing or cannot be read.
    """
    with open_raw(path) as file, _naming(path):
        return file.read()


def exists(path: str) -> bool:
    """Says whether there is a file (on a file system with folders: or a folder) of that name."""
    with _naming(path):
        return bool(_file_systems().exists(path))


def size(path: str) -> int:
    """Bytes in a file.

    Raises:
        FileNotFoundError: There is no such file.
    """
    if not exists(path):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    with _naming(path):
        return int(_file_systems().get_filesystem(path).size(path))


def stat(path: str) -> FileInfo:
    """Return the size of a file and the identity of its content.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: It cannot be asked about.
    """
    if is_local(path):
        found = os.stat(path)
        return FileInfo(path, found.st_size, f"mtime:{found.st_mtime_ns}")
    return FileInfo(path, size(path))


def create_if_absent(path: str, content: bytes) -> bool:
    """Create a file with this content, in one atomic step, unless it exists.

    Parent folders are made. Of several callers exactly one gets True.

    Raises:
        OSError: The file cannot be written.
    """
    if not is_local(path):
        if exists(path):
            return False
        with write_atomically(path) as output:
            output.write(content)
        return True
    temporary = _temporary_for(path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        os.unlink(temporary)
    return True


def match(patterns: str | Iterable[str]) -> list[FileInfo]:
    """Finds input files by name or pattern.

    Args:
        patterns: Paths or Beam's patterns: ``*`` and ``?`` within a folder, ``**`` across folders,
            ``[abc]``. A local path that exists is taken literally, brackets or not.

    Returns:
        A `FileInfo` of every file, sorted by path, each file once. Leftovers of killed
        writers are no input.

    Raises:
        NoInputError: A pattern names no file. Every pattern must find at least one: a mistyped one
            among several would otherwise shrink a corpus silently.
    """
    found: dict[str, FileInfo] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        files = _match_one(pattern)
        if not files:
            raise NoInputError(
                f"no input file matches {pattern!r}; check the path, and quote the pattern so that "
                "the shell leaves it alone (--input)"
            )
        for path, n_bytes in files:
            name = os.path.abspath(path) if is_local(path) else path
            found.setdefault(name, stat(path) if is_local(path) else FileInfo(path, n_bytes))
    return sorted(found.values())


def listdir(folder: str) -> list[str]:
    """Names of the files directly in a folder, sorted, without folders and leftover temporaries.

    A folder that does not exist has no files: object stores know no empty folders either.
    """
    return [name for name in _all_names(folder) if not _TEMPORARY.fullmatch(name)]


def changed_since(folder: str, when: float) -> list[str]:
    """Names of the files directly in a folder that were written after ``when`` (Unix time, s).

    By the clock of whoever keeps the files. A file system that tells no time gives every file.
    """
    if is_local(folder):
        try:
            with os.scandir(folder) as entries:
                found = [
                    (entry.name, entry.stat().st_mtime) for entry in entries if entry.is_file()
                ]
        except FileNotFoundError:
            return []
    else:
        pattern = glob.escape(folder.rstrip("/")) + "/*"
        found = [
            (posixpath.basename(entry.path), entry.last_updated_in_seconds or math.inf)
            for entry in _file_systems().match([pattern])[0].metadata_list
        ]
    return sorted(
        name for name, changed in found if changed >= when and not _TEMPORARY.fullmatch(name)
    )


def remove(paths: Iterable[str]) -> None:
    """Deletes files; one that is missing already is fine, a folder is not.

    Raises:
        OSError: A file is there and cannot be deleted.
    """
    remote = []
    for path in paths:
        if is_local(path):
            # Beam's own delete takes brackets for a pattern and folders for fair game.
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)
        else:
            remote.append(path)
    if len(remote) < 2:
        list(map(_remove_remote, remote))
        return
    # Three requests a file, one after the other, would be hours for a corpus.
    with concurrent.futures.ThreadPoolExecutor(_REMOVALS_AT_A_TIME) as pool:
        list(pool.map(_remove_remote, remote))


def _remove_remote(path: str) -> None:
    with _naming(path):
        if _scheme(path) == "gs":
            # Beam's delete would list the bucket for a pattern; its client takes the name as it is,
            # in one request, and does not mind an object that is gone.
            _file_systems().get_filesystem(path)._gcsIO().delete(path)
        elif exists(path):
            _file_systems().delete([path])


def sweep_temporaries(folder: str) -> int:
    """Removes what killed writers left in a folder, and returns how many files that were.

    Only for a folder that nobody is writing to: a temporary of a live writer looks the same.
    """
    leftovers = [join(folder, n) for n in _all_names(folder) if _TEMPORARY.fullmatch(n)]
    remove(leftovers)
    return len(leftovers)


@contextlib.contextmanager
def write_atomically(path: str) -> Iterator[BinaryIO]:
    """A binary file that appears under its name when the block ends well, and else not at all.

    Parent folders are made. Closing the file inside the block changes nothing: the block's end
    decides. The table of this module says what each kind of storage guarantees.

    Args:
        path: The final name. What is there already is replaced.

    Yields:
        A file with ``write``, ``tell``, ``flush``; neither readable nor seekable.

    Raises:
        OSError: Writing failed, a full disk for instance; ``filename`` is ``path``.
    """
    direct = _scheme(path) in _OBJECT_STORES
    target = path if direct else _temporary_for(path)
    with _naming(path):
        raw = _file_systems().create(target, compression_type=_uncompressed())
    output = _Output(raw, path)
    try:
        yield cast(BinaryIO, output)
        with _naming(path):
            _finish(raw, output.tell())
            if not direct:
                _rename(target, path)
    except BaseException:
        _abandon(raw)
        if not direct:
            with contextlib.suppress(Exception):  # the first failure is the one to report
                remove([target])
        raise


class _Output(io.BufferedIOBase):
    """What `write_atomically` hands out: names the final path in errors, cannot publish."""

    def __init__(self, raw: Any, path: str) -> None:
        self._raw = raw
        self._path = path
        self._n_bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self.closed:
            raise ValueError(f"write to {self._path} after close")
        n_bytes = memoryview(data).nbytes
        if n_bytes:
            with _naming(self._path):
                self._raw.write(data)
            self._n_bytes += n_bytes
        return n_bytes

    def tell(self) -> int:
        return self._n_bytes


@contextlib.contextmanager
def _naming(path: str) -> Iterator[None]:
    """Makes what the storage below raises an `OSError` that says which file it is about.

    Beam passes on what the clients of object stores raise, or wraps it, in layers.
    """
    try:
        yield
    except Exception as error:
        if _OF_CLIENTS.search(str(error)):
            _require_client(_scheme(path))
        if isinstance(error, (ValueError, TypeError)):  # no file system for this path; a bug
            raise
        cause: Any = error
        while details := getattr(cause, "exception_details", None):  # BeamIOError
            cause = next(iter(details.values()))
        if isinstance(cause, OSError) and cause.errno:
            number, what = cause.errno, cause.strerror or str(cause)
        else:
            answer = getattr(cause, "response", None)
            status: Any = getattr(cause, "code", None) or getattr(answer, "status_code", None)
            number = _ERRNO_OF_STATUS.get(status, errno.EIO)
            what = os.strerror(number) if status in _ERRNO_OF_STATUS else str(cause)
        raise OSError(number, what, path) from error


def _require_client(scheme: str) -> None:
    """Raises OSError, naming the extra, where a file system's client is not installed."""
    extra, module = _CLIENTS.get(scheme, ("", ""))
    try:
        missing = bool(module) and importlib.util.find_spec(module) is None
    except ModuleNotFoundError:  # a package above it
        missing = True
    if missing:
        raise OSError(
            f"{scheme}:// needs the extra {extra}, which is not installed (in a clone: pip install "
            f"-e '.[{extra}]')"
        )


def _finish(raw: Any, n_bytes: int) -> None:
    """Makes the bytes durable and, on an object store, the object visible."""
    try:
        descriptor = raw.fileno()
    except (AttributeError, OSError):
        descriptor = None  # an upload
    if descriptor is not None:
        raw.flush()
        os.fsync(descriptor)
    elif not n_bytes:
        # S3 refuses to complete a multipart upload of no parts, and Beam sends none for an empty
        # file; one part of no bytes is allowed.
        uploader: Any = getattr(getattr(raw, "raw", None), "_uploader", None)
        if hasattr(uploader, "_write_to_s3"):
            uploader._write_to_s3(b"")
    raw.close()


def _abandon(raw: Any) -> None:
    """Closes a file without completing its upload, not even when it is collected as garbage.

    Beam's s3, azfs and hdfs files are a `io.BufferedWriter` on a stream whose ``close`` completes
    the upload, and the collector calls ``close``. Marking the stream closed by way of its base
    class keeps that from happening. Files of gs have ``terminate`` for the purpose.
    """
    with contextlib.suppress(Exception):
        stream = getattr(raw, "raw", None)
        if hasattr(raw, "terminate"):
            try:
                raw.terminate()
            finally:  # where even that fails, an upload without a buffer has nothing to complete
                raw._buffer.close()
        elif isinstance(stream, io.RawIOBase) and not isinstance(stream, io.FileIO):
            io.RawIOBase.close(stream)
        else:
            raw.close()


def _rename(source: str, target: str) -> None:
    if is_local(target):
        os.replace(source, target)
        return
    remove([target])  # hdfs renames onto nothing that exists
    _file_systems().rename([source], [target])


def _match_one(pattern: str) -> list[tuple[str, int]]:
    if is_local(pattern):
        pattern = os.path.expanduser(pattern)
        if os.path.isfile(pattern):
            return [(pattern, os.path.getsize(pattern))]
        if os.path.exists(pattern) and not os.path.isdir(pattern):
            raise NoInputError(f"{pattern!r} is no regular file (--input)")
        if os.path.isdir(pattern):
            raise NoInputError(
                f"{pattern!r} is a folder; name the files in it, as in "
                f"{os.path.join(pattern, '*.warc.wet.gz')!r} (--input)"
            )
    # Beam looks for a relative pattern in the folder "", which does not exist.
    relative = is_local(pattern) and not os.path.isabs(pattern)
    wanted = os.path.join(os.curdir, pattern) if relative else pattern
    files = []
    with _naming(pattern):
        found = _file_systems().match([wanted])[0].metadata_list
    for entry in found:
        path = os.path.normpath(entry.path) if is_local(entry.path) else entry.path
        if not _TEMPORARY.fullmatch(posixpath.basename(path)):
            files.append((path, int(entry.size_in_bytes)))
    return files


def _all_names(folder: str) -> list[str]:
    if is_local(folder):
        # Beam would walk every folder below as well.
        try:
            with os.scandir(folder) as entries:
                return sorted(entry.name for entry in entries if entry.is_file())
        except FileNotFoundError:
            return []
    base = folder.rstrip("/")
    with _naming(folder):
        found = _file_systems().match([glob.escape(base) + "/*"])[0].metadata_list
    return sorted(posixpath.basename(entry.path) for entry in found)


def _temporary_for(path: str) -> str:
    folder, name = os.path.split(path) if is_local(path) else posixpath.split(path)
    return join(folder, f".{name}.tmp-{uuid.uuid4().hex}")


def _scheme(path: str) -> str:
    found = _SCHEME.match(path)
    return found.group(1).lower() if found else ""


def _file_systems() -> Any:
    # Imported late: naming and joining paths should not cost a second of start-up.
    from pipelines.quiet_beam import beam

    file_systems = beam.io.filesystems.FileSystems
    if file_systems._pipeline_options is None:  # in a command that makes no pipeline; s3 wants some
        file_systems.set_options(beam.options.pipeline_options.PipelineOptions([]))
    return file_systems


def _uncompressed() -> str:
    from pipelines.quiet_beam import beam

    return str(beam.io.filesystem.CompressionTypes.UNCOMPRESSED)
