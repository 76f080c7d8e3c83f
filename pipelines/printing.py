"""Text for people: counts, sizes, times, text of web pages, and colour if a terminal shows it."""

import os
import sys
from collections.abc import Callable, Sequence


def printable(text: str) -> str:
    r"""Return the text with a dot for every control character.

    >>> printable("red \x1b[31m alert")
    'red ·[31m alert'
    """
    return "".join(character if character.isprintable() else "·" for character in text)


def print_note(line: str) -> None:
    """Print a line for the user on standard error, with a dot for every control character."""
    print(printable(line), file=sys.stderr, flush=True)


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
