"""The list of a build's input files: made once by whoever starts the build, read by a worker.

The job graph names this list and never the files, so that its size does not depend on their number
(engines refuse graphs of some megabytes) and that nobody lists a bucket twice.
"""

import json
from collections.abc import Iterable

from pipelines import layout, storage

__all__ = ["read_input_list", "write_input_list"]


def write_input_list(output: str, files: Iterable[tuple[str, int]]) -> None:
    """Writes ``(path, bytes)`` of each input file of the build in folder ``output``.

    One JSON array a line: a path may hold a line break, or bytes that are not UTF-8.
    """
    with storage.write_atomically(storage.join(output, layout.INPUTS)) as file:
        file.writelines(f"{json.dumps([path, size])}\n".encode("ascii") for path, size in files)


def read_input_list(output: str) -> list[tuple[str, int]]:
    """What `write_input_list` wrote. Raises ValueError, naming the list, when it is damaged."""
    path = storage.join(output, layout.INPUTS)
    try:
        entries = [json.loads(line) for line in storage.read_bytes(path).splitlines()]
        return [(str(name), int(size)) for name, size in entries]
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{path}: damaged: {error}; run the same c4 build again to write it anew"
        ) from None
