"""Paths of files, local and remote, and the metadata of a file."""

import os
import posixpath
import re
import urllib.parse
import uuid
from typing import NamedTuple

_SCHEME = re.compile(r"([a-zA-Z][-a-zA-Z0-9+.]*)://")
_TEMPORARY = re.compile(r"\..+\.tmp-[0-9a-f]{32}")


class FileInfo(NamedTuple):
    """A file and its metadata."""

    path: str
    size: int  # bytes
    #: Changes whenever the content does: ``mtime:…,ctime:…`` in ns, ``mtime:…`` or ``etag:…``.
    #: Empty if the file system has no such metadata.
    identity: str = ""


class NoInputError(FileNotFoundError):
    """A pattern that matches no file. The message is one line and says what to do."""


def folder_error(path: str) -> NoInputError:
    """Return the error for a folder that was given as an input."""
    inside = join(path, "*.warc.wet.gz")
    return NoInputError(f"{path!r} is a folder; name the files in it, as in {inside!r} (--input)")


def scheme(path: str) -> str:
    """Return the scheme of a path in lower case, or "" for a path without one."""
    found = _SCHEME.match(path)
    return found.group(1).lower() if found else ""


def is_local(path: str) -> bool:
    """Return whether a path is on this machine: it has no scheme, or ``file://``.

    >>> is_local("/data/crawl"), is_local("file:///data/crawl"), is_local("s3://bucket/crawl")
    (True, True, False)
    """
    return scheme(path) in ("", "file")


def local_path(path: str) -> str:
    """Return a local path without ``file://``; a path without a scheme is unchanged.

    Raises:
        ValueError: The URL names another machine, or its path is not absolute.

    >>> local_path("file:///data/new%20crawl/*.gz"), local_path("crawl/a%20b.gz")
    ('/data/new crawl/*.gz', 'crawl/a%20b.gz')
    """
    if scheme(path) != "file":
        return path
    host, slash, rest = path.split("://", 1)[1].partition("/")
    if not slash or host not in ("", "localhost"):
        raise ValueError(f"{path}: write file:// URLs as file:///FOLDER/NAME, without a host")
    return "/" + urllib.parse.unquote(rest, errors="surrogateescape")


def require_web_address(address: str, option: str) -> None:
    """Raise ValueError for a web address without a host, or with a password.

    Other paths are not looked at. A corpus publishes the addresses of its inputs; ``~/.netrc`` is
    where requests find passwords.

    Args:
        address: The path or address.
        option: What gave it, for the message.
    """
    if scheme(address) not in ("http", "https"):
        return
    try:
        parts = urllib.parse.urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host:
        raise ValueError(f"{address[:200]!r} names no web server ({option})")
    if "@" in parts.netloc:
        raise ValueError(
            f"an address on {host} has a user name or password, which the corpus would publish: "
            f"leave it out and put it into ~/.netrc ({option})"
        )


def join(base: str, *parts: str) -> str:
    """Join parts of a path, with ``/`` for every path that has a scheme.

    >>> join("gs://bucket/corpus", "cleaned", "a.arrow")
    'gs://bucket/corpus/cleaned/a.arrow'
    """
    return posixpath.join(base, *parts) if scheme(base) else os.path.join(base, *parts)


def last_part(path: str) -> str:
    """Return what follows the last ``/`` of a path.

    >>> last_part("gs://bucket/corpus/a.arrow")
    'a.arrow'
    """
    return path.rsplit("/", 1)[-1]


def temporary_for(path: str) -> str:
    """Return a new name in the same folder, for a file that is not complete."""
    folder, name = posixpath.split(path) if scheme(path) else os.path.split(path)
    return join(folder, f".{name}.tmp-{uuid.uuid4().hex}")


def is_temporary(name: str) -> bool:
    """Return whether a file name (without folders) was made by `temporary_for`."""
    return _TEMPORARY.fullmatch(name) is not None
