"""The first tokens of a corpus: the truncated sets of the paper's section 3.4.2.

The pages of a corpus come in the order of a hash, so that its first pages are a random sample, and
a smaller set is a part of a larger one. The paper truncated C4 to 2^29, 2^27, 2^25 and 2^23 tokens
(its table 9), which its runs of 2^35 tokens repeat 64, 256, 1,024 and 4,096 times.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator

from model.corpora.sizes import pages_and_sizes, unit_of
from model.small_files import naming_option
from pipelines.corpus.derived import Plan, SplitPlan, finished, input_of, write_corpus
from pipelines.corpus.formats.pages import Page
from pipelines.corpus.manifest import Manifest
from pipelines.corpus.reading import Corpus, CorpusSplit, open_corpus


@dataclasses.dataclass(frozen=True)
class Head:
    """The result of `make_head`."""

    manifest: Manifest
    tokens: int | None  # of its train split; None if the corpus was there already


def make_head(
    corpus: str,
    output: str,
    tokens: int,
    vocab: str,
    formats: tuple[str, ...] = ("parquet",),
    progress: Callable[[int], object] = lambda _: None,
) -> Head:
    """Write a corpus of the first pages of another: the fewest that hold so many tokens.

    The validation split is copied whole, so that losses of heads of one corpus compare.

    Args:
        corpus: Folder of a finished corpus.
        output: A new or empty folder.
        tokens: Of the train split, at least.
        vocab: SentencePiece model that counts them: the one that will train on the corpus.
        formats: Of the shards.
        progress: Is called with the tokens counted since the last call.

    Raises:
        ValueError: The corpus has fewer tokens, or something given cannot be read.
        OSError: A file cannot be read or written.
    """
    unit = unit_of(vocab)
    with naming_option("--corpus"):
        whole = open_corpus(corpus)
    entry = input_of(whole)
    settings = {
        "name": "head",
        "description": f"The first {tokens:,} tokens of another corpus",
        "tokens": tokens,
        **unit.settings,
    }
    if (made := finished(output, settings, [entry], formats)) is not None:
        return Head(made, None)
    train = whole.split("train")
    found = pages = text_bytes = 0
    for page, size in pages_and_sizes(train.read_pages(), unit):
        found, pages = found + size, pages + 1
        text_bytes += len(page.text.encode())
        progress(size)
        if found >= tokens:
            break
    if found < tokens:
        raise ValueError(
            f"{corpus} has {found:,} tokens in its train split, fewer than {tokens:,}: ask for "
            "fewer (--tokens)"
        )
    splits = {
        "train": SplitPlan(lambda: _first(train, pages), pages, text_bytes),
        "validation": _copied(whole),
    }
    taken = pages + splits["validation"].count
    plan = Plan(settings, unit.versions, (dataclasses.replace(entry, pages_read=taken),), splits)
    return Head(write_corpus(output, plan, formats), found)


def _copied(whole: Corpus) -> SplitPlan:
    if "validation" not in whole.splits:
        return SplitPlan(lambda: iter(()), 0, 0)
    split = whole.split("validation")
    sizes = [len(page.text.encode()) for page in split.read_pages()]
    return SplitPlan(split.read_pages, len(sizes), sum(sizes))


def _first(split: CorpusSplit, count: int) -> Iterator[Page]:
    return itertools.islice(split.read_pages(), count)
