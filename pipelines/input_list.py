"""The list of a build's input files: written once by the launcher, read by a worker.

The job graph names this list and not the files, so that the size of the graph does not depend on
their number (engines refuse graphs of some megabytes), and a bucket is listed only once.

One JSON value per line: first ``{"run": …, "build": …}``, the build that the list belongs to; then
``[path, bytes, identity]`` of each input; then ``{"earlier": path}`` of each input of earlier
builds in this folder, whose kept files may still be here. A path may hold a line break, or bytes
that are not UTF-8.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from pipelines import storage
from pipelines.corpus import layout
from pipelines.storage import FileInfo


def build_id(identity: Mapping[str, Any], files: Iterable[FileInfo]) -> str:
    """Return a digest of a build's settings and inputs: same id, same corpus.

    >>> build_id({"shards": 1}, [FileInfo("/a", 3, "mtime:1")])[:8]
    '5067477d'
    """
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
    for file in sorted(files):
        digest.update(b"\n" + json.dumps(list(file)).encode("ascii"))
    return digest.hexdigest()


def write_input_list(
    output: str, files: Iterable[FileInfo], run_id: str = "", build_id: str = ""
) -> None:
    """Write the inputs of the build ``run_id`` in folder ``output``."""
    files = list(files)
    earlier = known_inputs(output).difference(file.path for file in files)
    lines: list[Any] = [{"run": run_id, "build": build_id}]
    lines += [list(file) for file in files]
    lines += [{"earlier": path} for path in sorted(earlier)]
    content = "".join(f"{json.dumps(line)}\n" for line in lines)
    storage.write_bytes(_path(output), content.encode("ascii"))


def read_input_list(output: str, run_id: str | None = None) -> list[FileInfo]:
    """Return the inputs that `write_input_list` wrote.

    Raises:
        ValueError: The list is damaged, or ``run_id`` is given and the list belongs to another
            build; the message names it.
    """
    path = _path(output)
    try:
        head, *lines = [json.loads(line) for line in storage.read_bytes(path).splitlines()]
        found = str(head["run"])
        files = [
            FileInfo(str(name), int(size), str(identity))
            for name, size, identity in (line for line in lines if not isinstance(line, dict))
        ]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged ({error}): run the same c4 build again to rebuild it"
        ) from None
    if run_id is not None and found != run_id:
        raise ValueError(
            f"{path} is the list of another build (run {found or 'unknown'}, not {run_id}): only "
            "one build at a time may use a folder; run the same c4 build again after that one ends"
        )
    return files


def known_inputs(output: str) -> set[str]:
    """Return the paths of all inputs of builds in a folder; unreadable lines are skipped."""
    known = set()
    for line in storage.read_if_exists(_path(output)).splitlines():
        try:
            found = json.loads(line)
            # Version 0.1 wrote [path, bytes] and no first line.
            name = found[0] if isinstance(found, list) else found.get("earlier")
        except (ValueError, LookupError, AttributeError, RecursionError):
            continue
        if isinstance(name, str):
            known.add(name)
    return known


def _path(output: str) -> str:
    return storage.join(output, layout.INPUTS)
