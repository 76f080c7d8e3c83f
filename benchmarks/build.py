"""Measure ``c4 build``: against the reference, stage by stage, and as a corpus grows.

::

    python -m benchmarks.build speed  --wet '../shared/wet/*.warc.wet.gz'
    python -m benchmarks.build stages --wet '../shared/wet/*.warc.wet.gz'
    python -m benchmarks.build parity --wet '../shared/wet/*.warc.wet.gz'
    python -m benchmarks.build growth --pages 10000 100000 1000000

``speed`` runs the reference's own functions (benchmarks/reference.py) and ``c4 build`` on the same
pages, alternately, and subtracts the cost of a run of one page from both. CPU seconds are those of
all processes; quote the ratio, since machines are shared and noisy.
``stages`` times each part of the build in one process, and the floor: gunzip and decode of the same
bytes. ``parity`` compares recipe ``tfds`` with the reference page by page. ``growth`` builds
corpora of generated pages and prints CPU per page and the memory of all processes together.
"""

import os
import pathlib
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmarks import measure, reference
from benchmarks.generate_wet import SyntheticCrawl, generate
from testing.helpers import manifest_of, write_wet

_PAGES_A_FILE = 10_000
_BUILDS_A_TURN = 5


def build(
    inputs: Sequence[str], output: pathlib.Path, recipe: str = "en", workers: int | None = None
) -> measure.Cost:
    """Run ``c4 build`` as a user would, in Parquet."""
    command = [*measure.C4, "build", "--input", *inputs, "--output", str(output)]
    command += ["--recipe", recipe]
    command += ["--workers", str(workers)] if workers else []
    return measure.run(command)


def build_generated(
    crawl: SyntheticCrawl, pages: int, folder: pathlib.Path, workers: int | None
) -> measure.Cost:
    """Build the first pages of a generated crawl in ``folder``: ``wet`` and ``out``."""
    files = max(2, -(-pages // _PAGES_A_FILE))
    generate(folder / "wet", pages=pages, files=files, crawl=crawl)
    return build([str(folder / "wet" / "*.gz")], folder / "out", workers=workers)


def one_page_file(folder: pathlib.Path) -> str:
    return write_wet(folder / "one-page.warc.wet.gz", [reference.ONE_PAGE])[0]


def run_reference(paths: Sequence[str]) -> measure.Cost:
    """Run the reference on some files, in a process of its own."""
    script = (
        "import sys; from benchmarks import reference as r; "
        "run = r.run_reference(sys.argv[1:], r.packaged_english_badwords()); "
        "print(len(run.pages))"
    )
    return measure.run([sys.executable, "-c", script, *paths])


def speed(paths: Sequence[str], recipe: str, repeats: int) -> float:
    """Print the cost of both and their ratio; return the ratio."""
    os.chdir(pathlib.Path(__file__).resolve().parents[1])
    with tempfile.TemporaryDirectory(prefix="c4-speed-") as name:
        folder = pathlib.Path(name)
        one = [one_page_file(folder)]
        costs: dict[str, list[tuple[float, float]]] = {"c4 build": [], "reference": []}
        pages = 0

        def measured(what: str, start_up: measure.Cost, cost: measure.Cost) -> None:
            costs[what].append((start_up.cpu_s, cost.cpu_s))
            print(
                f"{what:<10}{cost.cpu_s:8.2f} CPU s, {start_up.cpu_s:.2f} of them start-up: "
                f"{(cost.cpu_s - start_up.cpu_s) / pages * 1e3:.3f} ms per page, "
                f"{cost.wall_s:.1f} s wall",
                flush=True,
            )

        for turn in range(repeats):
            for run in range(_BUILDS_A_TURN):  # short, so noise weighs more than on the reference
                start_up = build(one, folder / f"one-{turn}-{run}", recipe)
                cost = build(paths, folder / f"all-{turn}-{run}", recipe)
                pages = manifest_of(folder / f"all-{turn}-{run}")["counts"]["pages_read"]
                measured("c4 build", start_up, cost)
            measured("reference", run_reference(one), run_reference(paths))
    # The least of several runs is what a shared machine's other work has disturbed least.
    least = {
        what: [min(column) for column in zip(*runs, strict=True)] for what, runs in costs.items()
    }
    ours, theirs = (least[what][1] - least[what][0] for what in costs)
    ratio = theirs / ours
    print(f"least: {ours / pages * 1e3:.3f} and {theirs / pages * 1e3:.3f} ms a page")
    print(f"recipe {recipe}, {pages:,} pages: {ratio:.1f} times less CPU than the reference")
    return ratio


def stages(paths: Sequence[str]) -> None:
    """Print the CPU per page of each part of recipe ``en``, in one process."""
    from c4_filters.badwords import BadWords
    from c4_filters.language import detect_language
    from c4_filters.lines import clean_texts
    from c4_filters.pages import PageRules
    from c4_filters.recipes import RECIPES
    from c4_filters.spans import unit_identities
    from pipelines.corpus import layout
    from pipelines.stages import dedup, older_files
    from pipelines.stages.clean_files import clean_file
    from pipelines.stages.merge_files import cleaned_sources
    from pipelines.stages.write_shards import ShardTask, write_shard
    from pipelines.wet.records import read_wet
    from pipelines.wet.results import ReadStats, WetRecord

    recipe = RECIPES["en"]
    rules = PageRules(recipe)
    badwords = BadWords()
    stored = [pathlib.Path(path).read_bytes() for path in paths]

    def read() -> list[str]:
        texts = []
        for path in paths:
            with open(path, "rb") as stream:
                texts += [r.text for r in read_wet(stream, ReadStats()) if isinstance(r, WetRecord)]
        return texts

    # Everything that is loaded once is loaded before the clock starts.
    detect_language("Some words to begin with.")
    badwords.found("some words", "en")

    def floor() -> None:
        for data in stored:
            rest, view = 0, memoryview(data)
            while rest < len(data):  # one gzip member a record
                inflate = zlib.decompressobj(31)
                inflate.decompress(view[rest : rest + (1 << 20)]).decode("utf-8", "replace")
                if not inflate.eof:
                    raise ValueError("a member of more than 1 MiB")
                rest = min(len(data), rest + (1 << 20)) - len(inflate.unused_data)

    texts = read()
    count = len(texts)
    times: dict[str, float] = {}

    def timed(what: str, work: Callable[[], Any]) -> Any:
        started = time.process_time()
        result = work()
        times[what] = (time.process_time() - started) / count * 1e3
        return result

    timed("floor: gunzip and decode", floor)
    timed("read records", read)
    cleaned = timed("line rules", lambda: list(clean_texts(texts, recipe, Counter())))
    kept = [page.text.strip() for page in cleaned if page.lines >= recipe.min_sentences]
    languages = timed("language", lambda: [detect_language(text) for text in kept])
    english = [t for t, found in zip(kept, languages, strict=True) if found and found.code == "en"]
    timed("bad words", lambda: [badwords.found(text, "en") for text in english])
    starts = timed("sentences", lambda: [rules.splitter.line_starts(text) for text in english])
    timed("identities", lambda: list(map(unit_identities, english, starts)))
    with tempfile.TemporaryDirectory(prefix="c4-stages-") as output:
        files = timed(
            "all of cleaning, with writing",
            lambda: [
                clean_file(p, os.path.getsize(p), output, rules, "x", 64 << 20) for p in paths
            ],
        )

        def deduplicate() -> None:
            buckets: dict[int, list[tuple[str, bytes]]] = {}
            lost: dict[str, list[bytes]] = {}
            for file in files:
                own, packed = dedup.span_buffers(output, file.name, (), 3, 16)
                lost[file.name] = [own] if own is not None else []
                for bucket, buffer in packed.items():
                    buckets.setdefault(bucket, []).append((file.name, buffer))
            for group in buckets.values():
                for name, buffer in older_files.repeated_spans(group):
                    lost[name].append(buffer)
            for file in files:
                dedup.write_file_removals(output, file.name, (), lost[file.name], 3, "")

        timed("span dedup", deduplicate)
        task = ShardTask("train", 0, 1)
        sources = cleaned_sources(output, map(layout.file_name, paths))
        timed(
            "write one Parquet shard",
            lambda: write_shard(task, sources, output, ["parquet"], rules),
        )
    print(f"CPU milliseconds per page read ({count:,} pages, {len(english):,} English)")
    for what, cost in times.items():
        print(f"  {what:<32}{cost:8.4f}")


def parity(paths: Sequence[str]) -> bool:
    """Compare recipe ``tfds`` with the reference; True when every page is the same."""
    import pyarrow.parquet

    wanted = reference.run_reference(paths, reference.packaged_english_badwords()).pages
    with tempfile.TemporaryDirectory(prefix="c4-parity-") as name:
        output = pathlib.Path(name) / "tfds"
        build(paths, output, "tfds")
        fields = ["url", "text", "timestamp", "content-type", "content-length"]
        pages = [
            page
            for path in sorted(output.glob("*.parquet"))
            for page in pyarrow.parquet.read_table(path, columns=fields).to_pylist()
        ]
    ours, theirs = (set(map(reference.json_line, side)) for side in (pages, wanted))
    print(f"reference {len(wanted):,} pages, ours {len(pages):,}; only theirs "
          f"{len(theirs - ours)}, only ours {len(ours - theirs)}")  # fmt: skip
    return ours == theirs and len(pages) == len(wanted)


def growth(sizes: Iterable[int], seed: int, workers: int | None) -> None:
    """Print CPU per page and memory for corpora of each size."""
    first = 0.0
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="c4-growth-") as name:
            folder = pathlib.Path(name)
            one = build([one_page_file(folder)], folder / "one", workers=workers).cpu_s
            cost = build_generated(SyntheticCrawl(seed), size, folder, workers)
            made = manifest_of(folder / "out")
            a_page = (cost.cpu_s - one) / size * 1e3
            first = first or a_page
            print(
                f"{size:>9,} pages in {len(made['inputs'])} files: {a_page:.3f} CPU ms a page "
                f"({a_page / first:.2f} of the first), {cost.wall_s:.0f} s wall, "
                f"{cost.peak_bytes / 2**30:.2f} GiB at most, "
                f"{made['counts']['pages_written']:,} pages written in "
                f"{len(made['shards'])} shards",
                flush=True,
            )


def main() -> int:
    parser = measure.parser(__doc__, wet=True)
    parser.add_argument("what", choices=("speed", "stages", "parity", "growth"))
    parser.add_argument("--recipe", default="en")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--pages", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int)
    arguments = parser.parse_args()
    if arguments.what == "growth":
        growth(arguments.pages, arguments.seed, arguments.workers)
        return 0
    paths = measure.wet_files(parser, arguments.wet)
    if arguments.what == "stages":
        stages(paths)
    elif arguments.what == "parity":
        return 0 if parity(paths) else 1
    else:
        speed(paths, arguments.recipe, arguments.repeats)
    return 0


if __name__ == "__main__":
    sys.exit(main())
