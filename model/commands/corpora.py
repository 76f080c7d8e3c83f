"""What the commands that write corpora of corpora share: options, a progress bar."""

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator

from tqdm import tqdm

from pipelines.corpus.formats import formats_named
from pipelines.options import option


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorpusOptions:
    """Where to write, and how."""

    output: str = option("a new or empty folder", metavar="DIR")
    formats: tuple[str, ...] = option(
        "tfrecord, parquet, json, or several separated by commas (default: parquet)",
        "--format", default=("parquet",), metavar="LIST", read=formats_named,
    )  # fmt: skip


@contextlib.contextmanager
def progress_bar(total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    """Show on a terminal how much was read; yield what takes the amounts."""
    shown = tqdm(
        total=total, unit=f" {unit}", unit_scale=True, file=sys.stderr, leave=False,
        disable=not sys.stderr.isatty(), dynamic_ncols=True,
    )  # fmt: skip
    with shown as bar:
        yield lambda amount: bar.update(amount) and None
