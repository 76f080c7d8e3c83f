"""Opens a trained model with the vocabulary that it was trained with."""

import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

from model.data.vocabulary import Vocabulary
from model.evaluation.best_files import kept_best
from model.exchange import tokenizer_files
from model.exchange.hugging_face import import_model
from model.small_files import read_small_file
from model.t5.config import ModelConfig
from model.training import remote_run
from model.training.checkpoint_layout import newest_step, run_and_step
from model.training.model_folders import is_hugging_face, load_params
from model.training.remote_run import STEPS
from pipelines import storage

Path = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class Trained:
    """What :func:`open_trained` gives."""

    config: ModelConfig
    params: Any  #: nested, of float32 NumPy arrays
    vocabulary: Vocabulary
    name: str  #: of the folder, for people
    step: int | None  #: of the run that it is of; None where that is unknown


def open_trained(path: Path, task: str | None = None) -> Trained:
    """Open the model of a run, a checkpoint, or a folder in Hugging Face's layout.

    Args:
      path: of a run: its kept best checkpoint of ``task``, or its last if it keeps none; of one
        checkpoint, or a folder of parameters; or of ``config.json``, safetensors and the
        tokenizer's files. All but the last may be in an object store.
      task: which of several kept checkpoints; not needed for one.

    Raises:
      ValueError: there is no such model, it is damaged or has no vocabulary, ``task`` is not among
        the kept, or several are kept and ``task`` is None.
    """
    where = os.fspath(path)
    local = storage.is_local(where)
    root = pathlib.Path(storage.local_path(where)).absolute() if local else None
    if root is not None and is_hugging_face(root):
        return _open_hugging_face(root)
    run, step = run_and_step(where)
    kept = kept_best(where)
    if kept:
        task = _chosen(where, kept, task)
        config, params, vocabulary = load_params(storage.join(where, f"{remote_run.BEST}/{task}"))
        found = kept[task].get("step")
        step = found if type(found) is int else None
    else:
        step = _newest_step(run) if step is None else step
        # By its number: a run that is still training may write another meanwhile.
        source = where if step is None else storage.join(run, f"{STEPS}/{step}")
        config, params, vocabulary = load_params(source)
    if vocabulary is None:
        raise ValueError(
            f"{where} has no vocabulary: give a folder that keeps the one it was trained with, or "
            "import the model again with c4 import-hf --vocab"
        )
    opened = _opened(vocabulary)
    return Trained(config, params, opened, run.rstrip("/").rpartition("/")[2], step)


def _chosen(where: str, kept: Mapping[str, Any], task: str | None) -> str:
    if task is None and len(kept) == 1:
        return next(iter(kept))
    if task in kept:
        return str(task)
    what = "several checkpoints" if task is None else f"no checkpoint of {task}"
    raise ValueError(f"{where} keeps {what}: choose of {', '.join(sorted(kept))} (--task)")


def _newest_step(run: str) -> int | None:
    """Return the step of a run's newest checkpoint; None for a folder that is not of a run."""
    if storage.is_local(run):
        return newest_step(pathlib.Path(storage.local_path(run)) / STEPS)
    if STEPS not in storage.folders(run):
        return None
    return max(remote_run.whole_steps(run), default=None)


def _open_hugging_face(root: pathlib.Path) -> Trained:
    model = import_model(root)
    content = tokenizer_files.require_vocabulary(root)
    return Trained(model.config, model.params, _from_content(content), root.name, None)


def _opened(path: str | pathlib.Path) -> Vocabulary:
    if storage.is_local(os.fspath(path)):
        return Vocabulary(path)
    return _from_content(read_small_file(path))


def _from_content(content: bytes) -> Vocabulary:
    """Open a vocabulary that is in no file of this machine. It cannot be pickled."""
    with tempfile.TemporaryDirectory() as scratch:
        path = pathlib.Path(scratch) / "vocabulary.model"
        path.write_bytes(content)
        return Vocabulary(path)
