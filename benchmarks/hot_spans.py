"""Measure the memory cost of one span on every page: a build with it against one without.

::

    python -m benchmarks.hot_spans                    # a million pages, the bar
    python -m benchmarks.hot_spans --pages 100000

Both corpora have the same generated pages; in one of them every page ends with the same three
sentences. Each is built by ``c4 build`` with two workers, and the most memory of any
worker process counts (VmHWM, libraries included), printed with the sum of all processes. Bar: at
most 1.2 times the corpus without it; the program fails otherwise.
"""

import pathlib
import sys
import tempfile
from collections.abc import Iterator

from benchmarks import build, measure
from benchmarks.generate_wet import SyntheticCrawl, SyntheticPage, generate
from testing.helpers import manifest_of

BAR = 1.2
_PAGES_A_FILE = 10_000
# Kept by every rule of recipe en; a span is three sentences.
HOT_SPAN = (
    b"\nThis website is brought to you by the people of our town."
    b"\nEvery story on it may be shared with your neighbours."
    b"\nPlease tell the editors about anything that is missing here.\n"
)


class WithHotSpan(SyntheticCrawl):
    """The same crawl, with one span on every page."""

    def pages(self, start: int, stop: int) -> Iterator[SyntheticPage]:
        """Pages ``start`` to ``stop - 1``."""
        for page in super().pages(start, stop):
            yield page._replace(text=page.text + HOT_SPAN)


def built(crawl: SyntheticCrawl, pages: int, folder: pathlib.Path) -> measure.Cost:
    """Generate and build a corpus, report its cost, and remove it."""
    files = max(2, -(-pages // _PAGES_A_FILE))
    with tempfile.TemporaryDirectory(dir=folder) as name:
        generate(pathlib.Path(name) / "wet", pages=pages, files=files, crawl=crawl)
        output = pathlib.Path(name) / "out"
        cost = build.build([f"{name}/wet/*.gz"], output, workers=2)
        counts = manifest_of(output)["counts"]
    print(
        f"{type(crawl).__name__:<15} {counts['pages_read']:>10,} pages, "
        f"{counts['lines_dropped'].get('duplicate', 0):>11,} duplicate lines: worker "
        f"{cost.worker_peak_bytes / 2**20:7.0f} MiB, all processes "
        f"{cost.peak_bytes / 2**20:7.0f} MiB, {cost.cpu_s:.0f} CPU s",
        flush=True,
    )
    return cost


def main() -> int:
    parser = measure.parser(__doc__)
    parser.add_argument("--pages", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=pathlib.Path, help="for the corpora (default: temporary)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="c4-hot-", dir=arguments.folder) as name:
        folder = pathlib.Path(name)
        without = built(SyntheticCrawl(arguments.seed), arguments.pages, folder)
        with_it = built(WithHotSpan(arguments.seed), arguments.pages, folder)
    ratio = with_it.worker_peak_bytes / without.worker_peak_bytes
    everything = with_it.peak_bytes / without.peak_bytes
    print(f"worker: {ratio:.3f} times the memory (bar: {BAR}); all processes: {everything:.3f}")
    return 0 if ratio <= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
