"""Progress bars of work that this process does by itself; `pipelines.progress` shows builds."""

import sys
from typing import Any

from tqdm import tqdm


def bar(what: str, total: int | None, unit: str = "it", **words: Any) -> "tqdm[Any]":
    """Return a progress bar, which shows nothing where standard error is no terminal.

    Args:
        what: Name of the work.
        total: How many units it has, if that is known.
        unit: What is counted, such as "B" for bytes.
        words: Further arguments of `tqdm.tqdm`.
    """
    return tqdm(
        total=total, desc=what, unit=unit, unit_scale=True, disable=None, file=sys.stderr, **words
    )
