"""Numbers on the command line: one way to read them, for every option of every command.

``int`` and ``float`` read digits of every script, underscores and blanks, and give advice about
Python's own limits. The functions here accept what the help texts promise, and nothing else.
"""

import argparse
import re
import reprlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

#: Enough for every option; fits in a 64-bit integer.
_MOST_DIGITS = 18
_WHOLE = re.compile(r"-?[0-9]+")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
#: Names of shards have five digits.
MOST_SHARDS = 99_999
_MOST_MB = 1 << 30


def register(parser: argparse.ArgumentParser) -> None:
    """Make options of ``type=int`` and ``type=float`` read their values with this module."""
    parser.register("type", int, whole_number)
    parser.register("type", float, decimal_number)


def whole_number(text: str) -> int:
    """Return the number that decimal digits, and a minus before them, stand for.

    Raises argparse.ArgumentTypeError for anything else, and for more than 18 digits.

    >>> whole_number("-12")
    -12
    """
    if not _WHOLE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"expected a whole number, got {reprlib.repr(text)}")
    if len(text.removeprefix("-")) > _MOST_DIGITS:
        raise argparse.ArgumentTypeError(
            f"expected at most {_MOST_DIGITS} digits, got {reprlib.repr(text)}"
        )
    return int(text)


def decimal_number(text: str) -> float:
    """Return a finite number, written with a decimal point, an exponent, both or neither.

    Raises argparse.ArgumentTypeError for anything else.

    >>> decimal_number("1e-3")
    0.001
    """
    number = float(text) if _DECIMAL.fullmatch(text) else float("nan")
    if not -float("inf") < number < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number, got {reprlib.repr(text)}")
    return number


def _megabytes(mb: int) -> int:
    """Return megabytes in bytes. Raises ValueError."""
    if not 1 <= mb <= _MOST_MB:
        raise ValueError(f"a size must be between 1 and {grouped(_MOST_MB)} MB, got {mb}")
    return mb << 20


#: Arguments of `pipelines.options.option` for a field in bytes whose option is in megabytes.
MEGABYTES: Mapping[str, Any] = MappingProxyType(
    {"metavar": "MB", "type": int, "read": _megabytes, "least": 1, "most": 1 << 50}
)


def shard_count(text: str) -> int | None:
    """Return the number of train shards that ``--shards`` asks for; None for ``auto``.

    >>> shard_count("64")
    64
    """
    if text == "auto":
        return None
    if not re.fullmatch(r"[0-9]{1,5}", text) or not int(text):
        raise ValueError(
            f"--shards wants auto or a whole number from 1 to {MOST_SHARDS}, got "
            f"{reprlib.repr(text)}"
        )
    return int(text)


def require_within(option: str, value: float, least: float, most: float) -> None:
    """Raise ValueError, naming the option, for a number outside of the bounds or NaN."""
    if not least <= value <= most:
        raise ValueError(
            f"{option} must lie between {grouped(least)} and {grouped(most)}, got {value}"
        )


def grouped(number: float) -> str:
    """Return a bound for people: 5, 0.5 or 10,000,000."""
    return f"{number:,}" if abs(number) > 99_999 else f"{number:g}"
