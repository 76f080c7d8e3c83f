"""Checkpoints: parameters to start from or to hand over, and whole states of training.

Two kinds of folder, both read by :func:`load_params`::

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
import os
import pathlib
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from model.exchange.hugging_face import CONFIG, import_model
from model.small_files import naming, read_small_file
from model.t5.config import ModelConfig
from model.training import remote_run
from model.training.checksums import array_checksums, first_difference
from model.training.train_step import TrainState
from pipelines import storage

__all__ = [
    "MODEL_FILE",
    "RUN_FILE",
    "STEPS",
    "VOCABULARY_FILE",
    "Checkpoints",
    "LoadedParams",
    "Origin",
    "is_hugging_face",
    "load_params",
    "load_state",
    "newest_step",
    "read_model",
    "read_model_file",
    "read_origin",
    "save_params",
    "write_model_file",
]

MODEL_FILE = "model.json"
RUN_FILE = "run.json"  # the settings of a run
VOCABULARY_FILE = "vocabulary.model"
PARAMS = "params"
STEPS = remote_run.STEPS
_OPTIMIZER = "optimizer"
_PROGRESS = "progress"
_CHECKSUMS = "checksums"

_ITEMS = (PARAMS, _OPTIMIZER, _PROGRESS, _CHECKSUMS)  # of a checkpoint of a run

_FORMAT = 1

Path = str | os.PathLike[str]


class Origin(NamedTuple):
    """The run whose statistics and step another one can carry on, up to a checkpoint."""

    step: int  #: global steps done
    settings: Mapping[str, Any]  #: of its ``run.json``


class LoadedParams(NamedTuple):
    """What :func:`load_params` gives."""

    config: ModelConfig
    params: Any  #: nested dict of numpy arrays, or of jax arrays where shardings were given
    vocabulary: str | pathlib.Path | None  #: SentencePiece model inside the folder


def save_params(
    path: Path, config: ModelConfig, params: Any, vocabulary: Path | None = None
) -> None:  # fmt: skip
    """Write parameters as a folder of their own, whole or not at all.

    Args:
      path: of a folder that does not exist yet; its parents are made.
      config: the model they belong to.
      params: nested dict of numpy or jax arrays, as ``T5.init`` makes it. One process calls this.
      vocabulary: a SentencePiece model to keep a copy of.

    Raises:
      ValueError: when ``path`` exists.
    """
    final = pathlib.Path(path).absolute()
    if final.exists():
        raise ValueError(f"{final} exists already: give another folder or delete it")
    final.parent.mkdir(parents=True, exist_ok=True)
    scratch = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    try:
        scratch.mkdir()
        if vocabulary is not None:
            (scratch / VOCABULARY_FILE).write_bytes(read_small_file(vocabulary))
        with ocp.Checkpointer(_uncopied()) as checkpointer:
            checkpointer.save(scratch / PARAMS, args=ocp.args.PyTreeSave(params))
        checksums = {PARAMS: array_checksums(params)}
        (scratch / f"{_CHECKSUMS}.json").write_text(json.dumps(checksums))
        write_model_file(scratch, config)
        scratch.rename(final)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _uncopied() -> ocp.PyTreeCheckpointHandler:
    """Return Orbax's handler without its copy of each NumPy array: they do not change meanwhile."""
    kinds = ocp.type_handlers
    registry = kinds.create_type_handler_registry(
        (np.ndarray, kinds.NumpyHandler(deepcopy_host_arrays=False)),
        (jax.Array, kinds.ArrayHandler()),
    )
    return ocp.PyTreeCheckpointHandler(type_handler_registry=registry)


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
    with _on_this_machine(path) as local:
        root, _ = _find_params(local)
        config, vocabulary = read_model_file(root), root / VOCABULARY_FILE
        if not vocabulary.exists():
            return config, None
    where = os.fspath(path)
    if storage.is_local(where):
        return config, vocabulary
    return config, storage.join(_parts_of(where)[0], VOCABULARY_FILE)


def _parts_of(url: str) -> tuple[str, int | None]:
    """Return the folder of the model, and the step, of what may be one checkpoint of a run.

    Of a task's best checkpoint, whose folder has one of its own for each step, the newest's.

    >>> _parts_of("gs://b/run/checkpoints/20/"), _parts_of("gs://b/run/checkpoints")
    (('gs://b/run', 20), ('gs://b/run', None))
    """
    found = re.fullmatch(rf"(.+?)(?:/{STEPS}(?:/(\d+))?)?/*", url)
    assert found is not None
    if re.search(rf"/{remote_run.BEST}/[^/]+$", found[1]):
        kept = remote_run.whole_steps(found[1], "")
        return storage.join(found[1], *map(str, kept[-1:])), None
    return found[1], None if found[2] is None else int(found[2])


@contextlib.contextmanager
def _on_this_machine(path: Path, arrays: Sequence[str] = ()) -> Iterator[pathlib.Path]:
    """Yield the folder; if it is in an object store, a copy of what is needed of it.

    Errors then name the folder in the store. Only the ``arrays`` named are copied, and small files.
    """
    url = os.fspath(path)
    if storage.is_local(url):
        yield pathlib.Path(storage.local_path(url)).absolute()
        return
    root, step = _parts_of(url)
    with tempfile.TemporaryDirectory() as scratch:
        local = pathlib.Path(scratch)
        try:
            _copy_model(root, step, local, arrays)
            yield local if step is None else local / STEPS / str(step)
        except ValueError as error:
            raise ValueError(str(error).replace(scratch, root)) from None


def _copy_model(
    root: str, step: int | None, local: pathlib.Path, arrays: Sequence[str]
) -> None:  # fmt: skip
    """Copy a folder of parameters, or what is needed of one checkpoint of a run.

    Raises ValueError if there is none.
    """
    names = [MODEL_FILE, VOCABULARY_FILE, RUN_FILE, f"{_CHECKSUMS}.json"]
    folders = storage.folders(root)
    if STEPS in folders:
        whole = remote_run.whole_steps(root)
        if step not in (None, *whole) or not whole:
            what = "no whole checkpoint yet" if step is None else f"no whole checkpoint {step}"
            raise ValueError(f"{root} holds {what}")
        step = whole[-1] if step is None else step
        for item in _ITEMS:
            (local / STEPS / str(step) / item).mkdir(parents=True)
        if arrays:
            wanted = tuple(f"{item}/" for item in (*arrays, _CHECKSUMS))
            remote_run.fetch_step(root, local, step, wanted)
            for item in _ITEMS:
                (local / STEPS / str(step) / item).mkdir(exist_ok=True)
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


def load_params(path: Path, shardings: Any | None = None) -> LoadedParams:
    """Read the parameters of a folder of :func:`save_params` or of a training run.

    Args:
      path: the folder, of this machine or an object store; of a run, that of the run (the newest
        checkpoint) or of one checkpoint.
      shardings: a tree like the parameters of ``jax.sharding.Sharding``; without it, arrays
        are numpy's.

    Raises:
      ValueError: when there is no model or no whole checkpoint at ``path``, or it is damaged.
    """
    config, vocabulary = read_model(path)
    with _on_this_machine(path, [PARAMS]) as local:
        folder = _find_params(local)[1]
        handler = ocp.PyTreeCheckpointHandler()
        stored = _stored_tree(handler, folder)
        if shardings is None:
            how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), stored)
        else:
            _check_same_names(folder, stored, shardings)
            how = jax.tree.map(lambda s: ocp.ArrayRestoreArgs(sharding=s), shardings)
        params = _load(handler, folder, ocp.args.PyTreeRestore(restore_args=how))
    return LoadedParams(config, params, vocabulary)


def read_origin(path: Path) -> Origin | None:
    """Return the run that a folder's parameters are of; None where there are no statistics.

    The folder is one that :func:`load_state` takes. Raises ValueError as it does.
    """
    if is_hugging_face(path):
        return None
    with _on_this_machine(path) as local:
        root, params = _find_params(local)
        step = params.parent.name
        if not (params.parent / _OPTIMIZER).is_dir() or not step.isdigit():
            return None
        settings: Any = {}
        if (root / RUN_FILE).is_file():
            try:
                settings = json.loads(read_small_file(root / RUN_FILE))["settings"]
                return Origin(int(step) + int(settings.get("first_step", 0)), settings)
            except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
                raise ValueError(f"{root / RUN_FILE}: not a run of this version: {error}") from None
        return Origin(int(step), {})


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
        params = import_model(path).params
        where = jax.tree.map(lambda leaf: leaf.sharding, _part(like.params, params))
        return jax.device_put(params, where), None
    with _on_this_machine(path, [PARAMS, _OPTIMIZER] if statistics else [PARAMS]) as local:
        folder = _find_params(local)[1]
        params = _load_like(folder, like.params, may_lack)
        kept = folder.parent / _OPTIMIZER
        if not (statistics and kept.is_dir()):
            return params, None
        return params, _load_like(kept, like.optimizer, may_lack)


def _load_like(folder: pathlib.Path, like: Any, may_lack: Callable[[Any], bool]) -> Any:
    """Read the arrays of ``like``, without those that may be missing and are."""
    handler = ocp.PyTreeCheckpointHandler()
    stored = _stored_tree(handler, folder)
    there = _names(stored)

    def lacks(path: Any, _: Any) -> bool:
        return may_lack(path) and _name(path) not in there

    lacking = jax.tree_util.tree_map_with_path(lacks, like)
    found = _without(like, lacking)
    _check_same_names(folder, stored, found)
    return _load(handler, folder, _restore_args(found))


def _part(tree: Any, found: Any) -> Any:
    """Return of nested dictionaries the nodes that are in others, too."""
    if not isinstance(tree, dict):
        return tree
    return {name: _part(tree[name], node) for name, node in found.items()}


def _without(tree: Any, left_out: Any) -> Any:
    """Return nested dictionaries without the nodes all of whose leaves are left out."""
    if not isinstance(tree, dict):
        return tree
    return {
        name: _without(node, left_out[name])
        for name, node in tree.items()
        if not all(jax.tree.leaves(left_out[name]))
    }


def _stored_tree(handler: ocp.PyTreeCheckpointHandler, folder: pathlib.Path) -> Any:
    try:
        return handler.metadata(folder).tree  # Checkpointer's warns of a file less
    except Exception as error:  # Orbax and TensorStore raise many kinds
        raise _damaged(folder, error) from error


def _load(handler: ocp.PyTreeCheckpointHandler, folder: pathlib.Path, args: Any) -> Any:
    """Read a folder of arrays, and compare their checksums."""
    try:
        with ocp.Checkpointer(handler) as checkpointer:
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
    path = folder.parent / f"{_CHECKSUMS}.json"
    if not path.exists():
        path = folder.parent / _CHECKSUMS / "metadata"  # as Orbax stores JSON
    try:
        stored = json.loads(read_small_file(path))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: damaged, give another checkpoint: {error}") from None
    return stored if isinstance(stored, dict) else {}


class Checkpoints:
    """The whole states of one run, the newest of them kept; every process makes its own.

    Saving goes on beside the training: what is to be saved is copied before ``save`` returns, and
    files are written while further steps run. A process killed meanwhile leaves a half-written
    folder that nobody takes for a checkpoint, and that the next run removes.
    """

    def __init__(
        self, folder: Path, *, keep_last: int = 3, keep_every: int | None = None
    ) -> None:  # fmt: skip
        """Open the checkpoints in ``folder``, which is made if it is missing.

        Of the checkpoints the newest ``keep_last`` stay, and those whose step is a multiple of
        ``keep_every``.
        """
        self.folder = pathlib.Path(folder).absolute()
        policies: list[Any] = [ocp.checkpoint_managers.LatestN(keep_last)]
        if keep_every is not None:
            policies.append(ocp.checkpoint_managers.EveryNSteps(keep_every))
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=ocp.checkpoint_managers.AnyPreservationPolicy(policies),
                cleanup_tmp_directories=True,
                # Otherwise, where a folder cannot be made, threads wait for it for 20 minutes.
                async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            ),
        )

    def newest(self) -> int | None:
        """Return the step of the newest checkpoint, None if there is none.

        Raises ValueError for a folder in its place that is not whole: saves are renamed when they
        are, so something else has been at it.
        """
        step: int | None = self._manager.latest_step()
        if step is not None and not _is_whole(self.folder / str(step)):
            raise ValueError(
                f"{self.folder / str(step)} is not a whole checkpoint; delete it to resume from "
                "the one before"
            )
        return step

    def save(self, step: int, state: TrainState, progress: Mapping[str, Any]) -> None:
        """Begin to save; wait for the save before, if that is not done.

        Args:
          step: its number; there is none of this number yet.
          state: arrays may be given away (donated) as soon as this returns.
          progress: JSON values, of the first process; the others' are not looked at.

        Raises:
          OSError: the save before this one failed.
        """
        with _one_line_failures(self.folder):
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    **{
                        PARAMS: ocp.args.PyTreeSave(state.params),
                        _OPTIMIZER: ocp.args.PyTreeSave(state.optimizer),
                        _PROGRESS: ocp.args.JsonSave(dict(progress)),
                        _CHECKSUMS: ocp.args.JsonSave(_checksums(state, dict(progress))),
                    }
                ),
                force=True,
            )

    def restore(
        self, step: int, like: TrainState, first_step: int = 0
    ) -> tuple[TrainState, dict[str, Any]]:
        """Read a state and what was saved beside it.

        Args:
          step: of a whole checkpoint.
          like: ``jax.ShapeDtypeStruct`` with shardings in the place of arrays; how the arrays
            were divided when they were saved does not matter.
          first_step: the global step at which the run started; the state's is ``step`` more.

        Raises:
          ValueError: the checkpoint is of other arrays, or damaged.
        """
        try:
            found = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    **{
                        PARAMS: _restore_args(like.params),
                        _OPTIMIZER: _restore_args(like.optimizer),
                        _PROGRESS: ocp.args.JsonRestore(),
                        _CHECKSUMS: ocp.args.JsonRestore(),
                    }
                ),
            )
            state = TrainState(found[PARAMS], found[_OPTIMIZER], like.step)
            progress, stored = found[_PROGRESS], found[_CHECKSUMS]
            for part, sums in _checksums(state, progress).items():
                if name := first_difference(sums, stored[part]):
                    raise ValueError(f"{part} {name}: checksum mismatch")
        except Exception as error:  # Orbax and TensorStore raise many kinds
            raise ValueError(
                f"{self.folder / str(step)} cannot be restored; delete it to resume from the one "
                f"before ({str(error).partition(' [tensorstore_spec')[0]})"
            ) from error
        counter = jax.device_put(np.int32(first_step + step), like.step.sharding)
        return state._replace(step=counter), dict(progress)

    def wait(self) -> None:
        """Wait until what was begun is on disk. Raises OSError if it could not be written."""
        with _one_line_failures(self.folder):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait, and free what saving needs. Raises OSError as :meth:`wait` does."""
        with _one_line_failures(self.folder):
            self._manager.close()


def _checksums(state: TrainState, progress: Any) -> dict[str, dict[str, int]]:
    text = json.dumps(progress, sort_keys=True).encode()
    return {
        PARAMS: array_checksums(state.params),
        _OPTIMIZER: array_checksums(state.optimizer),
        _PROGRESS: {"json": zlib.crc32(text)},
    }


def _restore_args(like: Any) -> Any:
    how = jax.tree.map(
        lambda leaf: ocp.ArrayRestoreArgs(
            sharding=leaf.sharding, global_shape=leaf.shape, dtype=leaf.dtype
        ),
        like,
    )
    return ocp.args.PyTreeRestore(item=like, restore_args=how)


@contextlib.contextmanager
def _one_line_failures(folder: pathlib.Path) -> Iterator[None]:
    """Return a failure, such as a full disk, as OSError: in the background it is any exception."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        what = str(error).partition(" [tensorstore_spec")[0]  # pages of JSON
        raise OSError(f"{folder}: a checkpoint could not be written: {what}") from error


def write_model_file(folder: pathlib.Path, config: ModelConfig) -> None:
    """Write ``model.json``, which makes a folder a model's."""
    content = {
        "format": _FORMAT,
        "parameters": config.parameter_count(),
        "config": dataclasses.asdict(config),
    }
    scratch = folder / f".{MODEL_FILE}.{os.getpid()}.tmp"
    with naming(scratch):
        scratch.write_text(json.dumps(content, indent=2) + "\n")
        scratch.replace(folder / MODEL_FILE)


def read_model_file(folder: pathlib.Path) -> ModelConfig:
    """Return the model a folder is of.

    Raises ValueError when ``model.json`` is missing, of a later format or not a model's.
    """
    path = folder / MODEL_FILE
    try:
        content = json.loads(read_small_file(path))
        if content["format"] != _FORMAT:
            raise ValueError(f"format {content['format']}, this version reads {_FORMAT}")
        return ModelConfig(**content["config"])
    except FileNotFoundError:
        raise ValueError(
            f"{folder} holds no model ({MODEL_FILE} is missing): give a folder that "
            "c4 import-hf or c4 pretrain made"
        ) from None
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a model of this version: {error}") from None


def newest_step(folder: pathlib.Path) -> int | None:
    """Return the newest whole checkpoint of ``checkpoints``; half-written ones do not count."""
    if not folder.is_dir():
        return None
    found = [step.step for step in ocp.step.standard_name_format().find_all(folder)]
    return max((step for step in found if _is_whole(folder / str(step))), default=None)


def _is_whole(folder: pathlib.Path) -> bool:
    return all((folder / item).is_dir() for item in _ITEMS)


def _find_params(path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Return the folder of ``model.json`` and the folder of the arrays."""
    if not path.is_dir():
        raise ValueError(f"{path}: no such folder")
    if (path / PARAMS).is_dir():
        of_run = path.parent.name == STEPS and not (path / MODEL_FILE).exists()
        return path.parent.parent if of_run else path, path / PARAMS
    steps = path if path.name == STEPS else path / STEPS
    if not steps.is_dir():
        return path, path / PARAMS  # whose missing model.json will be named
    newest = newest_step(steps)
    if newest is None:
        raise ValueError(f"{path} holds no whole checkpoint yet")
    return steps.parent, steps / str(newest) / PARAMS


def _damaged(folder: pathlib.Path, error: Exception) -> ValueError:
    """Return an error with the first line of Orbax's message."""
    why = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return ValueError(f"{folder} cannot be read, give another checkpoint: {why}")


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _names(tree: Any) -> set[str]:
    return {_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)}


def _check_same_names(folder: pathlib.Path, stored: Any, wanted: Any) -> None:
    missing, unknown = _names(wanted) - _names(stored), _names(stored) - _names(wanted)
    if missing or unknown:
        what = f"lacks {min(missing)}" if missing else f"holds {min(unknown)}, which it has not"
        raise ValueError(f"{folder} is not of this model: it {what}")
