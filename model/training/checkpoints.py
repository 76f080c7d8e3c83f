"""Checkpoints: parameters to start from or to hand over, and whole training states.

Two kinds of folder, both read by :func:`load_params`::

    PARAMS/               RUN/
      model.json            model.json
      vocabulary.model      vocabulary.model
      params/               checkpoints/STEP/params/ ...

``model.json`` is written last: a folder without it is not whole.
"""

import dataclasses
import json
import os
import pathlib
import shutil
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from model.t5.config import ModelConfig

__all__ = ["MODEL_FILE", "VOCABULARY_FILE", "LoadedParams", "load_params", "save_params"]

MODEL_FILE = "model.json"
VOCABULARY_FILE = "vocabulary.model"
PARAMS = "params"
STEPS = "checkpoints"

_FORMAT = 1

Path = str | os.PathLike[str]


class LoadedParams(NamedTuple):
    """What :func:`load_params` gives."""

    config: ModelConfig
    params: Any  #: nested dict of numpy arrays, or of jax arrays where shardings were given
    vocabulary: pathlib.Path | None  #: SentencePiece model inside the folder


def save_params(
    path: Path, config: ModelConfig, params: Any, vocabulary: Path | None = None
) -> None:  # fmt: skip
    """Writes parameters as a folder of their own, whole or not at all.

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
            shutil.copyfile(vocabulary, scratch / VOCABULARY_FILE)
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            checkpointer.save(scratch / PARAMS, args=ocp.args.PyTreeSave(params))
        write_model_file(scratch, config)
        scratch.rename(final)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def load_params(path: Path, shardings: Any | None = None) -> LoadedParams:
    """Reads the parameters of a folder of :func:`save_params` or of a training run.

    Args:
      path: the folder; of a run, that of the run (the newest checkpoint) or of one checkpoint.
      shardings: a tree like the parameters of ``jax.sharding.Sharding``; without it, arrays
        are numpy's.

    Raises:
      ValueError: when there is no model or no whole checkpoint at ``path``.
    """
    root, folder = _find_params(pathlib.Path(path).absolute())
    config = read_model_file(root)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        stored = checkpointer.metadata(folder).item_metadata.tree
        if shardings is None:
            how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), stored)
        else:
            _check_same_names(folder, stored, shardings)
            how = jax.tree.map(lambda s: ocp.ArrayRestoreArgs(sharding=s), shardings)
        params = checkpointer.restore(folder, args=ocp.args.PyTreeRestore(restore_args=how))
    vocabulary = root / VOCABULARY_FILE
    return LoadedParams(config, params, vocabulary if vocabulary.exists() else None)


def write_model_file(folder: pathlib.Path, config: ModelConfig) -> None:
    """Writes ``model.json``, which makes a folder a model's."""
    content = {
        "format": _FORMAT,
        "parameters": config.parameter_count(),
        "config": dataclasses.asdict(config),
    }
    scratch = folder / f".{MODEL_FILE}.{os.getpid()}.tmp"
    scratch.write_text(json.dumps(content, indent=2) + "\n")
    scratch.replace(folder / MODEL_FILE)


def read_model_file(folder: pathlib.Path) -> ModelConfig:
    """The model a folder is of.

    Raises ValueError when ``model.json`` is missing, of a later format or not a model's.
    """
    path = folder / MODEL_FILE
    try:
        content = json.loads(path.read_text())
        if content["format"] != _FORMAT:
            raise ValueError(f"format {content['format']}, this version reads {_FORMAT}")
        return ModelConfig(**content["config"])
    except FileNotFoundError:
        raise ValueError(
            f"{folder} holds no model ({MODEL_FILE} is missing): give a folder that "
            "c4 import-hf or c4 pretrain made"
        ) from None
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a model of this version: {error}") from None


def newest_step(folder: pathlib.Path) -> int | None:
    """The newest whole checkpoint of a run's ``checkpoints``; half-written ones do not count."""
    if not folder.is_dir():
        return None
    found = [step.step for step in ocp.step.standard_name_format().find_all(folder)]
    return max(found, default=None)


def _find_params(path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Folder of ``model.json``, folder of the arrays."""
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


def _check_same_names(folder: pathlib.Path, stored: Any, wanted: Any) -> None:
    def names(tree: Any) -> set[str]:
        leaves = jax.tree.flatten_with_path(tree)[0]
        return {"/".join(str(key.key) for key in keys) for keys, _ in leaves}

    missing, unknown = names(wanted) - names(stored), names(stored) - names(wanted)
    if missing or unknown:
        what = f"lacks {min(missing)}" if missing else f"holds {min(unknown)}, which it has not"
        raise ValueError(f"{folder} is not of this model: it {what}")
