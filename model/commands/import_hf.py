"""``c4 import-hf``: a T5 in Hugging Face's layout becomes a checkpoint of ours."""

import argparse
import dataclasses
import pathlib
import tempfile

from model.data.vocabulary import Vocabulary
from model.devices import pass_over_absent_tpus
from model.exchange.hugging_face import import_model
from model.exchange.tokenizer_files import read_vocabulary
from model.small_files import require_absent
from model.t5.config import ModelConfig
from model.training.model_folders import save_params
from pipelines.options import add_options, given_values, option
from pipelines.printing import print_lines


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """The options of ``c4 import-hf``."""

    folder: str = option("the model, in Hugging Face's layout", "folder", metavar="DIR")
    output: str = option("folder to write, which must not exist", metavar="CKPT")
    vocab: str | None = option(
        "SentencePiece model to keep with it, where DIR has no tokenizer",
        default=None, metavar="FILE",
    )  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``c4 import-hf``."""
    parser.epilog = (
        "Start from the result with:\n\n"
        "  c4 pretrain --init-from CKPT ...\n\n"
        "Nothing is downloaded: DIR is a folder as published, with config.json and\n"
        "model.safetensors (or several and their index), and the tokenizer's files:\n"
        "tokenizer.json, or spiece.model with tokenizer_config.json."
    )
    add_options(parser, ImportConfig)


def run(arguments: argparse.Namespace) -> int:
    """Import the model and print a summary."""
    config = ImportConfig(**given_values(arguments, ImportConfig))
    require_absent(config.output)  # before the minutes that reading a large model takes
    pass_over_absent_tpus()
    given = None if config.vocab is None else Vocabulary(config.vocab)
    model = import_model(config.folder)
    content = read_vocabulary(config.folder)
    with tempfile.TemporaryDirectory() as scratch:
        vocabulary = given
        if content is not None:
            path = pathlib.Path(scratch) / "vocabulary.model"
            path.write_bytes(content)
            vocabulary = Vocabulary(path)
            if given is not None and not given.same_as(vocabulary):
                raise ValueError(
                    f"{given.path} differs from the vocabulary of {config.folder}: leave "
                    "--vocab out"
                )
        if vocabulary is not None and vocabulary.id_count > model.config.vocab_size:
            of = config.folder if given is None else vocabulary.path
            raise ValueError(
                f"{of}: {vocabulary.id_count} ids, the model has {model.config.vocab_size}: it is "
                "another model's vocabulary (--vocab)"
            )
        save_params(
            config.output,
            model.config,
            model.params,
            None if vocabulary is None else vocabulary.path,
        )
    print_lines(f"{config.output}: {described(model.config)}")
    if model.unapplied:
        print_lines(
            f"note: generation_config.json sets {', '.join(model.unapplied)}, which greedy "
            "decoding here does not apply"
        )
    if vocabulary is not None and vocabulary.obstacle is not None:
        print_lines(
            f"note: c4 pretrain refuses this vocabulary: {vocabulary.obstacle}, so T5's tokenizer "
            "would give other ids"
        )
    if vocabulary is None:
        print_lines(
            f"{config.folder} has neither spiece.model nor tokenizer.json, so no vocabulary is "
            "kept: give the one that the model was trained with (--vocab FILE)"
        )
    return 0


def described(config: ModelConfig) -> str:
    """Return a model in a line.

    >>> from model.t5.config import model_config
    >>> described(model_config("v1.1-small"))
    '76,961,152 parameters, 8 + 8 layers of d_model 512, gated-gelu, logits of their own'
    """
    logits = "tied logits" if config.tied_logits else "logits of their own"
    return (
        f"{config.parameter_count():,} parameters, {config.num_layers} + {config.decoder_layers} "
        f"layers of d_model {config.d_model}, {config.feed_forward}, {logits}"
    )
