"""Small files read whole, as configurations and indices are; and errors that name their file."""

import contextlib
import fcntl
import importlib.resources
import json
import os
import pathlib
import shutil
import stat
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines import storage

#: Bytes; the largest such file of a published T5, mT5's tokenizer.json, has 16 MB.
LIMIT = 256 << 20


def read_small_file(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a file of this machine or of an object store.

    Raises ValueError for what is not a plain file, which may never end (a pipe, a device), and
    for one of more than 256 MiB, which is none of these files; OSError as ``open`` does.
    """
    name = os.fspath(path)
    if storage.is_local(name):
        name = storage.local_path(name)
        found = os.stat(name)
        if not stat.S_ISREG(found.st_mode):  # not even opened: a pipe would wait for its other end
            raise ValueError(f"{name}: not a file but a pipe, a device or a folder")
        size = found.st_size
    else:
        size = storage.stat(name).size
    if size > LIMIT:
        raise ValueError(f"{name}: {size:,} bytes, too large for what it should be")
    return storage.read_bytes(name)


def read_json_object(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a small file that is one JSON object. Raises ValueError, naming it, if it is not."""
    return json_object(read_small_file(path), f"{path}: damaged")


def json_object(content: str | bytes, place: str) -> dict[str, Any]:
    """Return the JSON object that a text is. Raises ValueError, naming the place, if it is none."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"{place}: no JSON object")
    return found


def packaged_toml(module: str, name: str) -> dict[str, Any]:
    """Return the tables of a TOML file of this package, which lies beside a module."""
    folder = importlib.resources.files(module.rpartition(".")[0])
    return tomllib.loads(folder.joinpath(name).read_text("utf-8"))


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Give an OSError from inside the file's name, where it has none, as of a full disk.

    >>> with naming("run.json"):
    ...     raise OSError(28, "No space left on device")
    Traceback (most recent call last):
        ...
    OSError: [Errno 28] No space left on device: 'run.json'
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise type(error)(error.errno, error.strerror, os.fspath(path)) from error


@contextlib.contextmanager
def naming_option(flag: str) -> Iterator[None]:
    """Name the option that gave what an error from inside is about.

    >>> with naming_option("--vocab"):
    ...     open("/nowhere/a.model")
    Traceback (most recent call last):
        ...
    FileNotFoundError: [Errno 2] No such file or directory (--vocab): '/nowhere/a.model'
    """
    try:
        yield
    except OSError as error:
        error.strerror = f"{error.strerror or error} ({flag})"
        raise
    except ValueError as error:
        if flag not in str(error):
            error.args = (f"{error} ({flag})",)
        raise


@contextlib.contextmanager
def locked_file(path: pathlib.Path, taken: str) -> Iterator[None]:
    """Hold a lock, which goes with its process, however that ends.

    Raises ValueError, saying ``taken``, when another process of this machine holds it, and for
    what is not a file. On a file system without locks nothing is locked.
    """
    if path.exists() and not path.is_file():  # a pipe would wait for its other end
        raise ValueError(f"{path} is not a file: move it away")
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(taken) from None
        except OSError:
            pass
        yield


def require_local(path: str, option: str) -> None:
    """Raise ValueError for a path that is not on this machine."""
    if not storage.is_local(path):
        raise ValueError(f"{path}: give a path of this machine, and copy it afterwards ({option})")


def require_absent(path: str) -> None:
    """Raise ValueError for a folder that exists, on this machine or in an object store."""
    local = storage.is_local(path)
    if os.path.lexists(storage.local_path(path)) if local else storage.walk(path):
        raise ValueError(f"{path} exists already: give another folder or delete it (--output)")


@contextlib.contextmanager
def new_folder(path: str, last: str) -> Iterator[pathlib.Path]:
    """Yield a folder of this machine that becomes ``path`` at the end, whole or not at all.

    In an object store its files are copied one by one, ``last`` after all others: without that
    file, a folder of this kind does not count. Raises ValueError as `require_absent` does.
    """
    require_absent(path)
    if not storage.is_local(path):
        with tempfile.TemporaryDirectory() as work:
            yield pathlib.Path(work)
            for names in (set(storage.walk(work)) - {last}, {last}):
                storage.copy_files((os.path.join(work, n), storage.join(path, n)) for n in names)
        return
    final = pathlib.Path(storage.local_path(path)).absolute()
    final.parent.mkdir(parents=True, exist_ok=True)
    scratch = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    try:
        scratch.mkdir()
        yield scratch
        scratch.rename(final)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a file, whole or not at all, and its folder with it."""
    storage.write_bytes(os.fspath(path), text.encode())


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write a JSON object for people and programs as `write_text` writes."""
    write_text(path, f"{json.dumps(content, indent=2, ensure_ascii=False)}\n")
