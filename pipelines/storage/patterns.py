"""Patterns of file names: ``*`` and ``?`` within a folder, ``**`` across folders, ``[abc]``.

A pattern is followed folder by folder, so that only folders that it can match in are listed.
"""

import concurrent.futures
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from pipelines.storage.paths import FileInfo

__all__ = ["AT_A_TIME", "Tree", "expand", "has_magic", "in_parallel", "translate"]

AT_A_TIME = 32  # requests to a remote file system
_MAGIC = re.compile(r"[*?[]")
_T = TypeVar("_T")
_R = TypeVar("_R")


class Tree(Protocol):
    """A file system as patterns see it. ``wanted`` is matched against names, whole.

    Folders that do not exist have nothing in them; every other failure is raised.
    """

    remote: bool

    def find(self, path: str) -> FileInfo | None:
        """Return the file of that name, or None."""

    def files(self, folder: str, wanted: re.Pattern[str]) -> list[FileInfo]:
        """Return the wanted files directly in a folder."""

    def folders(self, folder: str, wanted: re.Pattern[str]) -> list[str]:
        """Return the paths of the wanted folders directly in a folder."""

    def below(self, folder: str, wanted: re.Pattern[str]) -> list[FileInfo]:
        """Return all files below a folder whose path from there is wanted."""


def has_magic(text: str) -> bool:
    """Say whether a path is a pattern."""
    return _MAGIC.search(text) is not None


def expand(tree: Tree, root: str, pattern: str) -> Iterator[FileInfo]:
    """Find the files that match a pattern.

    Args:
        tree: The file system.
        root: The folder from which the pattern leads on: ``/``, ``gs://bucket/``, or "".
        pattern: What follows it, with ``/`` between folders.
    """
    folders = [root]
    parts = pattern.split("/")
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if "**" in part:
            wanted = translate("/".join(parts[number:]))
            for files in in_parallel(tree, folders, lambda at: tree.below(at, wanted)):  # noqa: B023
                yield from files
            return
        if not has_magic(part):
            folders = [f"{folder}{part}{'' if last else '/'}" for folder in folders]
            if last:
                found = in_parallel(tree, folders, tree.find)
                yield from (file for file in found if file is not None)
            continue
        wanted = translate(part)
        if last:
            for files in in_parallel(tree, folders, lambda at: tree.files(at, wanted)):  # noqa: B023
                yield from files
        else:
            levels = in_parallel(tree, folders, lambda at: tree.folders(at, wanted))  # noqa: B023
            folders = [f"{folder}/" for level in levels for folder in level]


def in_parallel(tree: Tree, items: Iterable[_T], call: Callable[[_T], _R]) -> list[_R]:
    """Call a function with every item, several at a time on a remote file system."""
    items = list(items)
    if len(items) < 2 or not tree.remote:
        return list(map(call, items))
    with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
        return list(pool.map(call, items))


def translate(pattern: str) -> re.Pattern[str]:
    """Return a pattern as a regular expression.

    >>> translate("a*[!x]?.gz").fullmatch("a12y3.gz") is None
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
            # A bracket right at the beginning of a class is one of its members.
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
        raise ValueError(f"{pattern!r} is no pattern: {error} (--input)") from None
