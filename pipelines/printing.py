"""Text for people: counts, text of web pages, and colour if a terminal shows it."""

import os
import sys
from collections.abc import Callable

__all__ = ["counted", "painter", "printable"]


def printable(text: str) -> str:
    r"""Return the text with a dot for every control character.

    >>> printable("red \x1b[31m alert")
    'red ·[31m alert'
    """
    return "".join(character if character.isprintable() else "·" for character in text)


def counted(count: int, what: str, plural: str = "s") -> str:
    """Return a count with its noun.

    >>> counted(1, "page"), counted(1_200, "process", "es")
    ('1 page', '1,200 processes')
    """
    return f"{count:,} {what}{'' if count == 1 else plural}"


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
