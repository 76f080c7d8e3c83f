"""Apache Beam, imported without the line about apitools that every plain install prints.

Without the ``gcp`` extra, ``import apache_beam`` logs a warning about its BigQuery client through
the root logger. That call also installs a handler on standard error when there is none, so that
every later log line of the program would be printed as well. Import Beam through this module:

>>> from pipelines.quiet_beam import beam
>>> beam.__name__
'apache_beam'
"""

import contextlib
import logging
from collections.abc import Iterator

from pipelines.collector import importing

__all__ = ["beam"]


class _PassOn(logging.Handler):
    """Shows what logging itself would show where a program has set up no handler."""

    def emit(self, record: logging.LogRecord) -> None:
        if logging.lastResort is not None and record.levelno >= logging.lastResort.level:
            logging.lastResort.handle(record)


def _is_wanted(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("apitools not found")


@contextlib.contextmanager
def _without_apitools_line() -> Iterator[None]:
    """Drop that one line, let every other through, and leave the root logger as it was."""
    root = logging.getLogger()
    stand_in = _PassOn() if not root.handlers else None
    root.addFilter(_is_wanted)
    if stand_in is not None:
        root.addHandler(stand_in)
    try:
        yield
    finally:
        root.removeFilter(_is_wanted)
        if stand_in is not None:
            root.removeHandler(stand_in)


with _without_apitools_line(), importing():
    import apache_beam as beam
