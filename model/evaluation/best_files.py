"""Where a run keeps the best checkpoint of each task, and what it says of them. Imports no JAX."""

import os
from collections.abc import Mapping
from typing import Any

from model.small_files import json_object, read_small_file
from model.tasks.prepared import OWN
from model.tasks.registry import TASKS
from pipelines import storage

#: Of a run: what the checkpoints in ``best/`` scored.
BEST_FILE = "best.json"


def kept_best(path: str | os.PathLike[str]) -> dict[str, Mapping[str, Any]]:
    """Return what a run says of the best checkpoints that it keeps, by task; often nothing.

    Raises ValueError for a damaged record.
    """
    where = os.fspath(path)
    file = storage.join(where, BEST_FILE)
    if not storage.exists(file):
        return {}
    kept = json_object(read_small_file(file), f"{file}: damaged")
    if not all(task in (*TASKS, OWN) for task in kept):  # also: no way out of the folder
        raise ValueError(f"{file}: damaged: names what is no task")
    if not all(isinstance(each, dict) for each in kept.values()):
        raise ValueError(f"{file}: damaged: not an object for each task")
    return kept
