"""Measure the sentence splitter against NLTK's, and check that both agree everywhere.

    python -m benchmarks.sentences             # milliseconds per kept page, ours and NLTK's
    python -m benchmarks.sentences --check     # every boundary on every page: minutes

A kept page has lines that survive the line rules, and at least three sentences. `cold` starts with
nothing remembered, `warm` is the best of further passes; NLTK remembers nothing. Times are CPU
time. Bar: at most 0.25 ms per kept page, cold or warm; the program fails beyond it, and when a
boundary differs.
"""

import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from fastwarc import ArchiveIterator, WarcRecordType

from benchmarks import measure
from benchmarks.reference import nltk_splitter
from c4_filters.lines import clean_text
from c4_filters.recipes import RECIPES
from c4_filters.sentences import SentenceSplitter

_BAR_MS = 0.25


def read_texts(paths: Iterable[str]) -> Iterator[str]:
    """Return the text of each page of some WET files; invalid UTF-8 becomes U+FFFD."""
    for path in paths:
        with open(path, "rb") as stream:
            for record in ArchiveIterator(stream, record_types=WarcRecordType.conversion):
                yield record.reader.read().decode("utf-8", "replace")


def kept_text(text: str) -> str:
    r"""Return what the line rules of recipe `en` leave of a page, joined by `"\n"`."""
    return clean_text(text, RECIPES["en"], Counter()).text


def nltk_spans(language: str, text: str) -> list[tuple[int, int]]:
    """Return the sentences NLTK finds in a text."""
    return list(nltk_splitter(language).span_tokenize(text))


def nltk_line_starts(language: str, text: str) -> list[int]:
    """Return where the sentences that NLTK finds in each line start, as offsets into the text."""
    starts: list[int] = []
    position = 0
    for line in text.split("\n"):
        starts += [position + start for start, _ in nltk_spans(language, line)]
        position += len(line) + 1
    return starts


def _cpu_ms_a_page(split: Callable[[str], object], pages: list[str]) -> float:
    return measure.cpu_s(lambda: list(map(split, pages))) / len(pages) * 1e3


def _measure(texts: list[str]) -> bool:
    splitter = SentenceSplitter()
    pages = [page for page in map(kept_text, texts) if len(splitter.line_starts(page)) >= 3]
    lines = sum(page.count("\n") + 1 for page in pages)
    sentences = sum(len(splitter.line_starts(page)) for page in pages)
    print(
        f"{len(pages)} kept pages of {len(texts)}: {lines} lines, {sentences} sentences, "
        f"{sum(map(len, pages)) / len(pages):.0f} characters a page"
    )
    cold = min(_cpu_ms_a_page(SentenceSplitter().line_starts, pages) for _ in range(3))
    warm = min(_cpu_ms_a_page(splitter.line_starts, pages) for _ in range(5))
    nltk = _cpu_ms_a_page(functools.partial(nltk_line_starts, "english"), pages)
    print(f"NLTK       {nltk:.3f} ms a kept page")
    print(f"ours cold  {cold:.3f} ms a kept page, {nltk / cold:.0f} times faster")
    print(f"ours warm  {warm:.3f} ms a kept page, {nltk / warm:.0f} times faster")
    return max(cold, warm) <= _BAR_MS


def _check(texts: list[str]) -> bool:
    splitter = SentenceSplitter()
    compared: Counter[str] = Counter()
    differing: Counter[str] = Counter()

    def compare(what: str, ours: object, theirs: object, times: int = 1) -> None:
        compared[what] += times
        differing[what] += ours != theirs

    for text in texts:
        spans = nltk_spans("english", text)
        compare("raw texts whole", splitter.spans(text), spans)
        compare("raw texts counted", splitter.count(text), len(spans))
        lines = text.count("\n") + 1
        compare(
            "raw lines", splitter.line_starts(text), nltk_line_starts("english", text), times=lines
        )
        if page := kept_text(text):
            compare("kept texts whole", splitter.spans(page), nltk_spans("english", page))
            starts = splitter.line_starts(page)
            lines = page.count("\n") + 1
            compare("kept lines", starts, nltk_line_starts("english", page), times=lines)
    for what in compared:
        print(f"{what}: {compared[what]} compared, {differing[what]} pages differ")
    return not differing.total()


def main() -> int:
    parser = measure.parser(__doc__, wet=True)
    parser.add_argument("--check", action="store_true", help="compare every boundary instead")
    arguments = parser.parse_args()
    texts = list(read_texts(measure.wet_files(parser, arguments.wet)))
    return 0 if (_check if arguments.check else _measure)(texts) else 1


if __name__ == "__main__":
    sys.exit(main())
