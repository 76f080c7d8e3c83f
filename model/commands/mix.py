"""``c4 mix``: a mixture of corpora by weight, as a corpus of its own."""

import argparse
import dataclasses
from collections.abc import Sequence

from model.commands.corpora import CorpusOptions
from model.corpora.mix import make_mixture
from model.corpora.sizes import whole_power
from model.text_table import text_table
from pipelines.bars import bar
from pipelines.corpus import layout
from pipelines.options import add_options, given_values, option
from pipelines.printing import print_lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``c4 mix``."""
    parser.epilog = (
        "Seven tokens of Wikipedia to three of books, until either runs out:\n\n"
        "  c4 mix --corpus wikipedia=0.7 --corpus books=0.3 --vocab words.model \\\n"
        "    --output both\n\n"
        "Pages are not compared: one that is in two corpora may be in the mixture twice."
    )
    add_options(parser, _Options, "corpora", "vocab", "total")
    add_options(parser, CorpusOptions)


def _read_corpora(texts: Sequence[str]) -> list[tuple[str, float]]:
    """Return folder and weight of each corpus. Raises ValueError for another form."""
    corpora = []
    for text in texts:
        folder, equals, weight = text.rpartition("=")
        try:
            corpora.append((folder, float(weight)))
        except ValueError:
            equals = ""
        if not (folder and equals):
            raise ValueError(f"a corpus is given as DIR=WEIGHT, such as C4=0.7, got {text!r} "
                             "(--corpus)")  # fmt: skip
    return corpora


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options(CorpusOptions):
    """What to mix."""

    corpora: Sequence[tuple[str, float]] = option(
        "a finished corpus and its share; repeat for each corpus",
        "--corpus", metavar="DIR=WEIGHT", action="append", read=_read_corpora,
    )  # fmt: skip
    vocab: str | None = option(
        "SentencePiece model: weights are then shares of its tokens (default: of pages)",
        default=None, metavar="FILE",
    )  # fmt: skip
    total: int | None = option(
        "pages, or with --vocab tokens, of the train split; a corpus that runs out is repeated "
        "(default: until a corpus runs out)",
        default=None, metavar="N", read=whole_power,
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Write the mixture, print what it took of each corpus and return the exit status."""
    options = _Options(**given_values(arguments, _Options))
    output = layout.absolute(options.output)
    unit = " pages" if options.vocab is None else " tokens"
    with bar("", options.total, unit, leave=False, dynamic_ncols=True) as shown:
        mixture = make_mixture(
            options.corpora, output, options.vocab, options.total, options.formats, shown.update
        )
    if not mixture.parts:
        print_lines(f"{output} is complete already: same corpora, same settings")
        return 0
    total = sum(part.size for part in mixture.parts)
    in_tokens = mixture.unit != "pages"
    rows = [("corpus", "weight", "share", "pages", *[mixture.unit] * in_tokens, "times read")]
    rows += [
        (part.folder, f"{part.weight:.3f}", f"{part.size / total:.3f}", f"{part.pages:,}",
         *[f"{part.size:,}"] * in_tokens, f"{part.times:.3g}")
        for part in mixture.parts
    ]  # fmt: skip
    print(*text_table(rows, right=range(1, len(rows[0]))), sep="\n")
    print_lines(f"{output}: {sum(part.pages for part in mixture.parts):,} pages")
    return 0
