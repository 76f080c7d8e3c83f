"""``c4 export-hf``: a checkpoint of ours becomes a T5 that Hugging Face's library loads."""

import argparse
import pathlib
from collections.abc import Sequence

from model.commands.import_hf import described
from model.data.vocabulary import Vocabulary
from model.devices import pass_over_absent_tpus
from model.exchange.hugging_face import config_to_hf, export_model
from model.training.checkpoints import load_params

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``c4 export-hf``."""
    parser.epilog = (
        "Writes config.json, generation_config.json, model.safetensors (several and an index\n"
        "beyond 5 GB) and the tokenizer's files. Load them in Transformers with\n"
        "AutoModelForSeq2SeqLM.from_pretrained(DIR) and AutoTokenizer.from_pretrained(DIR).\n"
        "Only encoder-decoders can be exported: Transformers has no other T5 architecture."
    )
    parser.add_argument(
        "checkpoint",
        metavar="CKPT",
        help="what c4 import-hf or c4 pretrain wrote (of a run: its newest checkpoint)",
    )
    parser.add_argument(
        "--output", metavar="DIR", required=True, help="folder to write, which must not exist"
    )
    parser.add_argument(
        "--vocab",
        metavar="FILE",
        help="SentencePiece model to make the tokenizer of (default: the checkpoint's own)",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of the tensors; bfloat16 halves the file and rounds (default: %(default)s)",
    )


def run(arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    """Export the model and print a summary."""
    del rest
    output = pathlib.Path(arguments.output)
    if output.exists():
        raise ValueError(f"{output} exists already: give another folder or delete it (--output)")
    pass_over_absent_tpus()
    config, params, kept = load_params(arguments.checkpoint)
    config_to_hf(config)  # refuses what cannot be exported
    vocabulary = kept
    if arguments.vocab is not None:
        given = Vocabulary(arguments.vocab)
        if kept is not None and not given.same_as(Vocabulary(kept)):
            raise ValueError(
                f"{given.path} differs from the vocabulary of {arguments.checkpoint}: leave "
                "--vocab out"
            )
        vocabulary = kept or arguments.vocab
    obstacle = None
    if kept is not None:  # an import's: no run is begun with such a vocabulary
        obstacle = Vocabulary(kept).obstacle
        vocabulary = kept if obstacle is None else None
    export_model(output, config, params, vocabulary, dtype=arguments.dtype)
    print(f"{output}: {described(config)}, {arguments.dtype}")
    if obstacle is not None:
        print(
            f"note: no tokenizer is written: {obstacle}, which T5's tokenizer cannot do; copy the "
            "tokenizer's files of the model that was imported"
        )
    elif vocabulary is None:
        print(f"{arguments.checkpoint} has no vocabulary, so there is no tokenizer (--vocab FILE)")
    return 0
