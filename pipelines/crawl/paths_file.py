"""Lists of WET files: Common Crawl's ``wet.paths.gz``, and lists of the same form.

A list has one path a line, relative to an address or folder. Its lines come from the network, so
they are hostile: none may name a file outside of that place.
"""

import errno
import io
import re
import urllib.parse
from collections.abc import Iterable, Sequence
from typing import BinaryIO, NamedTuple

from pipelines import storage
from pipelines.crawl.whole_gzip import DamagedError, TooLargeError, WholeGzip
from pipelines.printing import counted, printable
from pipelines.storage import NoInputError
from pipelines.storage.manners import Manners
from pipelines.storage.paths import require_web_address
from pipelines.storage.web import WebFile, shared_manners

#: commoncrawl.org/get-started: outside of AWS
BASE_URL = "https://data.commoncrawl.org"
#: Where lists of Common Crawl are, and what their lines begin with.
_CRAWL_DATA = "crawl-data/"
_CRAWL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_SLICE = re.compile(r"([0-9]{1,9})?:([0-9]{1,9})?")
_MOST_LINE_BYTES = 1024
_MOST_NAME_BYTES = 200  # file systems allow 255; suffixes are added
# A list of 100,000 lines has 14 MB and is stored in 200 kB.
_MOST_STORED_BYTES = 16 << 20
_MOST_LIST_BYTES = 64 << 20
_MOST_LINES = 1_000_000
#: Help texts of options that several commands have.
FILES_HELP = "only the files at these positions of each list, counted from 0"
BASE_URL_HELP = f"what the paths in lists are relative to, instead of {BASE_URL}"
Positions = tuple[int, int | None]
_GZIP = b"\x1f\x8b"


class PathsFile(NamedTuple):
    """The lines of a list."""

    #: In the order of the list, each path once; None for a line that is not a path of a file, so
    #: that positions stay.
    paths: tuple[str | None, ...]
    #: What is wrong with the bad lines, one message each.
    problems: tuple[str, ...] = ()

    def part(self, files: Positions | None) -> tuple[str, ...]:
        """Return the good paths at these positions; None: all."""
        return tuple(path for path in self.paths[slice(*files or (0, None))] if path is not None)

    def part_of(self, listed: str, files: Positions | None) -> tuple[str, ...]:
        """Return the good paths of the list ``listed`` at these positions.

        Raises:
            ValueError: There is none, though no line is bad.
        """
        part = self.part(files)
        if not part and not self.problems:
            raise ValueError(f"{listed} has {counted(len(self.paths), 'file')}, none of --files")
        return part


def read_positions(text: str) -> Positions:
    """Return the positions that ``A:B`` names: the first, and the one after the last, if any.

    Raises:
        ValueError: It has another form, or names nothing.

    >>> read_positions("0:20"), read_positions("5:")
    ((0, 20), (5, None))
    """
    found = _SLICE.fullmatch(text)
    first, end = (found[1], found[2]) if found else (None, None)
    if found is None or (first is None and end is None) or (end and int(end) <= int(first or 0)):
        raise ValueError(f"--files wants A:B with A < B, such as 0:20, got {text[:80]!r}")
    return int(first or 0), int(end) if end else None


def require_crawls(crawls: Iterable[str]) -> None:
    """Raise ValueError for what is neither the id of a crawl nor the path of a list."""
    for crawl in crawls:
        if not (is_list(crawl) or _CRAWL_ID.fullmatch(crawl)):
            raise ValueError(
                f"{printable(crawl[:100])!r} is neither a crawl such as CC-MAIN-2019-18 nor a list "
                "such as wet.paths.gz (--crawl)"
            )
        require_web_address(crawl, "--crawl")


def require_base_url(base_url: str, schemes: Sequence[str]) -> None:
    """Raise ValueError for an address without one of these schemes, or that no path can follow."""
    if base_url and storage.scheme(base_url) not in schemes:
        known = " or ".join(f"{scheme}://" for scheme in schemes)
        raise ValueError(f"give an address with {known}, got {base_url[:200]!r} (--base-url)")
    require_web_address(base_url, "--base-url")
    if storage.scheme(base_url) in ("http", "https") and set("?#") & set(base_url):
        raise ValueError(f"nothing can follow {base_url[:200]!r} (--base-url)")


def list_address(crawl: str, base_url: str) -> str:
    """Return where the list of a crawl's WET files is.

    >>> list_address("CC-MAIN-2019-18", "")
    'https://data.commoncrawl.org/crawl-data/CC-MAIN-2019-18/wet.paths.gz'
    >>> list_address("lists/wet.paths.gz", "")
    'lists/wet.paths.gz'
    """
    if is_list(crawl):
        return crawl
    return address(base_url or BASE_URL, f"{_CRAWL_DATA}{crawl}/wet.paths.gz")


def address(base_url: str, path: str) -> str:
    """Return the address of a path of a list.

    >>> address("https://data.commoncrawl.org/", "crawl-data/a b.gz")
    'https://data.commoncrawl.org/crawl-data/a%20b.gz'
    """
    if storage.scheme(base_url) in ("http", "https"):
        path = urllib.parse.quote(path)
    return storage.join(base_url.rstrip("/"), path)


def base_of(listed: str, paths: Sequence[str], base_url: str) -> str:
    """Return the address or folder that the paths of a list are relative to.

    Args:
        listed: Where the list is.
        paths: Its paths.
        base_url: As the user gave it; it decides, unless empty.

    Returns:
        For paths of Common Crawl, which begin with ``crawl-data/``, its address, or the server
        that the list is on; for others the folder of the list.
    """
    if base_url:
        return base_url
    if paths and paths[0].startswith(_CRAWL_DATA):
        if storage.is_local(listed):
            return BASE_URL
        before, found, _ = listed.partition(f"/{_CRAWL_DATA}")
        if found:
            return before
    return listed.rpartition("/")[0] or "."


def read_paths(listed: str, manners: Manners | None = None) -> PathsFile:
    """Read a list, local or remote. One that a server cuts off or leaves empty is asked for again.

    Args:
        listed: Its path or address.
        manners: The connections of the run; None: those of the process.

    Raises:
        OSError: It cannot be read, or is too large.
        ValueError: It is empty or damaged.
    """
    if storage.scheme(listed) not in ("http", "https"):
        with storage.open_raw(listed) as file:
            try:
                return _paths_in(file, listed)
            except ValueError as error:
                raise ValueError(f"{listed}: {error}") from None
    manners = manners or shared_manners()
    patience = manners.patience(listed)
    while True:
        try:
            with io.BufferedReader(WebFile(listed, manners=manners)) as file:
                return _paths_in(file, listed)
        except ValueError as error:
            what = str(error)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            what = "changed while it was read"
        patience.fault(what)


def read_crawl(crawl: str, base_url: str, manners: Manners | None = None) -> tuple[str, PathsFile]:
    """Return where the list that ``--crawl`` names is, and its paths; see `read_paths`.

    Raises:
        NoInputError: There is no crawl of this id.
    """
    listed = list_address(crawl, base_url)
    try:
        return listed, read_paths(listed, manners)
    except FileNotFoundError:
        if is_list(crawl):
            raise
        raise NoInputError(
            f"{crawl} is not a crawl: there is no {listed}; the names of crawls are on "
            "commoncrawl.org/get-started (--crawl)"
        ) from None


def _paths_in(file: BinaryIO | io.BufferedReader, listed: str) -> PathsFile:
    stored = file.read(_MOST_STORED_BYTES + 1)
    try:
        if len(stored) > _MOST_STORED_BYTES:
            raise OverflowError(f"larger than {_MOST_STORED_BYTES >> 20} MB")
        return parse_paths(unpack(stored))
    except OverflowError as error:
        raise OSError(errno.EFBIG, f"{error}, so it is not a list of paths", listed) from None


def unpack(stored: bytes) -> bytes:
    """Return the text of a list, which may be compressed with gzip.

    Raises:
        ValueError: It is cut off or damaged.
        OverflowError: It unpacks to more than 64 MB.
    """
    if not stored.startswith(_GZIP):
        return stored
    parts: list[bytes] = []
    whole = WholeGzip(_MOST_LIST_BYTES, parts.append)
    try:
        whole.feed(stored)
        whole.require_whole()
    except TooLargeError:
        raise OverflowError(f"unpacks to more than {_MOST_LIST_BYTES >> 20} MB") from None
    except DamagedError as error:
        raise ValueError(f"it {error}: fetch it again") from None
    return b"".join(parts)


def parse_paths(text: bytes) -> PathsFile:
    r"""Return the paths of a list, and what is wrong with its other lines.

    A path is relative, without ``..``, backslashes, a scheme or characters that cannot be printed.
    Empty lines are ignored.

    Raises:
        ValueError: There is no line.
        OverflowError: There are more than a million lines.

    >>> parse_paths(b"a/b.gz\n/etc/passwd\n\na/b.gz\n").paths
    ('a/b.gz', None)
    """
    if text.count(b"\n") > _MOST_LINES:
        raise OverflowError(f"has more than {_MOST_LINES:,} lines")
    paths: dict[str, None] = {}
    found: list[str | None] = []
    problems = []
    for number, line in enumerate(text.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        line = line.removesuffix(b"\r")
        if not line:
            continue
        path = line.decode("utf-8", "replace")
        if wrong := _problem(line, path):
            shown = printable(path[:100])
            problems.append(f"line {number} {wrong}: {shown!r}")
            found.append(None)
        elif path not in paths:
            paths[path] = None
            found.append(path)
    if not found:
        raise ValueError("it names no file")
    return PathsFile(tuple(found), tuple(problems))


def _problem(line: bytes, path: str) -> str:
    """Return why a line is not a path of a file; empty if it is one."""
    parts = path.split("/")
    if len(line) > _MOST_LINE_BYTES or len(parts[-1].encode()) > _MOST_NAME_BYTES:
        return "is too long"
    if not path.isprintable() or "\ufffd" in path:
        return "has characters that cannot be printed"
    if "\\" in path:
        return "has a backslash"
    if storage.scheme(path) or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", path):
        return "has a scheme"
    if path.startswith(("/", "~")):
        return "is not relative"
    if any(part in ("", ".", "..") for part in parts) or parts[-1].startswith("."):
        return "is not a plain path"
    if path.strip() != path:
        return "has blanks around it"
    return ""


def is_list(crawl: str) -> bool:
    """Return whether ``--crawl`` names a list and not the id of a crawl."""
    return "/" in crawl or "\\" in crawl or crawl.endswith((".gz", ".paths", ".txt"))


def input_addresses(
    listed: str, found: PathsFile, files: Positions | None, base_url: str, flag: str
) -> tuple[str, ...]:
    """Return the inputs of a build that a list names.

    Args:
        listed: Where the list is.
        found: Its paths.
        files: Which of them.
        base_url: See `base_of`.
        flag: The option that names the list, for messages.

    Raises:
        ValueError: It has a line that is not a path of a file, or no file at these positions.
    """
    if found.problems:
        more = len(found.problems) - 1
        also = f" (and {counted(more, 'more line')})" if more else ""
        raise ValueError(f"{listed}: {found.problems[0]}{also} ({flag})")
    paths = found.part_of(listed, files)
    base = base_of(listed, paths, base_url)
    return tuple(address(base, path) for path in paths)
