"""Folders of models, on this machine and in object stores: written, opened and read."""

import contextlib
import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict, unflatten_dict

from model.exchange.hugging_face import CONFIG, import_model
from model.small_files import new_folder, read_small_file
from model.t5.config import ModelConfig
from model.training import remote_run
from model.training.checkpoint_layout import (
    CHECKSUMS,
    ITEMS,
    MODEL_FILE,
    OPTIMIZER,
    PARAMS,
    RUN_FILE,
    VOCABULARY_FILE,
    join_parts,
    newest_step,
    of_this_version,
    own_arrays,
    read_model_file,
    restore_args,
    run_and_step,
    this_process_only,
    write_model_file,
)
from model.training.checksums import array_checksums, first_difference, named_leaves
from model.training.remote_run import STEPS
from model.training.train_step import TrainState
from pipelines import storage

Path = str | os.PathLike[str]


class Origin(NamedTuple):
    """A run up to a checkpoint, whose statistics and step another run can continue."""

    step: int  #: global steps done
    settings: Mapping[str, Any]  #: of its ``run.json``


class LoadedParams(NamedTuple):
    """What :func:`load_params` returns."""

    config: ModelConfig
    params: Any  #: nested dict of numpy arrays
    vocabulary: str | pathlib.Path | None  #: SentencePiece model inside the folder


def save_params(
    path: Path, config: ModelConfig, params: Any, vocabulary: Path | None = None
) -> None:
    """Write parameters as a folder of their own, whole or not at all.

    Args:
      path: of a folder that does not exist yet, of this machine or of an object store.
      config: the model they belong to.
      params: nested dict of numpy or jax arrays, as ``T5.init`` makes it. One process calls this.
      vocabulary: a SentencePiece model to keep a copy of.

    Raises:
      ValueError: when ``path`` exists.
    """
    with new_folder(os.fspath(path), last=MODEL_FILE) as scratch:
        if vocabulary is not None:
            (scratch / VOCABULARY_FILE).write_bytes(read_small_file(vocabulary))
        processes = this_process_only()
        with ocp.Checkpointer(own_arrays(), multiprocessing_options=processes) as checkpointer:
            checkpointer.save(scratch / PARAMS, args=ocp.args.PyTreeSave(params))
        checksums = {PARAMS: array_checksums(params)}
        (scratch / f"{CHECKSUMS}.json").write_text(json.dumps(checksums))
        write_model_file(scratch, config)


def is_hugging_face(path: Path) -> bool:
    """Return whether a path is a folder of this machine in Hugging Face's layout."""
    where = os.fspath(path)
    if not storage.is_local(where):
        return False
    root = pathlib.Path(storage.local_path(where))
    return (root / CONFIG).is_file() and not (root / MODEL_FILE).exists()


def read_model(path: Path) -> tuple[ModelConfig, str | pathlib.Path | None]:
    """Return model and vocabulary of a folder that :func:`load_params` reads, but no array.

    Raises ValueError as it does.
    """
    with _on_this_machine(path) as (root, _):
        config, vocabulary = read_model_file(root), root / VOCABULARY_FILE
        if not vocabulary.exists():
            return config, None
    where = os.fspath(path)
    if storage.is_local(where):
        return config, vocabulary
    return config, storage.join(_located(where)[0], VOCABULARY_FILE)


def _located(url: str) -> tuple[str, int | None]:
    """Return the folder of a model in an object store, and the step, of what may be a checkpoint.

    Of a task's best checkpoint, whose folder has one of its own for each step, the newest's.
    """
    root, step = run_and_step(url)
    if root.split("/")[-2:-1] == [remote_run.BEST]:
        return storage.join(root, *map(str, remote_run.whole_steps(root, "")[-1:])), None
    return root, step


@contextlib.contextmanager
def _on_this_machine(
    path: Path, arrays: Sequence[str] = ()
) -> Iterator[tuple[pathlib.Path, pathlib.Path]]:
    """Yield the folder of ``model.json`` and that of the parameters' arrays.

    If they are in an object store, these are copies of what is needed of them. Errors
    then name the folder in the store. Only the ``arrays`` named are copied, and small files.
    """
    url = os.fspath(path)
    if storage.is_local(url):
        yield _find_params(pathlib.Path(storage.local_path(url)).absolute())
        return
    root, step = _located(url)
    with tempfile.TemporaryDirectory() as scratch:
        local = pathlib.Path(scratch)
        try:
            _copy_model(root, step, local, arrays)
            yield _find_params(local if step is None else local / STEPS / str(step))
        except ValueError as error:
            raise ValueError(str(error).replace(scratch, root)) from None


def _copy_model(root: str, step: int | None, local: pathlib.Path, arrays: Sequence[str]) -> None:
    """Copy a folder of parameters, or what is needed of one checkpoint of a run.

    Raises ValueError if there is none.
    """
    names = [MODEL_FILE, VOCABULARY_FILE, RUN_FILE, f"{CHECKSUMS}.json"]
    folders = storage.folders(root)
    if STEPS in folders:
        whole = remote_run.whole_steps(root)
        if step not in (None, *whole) or not whole:
            what = "no whole checkpoint yet" if step is None else f"no whole checkpoint {step}"
            raise ValueError(f"{root} holds {what}")
        step = whole[-1] if step is None else step
        if arrays:
            wanted = tuple(f"{item}/" for item in (*arrays, CHECKSUMS))
            remote_run.fetch_step(root, local, step, wanted)
            join_parts(local / STEPS / str(step))
        for item in ITEMS:  # without which it does not count as whole
            (local / STEPS / str(step) / item).mkdir(parents=True, exist_ok=True)
    elif PARAMS in folders:
        (local / PARAMS).mkdir()
        if arrays:
            names += [f"{PARAMS}/{name}" for name in storage.walk(storage.join(root, PARAMS))]
    there = storage.sizes(root)
    storage.copy_files(
        (storage.join(root, name), str(local / name))
        for name in names
        if "/" in name or name in there
    )


def load_params(path: Path) -> LoadedParams:
    """Read the parameters of a folder of :func:`save_params` or of a training run.

    Args:
      path: the folder, of this machine or an object store; of a run, that of the run (the newest
        checkpoint) or of one checkpoint.

    Raises:
      ValueError: when there is no model or no whole checkpoint at ``path``, or it is damaged.
    """
    config, vocabulary = read_model(path)
    with _on_this_machine(path, [PARAMS]) as (_, folder):
        stored = _stored_tree(folder)
        how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), stored)
        params = _load(folder, ocp.args.PyTreeRestore(restore_args=how))
    return LoadedParams(config, params, vocabulary)


def read_origin(path: Path) -> Origin | None:
    """Return the run that a folder's parameters are of; None where there are no statistics.

    The folder is one that :func:`load_state` takes. Raises ValueError as it does.
    """
    if is_hugging_face(path):
        return None
    with _on_this_machine(path) as (root, params):
        step = params.parent.name
        if not (params.parent / OPTIMIZER).is_dir() or not step.isdigit():
            return None
        if not (root / RUN_FILE).is_file():
            return Origin(int(step), {})
        with of_this_version(root / RUN_FILE, "run") as content:
            settings = content["settings"]
            return Origin(int(step) + int(settings.get("first_step", 0)), settings)


def load_state(
    path: Path, like: TrainState, *, statistics: bool, may_lack: Callable[[Any], bool]
) -> tuple[Any, Any | None]:
    """Read parameters, and perhaps the optimizer's statistics, for a run to start with.

    Args:
      path: as of :func:`load_params`, or of a folder in Hugging Face's layout.
      like: ``jax.ShapeDtypeStruct`` with shardings in the place of arrays.
      statistics: whether those are read, if there are any.
      may_lack: says of a path of keys in the tree of parameters whether it may be missing; it is
        then missing in what is returned.

    Raises:
      ValueError: as :func:`load_params`; or the checkpoint has other parameters.
    """
    if is_hugging_face(path):
        flat, arrays = map(flatten_dict, (like.params, import_model(path).params))
        placed = jax.device_put(arrays, {path: flat[path].sharding for path in arrays})
        return unflatten_dict(placed), None  # type: ignore[no-untyped-call]
    with _on_this_machine(path, [PARAMS, OPTIMIZER] if statistics else [PARAMS]) as (_, folder):
        params = _load_like(folder, like.params, may_lack)
        kept = folder.parent / OPTIMIZER
        if not (statistics and kept.is_dir()):
            return params, None
        return params, _load_like(kept, like.optimizer, may_lack)


def _load_like(folder: pathlib.Path, like: Any, may_lack: Callable[[Any], bool]) -> Any:
    """Read the arrays of ``like``, without those that may be missing and are."""
    there = named_leaves(_stored_tree(folder)).keys()
    flat = flatten_dict(like)  # type: ignore[no-untyped-call]
    # What is kept of one parameter is an array, or several under its name.
    with_arrays = {
        path for path in flat if any(f"{n}/".startswith(f"{'/'.join(path)}/") for n in there)
    }
    wanted = unflatten_dict(  # type: ignore[no-untyped-call]
        {path: node for path, node in flat.items() if path in with_arrays or not may_lack(path)}
    )
    names = named_leaves(wanted).keys()
    missing, unknown = names - there, there - names
    if missing or unknown:
        what = f"lacks {min(missing)}" if missing else f"holds {min(unknown)}, which it has not"
        raise ValueError(f"{folder} is not of this model: it {what}")
    return _load(folder, restore_args(wanted))


def _stored_tree(folder: pathlib.Path) -> Any:
    try:
        # Checkpointer's warns of a file less.
        return ocp.PyTreeCheckpointHandler().metadata(folder).tree
    except Exception as error:  # Orbax and TensorStore raise many kinds
        raise _damaged(folder, error) from error


def _load(folder: pathlib.Path, args: Any) -> Any:
    """Read a folder of arrays, and compare their checksums."""
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            arrays = checkpointer.restore(folder, args=args)
    except Exception as error:
        raise _damaged(folder, error) from error
    stored = _stored_checksums(folder).get(folder.name)
    if name := first_difference(array_checksums(arrays), stored):
        raise ValueError(
            f"{folder} is damaged ({name}: checksum mismatch): give another checkpoint"
        )
    return arrays


def _stored_checksums(folder: pathlib.Path) -> dict[str, Any]:
    """Return what was noted beside a folder of parameters."""
    path = folder.parent / f"{CHECKSUMS}.json"
    if not path.exists():
        path = folder.parent / CHECKSUMS / "metadata"  # as Orbax stores JSON
    try:
        stored = json.loads(read_small_file(path))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: damaged, give another checkpoint: {error}") from None
    return stored if isinstance(stored, dict) else {}


def _find_params(path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Return the folder of ``model.json`` and the folder of the arrays."""
    if not path.is_dir():
        raise ValueError(f"{path}: no such folder")
    if (path / PARAMS).is_dir():
        of_run = path.parent.name == STEPS and not (path / MODEL_FILE).exists()
        return path.parent.parent if of_run else path, path / PARAMS
    run, step = run_and_step(str(path))
    root = pathlib.Path(run)
    if step is not None or not (root / STEPS).is_dir():
        return path, path / PARAMS  # whose missing model.json will be named
    newest = newest_step(root / STEPS)
    if newest is None:
        raise ValueError(f"{path} holds no whole checkpoint yet")
    return root, root / STEPS / str(newest) / PARAMS


def _damaged(folder: pathlib.Path, error: Exception) -> ValueError:
    """Return an error with the first line of Orbax's message."""
    why = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return ValueError(f"{folder} cannot be read, give another checkpoint: {why}")
