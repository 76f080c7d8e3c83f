"""``c4 export-hf``: a checkpoint of ours becomes a T5 that Hugging Face's library loads."""

import argparse
import dataclasses
from typing import Literal

from model.commands.import_hf import described
from model.data.vocabulary import Vocabulary
from model.devices import pass_over_absent_tpus
from model.exchange.hugging_face import config_to_hf, export_model
from model.small_files import require_absent
from model.training.model_folders import load_params
from pipelines.options import add_options, given_values, option
from pipelines.printing import print_lines


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """The options of ``c4 export-hf``."""

    checkpoint: str = option(
        "what c4 import-hf or c4 pretrain wrote (of a run: its newest checkpoint)",
        "checkpoint", metavar="CKPT",
    )  # fmt: skip
    output: str = option("folder to write, which must not exist", metavar="DIR")
    vocab: str | None = option(
        "SentencePiece model to make the tokenizer of (default: the checkpoint's own)",
        default=None, metavar="FILE",
    )  # fmt: skip
    dtype: Literal["float32", "bfloat16"] = option(
        "of the tensors; bfloat16 halves the file and rounds", default="float32"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``c4 export-hf``."""
    parser.epilog = (
        "Writes config.json, generation_config.json, model.safetensors (several and an index\n"
        "beyond 5 GB) and the tokenizer's files. Load them in Transformers with\n"
        "AutoModelForSeq2SeqLM.from_pretrained(DIR) and AutoTokenizer.from_pretrained(DIR).\n"
        "Only encoder-decoders can be exported: Transformers has no other T5 architecture."
    )
    add_options(parser, ExportConfig)


def run(arguments: argparse.Namespace) -> int:
    """Export the model and print a summary."""
    asked = ExportConfig(**given_values(arguments, ExportConfig))
    require_absent(asked.output)
    pass_over_absent_tpus()
    config, params, kept = load_params(asked.checkpoint)
    config_to_hf(config)  # refuses what cannot be exported
    vocabulary = kept
    if asked.vocab is not None:
        given = Vocabulary(asked.vocab)
        if kept is not None and not given.same_as(Vocabulary(kept)):
            raise ValueError(
                f"{given.path} differs from the vocabulary of {asked.checkpoint}: leave --vocab out"
            )
        vocabulary = kept or asked.vocab
    obstacle = None
    if kept is not None:  # an import's: no run is begun with such a vocabulary
        obstacle = Vocabulary(kept).obstacle
        vocabulary = kept if obstacle is None else None
    export_model(asked.output, config, params, vocabulary, dtype=asked.dtype)
    print_lines(f"{asked.output}: {described(config)}, {asked.dtype}")
    if obstacle is not None:
        print_lines(
            f"note: no tokenizer is written: {obstacle}, which T5's tokenizer cannot do; copy the "
            "tokenizer's files of the model that was imported"
        )
    elif vocabulary is None:
        print_lines(
            f"{asked.checkpoint} has no vocabulary, so there is no tokenizer (--vocab FILE)"
        )
    return 0
