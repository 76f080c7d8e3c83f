"""Rows of a training run, each a function of the run's seed and of where it stands.

How a run goes through its corpus::

    corpus        groups of 128 pages, in the order of the shards
    input shard   a contiguous part of the groups; a host reads one, or several
    lane          a contiguous part of an input shard's groups, read from one end to the other
    element       one group, made into packed rows: the n-th that an input shard gives

Elements take lanes in turn, so that processes can share the lanes out and each still reads its
shards in order. An input shard gives each of its groups once before it gives any again; each time
a lane begins somewhere else. Element n of input shard s depends on the seed, s and n, and on
nothing else: not on workers, hosts, or what was read before.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from model.data.batches import BatchSpec, HostBatch, pack_joined, pack_pairs
from model.data.objectives import OBJECTIVES, Ids, Lengths, Objective, objective
from model.data.page_groups import PageGroups
from model.data.sequences import Sequences
from model.t5.config import ARCHITECTURES
from pipelines.corpus.reading import CorpusSplit, PageReader, open_corpus
from pipelines.options import check_bounds, option, option_of, set_by

__all__ = ["InputConfig", "RowMaker", "RowOrder", "TextIds", "input_option_of"]

#: Pages that become one text before it is cut (preprocessors.py, reduce_concat_tokens).
GROUP_PAGES = 128
#: Of a longer page, one part of this many tokens is taken (select_random_chunk).
MAX_PAGE_TOKENS = 65_536
_LANES = 8  # of an input shard, where it has as many groups
# What a generator is for, so that no two share a stream.
_FOR_ROTATION, _FOR_ELEMENT = 1, 2


class TextIds(Ids, Protocol):
    """What the pipeline needs of a vocabulary. Goes to worker processes by pickling."""

    @property
    def eos_id(self) -> int:
        """The id that ends inputs and targets."""

    def encode(self, text: str) -> list[int]:
        """Ids of one text, without an end."""

    def encode_batch(self, texts: Sequence[bytes]) -> Sequence[npt.NDArray[np.int32]]:
        """Ids of UTF-8 texts, on one thread."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputConfig:
    """What a run reads and what it makes of it. Raises ValueError for what cannot be.

    Attributes:
        corpus: Folder of a finished corpus, local or remote.
        vocabulary: A `model.data.vocabulary.Vocabulary`, or what looks like one.
        objective: One of `model.data.objectives.OBJECTIVES`, or a variant.
        architecture: A key of `model.t5.config.ARCHITECTURES`.
        batch_size: Rows of a batch, of all hosts together.
        input_length: Most tokens of the inputs, end of sequence included.
        seed: Decides all that is random.
        split: "train" or "validation".
        format: "parquet", "tfrecord", "json", or None for what the corpus has.
        max_pages: Read the first pages only, again and again (paper section 3.4.2).
        input_shards: Parts the corpus is shared out in; None: one for each host. A multiple of
            the hosts, and a divisor of the batch size. Batches depend on it, and not on the
            number of hosts: a run that keeps it may change its hosts.
        workers: Processes of each host that make rows; 0: this process.
        loss_on_inputs: Without an encoder, whether predicting the inputs counts; None: as in the
            paper (section 3.2.1), in language models yes, in prefix language models no.
        separator: Without an encoder, what stands between inputs and targets: the end-of-sequence
            id, as in the released code, or the text "target:", as in the paper.
    """

    corpus: str = option("a finished corpus of c4 build", metavar="DIR", required=False)
    vocabulary: TextIds = option(
        "SentencePiece model, as made by c4 vocab", "--vocab", metavar="FILE", required=False
    )
    objective: Objective = option(
        f"one of {', '.join(OBJECTIVES)} (default: span3)",
        default=OBJECTIVES["span3"], metavar="NAME", read=objective,
    )  # fmt: skip
    architecture: str = set_by("--architecture", default="encoder-decoder")
    batch_size: int = option(
        "sequences per step, on all devices together",
        default=128, metavar="N", least=1, on_cpu=16,
    )  # fmt: skip
    input_length: int = option(
        "tokens of the inputs; the length of the targets follows from the objective",
        default=512, metavar="N", on_cpu=128,
    )  # fmt: skip
    seed: int = option("random seed", default=0, metavar="N", least=0, most=2**32 - 1)
    split: str = "train"
    format: Literal["parquet", "tfrecord", "json"] | None = option(
        "shards to read, if there are several", default=None
    )
    max_pages: int | None = option(
        "train on the first N pages only, again and again", default=None, metavar="N", least=1
    )
    input_shards: int | None = option(
        "parts of the corpus read side by side, a multiple of the hosts that a run may ever have "
        "(default: as many as hosts)",
        default=None, metavar="N", least=1,
    )  # fmt: skip
    workers: int = option(
        "processes that prepare the input, 0 for none (default: half the cores, at most 8)",
        default=0, metavar="N", least=0, most=1024,
    )  # fmt: skip
    loss_on_inputs: bool | None = None
    separator: Literal["eos", "target:"] = "eos"

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ValueError(
                f"architecture must be one of {', '.join(ARCHITECTURES)}; got {self.architecture!r}"
            )
        check_bounds(self)
        if self.separator not in ("eos", "target:"):
            raise ValueError(f"separator must be 'eos' or 'target:', got {self.separator!r}")
        if self.has_encoder and self.objective.inputs == "nothing":
            raise ValueError(
                f"objective {self.objective.name} leaves an encoder nothing to read: for "
                f"{self.architecture} take prefix_lm, as the paper does (--objective prefix_lm)"
            )
        if self.has_encoder and (self.loss_on_inputs or self.separator != "eos"):
            raise ValueError(
                "loss_on_inputs and separator are for models without an encoder, and "
                f"{self.architecture} has one"
            )
        spec = self.batch_spec()  # refuses an input_length that nothing fits into
        if spec.tokens >= 2**31:
            raise ValueError(
                f"batch_size {self.batch_size} at input_length {self.input_length} makes "
                f"{spec.tokens:.3g} tokens, and a batch must be below 2**31 (--batch-size, "
                "--input-length)"
            )

    @property
    def has_encoder(self) -> bool:
        """Whether inputs and targets stand in rows of their own."""
        return "language-model" not in self.architecture

    @property
    def separator_ids(self) -> list[int]:
        """What ends the inputs."""
        if self.separator == "target:":
            return self.vocabulary.encode("target:")
        return [self.vocabulary.eos_id]

    @property
    def lengths(self) -> Lengths:
        """Raw, input and target lengths, and that of a row for both."""
        return self.objective.lengths(
            self.input_length, None if self.has_encoder else len(self.separator_ids)
        )

    def batch_spec(self, hosts: int = 1) -> BatchSpec:
        """Return the arrays of a batch: the whole of it, or one host's part."""
        return self.lengths.batch_spec(self.batch_size // hosts)

    def shards_of(self, host: int, hosts: int) -> range:
        """Numbers of the input shards that a host reads. Raises ValueError for what cannot be."""
        if not 0 <= host < hosts:
            raise ValueError(f"host must be in 0..{hosts - 1}, got {host}")
        shards = self.input_shards or hosts
        if shards < 1 or shards % hosts:
            raise ValueError(
                f"input_shards must be a multiple of the number of hosts, got {shards} for "
                f"{hosts} hosts (--input-shards)"
            )
        if self.batch_size % shards:
            raise ValueError(
                f"batch_size must be a multiple of the number of input shards, got "
                f"{self.batch_size} for {shards} (--batch-size)"
            )
        each = shards // hosts
        return range(host * each, (host + 1) * each)

    def open(self) -> CorpusSplit:
        """Open the part of the corpus that the run reads. Raises CorpusError."""
        return open_corpus(self.corpus).split(self.split, self.format, self.max_pages)

    def identity(self, shards: int) -> dict[str, Any]:
        """All that the rows depend on, as JSON values: what a saved position is a position in."""
        corpus = self.open()
        facts: dict[str, Any] = {
            "corpus": corpus.digest,
            "vocabulary": [getattr(self.vocabulary, "sha256", ""), self.vocabulary.size],
            "seed": self.seed,
            "input_shards": shards,
            "input_length": self.input_length,
            "rows": "pairs" if self.has_encoder else f"joined by {self.separator}",
        }
        facts |= {f"objective {k}": v for k, v in dataclasses.asdict(self.objective).items()}
        return facts


def input_option_of(name: str) -> str:
    """Return the options that set an entry of `InputConfig.identity`; empty if there is none."""
    if name in _IDENTITY_OPTIONS:
        return _IDENTITY_OPTIONS[name]
    if name.startswith("objective "):
        return option_of(Objective, name.removeprefix("objective ")) or "--objective"
    return option_of(InputConfig, name)


#: Entries that are no field: the corpus is a digest of the data.
_IDENTITY_OPTIONS = {"corpus": "--corpus, --max-pages", "rows": "--architecture"}


class RowOrder:
    """Which group each element of each input shard is.

    Raises ValueError for a corpus with fewer pages than input shards.
    """

    def __init__(self, corpus: CorpusSplit, shards: int, seed: int) -> None:
        if corpus.page_count < shards:
            raise ValueError(
                f"{corpus.folder} has {corpus.page_count} pages in its split {corpus.split!r}, too "
                f"few for {shards} input shards: build a larger corpus, or use fewer hosts"
            )
        self._seed = seed
        self._shards = shards
        # A small corpus has smaller groups, so that each input shard has one at least.
        self.groups = PageGroups(corpus, min(GROUP_PAGES, corpus.page_count // shards))

    def elements(self, shard: int) -> int:
        """Elements of an input shard until all its groups were there once."""
        return self._begin(shard + 1) - self._begin(shard)

    def lanes(self, shard: int) -> int:
        """Lanes of an input shard."""
        return min(_LANES, self.elements(shard))

    def lane(self, shard: int, element: int) -> int:
        """Return the lane that an element comes from."""
        return self._locate(shard, element)[1]

    def group(self, shard: int, element: int) -> tuple[int, int, int]:
        """Return an element's shard, its first page there, and the page after its last."""
        epoch, lane, place = self._locate(shard, element)
        count, lanes = self.elements(shard), self.lanes(shard)
        begin, end = (
            self._begin(shard) + self._lane_begin(n, count, lanes) for n in (lane, lane + 1)
        )
        seed = (self._seed, _FOR_ROTATION, shard, lane, epoch)
        rotation = int(np.random.default_rng(seed).integers(end - begin))
        return self.groups[begin + (place + rotation) % (end - begin)]

    def _begin(self, shard: int) -> int:
        return shard * len(self.groups) // self._shards

    @staticmethod
    def _lane_begin(lane: int, count: int, lanes: int) -> int:
        return lane * count // lanes

    def _locate(self, shard: int, element: int) -> tuple[int, int, int]:
        """Epoch, lane, and place in the lane before rotation."""
        count, lanes = self.elements(shard), self.lanes(shard)
        epoch, rest = divmod(element, count)
        place, turn = divmod(rest, lanes)
        if place < count // lanes:
            return epoch, turn, place
        # Lanes differ in length by one at most; the last turn of an epoch is the longer ones'.
        longer = [
            lane
            for lane in range(lanes)
            if self._lane_begin(lane + 1, count, lanes) - self._lane_begin(lane, count, lanes)
            > count // lanes
        ]
        return epoch, longer[turn], place


class RowMaker:
    """Makes the rows of any element; keeps the shards that it reads open.

    Raises CorpusError and ValueError as `open_corpus` and `RowOrder` do.
    """

    def __init__(self, config: InputConfig, shards: int, readers: int = 1) -> None:
        """Of ``shards`` input shards; ``readers`` of its like share their lanes out."""
        corpus = config.open()
        self._config = config
        self._lengths = config.lengths
        self._separator = config.separator_ids
        self.order = RowOrder(corpus, shards, config.seed)
        self._reader = PageReader(corpus, -(-_LANES // readers) + 1)

    def __call__(self, shard: int, element: int) -> HostBatch:
        """Packed rows, in a random order; none where the pages hold nothing to train on."""
        return self._rows(shard, element, self._ids(shard, element))

    def measure(self, shard: int, element: int) -> tuple[int, int]:
        """Return the tokens of an element's pages and the rows that they are packed into."""
        ids = self._ids(shard, element)
        rows = self._rows(shard, element, ids)
        return sum(map(len, ids)), len(rows["decoder_segments"])

    def _ids(self, shard: int, element: int) -> Sequence[npt.NDArray[np.int32]]:
        pages = self._reader.read(*self.order.group(shard, element))
        return self._config.vocabulary.encode_batch(pages)

    def _rows(
        self, shard: int, element: int, ids: Sequence[npt.NDArray[np.int32]]
    ) -> HostBatch:  # fmt: skip
        config = self._config
        seed = (config.seed, _FOR_ELEMENT, shard, element)
        rng = np.random.default_rng(seed)
        texts = Sequences.of([_one_chunk(page, rng) for page in ids])
        if config.objective.concatenate:
            texts = texts.joined()
        inputs, targets = config.objective(texts.cut(self._lengths.raw), config.vocabulary, rng)
        rows = self._packed(inputs, targets)
        order = rng.permutation(len(rows["decoder_segments"]))
        return {name: array[order] for name, array in rows.items()}

    def _packed(self, inputs: Sequences, targets: Sequences) -> HostBatch:
        config, lengths = self._config, self._lengths
        eos = [config.vocabulary.eos_id]
        targets = targets.first(lengths.targets - 1).followed_by(eos)
        if lengths.joined is None:
            inputs = inputs.first(lengths.inputs - 1).followed_by(eos)
            return pack_pairs(inputs, targets, lengths.inputs, lengths.targets)
        if lengths.inputs:
            inputs = inputs.first(lengths.inputs - 1).followed_by(self._separator)
        prefix = config.architecture == "prefix-language-model"
        loss_on_inputs = config.loss_on_inputs
        return pack_joined(
            inputs,
            targets,
            lengths.joined,
            prefix=prefix,
            loss_on_inputs=not prefix if loss_on_inputs is None else loss_on_inputs,
        )


def _one_chunk(ids: npt.NDArray[np.int32], rng: np.random.Generator) -> npt.NDArray[np.int32]:
    """Return a page, or one of its parts of `MAX_PAGE_TOKENS` tokens, each equally likely."""
    if len(ids) <= MAX_PAGE_TOKENS:
        return ids
    begin = MAX_PAGE_TOKENS * int(rng.integers(-(-len(ids) // MAX_PAGE_TOKENS)))
    return ids[begin : begin + MAX_PAGE_TOKENS]
