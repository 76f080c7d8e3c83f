"""Text for people: counts, sizes, times, text of web pages, and colour if a terminal shows it."""

import contextlib
import itertools
import os
import re
import sys
import unicodedata
from collections.abc import Callable, Sequence
from typing import IO

_COLUMNS = 80  # of a terminal that does not say
_MOST_LABEL = 24  # columns of a label that the rest of its line is aligned behind


def printable(text: str) -> str:
    r"""Return the text with a dot for every control character.

    >>> printable("red \x1b[31m alert")
    'red ·[31m alert'
    """
    return "".join(character if character.isprintable() else "·" for character in text)


def print_note(line: str) -> None:
    """Print a line for the user on standard error, with a dot for every control character."""
    print(fitted(printable(line), stream=sys.stderr), file=sys.stderr, flush=True)


def print_lines(*lines: str, flush: bool = False) -> None:
    """Print lines on standard output, fitted to the terminal; see `fitted`."""
    for line in itertools.chain(*(text.split("\n") for text in lines)):
        print(fitted(line), flush=flush)


def fitted(line: str, start: int | None = None, stream: IO[str] | None = None) -> str:
    """Return a line broken at blanks where a terminal would break it anywhere.

    In a file or a pipe, lines stay whole.

    Args:
        line: The line.
        start: Column in which its text starts, and goes on after a break; by default, behind a
            label that two blanks end. Without one, what follows a break is indented.
        stream: Where it is printed; None: standard output.
    """
    columns = columns_of(stream or sys.stdout)
    if columns is None or cells(line) <= columns:
        return line
    label = re.match(r" *\S+(?: \S+)*?  +", line[:_MOST_LABEL])
    if start is None and label is None:
        return "\n".join(broken(line, columns))
    start = label.end() if start is None and label is not None else start or 0
    rest = broken(line[start:], columns - start, 0)
    return line[:start] + f"\n{' ' * start}".join(rest)


def broken(text: str, columns: int, indent: int = 2) -> list[str]:
    """Return a text as rows of so many columns, broken at blanks; later ones are indented.

    A word stays whole, though it is longer, so that an address or a path can be copied. A number
    stays with the word behind it, which it counts.
    """
    indent += len(text) - len(text.lstrip(" "))
    rows = [""]
    for word in re.findall(r" *(?:[\d,.]+ )?[^ ]+", text):
        if rows[-1].strip(" ") and cells(rows[-1] + word) > columns:
            rows.append(" " * indent + word.lstrip(" "))
        else:
            rows[-1] += word
    return rows


def shortened(text: str, most: int, before: int = 0) -> str:
    """Return a line of a web page, cut to a number of columns and to the terminal's width.

    Args:
        text: The line.
        most: Columns that it may take; in a file or a pipe, characters.
        before: Columns in front of it.
    """
    columns = columns_of(sys.stdout)
    if columns is None:
        return printable(text if len(text) <= most else f"{text[: most - 1]}…")
    most = max(1, min(most, columns - before))
    shown = printable(text[: 4 * most])
    if len(text) <= 4 * most and cells(shown) <= most:
        return shown
    while cells(shown) >= most:
        shown = shown[: most - 1] if len(shown) >= most else shown[:-1]
    return f"{shown}…"


def columns_of(stream: IO[str]) -> int | None:
    """Return the width of a terminal, or what ``COLUMNS`` says; None for a file or a pipe."""
    if not stream.isatty():
        return None
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given):
        return int(given)
    with contextlib.suppress(OSError, ValueError):  # it is no file
        return os.get_terminal_size(stream.fileno()).columns or _COLUMNS
    return _COLUMNS


def cells(text: str) -> int:
    """Return the columns that a terminal shows a text in.

    >>> cells("page"), cells("頁"), cells("e\N{COMBINING ACUTE ACCENT}")
    (4, 2, 1)
    """
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))


def counted(count: int, what: str, plural: str = "s") -> str:
    """Return a count with its noun.

    >>> counted(1, "page"), counted(1_200, "process", "es")
    ('1 page', '1,200 processes')
    """
    return f"{count:,} {what}{'' if count == 1 else plural}"


def scaled(value: float, units: Sequence[str] = ("", "k", "M", "G")) -> str:
    """Return an amount in the largest unit of which it has one.

    >>> scaled(12.0), scaled(2_200.0), scaled(37.4e9)
    ('12', '2.2 k', '37.4 G')
    """
    power = max((n for n in range(len(units)) if value >= 1000**n), default=0)
    digits = 1 if power and value < 100 * 1000**power else 0
    return f"{value / 1000**power:,.{digits}f} {units[power]}".rstrip()


def size(n_bytes: float) -> str:
    """Return a number of bytes.

    >>> size(0), size(2_200), size(419e6)
    ('0 B', '2.2 kB', '419 MB')
    """
    return scaled(n_bytes, ("B", "kB", "MB", "GB", "TB", "PB"))


def duration(seconds: float) -> str:
    """Return a time in its two largest units; in days from a hundred on.

    >>> duration(59), duration(75), duration(3599), duration(86_399), duration(1e6), duration(1e8)
    ('59s', '1m15s', '59m59s', '23h59m', '11d13h', '1,157d')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days >= 100:
        return f"{days:,}d"
    if days:
        return f"{days}d{hours:02}h"
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def painter(code: str) -> Callable[[str], str]:
    """Return a function that shows text in a colour or weight, if standard output shows any.

    A terminal does, unless ``NO_COLOR`` is set or ``TERM`` is ``dumb``; with ``FORCE_COLOR`` a
    pipe does as well. ``NO_COLOR`` counts for more. Either counts only if it is not empty.

    Args:
        code: ANSI's number, such as "1" for bold and "32" for green.
    """
    wanted = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    if os.environ.get("NO_COLOR") or not (wanted or os.environ.get("FORCE_COLOR")):
        return str
    return lambda text: f"\x1b[{code}m{text}\x1b[0m"
