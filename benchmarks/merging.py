"""Measure what merging cleaned files costs: CPU seconds and memory of a merging task.

    python -m benchmarks.merging --wet '../shared/wet/*.wet.gz' --files 400

The pages of the WET files are cleaned once, into one cleaned file, which is linked under as many
names as --files says. Then a few pieces are made, each in its own process, whose memory counts from
when it begins.
"""

import functools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

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
from pipelines.stages.merge_files import SORTED_BYTES, merge_files, plan_merge
from pipelines.stages.write_shards import plan_shards


def main(argv: Sequence[str] | None = None) -> int:
    """Print what the tasks cost."""
    parser = measure.parser(__doc__, wet=True)
    parser.add_argument("--files", type=int, default=400, help="cleaned files (default: 400)")
    parser.add_argument("--sample", type=int, default=3, help="pieces (default: 3)")
    arguments = parser.parse_args(argv)
    paths = measure.wet_files(parser, arguments.wet)
    with tempfile.TemporaryDirectory(prefix="c4-merging-") as output:
        names, text_bytes = _make_files(paths, arguments.files, output)
        shards = plan_shards(text_bytes, None)
        plan = plan_merge(len(names), text_bytes, len(shards))
        if plan is None:
            parser.error(
                f"{len(names):,} files and {len(shards):,} shards are not merged (--files)"
            )
        print(f"{len(shards):,} shards; {plan.groups:,} groups x {plan.ranges:,} ranges")
        text = text_bytes / (plan.groups * plan.ranges)  # of a piece
        for task in [task for task in plan.tasks() if task.shards == 0][: arguments.sample]:
            work = functools.partial(merge_files, task, plan, names, shards, output)
            cpu_s, peak = measure.in_process(_measured, work, start="fork")
            size = storage.stat(plan.piece(output, task)).size
            print(
                f"a piece of {text / 1e6:.0f} MB of text, {size / 1e6:.0f} MB stored: {cpu_s:.2f} "
                f"CPU s, {text / cpu_s / 1e6:.0f} MB of text a CPU s; {peak / 1e6:.0f} MB of "
                f"memory, {peak / min(SORTED_BYTES, text):.1f} times the text sorted at a time"
            )
    return 0


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


def _measured(work: Callable[[], object]) -> tuple[float, int]:
    """Return CPU seconds, and peak memory in bytes over that of the start."""
    measure.reset_peak()
    began, started = measure.memory("VmRSS"), time.process_time()
    work()
    return time.process_time() - started, measure.memory("VmHWM") - began


if __name__ == "__main__":
    sys.exit(main())
