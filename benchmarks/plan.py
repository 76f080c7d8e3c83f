"""Compare the estimates of ``c4 plan`` with builds.

::

    python -m benchmarks.plan check   # the model against three builds
    python -m benchmarks.plan rates   # all rates, as pipelines/plan.py has them
    python -m benchmarks.plan speed   # this machine, for c4 plan --cpu-factor

``check`` builds generated corpora of several sizes as a user would, and compares CPU, stored bytes,
bytes shuffled, memory of a worker and wall time with the model, once by its own rates and once by
the figures of the smallest of these builds (``--like``). CPU and wall time of a build of one page
are taken off. Bar: no figure of the model is off by more than 15 %. The speed of a shared machine
changes: a fixed piece of work is timed before and after each build, in as many processes at once,
and the model gets the speed and load of the machine.
"""

import concurrent.futures
import dataclasses
import glob
import multiprocessing
import pathlib
import sys
import tempfile
import time
import zlib
from typing import NamedTuple

import numpy as np

from benchmarks import build, measure, plan_rates
from benchmarks.generate_wet import SyntheticCrawl
from c4_filters.spans import PAGE_BYTES, SPAN_BYTES, pack_settled
from pipelines import plan
from pipelines.corpus import layout
from pipelines.corpus.fingerprints import read_fingerprints
from pipelines.corpus.removals import Removals
from pipelines.measured_corpus import MeasuredCorpus, measured_corpus
from pipelines.plan import Engine, Fleet, Rates, Work, make_plan
from pipelines.stages import dedup

BAR = 0.15  # the largest error of a prediction, as a part of what was measured
MACHINE_S = 0.0506  # CPU seconds of the fixed piece of work when the rates were measured
_REPEATS = 15
_SPAWN = multiprocessing.get_context("spawn")  # a fork would share this process's memory
_ENGINE = Engine(start_s=0, stage_s=0, request_s=0, bytes_per_s=1e9, longest_task=1.2)


def fixed_work() -> list[tuple[float, float]]:
    """Time a fixed piece of work of the build's kinds: unpack, cut text, hash, sort.

    Returns CPU and wall seconds of each time.
    """
    words = " ".join(f"{number * 2654435761 % 2**32:x}" for number in range(200_000))
    packed = zlib.compress(words.encode(), 1)
    numbers = np.random.default_rng(0).integers(0, 2**64, 500_000, np.uint64)
    times = []
    for _ in range(_REPEATS):
        wall, cpu = time.monotonic(), time.process_time()
        words_found = set()
        for word in zlib.decompress(packed).decode().split():
            if not word.endswith(("0", "7")):
                words_found.add(word.lower().strip())
        np.sort(numbers)
        times.append((time.process_time() - cpu, time.monotonic() - wall))
    return times


def least() -> float:
    """Return the least CPU seconds of the fixed piece of work: other work disturbs that least."""
    return min(cpu_s for cpu_s, _ in fixed_work())


def load(workers: int) -> tuple[float, float]:
    """Time the fixed piece of work in as many processes at once as a build has.

    Returns how many times the CPU takes that it took when the rates were measured, with what other
    work does to the caches; and wall seconds for a CPU second, above 1 where it holds the cores.
    """
    with concurrent.futures.ProcessPoolExecutor(workers, _SPAWN) as pool:
        started = [pool.submit(fixed_work) for _ in range(workers)]
        cpu_s, wall_s = np.sum([each.result() for each in started], axis=(0, 1)).tolist()
    return cpu_s / (workers * _REPEATS) / MACHINE_S, wall_s / cpu_s


class Build(NamedTuple):
    """One build: its corpus, the result of `load` around it, and its figures by name."""

    corpus: MeasuredCorpus
    slowness: float
    waiting: float
    figures: dict[str, float]


def built(
    pages: int, folder: pathlib.Path, workers: int, seed: int, start: tuple[float, float]
) -> Build:
    """Build a generated corpus with ``c4 build``; ``start``: CPU and wall of one of one page."""
    output = folder / "out"
    before = load(workers)
    cost = build.build_generated(SyntheticCrawl(seed), pages, folder, workers)
    slowness, waiting = np.mean([before, load(workers)], axis=0).tolist()
    figures = {
        "CPU s": cost.cpu_s - start[0],
        "wall s": cost.wall_s - start[1],
        "GB a worker": cost.worker_peak_bytes / 1e9,
        "GB shuffled": shuffled_bytes(output) / 1e9,
    }
    for name in ("cleaned/*", "fingerprints/*", "shards/*"):
        paths = output.glob(name.replace("shards/*", "*.parquet"))
        figures[f"GB {name[:-2]}"] = sum(path.stat().st_size for path in paths) / 1e9
    return Build(measured_corpus(str(output)), slowness, waiting, figures)


def shuffled_bytes(output: pathlib.Path) -> int:
    """Return what the build moved for deduplication, packed again from its side files."""
    names = [path.stem for path in (output / "fingerprints").glob("*.arrow")]
    files = [read_fingerprints(layout.fingerprints(str(output), name)) for name in names]
    pages = sum(len(file.units_per_page) for file in files)
    units = sum(len(file.units) for file in files)
    moved = 0
    for name, file in zip(names, files, strict=True):
        with Removals(layout.removals(str(output), name)) as removals:
            rows = np.flatnonzero(removals.pages(0, file.cleaned_pages))
        lost = [pack_settled(rows, rows)]
        _, urls = dedup.url_buffers(str(output), name, dedup.bucket_count(pages, PAGE_BYTES))
        buckets = dedup.bucket_count(units, SPAN_BYTES)
        gone, sent = dedup.span_buffers(str(output), name, lost, 3, buckets)
        moved += sum(
            len(buffer) + plan.ELEMENT_BYTES for buffer in [*urls.values(), *sent.values()]
        )
        moved += len(gone or b"")
    return moved


def predicted(
    work: Work, workers: int, rates: Rates, slowness: float, waiting: float
) -> dict[str, float]:
    """Return what the model says of a build on this machine, with its slowness and load."""
    fleet = Fleet(workers, 1, 64.0, _ENGINE, slowness, local=True)
    made = make_plan(work, fleet, rates)
    return {
        "CPU s": made.total("cpu_s"),
        "wall s": made.wall_s * waiting,
        "GB a worker": made.widest.process_bytes / 1e9,
        "GB shuffled": made.total("shuffle_bytes") / 1e9,
        **{f"GB {name}": size / 1e9 for name, size in made.disk_bytes.items()},
    }


def check(sizes: list[int], workers: int, seed: int) -> float:
    """Build every size, print model and measurement; return the model's largest error."""
    with tempfile.TemporaryDirectory(prefix="c4-plan-") as name:
        folder = pathlib.Path(name)
        one = [build.one_page_file(folder)]
        options = ["--workers", str(workers)]
        starts = [build.build(one, folder / f"one-{n}", *options) for n in range(2)]
        start = min(cost.cpu_s for cost in starts), min(cost.wall_s for cost in starts)
        found = [built(n, folder / str(n), workers, seed, start) for n in sizes]
    like = found[0].corpus
    # Generated text costs what the rates say: they were measured on it.
    profile = dataclasses.replace(like.profile, text_bytes=2300.0, effort=1.0)
    worst = 0.0
    for size, run in zip(sizes, found, strict=True):
        files, slow = run.corpus.files, run.slowness
        ours = predicted(Work(files, size, profile), workers, Rates(), slow, run.waiting)
        slower, work = slow / found[0].slowness, Work(files, size, like.profile)
        theirs = predicted(work, workers, like.rates, slower, run.waiting)
        print(f"{size:,} pages in {files} files, {workers} workers; the machine {slow:.2f} times "
              f"slower, {run.waiting:.2f} s for a CPU second:")  # fmt: skip
        for what, value in run.figures.items():
            errors = [prediction[what] / value - 1 for prediction in (ours, theirs)]
            worst = max(worst, abs(errors[0]))
            print(f"  {what:<16}{value:10.3f}   model {ours[what]:10.3f} {errors[0]:+5.0%}   "
                  f"--like {theirs[what]:10.3f} {errors[1]:+5.0%}", flush=True)  # fmt: skip
    print(f"largest error {worst:.0%} (bar: {BAR:.0%})")
    return worst


def print_rates() -> None:
    """Measure the rates, and print them line by line where they are stored, with the old ones."""
    print(f"benchmarks/plan.py:\nMACHINE_S = {least():.3g}\n\npipelines/plan.py, was")
    rates = plan_rates.measured_rates()
    for name, value in rates.items():
        print(f"    {name}: float = {value:g}  # {getattr(Rates(), name):g}", flush=True)
    if wet := sorted(glob.glob(measure.WET)):
        effort = plan_rates.real_effort(wet, dataclasses.replace(Rates(), **rates))
        print(f"    effort: float = {effort:.2f}  # {plan.Profile().effort}; {len(wet)} files")


def main() -> int:
    parser = measure.parser(__doc__)
    parser.add_argument("what", choices=("check", "rates", "speed"))
    parser.add_argument("--pages", type=int, nargs="+", default=[20_000, 80_000, 300_000])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=11)
    arguments = parser.parse_args()
    if arguments.what == "rates":
        print_rates()
        return 0
    if arguments.what == "speed":
        print(f"{least() / MACHINE_S:.2f}: c4 plan --cpu-factor, for machines like this one")
        return 0
    return 0 if check(arguments.pages, arguments.workers, arguments.seed) <= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
