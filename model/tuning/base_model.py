"""The model and vocabulary that a fine-tuning starts from, before any array is read."""

import os
import pathlib
from typing import NamedTuple

from model.data.vocabulary import Vocabulary
from model.exchange import tokenizer_files
from model.exchange.hugging_face import read_config
from model.t5.config import ModelConfig
from model.training.model_folders import is_hugging_face, read_model
from pipelines import storage


class BaseModel(NamedTuple):
    """A model and its vocabulary."""

    config: ModelConfig
    vocabulary: Vocabulary


def open_base_model(path: str, scratch: pathlib.Path) -> BaseModel:
    """Read which model a folder holds, and its vocabulary.

    Args:
      path: of a run, a checkpoint, a folder of parameters, or one in Hugging Face's layout.
      scratch: a folder of this machine, for a vocabulary that is in no file of it. Processes that
        read the data open it there.

    Raises:
      ValueError: there is no model, it has no vocabulary, or one that it cannot be trained with.
    """
    if is_hugging_face(path):
        config = read_config(path)
        vocabulary = _written(tokenizer_files.require_vocabulary(path), scratch)
    else:
        config, kept = read_model(path)
        if kept is None:
            raise ValueError(
                f"{path} keeps no vocabulary: give a folder that does, or import the model again "
                "with c4 import-hf --vocab (--from)"
            )
        vocabulary = Vocabulary(kept)
        if not storage.is_local(os.fspath(kept)):
            vocabulary = _written(vocabulary.content, scratch)
    return require_trainable(BaseModel(config, vocabulary), f"{path} (--from)")


def require_trainable(base: BaseModel, name: str) -> BaseModel:
    """Return a base model. Raises ValueError, naming it, if its vocabulary does not suit it."""
    config, vocabulary = base
    if vocabulary.id_count > config.vocab_size:
        raise ValueError(
            f"{name}: the vocabulary has {vocabulary.id_count:,} ids, the model "
            f"{config.vocab_size:,}: it is another model's vocabulary"
        )
    if vocabulary.obstacle is not None:
        raise ValueError(
            f"{name}: {vocabulary.obstacle}, so T5's tokenizer, with which the trained model would "
            "be used, would give other ids"
        )
    return base


def _written(content: bytes, scratch: pathlib.Path) -> Vocabulary:
    path = scratch / "vocabulary.model"
    path.write_bytes(content)
    return Vocabulary(path)
