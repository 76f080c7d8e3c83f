"""What is in a folder of parameters, and in one of a run.

Both are read by `model.training.model_folders.load_params`::

    PARAMS/               RUN/
      model.json            model.json
      vocabulary.model      vocabulary.model
      checksums.json        checkpoints/STEP/checksums/
      params/                                params/
                                             optimizer/
                                             progress/

What Orbax stores has no checksums of its own: where floats do not compress, a flipped bit is a
value. Ours are kept beside it and compared with whatever is read. A folder of parameters without
``model.json`` is not whole. A checkpoint of a run is written under another name and gets its own
when all of it is there, so that one with a number for its name is whole: parameters, optimizer
state, place in the data and counts of metrics belong together.
"""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from model.small_files import read_small_file, write_json
from model.t5.config import ModelConfig
from model.training.remote_run import STEPS

MODEL_FILE = "model.json"
RUN_FILE = "run.json"  # the settings of a run
VOCABULARY_FILE = "vocabulary.model"
PARAMS = "params"
OPTIMIZER = "optimizer"
PROGRESS = "progress"
CHECKSUMS = "checksums"

ITEMS = (PARAMS, OPTIMIZER, PROGRESS, CHECKSUMS)  # of a checkpoint of a run

_INDEX = "manifest.ocdbt"  # of the arrays of all processes

FORMAT = 1  # of both files


def write_model_file(folder: pathlib.Path, config: ModelConfig) -> None:
    """Write ``model.json``, which makes a folder a model's."""
    content = {
        "format": FORMAT,
        "parameters": config.parameter_count(),
        "config": dataclasses.asdict(config),
    }
    write_json(folder / MODEL_FILE, content)


def read_model_file(folder: pathlib.Path) -> ModelConfig:
    """Return the model a folder is of.

    Raises ValueError when ``model.json`` is missing, of a later format or not a model's.
    """
    try:
        with of_this_version(folder / MODEL_FILE, "model") as content:
            return ModelConfig(**content["config"])
    except FileNotFoundError:
        raise ValueError(
            f"{folder} holds no model ({MODEL_FILE} is missing): give a folder that "
            "c4 import-hf or c4 pretrain made"
        ) from None


@contextlib.contextmanager
def of_this_version(path: pathlib.Path, what: str) -> Iterator[dict[str, Any]]:
    """Yield the content of ``model.json`` or ``run.json``, for a block that reads values of it.

    Raises ValueError, naming file and ``what``, for a file of a later format, and where the block
    raises because a value is missing or has another type.
    """
    try:
        content = json.loads(read_small_file(path))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, this version reads {FORMAT}")
        yield content
    except (
        AttributeError,
        KeyError,
        OverflowError,
        TypeError,
        ValueError,
        RecursionError,
    ) as error:
        raise ValueError(f"{path}: not a {what} of this version: {error}") from None


def newest_step(folder: pathlib.Path) -> int | None:
    """Return the newest whole checkpoint of ``checkpoints``; half-written ones do not count."""
    if not folder.is_dir():
        return None
    found = [step.step for step in ocp.step.standard_name_format().find_all(folder)]
    return max((step for step in found if is_whole(folder / str(step))), default=None)


def run_and_step(path: str) -> tuple[str, int | None]:
    """Return the run, and the step, of what may be one of its checkpoints or all of them.

    >>> run_and_step("gs://b/run/checkpoints/20/"), run_and_step("gs://b/run/checkpoints")
    (('gs://b/run', 20), ('gs://b/run', None))
    >>> run_and_step("checkpoints/20"), run_and_step("runs/first")
    (('.', 20), ('runs/first', None))
    """
    *before, last = path.rstrip("/").split("/")
    if last == STEPS:
        return "/".join(before) or ".", None
    if last.isdigit() and before[-1:] == [STEPS]:
        return "/".join(before[:-1]) or ".", int(last)
    return "/".join([*before, last]) or ".", None


def is_whole(folder: pathlib.Path) -> bool:
    """Return whether a folder is a checkpoint of a run, with all that belongs to one."""
    return all((folder / item).is_dir() for item in ITEMS)


def this_process_only() -> ocp.options.MultiprocessingOptions:
    """Return options with which Orbax does not wait for other processes of the run."""
    number = jax.process_index()
    return ocp.options.MultiprocessingOptions(primary_host=number, active_processes={number})


def own_arrays() -> ocp.PyTreeCheckpointHandler:
    """Return a handler with which each process writes what it has of arrays.

    NumPy arrays are not copied, as Orbax would: they do not change meanwhile.
    """
    kinds = ocp.type_handlers
    registry = kinds.create_type_handler_registry(
        (np.ndarray, kinds.NumpyHandler(deepcopy_host_arrays=False)),
        (jax.Array, kinds.ArrayHandler(primary_host=jax.process_index())),
    )
    return ocp.PyTreeCheckpointHandler(
        type_handler_registry=registry, multiprocessing_options=this_process_only()
    )


def restore_args(like: Any) -> Any:
    """Return how Orbax restores arrays of these shapes, types and shardings."""
    how = jax.tree.map(
        lambda leaf: ocp.ArrayRestoreArgs(
            sharding=leaf.sharding, global_shape=leaf.shape, dtype=leaf.dtype
        ),
        like,
    )
    return ocp.args.PyTreeRestore(item=like, restore_args=how)


def join_parts(folder: pathlib.Path) -> None:
    """Make an index of the arrays that several processes wrote, each its part (``is_shared``).

    ``folder`` is a whole checkpoint, which may have such indices already.
    """
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=this_process_only())
    for item in (folder / PARAMS, folder / OPTIMIZER):
        if item.is_dir() and any(item.iterdir()) and not (item / _INDEX).exists():
            handler.finalize(item)
