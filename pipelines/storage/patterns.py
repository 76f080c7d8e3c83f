"""Patterns of file names: ``*`` and ``?`` within a folder, ``**`` across folders, ``[abc]``.

A pattern is expanded folder by folder, so that only folders in which it can match are listed.
"""

import abc
import concurrent.futures
import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

from pipelines.storage.paths import FileInfo, NoInputError, is_temporary, last_part

AT_A_TIME = 32  # requests to a remote file system
_MAGIC = re.compile(r"[*?[]")
_T = TypeVar("_T")
_R = TypeVar("_R")


class Entry(NamedTuple):
    """What lies directly in a folder."""

    file: FileInfo  # of a folder: its path
    changed: float = 0.0  # Unix, s
    is_folder: bool = False


class Tree(abc.ABC):
    """A file system. ``wanted`` must match a whole name.

    A missing folder counts as empty; every other failure is raised.
    """

    remote = True

    @abc.abstractmethod
    def stat(self, path: str) -> FileInfo:
        """Return size and identity of a file."""

    @abc.abstractmethod
    def entries(self, folder: str) -> list[Entry]:
        """Return what lies directly in a folder, links and leftovers too."""

    @abc.abstractmethod
    def below(self, folder: str, wanted: re.Pattern[str]) -> list[FileInfo]:
        """Return the files below a folder whose path relative to it is wanted."""

    def find(self, path: str) -> FileInfo | None:
        """Return the file of that name, or None."""
        try:
            return self.stat(path)
        except FileNotFoundError:
            return None

    def exists(self, path: str) -> bool:
        """Return whether there is a file of that name, or on a system with folders a folder."""
        return self.find(path) is not None

    def listdir(self, folder: str) -> list[tuple[str, int, float]]:
        """Return names, sizes and times of change of the files directly in a folder."""
        found = [each for each in self.entries(folder) if not each.is_folder]
        return [(last_part(file.path), file.size, changed) for file, changed, _ in found]

    def names(self, folder: str) -> list[str]:
        """Return the names of the files directly in a folder."""
        return [name for name, _, _ in self.listdir(folder)]

    def files(self, folder: str, wanted: re.Pattern[str]) -> list[FileInfo]:
        """Return the wanted files directly in a folder."""
        return [
            file
            for file, _, is_folder in self.entries(folder)
            if wanted.fullmatch(name := last_part(file.path))
            and not (is_folder or is_temporary(name))
        ]

    def folders(self, folder: str, wanted: re.Pattern[str]) -> list[str]:
        """Return the paths of the wanted folders directly in a folder."""
        paths = [each.file.path for each in self.entries(folder) if each.is_folder]
        return [path for path in paths if wanted.fullmatch(last_part(path))]


def has_magic(text: str) -> bool:
    """Return whether a path is a pattern."""
    return _MAGIC.search(text) is not None


def expand(tree: Tree, root: str, pattern: str) -> Iterator[FileInfo]:
    """Find the files that match a pattern.

    Args:
        tree: The file system.
        root: The folder to which the pattern is relative: ``/``, ``gs://bucket/``, or "".
        pattern: The pattern, with ``/`` between folders.
    """
    folders = [root]
    parts = pattern.split("/")
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if "**" in part:
            wanted = compile_pattern("/".join(parts[number:]))
            for files in in_parallel(tree, folders, lambda at: tree.below(at, wanted)):  # noqa: B023
                yield from files
            return
        if not has_magic(part):
            folders = [f"{folder}{part}{'' if last else '/'}" for folder in folders]
            if last:
                found = in_parallel(tree, folders, tree.find)
                yield from (file for file in found if file is not None)
            continue
        wanted = compile_pattern(part)
        if last:
            for files in in_parallel(tree, folders, lambda at: tree.files(at, wanted)):  # noqa: B023
                yield from files
        else:
            levels = in_parallel(tree, folders, lambda at: tree.folders(at, wanted))  # noqa: B023
            folders = [f"{folder}/" for level in levels for folder in level]


def in_parallel(tree: Tree, items: Iterable[_T], call: Callable[[_T], _R]) -> list[_R]:
    """Call a function with every item, in parallel on a remote file system."""
    items = list(items)
    if len(items) < 2 or not tree.remote:
        return list(map(call, items))
    with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
        return list(pool.map(call, items))


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return a pattern as a regular expression.

    Raises:
        NoInputError: The pattern has a range such as ``[z-a]``.

    >>> compile_pattern("a*[!x]?.gz").fullmatch("a12y3.gz") is None
    False
    """
    found, at = [], 0
    while at < len(pattern):
        sign, at = pattern[at], at + 1
        if sign == "*":
            if pattern[at : at + 1] == "*":
                found.append(".*")
                at += 1
            else:
                found.append("[^/]*")
        elif sign == "?":
            found.append("[^/]")
        elif sign == "[":
            negated = pattern[at : at + 1] in ("!", "^")
            # A bracket at the beginning of a class is one of its members.
            end = pattern.find("]", at + negated + 1)
            members = pattern[at + negated : end]
            if end < 0 or "/" in members:
                found.append(r"\[")
                continue
            at = end + 1
            members = re.sub(r"([\\\[\]^&~|])", r"\\\1", members)
            found.append(f"[^/{members}]" if negated else f"[{members}]")
        else:
            found.append(re.escape(sign))
    try:
        return re.compile("".join(found), re.DOTALL)
    except re.error as error:
        raise NoInputError(f"{pattern!r} is not a valid pattern: {error.msg} (--input)") from None
