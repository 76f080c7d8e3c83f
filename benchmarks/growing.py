"""Prove and measure ``c4 build --against``, and the cost of the root digest.

::

    python -m benchmarks.growing twin   --wet '../shared/wet/*.warc.wet.gz' --splits 50
    python -m benchmarks.growing cost   --pages 40000
    python -m benchmarks.growing digest --wet '../shared/wet/*.warc.wet.gz'

``twin`` splits real pages at random into several corpora, adds copies of pages, of lines and of
urls across them, builds one after the other against some of those before, some with an opt-out
list, and compares each with a twin: the rules of docs/growing.md, written out with sets of texts.
``cost`` builds a corpus alone, and against an older one of the same size, alternately, and prints
CPU per new page; and per old span, by builds that find every file cleaned, since cleaning would
hide it. ``digest`` times hashing the rows of shards against the rest of a build.
"""

import collections
import dataclasses
import pathlib
import random
import statistics
import tempfile
import time
from collections.abc import Collection, Iterable, Sequence
from urllib.parse import urlsplit

from benchmarks import measure
from benchmarks.build import build as build_command
from benchmarks.clocks import OWN, clocks
from benchmarks.generate_wet import SyntheticCrawl, generate
from c4_filters.pages import PageRules, RawPage
from c4_filters.urls import normalize_url, page_key, split_of
from c4_filters.verdicts import PageVerdict
from pipelines import BuildConfig, build, storage
from pipelines.corpus import older
from pipelines.corpus.fingerprints import read_fingerprints
from pipelines.stages.clean_files import page_digest, read_pages
from pipelines.wet.results import MAX_FILE_BYTES, MAX_RECORD_BYTES, ReadStats, Reject
from testing.helpers import Page, read_corpus, write_wet

_WINDOW = 3
_RESUMED = 5  # builds each way without cleaning

# ------------------------------------------------------------------------------------ the twin


@dataclasses.dataclass(frozen=True)
class Passed:
    """A page that passed the filters."""

    page: RawPage
    text: str
    starts: list[int]  # of its sentences

    @property
    def url(self) -> str:
        """The normalised address."""
        return normalize_url(self.page.url)

    @property
    def spans(self) -> list[tuple[str, ...]]:
        """Each three sentences in a row, lower-cased."""
        ends = [*self.starts[1:], len(self.text)]
        units = [self.text[a:b].lower().strip() for a, b in zip(self.starts, ends, strict=True)]
        return [tuple(units[at : at + _WINDOW]) for at in range(len(units) - _WINDOW + 1)]


Row = tuple[str, str, str, str]  # split, url, timestamp, text


class Twin:
    """Corpora that grow, by the rules of docs/growing.md as they are written there."""

    def __init__(self, rules: PageRules) -> None:
        self._rules = rules
        self._passed: list[list[Passed]] = []
        self._won: list[list[Passed]] = []

    def passed(self, pages: Iterable[Page]) -> list[Passed]:
        """Return the pages that pass the filters."""
        found = []
        for url, date, text in pages:
            raw = RawPage(url, date, "text/plain", str(len(text.encode())), text)
            result = self._rules.clean(raw, collections.Counter())
            if result.verdict is PageVerdict.KEPT:
                found.append(Passed(raw, result.text, self._rules.unit_starts(result.text)))
        return found

    def add(
        self, pages: Iterable[Page], before: Collection[int], taken_out: Collection[str] = ()
    ) -> list[Row]:
        """Return what a new corpus holds that is built against corpora added before.

        Args:
            pages: Its pages.
            before: Numbers of those corpora, and of all that they were built against.
            taken_out: Hosts whose pages are left out; later corpora count these pages.
        """
        passed = self.passed(pages)
        old_urls = {page.url for corpus in before for page in self._passed[corpus]}
        old_spans = {span for corpus in before for page in self._won[corpus] for span in page.spans}
        self._passed.append(passed)
        self._won.append(_won(passed, old_urls))
        stay = [page for page in passed if _host(page.page.url) not in taken_out]
        won = sorted(_won(stay, old_urls), key=lambda page: page_key(page.url))
        return sorted(self._deduplicated(won, set(old_spans)))

    def _deduplicated(self, won: Sequence[Passed], seen: set[tuple[str, ...]]) -> Iterable[Row]:
        for page in won:  # by page key: the first copy stays
            removed = [False] * len(page.starts)
            for first, span in enumerate(page.spans):
                if span in seen:
                    removed[first : first + _WINDOW] = [True] * _WINDOW
                seen.add(span)
            text = page.text
            if True in removed:
                text, _, result = self._rules.finish_page(
                    page.text, page.starts, removed, page.page.url
                )
                if result.verdict is not PageVerdict.KEPT:
                    continue
            yield split_of(page.url), page.page.url, page.page.timestamp, text


def _host(url: str) -> str:
    return (urlsplit(url).hostname or "").removeprefix("www.")


def _won(pages: Iterable[Passed], old_urls: Collection[str]) -> list[Passed]:
    """Return the pages that win their urls."""
    newest: dict[str, Passed] = {}
    for page in pages:
        best = newest.get(page.url)
        if page.url not in old_urls and (best is None or _preferred(page) < _preferred(best)):
            newest[page.url] = page
    return list(newest.values())


def _preferred(page: Passed) -> tuple[list[int], bytes]:
    """Newest first, then by content."""
    newest_first = [-ord(character) for character in page.page.timestamp]
    return newest_first, page_digest(page.page, page.text)


# ---------------------------------------------------------------------------------- random splits


def real_pages(paths: Sequence[str]) -> list[Page]:
    """Return url, date and text of all pages of WET files, dates in Common Crawl's form."""
    recipe = BuildConfig(inputs="none", output="none").recipe
    found = []
    for path in paths:
        with storage.open_raw(path) as stream:
            counts: collections.Counter[str] = collections.Counter()
            limits = MAX_RECORD_BYTES, MAX_FILE_BYTES
            for item in read_pages(stream, ReadStats(), recipe, counts, *limits):
                if not isinstance(item, Reject):
                    page = item[1]
                    found.append((page.url, f"{page.timestamp[:10]}T10:00:00Z", page.text))
    return found


def draw_corpora(pages: Sequence[Page], draw: random.Random, count: int) -> list[list[Page]]:
    """Split pages at random, and add to each part copies that deduplication has work with."""
    corpora: list[list[Page]] = [[] for _ in range(count)]
    for page in pages:
        corpora[draw.randrange(count)].append(page)
    for corpus in corpora:
        for url, date, text in draw.sample(list(pages), len(pages) // 6):
            other = draw.choice(list(pages))[2].split("\n")
            lines = text.split("\n")
            begin = draw.randrange(len(other))
            kind = draw.randrange(4)
            if kind == 0:  # the page once more, at another time
                date = f"{draw.randrange(2013, 2027)}-03-{draw.randrange(1, 29):02}T10:00:00Z"
            elif kind == 1:  # its text at another address
                url = f"{url}/copy-{draw.randrange(3)}"
            elif kind == 2:  # lines of another page in the middle
                url, middle = f"{url}/mixed", draw.randrange(len(lines))
                lines[middle:middle] = other[begin : begin + 8]
            else:  # another text at its address
                lines = other
            corpus.append((url, date, "\n".join(lines)))
    return corpora


def check_split(pages: Sequence[Page], seed: int, folder: pathlib.Path) -> dict[str, int]:
    """Build drawn corpora against each other and compare them with the twin.

    Returns:
        How many pages and corpora were compared, and how many pages older corpora removed.
    """
    draw = random.Random(seed)
    config = BuildConfig(inputs="none", output="none")
    twin = Twin(config.page_rules())
    done: collections.Counter[str] = collections.Counter()
    closures: list[set[int]] = []
    for number, corpus in enumerate(draw_corpora(pages, draw, 3)):
        given = {old for old in range(number) if draw.random() < 0.7}
        closures.append(given.union(*(closures[old] for old in given)))
        cut = draw.randrange(1, len(corpus))
        older._FEWEST_GROUPS = draw.choice((1, 64))  # files of an older corpus read as one, or not
        for part, of_part in enumerate((corpus[:cut], corpus[cut:])):
            write_wet(folder / f"{number}-{part}.warc.wet.gz", of_part)
        hosts = {host for host in (_host(url) for url, _, _ in corpus) if "." in host}
        taken_out = draw.sample(sorted(hosts), len(hosts) // 8) if draw.random() < 0.6 else []
        hosts_file = folder / f"{number}.txt"
        hosts_file.write_text("".join(f"{host}/*\n" for host in taken_out))
        output = folder / f"corpus-{number}"
        build(
            dataclasses.replace(
                config,
                inputs=(str(folder / f"{number}-*.gz"),),
                output=str(output),
                against=tuple(str(folder / f"corpus-{old}") for old in sorted(given)),
                shards=draw.randrange(1, 4),
                opt_out=str(hosts_file) if taken_out else None,
            ),
            workers=1,
            show_progress=False,
        )
        found = sorted(
            (split, page["url"], page["timestamp"], page["text"])
            for split, rows in read_corpus(output).items()
            for page in rows
        )
        wanted = twin.add(corpus, closures[number], taken_out)
        if found != wanted:
            missing, surplus = set(wanted) - set(found), set(found) - set(wanted)
            examples = [row[1] for row in (*missing, *surplus)]
            raise SystemExit(
                f"seed {seed}, corpus {number} against {sorted(given)}: {len(missing)} pages are "
                f"missing and {len(surplus)} surplus, such as {examples[:1]}"
            )
        done["corpora"] += 1
        done["pages"] += len(found)
        if given:
            alone = Twin(config.page_rules()).add(corpus, (), taken_out)
            done["changed"] += len(set(alone) - set(wanted))
    return done


def twin_command(paths: Sequence[str], splits: int, pages: int) -> None:
    """Compare many random splits with the twin."""
    every = real_pages(paths)
    total: collections.Counter[str] = collections.Counter()
    for seed in range(splits):
        some = random.Random(-1 - seed).sample(every, min(pages, len(every)))
        with tempfile.TemporaryDirectory(prefix="c4-growing-") as folder:
            total.update(check_split(some, seed, pathlib.Path(folder)))
    print(
        f"{splits} random splits: {total['corpora']} corpora of {total['pages']:,} pages equal "
        f"the twin; older corpora changed or removed {total['changed']:,} pages"
    )


# ---------------------------------------------------------------------------------------- costs


def cost_command(pages: int, repeats: int) -> None:
    """Print CPU per new page alone and against an older corpus, and CPU per old span."""
    with tempfile.TemporaryDirectory(prefix="c4-growing-") as name:
        folder = pathlib.Path(name)
        for corpus, seed in (("old", 1), ("new", 2)):
            (folder / corpus).mkdir()
            generate(folder / corpus, pages=pages, files=4, crawl=SyntheticCrawl(seed))
        inputs = {corpus: [str(folder / corpus / "*.gz")] for corpus in ("old", "new")}
        build_command(inputs["old"], folder / "OLD", "--workers", "1")
        prints = [read_fingerprints(str(path)) for path in (folder / "OLD/fingerprints").iterdir()]
        old_spans = sum(
            int((file.units_per_page[: file.cleaned_pages] - 2).clip(0).sum()) for file in prints
        )
        whole: dict[str, list[float]] = {"alone": [], "against": []}
        after: dict[str, list[float]] = {"alone": [], "against": []}  # with all files cleaned
        for number in range(repeats + _RESUMED):
            for what, more in (("alone", []), ("against", ["--against", str(folder / "OLD")])):
                output = folder / what
                options, spent = ["--quiet", "--workers", "1", *more], whole
                if number < repeats:
                    options.append("--start-over")
                else:
                    (output / "manifest.json").unlink()
                    spent = after
                spent[what].append(build_command(inputs["new"], output, *options).cpu_s)
        for costs in (whole, after):
            for what, seconds in costs.items():
                print(f"{what:<8}", *(f"{each:.2f}" for each in seconds), "CPU s")
        alone, against = (min(whole[what]) for what in ("alone", "against"))
        added = min(after["against"]) - min(after["alone"])
        print(
            f"per new page: {alone / pages * 1e6:.1f} us alone, {against / pages * 1e6:.1f} us "
            f"against as many ({against / alone - 1:+.1%}; bar +10 %)\n"
            f"per old span: {added / old_spans * 1e6:.3f} us, of {old_spans:,} (bar 0.3)"
        )


def digest_command(paths: Sequence[str], repeats: int) -> None:
    """Print the CPU of hashing rows against that of a build without it, in one process."""
    shares = []
    for _ in range(repeats):
        with (
            tempfile.TemporaryDirectory(prefix="c4-growing-") as folder,
            clocks({"digest": (("pipelines.stages.write_shards", "row_digests"),)}),
        ):
            started = time.process_time()
            config = BuildConfig(inputs=tuple(paths), output=f"{folder}/out")
            made = build(config, workers=1, show_progress=False)
            cpu_s = time.process_time() - started
            spent = OWN["digest"] / 1e9
        shares.append(spent / (cpu_s - spent))
        print(
            f"{spent / made.counts.pages_written * 1e6:.2f} us a page of "
            f"{made.counts.pages_written:,}; build {cpu_s:.2f} CPU s; {shares[-1]:.2%}"
        )
    print(f"median {statistics.median(shares):.2%} of a build's CPU (bar 2 %)")


def main() -> None:
    parser = measure.parser(__doc__, wet=True)
    parser.add_argument("what", choices=("twin", "cost", "digest"))
    parser.add_argument("--splits", type=int, default=50)
    parser.add_argument("--pages", type=int, default=0, help="of a split, or of a corpus")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    if args.what == "twin":
        twin_command(measure.wet_files(parser, args.wet), args.splits, args.pages or 300)
    elif args.what == "cost":
        cost_command(args.pages or 40_000, args.repeats)
    else:
        digest_command(measure.wet_files(parser, args.wet), args.repeats)


if __name__ == "__main__":
    main()
