"""Python's garbage collector, kept off work that makes no cycles."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """Run the block with the collector off, as it was before afterwards.

    It would walk every page held so far, and all of Beam's modules, again and again: 8 % of CPU.
    Objects without cycles are freed all the same, when the last name for them goes.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Run a block of imports with the collector off, and count what they leave as old.

    Otherwise the next collections would walk all of it twice: 60 ms for Beam.
    """
    with without_collector():
        yield
        if not gc.get_freeze_count():  # else somebody else keeps objects frozen
            gc.freeze()
            gc.unfreeze()
