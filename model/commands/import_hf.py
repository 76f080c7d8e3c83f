"""``c4 import-hf``: a T5 in Hugging Face's layout becomes a checkpoint of ours."""

import argparse
import pathlib
from collections.abc import Sequence

from model.data.vocabulary import Vocabulary
from model.devices import pass_over_absent_tpus
from model.exchange.hugging_face import import_model
from model.t5.config import ModelConfig
from model.training.checkpoints import save_params

__all__ = ["add_arguments", "described", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``c4 import-hf``."""
    parser.epilog = (
        "Start from it with: c4 pretrain --init-from CKPT ...\n"
        "Nothing is downloaded: DIR is a folder as published, with config.json and\n"
        "model.safetensors (or several and their index), and spiece.model."
    )
    parser.add_argument("folder", metavar="DIR", help="the model, in Hugging Face's layout")
    parser.add_argument(
        "--output", metavar="CKPT", required=True, help="folder to write, which must not exist"
    )
    parser.add_argument(
        "--vocab",
        metavar="FILE",
        help="SentencePiece model to keep with it (default: DIR/spiece.model if there is one)",
    )


def run(arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    """Imports the model and says what it is."""
    del rest
    output = pathlib.Path(arguments.output)
    if output.exists():  # before the minutes that reading a large model takes
        raise ValueError(f"{output} exists already: give another folder or delete it (--output)")
    pass_over_absent_tpus()
    vocabulary = None if arguments.vocab is None else Vocabulary(arguments.vocab)
    model = import_model(arguments.folder)
    if vocabulary is None and model.vocabulary is not None:
        vocabulary = Vocabulary(model.vocabulary)
    if vocabulary is not None and vocabulary.size > model.config.vocab_size:
        raise ValueError(
            f"{vocabulary.path}: {vocabulary.size} ids, the model has {model.config.vocab_size}: "
            "it is another model's vocabulary (--vocab)"
        )
    path = None if vocabulary is None else vocabulary.path
    save_params(output, model.config, model.params, path)
    print(f"{output}: {described(model.config)}")
    if path is None:
        print(f"{arguments.folder} has no spiece.model, so no vocabulary is kept (--vocab FILE)")
    return 0


def described(config: ModelConfig) -> str:
    """A model in a line.

    >>> from model.t5.config import model_config
    >>> described(model_config("v1.1-small"))
    '76,961,152 parameters, 8 + 8 layers of d_model 512, gated-gelu, logits of their own'
    """
    logits = "tied logits" if config.tied_logits else "logits of their own"
    return (
        f"{config.parameter_count():,} parameters, {config.num_layers} + {config.decoder_layers} "
        f"layers of d_model {config.d_model}, {config.feed_forward}, {logits}"
    )
