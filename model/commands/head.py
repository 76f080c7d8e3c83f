"""``c4 head``: the first tokens of a corpus as a corpus of their own."""

import argparse
import dataclasses

from model.commands.corpora import CorpusOptions
from model.corpora.head import make_head
from model.corpora.sizes import whole_power
from pipelines.bars import bar
from pipelines.corpus import layout
from pipelines.options import add_options, given_values, option
from pipelines.printing import counted, print_lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``c4 head``."""
    parser.epilog = (
        "The paper's truncated sets (its table 9), which runs of 2^35 tokens repeat 64, 256, 1,024 "
        "and 4,096 times:\n\n"
        "  for n in 29 27 25 23; do\n"
        "    c4 head --corpus C4 --tokens 2^$n --vocab vocab.model --output C4-2^$n\n"
        "  done\n\n"
        "Training repeats a corpus by itself, with other noise and another order each time."
    )
    add_options(parser, _Options, "corpus", "tokens", "vocab")
    add_options(parser, CorpusOptions)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options(CorpusOptions):
    """What to take."""

    corpus: str = option("a finished corpus", metavar="DIR")
    tokens: int = option(
        "tokens of the train split to take, in whole pages: a number, or a power such as 2^29",
        metavar="N", read=whole_power,
    )  # fmt: skip
    vocab: str = option(
        "SentencePiece model that counts them: the one that will train on them", metavar="FILE"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the corpus, print its size and return the exit status."""
    options = _Options(**given_values(arguments, _Options))
    output = layout.absolute(options.output)
    with bar("", options.tokens, " tokens", leave=False, dynamic_ncols=True) as shown:
        head = make_head(
            options.corpus, output, options.tokens, options.vocab, options.formats, shown.update
        )
    if head.tokens is None:
        print_lines(f"{output} is complete already: same corpus, same settings")
        return 0
    splits = head.manifest.splits
    print_lines(
        f"{output}: {head.tokens:,} tokens, the first {counted(splits['train'].pages, 'page')} of "
        f"{options.corpus}; {counted(splits['validation'].pages, 'page')} of validation"
    )
    return 0
