"""Compile the training step of every size for pods that could train it, and write the table.

    pip install 'colossal-c4[train,tpu]'
    python -m benchmarks.pods --output docs/pods.md --results pods.jsonl   # half an hour
    python -m benchmarks.pods --only "base v5e"                            # some rows, printed

Needs no TPU. With --results each row is kept, and kept rows are not compiled again, so that an
interrupted run resumes. Fails when a row does not fit its pod.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import pathlib
import re
import resource
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import jax

from model.chips import CHIPS
from model.data.batches import BatchSpec
from model.pods.compile_step import DoesNotFitError, StepPlan, compile_step
from model.pods.topologies import parse_topology
from model.t5.config import model_config
from model.training.train_config import StepConfig


@dataclasses.dataclass(frozen=True)
class Row:
    """One size on one slice."""

    size: str
    pod: str
    batch: int  #: sequences of 512 + 114 tokens
    remat: str = "none"
    accumulate: int = 1

    @property
    def name(self) -> str:
        """What --only looks at, and --results keeps."""
        return f"{self.size} {self.pod} {self.batch} {self.remat} {self.accumulate}"


#: The paper's batches: 128 sequences for its baseline (section 3.1.2) and what is held against it,
#: 2,048 for its final models (section 3.7). Its own pod is v3:32x32.
ROWS = (
    Row("11B", "v3:32x32", 2048, "full"),
    Row("base", "v3:4x4", 128),
    Row("base", "v5e:4x4", 128),
    Row("small", "v3:8x8", 2048, "full"),
    Row("base", "v3:16x16", 2048, "full"),
    Row("large", "v3:16x16", 2048, "full"),
    Row("3B", "v3:32x32", 2048, "full"),
    Row("2x", "v3:8x8", 128, "full"),
    Row("4x", "v3:8x8", 128, "full"),
    Row("small", "v5e:2x4", 128),
    Row("large", "v5e:16x16", 2048, "full"),
    Row("v1.1-small", "v5e:2x4", 128),
    Row("v1.1-base", "v5e:4x4", 128),
    Row("v1.1-large", "v5e:8x8", 2048, "full", 2),
    Row("v1.1-xl", "v6e:8x8", 2048, "full", 4),
    Row("v1.1-xxl", "v5p:8x8x8", 2048, "full"),
    Row("3B", "v5e:16x16", 2048, "full"),
    Row("3B", "v4:8x8x8", 2048, "full"),
    Row("3B", "v5p:8x8x8", 2048, "full"),
    Row("3B", "v6e:16x16", 2048, "full"),
    Row("11B", "v5e:16x16", 2048, "full"),
    Row("11B", "v4:8x8x8", 2048, "full"),
    Row("11B", "v5p:8x8x8", 2048, "full"),
    Row("11B", "v6e:16x16", 2048, "full"),
)


def measure(row: Row) -> dict[str, Any]:
    """Compile a row. Raises DoesNotFitError where no mesh of the pod fits it."""
    plan = StepPlan(
        topology=parse_topology(row.pod),
        config=model_config(row.size, dtype="bfloat16", remat=row.remat),
        batch=BatchSpec(row.batch, 114, encoder_length=512),
        step=StepConfig(accumulate=row.accumulate, prng="rbg"),
    )
    start = time.process_time()
    report = compile_step(plan)
    return {
        "row": row.name,
        "mesh": report.mesh,
        "used_bytes": report.memory.total,
        **{name: getattr(report.roofline, name) for name in _OF_ROOFLINE},
        "tokens_per_s": report.tokens_per_s,
        "compile_cpu_s": time.process_time() - start,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def table(rows: Iterable[tuple[Row, dict[str, Any]]]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = [
        "| size | slice | batch | remat | mesh | GiB a device: used of | work s | exchanges s |"
        " step s | tokens/s | of peak |",
        "|---|---|--:|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row, found in rows:
        chip = parse_topology(row.pod).chip
        parts = f" / {row.accumulate}" if row.accumulate > 1 else ""
        exchanges = found["waiting_s"] + found["overlapped_s"]
        lines.append(
            f"| {row.size} | {row.pod} | {row.batch:,}{parts} | {row.remat} "
            f"| {found['mesh'].replace(',', ' ')} "
            f"| {found['used_bytes'] / 2**30:.1f} of {chip.device_bytes / 2**30:.1f} "
            f"| {found['work_s']:.3f} | {exchanges:.3f} | {found['step_s']:.3f} "
            f"| {found['tokens_per_s']:,.0f} | {found['utilization']:.0%} |"
        )
    return lines


def chips() -> list[str]:
    """Return the figures of each chip that the estimates use, as a Markdown table."""
    lines = [
        "| chip | devices | memory of a device, usable | peak bfloat16 | HBM | link, one way |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for chip in CHIPS.values():
        lines.append(
            f"| {chip.name} | {chip.devices_per_chip} | {chip.device_bytes / 2**30:.2f} GiB "
            f"| {chip.peak_flops / 1e12:.0f} TFLOP/s | {chip.hbm_bandwidth / 1e9:,.0f} GB/s "
            f"| {chip.ici_bandwidth / 1e9:.0f} GB/s, {2 * chip.dimensions} links |"
        )
    return lines


_OF_ROOFLINE = ("work_s", "waiting_s", "overlapped_s", "step_s", "utilization")
#: The page that is written; its words stay, and its tables and measurements are replaced.
_PAGE = pathlib.Path(__file__).resolve().parents[1] / "docs" / "pods.md"


def page(rows: Sequence[tuple[Row, dict[str, Any]]]) -> str:
    """Return the whole document."""
    seconds = sorted(found["compile_cpu_s"] for _, found in rows)
    parts = {
        r"\| size \|(.|\n)*?": "\n".join(table(rows)),
        r"\| chip \|(.|\n)*?": "\n".join(chips()),
        r"Compiling took (.|\n)*?": (
            f"Compiling took {seconds[len(seconds) // 2]:.0f} CPU seconds a row in the middle and "
            f"{seconds[-1]:.0f} at most, and\n{max(found['peak_gib'] for _, found in rows):.1f} "
            f"GiB of memory, with jax {jax.__version__} and libtpu "
            f"{importlib.metadata.version('libtpu')}."
        ),
    }
    text = _PAGE.read_text(encoding="utf-8")
    for pattern, new in parts.items():
        text = re.sub(rf"(?m)^{pattern}\n\n", lambda _, new=new: f"{new}\n\n", text)
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write; return 1 when a row does not fit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, metavar="FILE", help="page to write")
    parser.add_argument("--results", type=pathlib.Path, metavar="FILE", help="rows to keep")
    parser.add_argument("--kept", action="store_true", help="only rows that --results has")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose name has this")
    options = parser.parse_args(argv)
    kept = {}
    if options.results is not None and options.results.exists():
        lines = options.results.read_text().splitlines()
        kept = {found["row"]: found for found in map(json.loads, lines)}
    rows = [row for row in ROWS if options.only in row.name]
    if options.kept:
        rows = [row for row in rows if row.name in kept]
    if not rows:
        raise SystemExit(f"no row has {options.only!r}; rows: {', '.join(r.name for r in ROWS)}")
    status, done = 0, []
    for row in rows:
        if row.name not in kept:
            try:
                kept[row.name] = measure(row)
            except DoesNotFitError as error:
                print(f"{row.name}: {error}", file=sys.stderr)
                status = 1
                continue
            if options.results is not None:
                with options.results.open("a") as stream:
                    print(json.dumps(kept[row.name]), file=stream)
        done.append((row, kept[row.name]))
        print(table(done[-1:])[-1], flush=True)
    if options.output is not None and done and status == 0:
        options.output.write_text(page(done))
    return status


if __name__ == "__main__":
    sys.exit(main())
