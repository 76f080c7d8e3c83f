"""The input files of a build: named, matched by patterns, or in lists of Common Crawl."""

import concurrent.futures
from collections.abc import Callable, Iterable, Sequence

from pipelines import storage
from pipelines.corpus import layout
from pipelines.crawl.paths_file import Positions, input_addresses, read_crawl, read_paths
from pipelines.storage import FileInfo

#: An input that begins so is a list of inputs.
LIST_MARK = "@"
_SIZES_AT_A_TIME = 10  # requests, see pipelines.storage.manners
_MANY = 1000  # sizes that take a while


def absolute_input(path: str) -> str:
    """Return an input with a path that means the same from every folder.

    >>> absolute_input("@/lists/wet.paths.gz")
    '@/lists/wet.paths.gz'
    """
    mark = LIST_MARK if path.startswith(LIST_MARK) else ""
    return mark + layout.absolute(path.removeprefix(mark))


def input_files(
    inputs: Sequence[str],
    crawl: Iterable[str],
    files: Positions | None,
    base_url: str,
    note: Callable[[str], None] = lambda line: None,
) -> list[FileInfo]:
    """Return the input files of a build, with their sizes, sorted by path, each once.

    Args:
        inputs: Paths, patterns, and ``@LIST`` (`pipelines.crawl.paths_file`).
        crawl: Ids of crawls, or lists.
        files: Which files of each list.
        base_url: What the paths of lists are relative to; empty: see `paths_file.base_of`.
        note: Takes a line before many sizes are asked for.

    Raises:
        NoInputError: A pattern matches no file.
        ValueError: A list is damaged, or names files outside of its place.
        OSError: A list or a file is missing or cannot be read.
    """
    if LIST_MARK in inputs:
        raise ValueError("give a list after @, such as @wet.paths.gz (--input)")
    patterns = [path for path in inputs if not path.startswith(LIST_MARK)]
    found = {file.path: file for file in (storage.match(patterns) if patterns else ())}
    listed: dict[str, None] = {}
    for path in inputs:
        if path.startswith(LIST_MARK):
            paths = read_paths(path.removeprefix(LIST_MARK))
            named = input_addresses(path.removeprefix(LIST_MARK), paths, files, base_url, "--input")
            listed |= dict.fromkeys(named)
    for name in crawl:
        where, paths = read_crawl(name, base_url)
        listed |= dict.fromkeys(input_addresses(where, paths, files, base_url, "--crawl"))
    unknown = [path for path in listed if path not in found]
    if len(unknown) > _MANY:
        note(f"c4: asking for the sizes of {len(unknown):,} files")
    with concurrent.futures.ThreadPoolExecutor(_SIZES_AT_A_TIME) as pool:
        try:
            for file in pool.map(storage.stat, unknown):
                found[file.path] = file
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return sorted(found.values())
