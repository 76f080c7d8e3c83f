"""How far a report is, on a terminal."""

import sys

from tqdm import tqdm


def bar(what: str, total: int) -> "tqdm[None]":
    """Return a progress bar, which shows nothing where standard error is no terminal."""
    return tqdm(total=total, desc=what, disable=None, file=sys.stderr, unit_scale=True, leave=False)
