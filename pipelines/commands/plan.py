"""``c4 plan``: what a build takes and costs, before it is launched. Uses no network."""

import argparse
import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pipelines.config import BuildConfig
from pipelines.corpus import layout
from pipelines.corpus.older import older_corpora
from pipelines.crawl.inputs import absolute_input, input_files
from pipelines.crawl.paths_file import Positions, read_positions
from pipelines.number_options import MOST_SHARDS
from pipelines.options import add_options, check_bounds, given_values, option
from pipelines.plan import Fleet, OlderWork, Plan, Profile, Rates, Stage, Work, make_plan
from pipelines.plan_tables import Crawl, Tables, known_crawl, read_tables
from pipelines.printing import counted, duration, print_lines, print_note, printable, scaled, size

#: The published build of CC-MAIN-2019-18, by the code of TensorFlow Datasets: its README.
REFERENCE_CPU_DAYS = 335
_TYPICAL = Crawl(56_000, 7.0e12, 2_497_818_607)  # 2019-18: files of unknown crawls are like its
_MOST_FILES = 10_000_000  # a hundred crawls
_COMPARED_FILES = 1_000  # from here on with the reference, which cleaned a whole crawl
_OTHER_PAGES = 2.0  # times as long, or as short: --like is then inexact
_LENGTHS = ("stored_bytes", "text_bytes", "kept_bytes", "units", "written_bytes")
_WIDTH = 80
_HEADINGS = "stage tasks CPU read written shuffled writes reads memory wall"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``c4 plan``."""
    parser.epilog = """
        The figures are those of recipe en on a raw crawl. --like takes them from a corpus that c4
        build has made of some of your files, with your recipe and on your machine, and is better.
        Prices are a table that you can edit; they change. docs/scale.md has the model, what it was
        checked against, and its limits.

        exit status: 0 planned; 1 refused, or the machine is too small; 2 wrong usage
    """
    add_options(parser, _Options, "crawl", "files", "inputs", "workers", "machine")
    add_options(parser, BuildConfig, "shards", "formats", "provenance", "against")
    add_options(parser, _Options, "like", "cpu_factor", "prices", "json")


def _read_files(text: str) -> Positions:
    """Return the positions that ``A:B`` or a number, of the first ones, names."""
    if ":" in text:
        first, end = read_positions(text)
    else:
        first, end = 0, int(text) if re.fullmatch("[0-9]{1,9}", text) else 0
    if end is not None and not 1 <= end - first <= _MOST_FILES:
        raise ValueError(
            f"--files wants a number of files from 1 to {_MOST_FILES:,}, or A:B, got {text[:80]!r}"
        )
    return first, end


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options:
    """What to plan."""

    crawl: str | None = option(
        "a crawl of the table, such as CC-MAIN-2019-18", default=None, metavar="ID"
    )
    files: Positions | None = option(
        "so many WET files of the crawl, or those at these positions; without --crawl, of one like "
        "CC-MAIN-2019-18", default=None, metavar="N|A:B", read=_read_files,
    )  # fmt: skip
    inputs: Sequence[str] = option(
        "these WET files, or @LIST, those of a list; their sizes are looked up", "--input",
        default=(), nargs="+", metavar="GLOB",
    )  # fmt: skip
    workers: int = option(
        "machines of --machine, not processes as for c4 build",
        default=100, metavar="N", least=1, most=100_000,
    )  # fmt: skip
    machine: str = option(
        "machine type of the price table", default="n2-standard-4", metavar="TYPE"
    )
    like: str | None = option(
        "take pages and CPU from this finished corpus", default=None, metavar="DIR"
    )
    cpu_factor: float = option(
        "how many times slower a vCPU is than the one of the measurements",
        default=1.0, metavar="F", least=0.001, most=1000,
    )  # fmt: skip
    prices: str | None = option(
        "TOML file with your prices, machines and assumptions", default=None, metavar="FILE"
    )
    json: bool = option("print one JSON object", default=False)

    def __post_init__(self) -> None:
        check_bounds(self)


def run(arguments: argparse.Namespace) -> int:
    """Print the plan and return the exit status."""
    options = _Options(**given_values(arguments, _Options))
    if options.inputs and (options.crawl or options.files):
        arguments.parser.error("--input names the files: leave out --crawl and --files")
    if not (hasattr(arguments, "input") or options.crawl or options.files):
        arguments.parser.error("one of --crawl, --files and --input is required")
    build = given_values(arguments, BuildConfig, "shards", "formats", "provenance", "against")
    older = _older_work(build.pop("against", ()))
    tables = read_tables(options.prices)
    machine = tables.machine(options.machine)
    work, rates = _work(options)

    def plan_for(workers: int) -> Plan:
        fleet = Fleet(workers, *machine, tables.engine, options.cpu_factor)
        return make_plan(work, fleet, rates, older=older, **build)

    plan = plan_for(options.workers)
    _check_memory(plan, options.machine, tables)
    if options.json:
        print(json.dumps(_as_json(plan, options.machine, tables), indent=1, allow_nan=False))
    else:
        _show(plan, options, tables, plan_for)
    return 0


def _older_work(folders: Sequence[str]) -> OlderWork:
    """Return what a build would read of older corpora."""
    found = older_corpora(map(layout.absolute, folders))
    names = ("groups", "pages", "units")
    return OlderWork(*(sum(getattr(corpus, name) for corpus in found) for name in names))


def _work(options: _Options) -> tuple[Work, Rates]:
    """Return what is to be built, and at what rates."""
    profile, rates, per_file = Profile(), Rates(), _TYPICAL.pages / _TYPICAL.files
    if options.like is not None:
        from pipelines.measured_corpus import measured_corpus

        like = measured_corpus(layout.absolute(options.like))
        profile, rates, per_file = like.profile, like.rates, like.pages / like.files
    if options.files is not None and options.crawl is None:
        first, end = options.files
        if end is None:
            raise ValueError("--files A:B wants B where no crawl is named (--crawl)")
        return Work(end - first, max(1.0, (end - first) * per_file), profile), rates
    if options.crawl is not None:
        crawl = _part(known_crawl(options.crawl), *(options.files or (0, None)))
    else:
        if not all(options.inputs):
            raise ValueError("no input: give at least one WET file or pattern (--input)")
        found = input_files(list(map(absolute_input, options.inputs)), (), None, "")
        crawl = Crawl(len(found), float(sum(file.size for file in found)), 0)
    # Where only bytes are known, pages are as long as the profile's.
    pages = crawl.pages or max(1.0, crawl.stored_bytes / profile.stored_bytes)
    longer = crawl.stored_bytes / pages / profile.stored_bytes
    if options.like is not None and not 1 / _OTHER_PAGES <= longer <= _OTHER_PAGES:
        print_note(
            f"c4: note: a page of {options.like} has {profile.stored_bytes:,.0f} "
            f"stored bytes, one of what is planned {profile.stored_bytes * longer:,.0f}: its "
            f"amounts per page are scaled by {longer:.2g}; a corpus of some of the same files is a "
            "better model (--like)"
        )
    lengths = {name: getattr(profile, name) * longer for name in _LENGTHS}
    return Work(crawl.files, pages, dataclasses.replace(profile, **lengths)), rates


def _part(crawl: Crawl, first: int, end: int | None) -> Crawl:
    """Return some files of a crawl, as large as its others."""
    files = min(crawl.files, end or crawl.files) - first
    if files < 1:
        raise ValueError(
            f"the crawl has {crawl.files:,} WET files, none from {first:,} on (--files)"
        )
    part = files / crawl.files
    return Crawl(files, crawl.stored_bytes * part, round(crawl.pages * part))


def _check_memory(plan: Plan, machine: str, tables: Tables) -> None:
    widest, has = plan.widest, plan.fleet.process_bytes
    if widest.process_bytes <= has:
        return
    fleets = {name: Fleet(1, *kind, tables.engine) for name, kind in tables.machines.items()}
    fits = [name for name, one in fleets.items() if one.process_bytes >= widest.process_bytes]
    out = f"such as {fits[0]}" if fits else "with more memory per vCPU than any in the table"
    can_be_more = widest.name == "write" and plan.shards < MOST_SHARDS
    more = ", or more shards (--shards)" if can_be_more else ""
    raise ValueError(
        f"stage {widest.name} takes {widest.process_bytes / 1e9:.1f} GB per process, and {machine} "
        f"leaves {has / 1e9:.1f} GB for each: take a machine {out} (--machine){more}"
    )


def _costs(plan: Plan, tables: Tables) -> dict[str, float]:
    """Return US dollars by what they are paid for, without the storage after the build."""
    usd = {name: price.usd for name, price in tables.prices.items()}
    hours = plan.paid_s / 3600 * plan.fleet.workers
    requests = plan.total("class_a") / 1000 * usd["class_a_1000"]
    requests += plan.total("class_b") / 1000 * usd["class_b_1000"]
    return {
        "vCPUs": hours * plan.fleet.cores * usd["vcpu_hour"],
        "memory": hours * plan.fleet.memory_gb * usd["memory_gb_hour"],
        "workers' disks": hours * tables.engine.disk_gb * usd["disk_gb_hour"],
        # What goes in comes out again, and both are billed.
        "shuffle": 2 * plan.total("shuffle_bytes") / 1e9 * usd["shuffle_gb"],
        "requests": requests,
    }


def _kept(plan: Plan) -> dict[str, float]:
    """Return bytes of each folder that is left when the build has ended."""
    return {name: size for name, size in plan.disk_bytes.items() if name != "merged"}


def _as_json(plan: Plan, machine: str, tables: Tables) -> dict[str, Any]:
    """Return the whole plan for scripts: seconds, bytes, US dollars."""
    paid, month = _costs(plan, tables), tables.prices["storage_gb_month"].usd
    return {
        "files": plan.work.files,
        "pages": round(plan.work.pages),
        "stored_bytes": round(plan.work.of("stored_bytes")),
        "workers": plan.fleet.workers,
        "machine": machine,
        "profile": dataclasses.asdict(plan.work.profile),
        "buckets": plan.buckets,
        "pieces": plan.pieces,
        "shards": plan.shards,
        "stages": [dataclasses.asdict(stage) for stage in plan.stages],
        "cpu_s": plan.total("cpu_s"),
        "wall_s": plan.wall_s,
        "paid_s": plan.paid_s,
        "process_bytes": plan.widest.process_bytes,
        "process_bytes_available": plan.fleet.process_bytes,
        "shuffle_bytes": plan.total("shuffle_bytes"),
        "disk_bytes": plan.disk_bytes,
        "usd": {**paid, "total": sum(paid.values())},
        "usd_a_month": {name: size / 1e9 * month for name, size in _kept(plan).items()},
        "prices": {name: price._asdict() for name, price in tables.prices.items()},
        "reference_cpu_days": REFERENCE_CPU_DAYS,
    }


def _show(plan: Plan, options: _Options, tables: Tables, plan_for: Callable[[int], Plan]) -> None:
    """Print the plan for people."""
    work, fleet = plan.work, plan.fleet
    print_lines(
        f"{counted(work.files, 'WET file')}, {size(work.of('stored_bytes'))}, "
        f"{_pages(work.pages)}, on {fleet.workers:,} x {printable(options.machine)} and an "
        f"object store\n{counted(fleet.slots, 'process', 'es')}, "
        f"{fleet.process_bytes / 1e9:.1f} GB each\n"
    )
    print_lines(*_table(plan))
    pieces = f", {counted(plan.pieces, 'merged piece')}" if plan.pieces else ""
    merged = plan.disk_bytes["merged"]
    print_lines(
        f"\n{counted(plan.buckets, 'bucket')}, {counted(plan.shards, 'train shard')}{pieces}\n"
        "writes and reads are requests to the object store\n"
        f"kept: {', '.join(f'{name} {size(kept)}' for name, kept in _kept(plan).items())}"
        + (f"; while it runs also merged {size(merged)}" if merged else "")
    )
    paid = _costs(plan, tables)
    print_lines(f"\ncost: ${sum(paid.values()):,.2f}")
    for what, usd in paid.items():
        print_lines(f"  {what:<16}${usd:>12,.2f}")
    monthly = sum(_kept(plan).values()) / 1e9 * tables.prices["storage_gb_month"].usd
    dates = [printable(price.date) for price in tables.prices.values()]
    print_lines(
        f"  and ${monthly:,.2f} for each month that the folder is kept as the build leaves it\n"
        f"  by prices of {min(dates)} to {max(dates)}, which change: check them, and give your own "
        f"with --prices FILE\n\nprocesses have a task for {plan.busy:.0%} of the time"
        + (f": {_fewer(plan, tables, plan_for)}" if plan.busy < 0.5 and fleet.workers > 1 else "")
    )
    if work.files >= _COMPARED_FILES:
        days = plan.total("cpu_s") / 86_400
        if options.crawl == "CC-MAIN-2019-18" and options.files is None:
            compared = f"{REFERENCE_CPU_DAYS / days:.0f} times less"
        else:
            compared = f"or {days / work.pages * _TYPICAL.pages:.1f} for that many pages"
        print_lines(
            f"the reference took about {REFERENCE_CPU_DAYS} CPU-days for CC-MAIN-2019-18; this is "
            f"{days:.1f}, {compared}"
        )
    advice = "" if options.like else "; --like CORPUS bases it on your own pages"
    print_lines(f"an estimate: docs/scale.md has its limits{advice}")


def _fewer(plan: Plan, tables: Tables, plan_for: Callable[[int], Plan]) -> str:
    """Say how many workers would have tasks half the time, and what they would take."""
    while plan.busy < 0.5 and plan.fleet.workers > 1:
        plan = plan_for(max(1, math.ceil(plan.fleet.workers * 0.8) - 1))
    return (
        f"{counted(plan.fleet.workers, 'worker')} would take {duration(plan.wall_s)} and "
        f"${sum(_costs(plan, tables).values()):,.2f}"
    )


def _table(plan: Plan) -> Iterator[str]:
    """Yield the lines of the table: columns as wide as they must be, over the whole width."""
    summed = ("cpu_s", "read_bytes", "written_bytes", "shuffle_bytes", "class_a", "class_b")
    sums: dict[str, Any] = {name: plan.total(name) for name in summed}
    sums |= {"tasks": int(plan.total("tasks")), "wall_s": plan.wall_s}
    total = dataclasses.replace(plan.widest, name="total", **sums)  # and its memory
    headings = _HEADINGS.split()
    start = ["start", *[""] * (len(headings) - 2), duration(plan.fleet.engine.start_s)]
    rows = [headings, *map(_cells, plan.stages), start, _cells(total)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    gap, wider = divmod(max(len(widths) - 1, _WIDTH - sum(widths)), len(widths) - 1)
    for name, *cells in rows:
        padded = [
            f"{cell:>{width + gap + (place < wider)}}"
            for place, (cell, width) in enumerate(zip(cells, widths[1:], strict=True))
        ]
        yield f"{name:<{widths[0]}}{''.join(padded)}"


def _cells(stage: Stage) -> list[str]:
    moved = (stage.read_bytes, stage.written_bytes, stage.shuffle_bytes)
    amounts = [size(amount) if amount else "-" for amount in moved]
    amounts += [scaled(amount) if amount else "-" for amount in (stage.class_a, stage.class_b)]
    amounts += [size(stage.process_bytes), duration(stage.wall_s)]
    tasks = f"{stage.tasks:,}" if stage.tasks < 100_000 else scaled(stage.tasks)
    numbers = [tasks, _cpu(stage.cpu_s), *amounts]
    return [stage.name, *(cell.replace(" ", "") for cell in numbers)]


def _pages(pages: float) -> str:
    """Return a number of pages, in millions from one million on.

    >>> _pages(2_497_818_607), _pages(44_603.9), _pages(1)
    ('2,497.8 M pages', '44,604 pages', '1 page')
    """
    return f"{pages / 1e6:,.1f} M pages" if pages >= 1e6 else counted(round(pages), "page")


def _cpu(seconds: float) -> str:
    """Return a CPU time in hours, or in seconds below one hour.

    >>> _cpu(9_000_000.0), _cpu(5_400.0), _cpu(740.0), _cpu(0.031)
    ('2,500 h', '1.5 h', '740 s', '0.031 s')
    >>> _cpu(49e6), _cpu(4.9e10)
    ('13.6 kh', '13.6 Mh')
    """
    if seconds >= 3600:
        hours = seconds / 3600
        if hours >= 10_000:
            return f"{scaled(hours)}h"
        return f"{hours:,.{0 if hours >= 1000 else 1}f} h"
    return f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
