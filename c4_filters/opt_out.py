"""Opt-out lists: hosts and addresses whose pages their owners want left out of a corpus.

One entry a line; blank lines, and what follows a ``#`` at the start of a line or after a blank,
are comments.

``example.com``
    A host, and every host below it.
``example.com/private/*``
    Addresses, as ``HOST/PATH``. ``*`` stands for any characters, also none and also slashes; no
    other sign is special. Without a ``*`` at its end, an address is one page, with any number of
    slashes behind it, as url deduplication has it.
``*.example.com``
    Every page of the hosts that match: the same as ``*.example.com/*``.

Entries and addresses are compared in one form: without scheme, user, port, fragment and the
tracking queries that url deduplication ignores, percent signs decoded, case folded, and hosts as
IDNA names in ASCII (UTS 46). So ``http://EXAMPLE.com:80/a`` and ``https://example.com/a#top`` are
one address. A leading ``www.`` in front of a path does not matter either.
"""

import re
import urllib.parse
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import ahocorasick_rs

from c4_filters.urls import without_tracking

_SCHEME = re.compile(r"\A[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_AUTHORITY = re.compile(r"[^/?#\\]*")
_PORT = re.compile(r":\d*\Z")
_COMMENT = re.compile(r"(\A|\s)#.*")
_BAD = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029]")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")  # RFC 1123, and "_" that crawls have
_HOST_WITH_STARS = re.compile(r"[a-z0-9_.*-]+")
_IPV6 = re.compile(r"\[[0-9a-f:.]+\]")
_LONGEST = 4_000  # characters of an entry
_MOST_SHOWN = 80


class _Pattern(NamedTuple):
    entry: str  # as written
    host: tuple[str, ...]  # what stands between the stars, in form
    path: tuple[str, ...]

    def matches(self, host: str, path: str) -> bool:
        """Return whether a host and a path in form match."""
        if not _matches(self.host, host):
            return False
        if not self.path[-1]:  # a * at its end
            return _matches(self.path, path)
        page = path.rstrip("/")  # slashes at its end do not matter
        return _matches(self.path, page) or _matches(self.path, f"{page}/")

    @property
    def key(self) -> str:
        """The longest text that every match has in its host and path, joined."""
        joined = (*self.host[:-1], self.host[-1] + self.path[0], *self.path[1:])
        return max(joined, key=len)


def _matches(pieces: Sequence[str], text: str) -> bool:
    """Return whether a text consists of pieces, with anything between them.

    Its time does not grow with the product of pieces and length: no piece is tried twice.
    """
    if len(pieces) == 1:
        return text == pieces[0]
    first, *middle, last = pieces
    at, end = len(first), len(text) - len(last)
    if at > end or not text.startswith(first) or not text.endswith(last):
        return False
    for piece in middle:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


class OptOut:
    r"""A list in the form that finds an address's entry in some microseconds.

    >>> opt_out = parse_opt_out("example.com  # asked on 1 April\nexample.org/private/*")
    >>> opt_out.entry_for("https://blog.Example.com/a")
    'example.com'
    >>> opt_out.entry_for("http://www.example.org/private/") is not None
    True
    >>> opt_out.entry_for("https://notexample.com/") is None
    True
    """

    def __init__(self, hosts: Iterable[tuple[str, str]], patterns: Iterable[_Pattern]) -> None:
        self._hosts = dict(hosts)  # in ASCII -> as written
        # A pattern is tried where its longest piece occurs.
        self._by_piece: dict[bytes, list[_Pattern]] = {}
        for pattern in patterns:
            self._by_piece.setdefault(_encoded(pattern.key), []).append(pattern)
        self._pieces = list(self._by_piece)
        self._automaton = ahocorasick_rs.BytesAhoCorasick(
            self._pieces, implementation=ahocorasick_rs.Implementation.ContiguousNFA
        )

    def __len__(self) -> int:
        """Return the number of entries, each counted once."""
        return len(self._hosts) + sum(map(len, self._by_piece.values()))

    def entry_for(self, url: str) -> str | None:
        """Return an entry that covers an address, as it is written in the list, or None."""
        host, path = _split(url)
        below = host if self._hosts else ""
        while below:
            if (entry := self._hosts.get(below)) is not None:
                return entry
            below = below.partition(".")[2]
        if not self._pieces:
            return None
        path = _form(path)
        hosts = (host, host[4:]) if host.startswith("www.") else (host,)
        text = _encoded(f"{host}{path}/")  # see _Pattern.matches
        found = self._automaton.find_matches_as_indexes(text, overlapping=True)
        for number in dict.fromkeys(index for index, _, _ in found):
            for pattern in self._by_piece[self._pieces[number]]:
                if any(pattern.matches(name, path) for name in hosts):
                    return pattern.entry
        return None


def parse_opt_out(text: str) -> OptOut:
    r"""Read a list, see this module.

    Raises:
        ValueError: A line is neither a host nor an address; the message says which line, and why.

    >>> parse_opt_out("\n*\n")
    Traceback (most recent call last):
    ValueError: line 2: '*' would leave out every page
    """
    hosts: dict[str, str] = {}
    patterns: dict[tuple[tuple[str, ...], ...], _Pattern] = {}
    for number, line in enumerate(text.split("\n"), 1):
        entry = _COMMENT.sub("", line).strip()
        if not entry:
            continue
        try:
            if "/" in _SCHEME.sub("", entry) or "*" in entry:
                pattern = _pattern(entry)
                patterns.setdefault(pattern[1:], pattern)
            else:
                hosts.setdefault(_listed_host(entry), entry)
        except ValueError as error:
            raise ValueError(f"line {number}: {entry[:_MOST_SHOWN]!r} {error}") from None
    return OptOut(hosts.items(), patterns.values())


def _listed_host(entry: str) -> str:
    """Return a host entry in form. Raises ValueError, whose message completes the entry."""
    bare = _checked(entry)
    if "?" in bare or "\\" in bare:
        raise ValueError("is not a host: an address has a / after its host")
    host = _ascii_host(bare.rstrip("."))
    _require_host(host)
    if "." not in host and not _IPV6.fullmatch(host):
        raise ValueError(f"would leave out every host below .{host}: write *.{host} to do that")
    return host


def _pattern(entry: str) -> _Pattern:
    """Return an address entry in form. Raises ValueError, whose message completes the entry."""
    bare = _checked(entry)
    host = _AUTHORITY.match(bare)[0]  # type: ignore[index]
    path = bare[len(host) :]
    if not path:  # *.example.com
        path = "/*"
    if path[0] != "/":
        raise ValueError("needs a / after its host, or a * in its place")
    if any("*" in label and not label.isascii() for label in host.split(".")):
        raise ValueError("has a * beside letters outside ASCII, which hosts do not have")
    host = "*".join(map(_ascii_host, host.split("*")))
    if "*" not in host:
        host = host.rstrip(".").removeprefix("www.")
        _require_host(host)
    elif not _HOST_WITH_STARS.fullmatch(host):
        raise ValueError("names no host that can exist")
    if "#" in path:
        raise ValueError("has a fragment (#...), which is no part of a page's address")
    if without_tracking(path) != path:
        raise ValueError("has a tracking query, which is no part of a page's address")
    if path.endswith("/"):
        path = f"{path.rstrip('/')}/"
    pattern = _Pattern(entry, _pieces(host), _pieces(path, _decoded))
    if not any(piece.strip("./") for piece in (*pattern.host, *pattern.path)):
        raise ValueError("would leave out every page")
    return pattern


def _pieces(text: str, form: Callable[[str], str] = str) -> tuple[str, ...]:
    first, *more = map(form, text.split("*"))
    return (first, *filter(None, more[:-1]), *more[-1:])


def _checked(entry: str) -> str:
    """Return an entry without its scheme, after the checks that hold for all entries."""
    if len(entry) > _LONGEST:
        raise ValueError(f"has {len(entry):,} characters: more than {_LONGEST:,}")
    if _BAD.search(entry):
        raise ValueError("has a blank or a control character: give one entry a line")
    scheme = _SCHEME.match(entry)
    if scheme and scheme[0].lower() not in ("http://", "https://"):
        raise ValueError(f"begins with {scheme[0]}: only http:// and https:// addresses are pages")
    bare = entry[scheme.end() :] if scheme else entry
    host = _AUTHORITY.match(bare)[0]  # type: ignore[index]
    if "@" in host or _PORT.search(host):
        raise ValueError("has a user or a port: an entry holds for all of them, leave it out")
    return bare


def _require_host(host: str) -> None:
    good = _IPV6.fullmatch(host) or (
        len(host) <= 253 and all(map(_LABEL.fullmatch, host.split(".")))
    )
    if not good:
        raise ValueError("names no host that can exist")


def host_of(url: str) -> str:
    """Return the host of an address, in lower case and ASCII where it has such a form.

    Empty if the address has none, as in ``file:books.jsonl#3``.

    >>> host_of("https://joe@News.Example.org.:8080?x"), host_of("file:books.jsonl#3")
    ('news.example.org', '')
    """
    host, _ = _split(url[2:] if url.startswith("//") else url)
    return "" if ":" in host and not host.startswith("[") else host


def _split(url: str) -> tuple[str, str]:
    """Return an address's host, in form, and the rest, as written. Takes any text."""
    url = url.strip()
    scheme = _SCHEME.match(url)
    begin = scheme.end() if scheme else 0
    authority = _AUTHORITY.match(url, begin)[0]  # type: ignore[index]
    host = _PORT.sub("", authority.rpartition("@")[2])
    return _ascii_host(host.rstrip(".")), url[begin + len(authority) :]


def _form(path: str) -> str:
    path = without_tracking(path.partition("#")[0])
    return _decoded(path if path.startswith("/") else f"/{path}")


def _decoded(text: str) -> str:
    if "%" in text:
        text = urllib.parse.unquote(text, errors="surrogateescape")
    return text.casefold()


def _ascii_host(host: str) -> str:
    """Return a host in lower case, its letters outside ASCII as an IDNA name, if they have one."""
    if "%" in host:
        host = urllib.parse.unquote(host, errors="replace")
    if host.isascii():
        return host.lower()
    import idna  # takes 10 ms, and hosts in crawls are in ASCII as a rule

    labels = []
    for label in host.replace("\u3002", ".").split("."):
        try:
            labels.append(idna.encode(label, uts46=True).decode() if label else "")
        except (idna.IDNAError, UnicodeError):
            labels.append(label.casefold())
    return ".".join(labels).lower()


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
