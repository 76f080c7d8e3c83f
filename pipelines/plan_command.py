"""``c4 plan``: what a build will take, and cost, before it is launched. Asks no network."""

import argparse
import dataclasses
import json
import math
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines import storage
from pipelines.corpus import layout
from pipelines.corpus.formats import format_named
from pipelines.number_options import MOST_SHARDS, require_within, shard_count
from pipelines.plan import Cluster, Plan, Profile, Rates, Stage, Work, make_plan, timed
from pipelines.plan_tables import Crawl, Tables, known_crawl, read_tables
from pipelines.printing import printable

__all__ = ["add_arguments", "costs", "run"]

#: The published build of CC-MAIN-2019-18, by the code of TensorFlow Datasets: its README.
REFERENCE_CPU_DAYS = 335
_TYPICAL = Crawl(56_000, 7.0e12, 2_497_818_607)  # a file of unknown crawls is as one of 2019-18
_MOST_WORKERS = 100_000
_MOST_FILES = 10_000_000  # a hundred crawls
_CPU_FACTORS = (0.001, 1000.0)
_OTHER_PAGES = 2.0  # times as long, or as short: a corpus of such is no good model
_COMPARED_FILES = 1_000  # from here on with the reference, which cleaned a whole crawl
_STAGE_COLUMNS = "{:<16}{:>10}{:>12}{:>10}{:>10}{:>10}{:>11}{:>11}{:>9}{:>9}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``c4 plan``."""
    parser.epilog = textwrap.dedent(
        """\
        The figures are those of recipe en on a raw crawl. --like takes them from a corpus that c4
        build has made of some of your files, with your recipe and on your machine, and is better.
        Prices are a table that you can edit; they change. docs/scale.md has the model, what it was
        checked against, and its limits.

        exit status: 0 planned; 1 refused, or the machine is too small; 2 wrong usage
        """
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--crawl", metavar="ID", help="a crawl of the table, as CC-MAIN-2019-18")
    what.add_argument("--files", type=int, metavar="N", help="so many WET files of a crawl")
    what.add_argument(
        "--input", nargs="+", metavar="GLOB", help="these WET files; their sizes are looked up"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=100,
        metavar="N",
        help="machines of --machine, not processes as for c4 build (default: 100)",
    )
    parser.add_argument(
        "--machine",
        default="n2-standard-4",
        metavar="TYPE",
        help="of the price table (default: n2-standard-4)",
    )
    parser.add_argument(
        "--shards",
        default="auto",
        metavar="auto|N",
        help="train shards (default: auto, 64 to 256 MB of text each)",
    )
    parser.add_argument(
        "--format", default="parquet", metavar="LIST", help="as for c4 build (default: parquet)"
    )
    parser.add_argument(
        "--like", metavar="DIR", help="take pages and CPU from this finished corpus"
    )
    parser.add_argument(
        "--cpu-factor",
        type=float,
        default=1.0,
        metavar="F",
        help="how many times slower a vCPU is than the one that was measured on (default: 1)",
    )
    parser.add_argument(
        "--prices", metavar="FILE", help="a TOML file of your prices, machines, assumptions"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    """Print the plan. Returns the exit status."""
    del rest
    _require_bounds(arguments)
    tables = read_tables(arguments.prices)
    machine = tables.machine(arguments.machine)
    work, rates = _work(arguments)
    formats = _formats(arguments.format)
    cluster = Cluster(
        arguments.workers,
        machine.vcpus,
        machine.memory_gb,
        tables.engine,
        arguments.cpu_factor,
    )
    plan = make_plan(work, cluster, rates, shard_count(arguments.shards), formats)
    _check_memory(plan, arguments.machine, tables)
    if arguments.json:
        print(json.dumps(as_json(plan, arguments.machine, tables), indent=1, allow_nan=False))
    else:
        show(plan, arguments.machine, tables, arguments.crawl, arguments.like)
    return 0


def _require_bounds(arguments: argparse.Namespace) -> None:
    """Raise ValueError for numbers that no build has."""
    for name, most in (("workers", _MOST_WORKERS), ("files", _MOST_FILES)):
        value = getattr(arguments, name)
        if value is not None:
            require_within(f"--{name}", value, 1, most)
    require_within("--cpu-factor", arguments.cpu_factor, *_CPU_FACTORS)


def _work(arguments: argparse.Namespace) -> tuple[Work, Rates]:
    """What is to be built, and at what rates."""
    crawl: Crawl | None = None
    if arguments.crawl is not None:
        crawl = known_crawl(arguments.crawl)
    elif arguments.input is not None:
        if not all(arguments.input):
            raise ValueError("no input: give at least one WET file or pattern (--input)")
        found = storage.match([layout.absolute(pattern) for pattern in arguments.input])
        crawl = Crawl(len(found), float(sum(file.size for file in found)), 0)
    if arguments.like is None:
        profile, rates = Profile(), Rates()
        a_file = _TYPICAL.pages / _TYPICAL.files
    else:
        from pipelines.measured_corpus import measured_corpus

        like = measured_corpus(layout.absolute(arguments.like))
        profile, rates = like.profile, like.rates
        a_file = like.pages / like.files
    if crawl is None:
        return Work(arguments.files, max(1.0, arguments.files * a_file), profile), rates
    # Where only bytes are known, pages are as long as the profile's.
    pages = crawl.pages or max(1.0, crawl.stored_bytes / profile.stored_bytes)
    longer = crawl.stored_bytes / pages / profile.stored_bytes
    if arguments.like is not None and not 1 / _OTHER_PAGES <= longer <= _OTHER_PAGES:
        print(
            f"c4: note: a page of {printable(arguments.like)} has {profile.stored_bytes:,.0f} "
            f"stored bytes, one of what is planned {profile.stored_bytes * longer:,.0f}: its "
            f"amounts a page are taken {longer:.2g} times; a corpus of some of the same files is a "
            "better model (--like)",
            file=sys.stderr,
        )
    return Work(crawl.files, pages, _longer(profile, longer)), rates


def _longer(profile: Profile, times: float) -> Profile:
    """The profile of pages that are so many times as long; as many of them are kept."""
    names = ("stored_bytes", "text_bytes", "kept_bytes", "units", "written_bytes")
    return dataclasses.replace(profile, **{name: getattr(profile, name) * times for name in names})


def _formats(value: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in value.split(",") if name.strip())
    for name in names:
        format_named(name)
    if not names or len(set(names)) != len(names):
        raise ValueError(f"name each format once, got {value!r} (--format)")
    return names


def _check_memory(plan: Plan, machine: str, tables: Tables) -> None:
    widest, has = plan.widest, plan.cluster.process_bytes
    if widest.process_bytes <= has:
        return
    fits = [
        name
        for name, kind in tables.machines.items()
        if Cluster(1, kind.vcpus, kind.memory_gb, tables.engine).process_bytes
        >= widest.process_bytes
    ]
    out = f"such as {fits[0]}" if fits else "of more memory a vCPU than any in the table"
    can_be_more = widest.name == "write" and plan.shards < MOST_SHARDS
    more = ", or more shards (--shards)" if can_be_more else ""
    raise ValueError(
        f"stage {widest.name} takes {widest.process_bytes / 1e9:.1f} GB a process, and {machine} "
        f"leaves {has / 1e9:.1f} GB for each: take a machine {out} (--machine){more}"
    )


def costs(plan: Plan, tables: Tables) -> dict[str, float]:
    """US dollars by what they are paid for; storage is that of one month, after the build."""
    cluster = plan.cluster
    hours = plan.wall_s / 3600 * cluster.workers

    def usd(name: str) -> float:
        return tables.prices[name].usd

    return {
        "vCPUs": hours * cluster.cores * usd("vcpu_hour"),
        "memory": hours * cluster.memory_gb * usd("memory_gb_hour"),
        "workers' disks": hours * tables.engine.disk_gb * usd("disk_gb_hour"),
        # What goes in comes out again, and both are billed.
        "shuffle": 2 * plan.total("shuffle_bytes") / 1e9 * usd("shuffle_gb"),
        "requests": plan.total("class_a") / 1000 * usd("class_a_1000")
        + plan.total("class_b") / 1000 * usd("class_b_1000"),
    }


def storage_costs(plan: Plan, tables: Tables) -> dict[str, float]:
    """US dollars a month for each folder that is left when the build has ended."""
    price = tables.prices["storage_gb_month"].usd
    return {
        folder: n_bytes / 1e9 * price
        for folder, n_bytes in plan.disk_bytes.items()
        if folder != "merged"
    }


def as_json(plan: Plan, machine: str, tables: Tables) -> dict[str, Any]:
    """The whole plan for scripts: seconds, bytes, US dollars."""
    paid = costs(plan, tables)
    return {
        "files": plan.work.files,
        "pages": round(plan.work.pages),
        "stored_bytes": round(plan.work.of("stored_bytes")),
        "workers": plan.cluster.workers,
        "machine": machine,
        "profile": dataclasses.asdict(plan.work.profile),
        "buckets": plan.buckets,
        "pieces": plan.pieces,
        "shards": plan.shards,
        "stages": [dataclasses.asdict(stage) for stage in plan.stages],
        "cpu_s": plan.cpu_s,
        "wall_s": plan.wall_s,
        "process_bytes": plan.widest.process_bytes,
        "process_bytes_available": plan.cluster.process_bytes,
        "shuffle_bytes": plan.total("shuffle_bytes"),
        "disk_bytes": plan.disk_bytes,
        "usd": {**paid, "total": sum(paid.values())},
        "usd_a_month": storage_costs(plan, tables),
        "prices": {name: dataclasses.asdict(price) for name, price in tables.prices.items()},
        "reference_cpu_days": REFERENCE_CPU_DAYS,
    }


def show(
    plan: Plan, machine: str, tables: Tables, crawl: str | None = None, like: str | None = None
) -> None:
    """Print the plan for people; ``crawl`` and ``like`` are the options of these names."""
    work, cluster = plan.work, plan.cluster
    machine = printable(machine)
    print(
        f"{_counted(work.files, 'WET file')}, {_bytes(work.of('stored_bytes'))}, "
        f"{_pages(work.pages)}, on {cluster.workers:,} x {machine} and an object store\n"
        f"{_counted(cluster.slots, 'process', 'es')}, {cluster.process_bytes / 1e9:.1f} GB each\n"
    )
    print(
        _STAGE_COLUMNS.format(
            "stage", "tasks", "CPU", "read", "written", "shuffled", "writes", "reads",
            "memory", "wall",
        )
    )  # fmt: skip
    for stage in plan.stages:
        print(_row(stage))
    start = cluster.engine.start_s
    print(f"{'start':<16}{'':>83}{_time(start):>9}")
    whole = Stage(
        "total",
        sum(stage.tasks for stage in plan.stages),
        **{
            name: plan.total(name)
            for name in (
                *("cpu_s", "read_bytes", "written_bytes", "shuffle_bytes"),
                *("class_a", "class_b"),
            )
        },
        process_bytes=plan.widest.process_bytes,
        wall_s=plan.wall_s,
    )
    print(_row(whole))
    print(
        f"\n{_counted(plan.buckets, 'bucket')}, {_counted(plan.shards, 'train shard')}"
        + (f", {_counted(plan.pieces, 'merged piece')}" if plan.pieces else "")
        + "; writes and reads are requests to the object store"
    )
    kept = {name: size for name, size in plan.disk_bytes.items() if name != "merged"}
    print(f"kept: {', '.join(f'{name} {_bytes(size)}' for name, size in kept.items())}", end="")
    merged = plan.disk_bytes["merged"]
    print(f"; while it runs also merged {_bytes(merged)}" if merged else "")

    paid = costs(plan, tables)
    print(f"\ncost: ${sum(paid.values()):,.2f}")
    for what, usd in paid.items():
        print(f"  {what:<16}${usd:>12,.2f}")
    monthly = sum(storage_costs(plan, tables).values())
    print(f"  and ${monthly:,.2f} for each month that the folder is kept as the build leaves it")
    dates = [price.date for price in tables.prices.values()]
    first, last = printable(min(dates)), printable(max(dates))
    print(f"  by prices of {first} to {last}, which change: check them, and give your "
          "own with --prices FILE")  # fmt: skip
    print(f"\nprocesses have a task for {plan.busy:.0%} of the time", end="")
    print(f": {_fewer(plan, tables)}" if plan.busy < 0.5 and cluster.workers > 1 else "")
    if work.files >= _COMPARED_FILES:
        _compare(plan, crawl)
    advice = "" if like else "; --like CORPUS makes it one of your own pages"
    print(f"an estimate: docs/scale.md has its limits{advice}")


def _compare(plan: Plan, crawl: str | None) -> None:
    """Print what the reference took."""
    days = plan.cpu_s / 86_400
    print(
        f"the reference took about {REFERENCE_CPU_DAYS} CPU-days for CC-MAIN-2019-18; this is "
        f"{days:.1f}"
        + (
            f", {REFERENCE_CPU_DAYS / days:.0f} times less"
            if crawl == "CC-MAIN-2019-18"
            else f", or {days / plan.work.pages * _TYPICAL.pages:.1f} for as many pages"
        )
    )


def _fewer(plan: Plan, tables: Tables) -> str:
    """How many workers would have tasks half the time, and what they would take."""
    other = plan
    while other.busy < 0.5 and other.cluster.workers > 1:
        workers = math.ceil(other.cluster.workers * 0.8) - 1
        other = again(plan, dataclasses.replace(plan.cluster, workers=max(1, workers)))
    workers = other.cluster.workers
    return (
        f"{_counted(workers, 'worker')} would take {_time(other.wall_s)} and "
        f"${sum(costs(other, tables).values()):,.2f}"
    )


def again(plan: Plan, cluster: Cluster) -> Plan:
    """The same work on another cluster."""
    stages = tuple(timed(stage, cluster) for stage in plan.stages)
    return dataclasses.replace(plan, cluster=cluster, stages=stages)


def _row(stage: Stage) -> str:
    return _STAGE_COLUMNS.format(
        stage.name,
        f"{stage.tasks:,}",
        _cpu(stage.cpu_s),
        _bytes(stage.read_bytes),
        _bytes(stage.written_bytes),
        _bytes(stage.shuffle_bytes),
        _count(stage.class_a),
        _count(stage.class_b),
        _bytes(stage.process_bytes),
        _time(stage.wall_s),
    )


def _counted(count: int, what: str, plural: str = "s") -> str:
    return f"{count:,} {what}{'' if count == 1 else plural}"


def _pages(pages: float) -> str:
    """Pages, in millions where they are.

    >>> _pages(2_497_818_607), _pages(44_603.9), _pages(1)
    ('2,497.8 M pages', '44,604 pages', '1 page')
    """
    return f"{pages / 1e6:,.1f} M pages" if pages >= 1e6 else _counted(round(pages), "page")


def _cpu(seconds: float) -> str:
    """Hours, or seconds below one hour.

    >>> _cpu(9_000_000.0), _cpu(5_400.0), _cpu(740.0), _cpu(0.031)
    ('2,500 h', '1.5 h', '740 s', '0.031 s')
    """
    if seconds >= 3600:
        hours = seconds / 3600
        return f"{hours:,.{0 if hours >= 1000 else 1}f} h"
    return f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def _bytes(value: float) -> str:
    return _scaled(value, {"TB": 1e12, "GB": 1e9, "MB": 1e6, "kB": 1e3}, "B")


def _count(value: float) -> str:
    return _scaled(value, {"G": 1e9, "M": 1e6, "k": 1e3}, "")


def _scaled(value: float, units: Mapping[str, float], smallest: str) -> str:
    if not value:
        return "-"
    for unit, size in units.items():
        if value >= size:
            return f"{value / size:,.{0 if value >= 100 * size else 1}f} {unit}"
    return f"{value:.0f} {smallest}".rstrip()


def _time(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds.

    >>> _time(3.5 * 3600), _time(75)
    ('3h30m', '1m15s')
    """
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02}s"
    return f"{minutes // 60}h{minutes % 60:02}m"
