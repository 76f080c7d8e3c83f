"""Measure ``c4 build``: against the reference, and as a corpus grows.

::

    python -m benchmarks.build speed  --wet '../shared/wet/*.warc.wet.gz'
    python -m benchmarks.build parity --wet '../shared/wet/*.warc.wet.gz'
    python -m benchmarks.build growth --pages 10000 100000 1000000

``speed`` runs the reference's own functions (benchmarks/reference.py) and ``c4 build`` on the same
pages, alternately, and subtracts the cost of a run of one page from both. CPU seconds are those of
all processes; quote the ratio, since machines are shared and noisy.
``parity`` compares recipe ``tfds`` with the reference page by page. ``growth`` builds corpora of
generated pages and prints CPU per page and the memory of all processes together. Where the time of
a build goes is for benchmarks/account.py.
"""

import pathlib
import sys
import tempfile
from collections.abc import Iterable, Sequence

from benchmarks import measure, reference
from benchmarks.generate_wet import SyntheticCrawl, generate
from testing.helpers import manifest_of, write_wet

_PAGES_A_FILE = 10_000
_BUILDS_A_TURN = 5


def build(inputs: Sequence[str], output: pathlib.Path, *options: str) -> measure.Cost:
    """Run ``c4 build`` as a user would. Raises CalledProcessError when it fails."""
    command = [*measure.C4, "build", "--input", *inputs, "--output", str(output), *options]
    return measure.run(command)


def build_generated(
    crawl: SyntheticCrawl, pages: int, folder: pathlib.Path, workers: int | None
) -> measure.Cost:
    """Build the first pages of a generated crawl in ``folder``: ``wet`` and ``out``."""
    files = max(2, -(-pages // _PAGES_A_FILE))
    generate(folder / "wet", pages=pages, files=files, crawl=crawl)
    return build([str(folder / "wet" / "*.gz")], folder / "out", *with_workers(workers))


def with_workers(workers: int | None) -> list[str]:
    return ["--workers", str(workers)] if workers else []


def one_page_file(folder: pathlib.Path) -> str:
    return write_wet(folder / "one-page.warc.wet.gz", [reference.ONE_PAGE])[0]


def run_reference(paths: Sequence[str]) -> measure.Cost:
    """Run the reference on some files, in a process of its own."""
    script = (
        "import sys; from benchmarks import reference as r; "
        "r.run_reference(sys.argv[1:], r.packaged_english_badwords())"
    )
    return measure.run([sys.executable, "-c", script, *paths])


def speed(paths: Sequence[str], recipe: str, repeats: int) -> float:
    """Print the cost of both and their ratio; return the ratio."""
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
                start_up = build(one, folder / f"one-{turn}-{run}", "--recipe", recipe)
                cost = build(paths, folder / f"all-{turn}-{run}", "--recipe", recipe)
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


def parity(paths: Sequence[str]) -> bool:
    """Compare recipe ``tfds`` with the reference; True when every page is the same."""
    import pyarrow.parquet

    wanted = reference.run_reference(paths, reference.packaged_english_badwords())
    with tempfile.TemporaryDirectory(prefix="c4-parity-") as name:
        output = pathlib.Path(name) / "tfds"
        build(paths, output, "--recipe", "tfds")
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
            one = build([one_page_file(folder)], folder / "one", *with_workers(workers)).cpu_s
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
    parser.add_argument("what", choices=("speed", "parity", "growth"))
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
    if arguments.what == "parity":
        return 0 if parity(paths) else 1
    speed(paths, arguments.recipe, arguments.repeats)
    return 0


if __name__ == "__main__":
    sys.exit(main())
