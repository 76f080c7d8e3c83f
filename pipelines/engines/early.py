"""Start the worker processes of a build while the command is still importing its own modules.

Both import for a second. On two cores they do so side by side, and the first WET file is cleaned
that much earlier.
"""

import argparse
from collections.abc import Sequence

from pipelines import storage
from pipelines.engines.local import Workers
from pipelines.engines.options import expects_workers

__all__ = ["start_early"]


def start_early(words: Sequence[str]) -> Workers | None:
    """Return starting workers if a build with this command line will use them, else None.

    Wrong options and missing files are left to the command itself, which reports them.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--input", nargs="+", action="extend", default=[])
    parser.add_argument("--workers", type=int)
    try:
        asked, rest = parser.parse_known_args(words)
        if {"-h", "--help"} & {*rest} or not all(map(storage.is_local, asked.input)):
            return None
        sizes = [(file.path, file.size) for file in storage.match(asked.input)]
    except (argparse.ArgumentError, ValueError, OSError, SystemExit):
        return None
    if not expects_workers(rest, asked.workers, sizes):
        return None
    workers = Workers()
    workers.prepare()
    return workers
