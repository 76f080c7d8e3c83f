"""Measure what merging cleaned files costs, and what it saves when shards are written.

    python -m benchmarks.merging --wet '../shared/wet/*.wet.gz' --files 400

The pages of the WET files are cleaned once, into one cleaned file, which is linked under as many
names as --files says. Then a few pieces are made, and a few shards are written from files and from
pieces, each in its own process; both ways must give the same shard. CPU seconds and peak memory are
those of the processes; the sums are extrapolated to all pieces and shards.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks import measure
from c4_filters.pages import PageRules
from c4_filters.recipes import RECIPES
from pipelines import storage
from pipelines.corpus import layout
from pipelines.corpus.cleaned import CleanedFile, shard_order, write_cleaned
from pipelines.corpus.removals import write_removals
from pipelines.stages.clean_files import clean_file
from pipelines.stages.merge_files import cleaned_sources, merge_files, plan_merge
from pipelines.stages.write_shards import plan_shards, write_shard


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; fails when the two ways differ."""
    parser = measure.parser(__doc__, wet=True)
    parser.add_argument("--files", type=int, default=400, help="cleaned files (default: 400)")
    parser.add_argument("--sample", type=int, default=3, help="pieces and shards (default: 3)")
    arguments = parser.parse_args(argv)
    paths = measure.wet_files(parser, arguments.wet)
    with tempfile.TemporaryDirectory(prefix="c4-merging-") as output:
        names, text_bytes = _make_files(paths, arguments.files, output)
        return 0 if _compare(names, text_bytes, output, arguments.sample) else 1


def _make_files(paths: Sequence[str], count: int, output: str) -> tuple[list[str], int]:
    rules = PageRules(RECIPES["en"])
    tables = []
    for path in paths:
        made = clean_file(path, os.path.getsize(path), output, rules, "x", 64 << 20)
        with CleanedFile(layout.cleaned(output, made.name)) as file:
            tables += [pages for split in (0, 1) for pages, *_ in file.slices(split, 0, 2**64)]
    table = pa.Table.from_batches(tables)
    table = table.take(shard_order(table))
    names = [f"file-{number:05}" for number in range(count)]
    cleaned, removals = layout.cleaned(output, names[0]), layout.removals(output, names[0])
    write_cleaned(cleaned, table, {})
    units = pc.sum(pc.list_value_length(table["unit_starts"])).as_py()
    chance = np.random.default_rng(0)
    pages_gone, units_gone = chance.random(len(table)) < 0.05, chance.random(units) < 0.1
    write_removals(removals, pages_gone, units_gone, None, None, "")
    for name in names[1:]:
        os.link(cleaned, layout.cleaned(output, name))
        os.link(removals, layout.removals(output, name))
    text = pc.sum(pc.binary_length(table["text"])).as_py()
    print(
        f"{count:,} cleaned files of {text / 1e6:.1f} MB of text, "
        f"{os.path.getsize(cleaned) / 1e6:.1f} MB each"
    )
    return names, text * count


def _compare(names: list[str], text_bytes: int, output: str, sample: int) -> bool:
    rules = PageRules(RECIPES["en"])
    shards = plan_shards(text_bytes, None)
    plan = plan_merge(len(names), text_bytes, len(shards))
    if plan is None:
        print(f"{len(names):,} files and {len(shards):,} shards are not merged: give more --files")
        return True
    print(f"{len(shards):,} shards; {plan.groups:,} groups x {plan.ranges:,} ranges")
    # The pieces of the first range of shards.
    tasks = [task for task in plan.tasks() if task.shards == 0]
    made = [
        _measured(lambda task=task: merge_files(task, plan, names, shards, output))
        for task in tasks
    ]
    pieces = plan.groups * plan.ranges
    size = storage.stat(plan.piece(output, tasks[0])).size
    chosen = list(plan.shards_of(tasks[0], len(shards)))[:sample]
    ways: dict[str, list[tuple[float, int, Any]]] = {"files": [], "pieces": []}
    for number in chosen:
        for way in ways:
            task = shards[number]
            sources = (
                cleaned_sources(output, names)
                if way == "files"
                else [dict(parts)[number] for _, _, parts in made if number in dict(parts)]
            )
            ways[way].append(
                _measured(lambda t=task, s=sources: write_shard(t, s, output, ["parquet"], rules))
            )
    merging = sum(cpu_s for cpu_s, _, _ in made) / len(made) * pieces
    print(f"{'':<28}{'CPU s':>10}{'opened':>12}{'peak MB':>10}")
    _row(f"merging, {pieces:,} pieces", merging, len(names) * plan.ranges, made)
    for way, opened in (("files", len(names)), ("pieces", plan.groups)):
        cpu_s = sum(cpu_s for cpu_s, _, _ in ways[way]) / len(chosen) * len(shards)
        _row(f"shards from {way}", cpu_s, opened * len(shards), ways[way])
    print(f"a piece takes {size / 1e6:.0f} MB; {text_bytes / merging / 1e6:.0f} MB of text a CPU s")
    same = [shard.files for *_, shard in ways["files"]] == [s.files for *_, s in ways["pieces"]]
    print("the same shards" if same else "THE SHARDS DIFFER")
    return same


def _row(what: str, cpu_s: float, opened: int, made: Sequence[tuple[float, int, Any]]) -> None:
    peak = max(peak for _, peak, _ in made)
    print(f"{what:<28}{cpu_s:>10.1f}{opened:>12,}{peak / 1e6:>10.0f}")


def _measured(work: Callable[[], Any]) -> tuple[float, int, Any]:
    """Return CPU seconds, peak memory in bytes over that of the start, and the result."""

    def measured() -> tuple[float, int, Any]:
        measure.reset_peak()
        began, started = measure.memory("VmRSS"), time.process_time()
        result = work()
        return time.process_time() - started, measure.memory("VmHWM") - began, result

    return measure.in_process(measured, start="fork")


if __name__ == "__main__":
    sys.exit(main())
