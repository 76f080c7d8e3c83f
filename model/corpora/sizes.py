"""The size of a page in pages or tokens, and pages with their sizes in batches."""

import importlib.metadata
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from model.small_files import naming_option
from pipelines.corpus.formats.pages import Page

_PAGES_AT_ONCE = 512
_POWER = re.compile(r"([0-9]{1,18})\^([0-9]{1,2})")
_MOST = 10**18


class Unit(NamedTuple):
    """What amounts of text are counted in.

    Attributes:
        name: "pages" or "tokens".
        measure: Returns the sizes of texts.
        settings: What the sizes depend on, for a manifest.
        versions: Of packages that they depend on.
    """

    name: str
    measure: Callable[[Sequence[str]], list[int]]
    settings: dict[str, str]
    versions: dict[str, str]


def unit_of(vocab: str | None) -> Unit:
    """Return pages as the unit or, with a vocabulary, its tokens: pieces without an end mark.

    Raises:
        ModuleNotFoundError: A vocabulary is given, and sentencepiece is not installed.
        ValueError: The vocabulary cannot be read.
    """
    if vocab is None:
        return Unit("pages", lambda texts: [1] * len(texts), {}, {})
    from model.data.vocabulary import Vocabulary  # only here: it needs the extra train

    with naming_option("--vocab"):
        words = Vocabulary(vocab)
    return Unit(
        "tokens",
        lambda texts: [len(ids) for ids in words.encode_batch(texts)],
        {"vocabulary": words.sha256},
        {"sentencepiece": importlib.metadata.version("sentencepiece")},
    )


def pages_and_sizes(pages: Iterator[Page], unit: Unit) -> Iterator[tuple[Page, int]]:
    """Yield pages with their sizes."""
    while batch := list(itertools.islice(pages, _PAGES_AT_ONCE)):
        yield from zip(batch, unit.measure([page.text for page in batch]), strict=True)


def whole_power(text: str) -> int:
    """Return a positive whole number, written in digits or as a power.

    Raises:
        ValueError: It is something else, or more than 10^18.

    >>> whole_power("2^29"), whole_power("1000")
    (536870912, 1000)
    """
    match = _POWER.fullmatch(text)
    if match is not None:
        base, exponent = int(match[1]), int(match[2])
        value = base**exponent if base < 2 or exponent < 64 else _MOST + 1
    else:
        value = int(text) if re.fullmatch(r"[0-9]{1,19}", text) else 0
    if not 1 <= value <= _MOST:
        raise ValueError(f"expected a whole number from 1 to 10^18, such as 2^29, got {text!r}")
    return value
