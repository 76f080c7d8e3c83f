"""What a run reads and what it makes of it."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

from model.data.batches import BatchSpec
from model.data.objectives import OBJECTIVES, Lengths, Objective, objective
from model.data.sources.corpus import CorpusSource
from model.data.sources.source import Source, TextIds
from model.data.sources.task import KEEP_BYTES, TaskInput, TaskSource, longest_target
from model.small_files import naming_option
from model.t5.config import ARCHITECTURES
from model.tasks.mixtures import C4
from pipelines.corpus.reading import CorpusSplit, open_corpus
from pipelines.options import check_bounds, option, option_of, set_by

_MIXING = "--tasks, --mixing-limit, --temperature, --equal, --leave-out, --unsupervised-size"


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputConfig:
    """What a run reads and what it makes of it. Raises ValueError for what cannot be.

    Attributes:
        corpus: Folder of a finished corpus, local or remote; None where all are tasks.
        tasks: Tasks to draw examples from.
        corpus_rate: How often an example of the corpus is drawn, relative to the rates of the
            tasks; 0: never.
        vocabulary: A `model.data.vocabulary.Vocabulary`, or what looks like one.
        objective: One of `model.data.objectives.OBJECTIVES`, or a variant: what is made of the
            corpus.
        architecture: A key of `model.t5.config.ARCHITECTURES`.
        batch_size: Rows of a batch, of all hosts together.
        input_length: Most tokens of the inputs, end of sequence included.
        target_length: Most tokens of the targets, end of sequence included. None: what the
            objective needs; without a corpus, the longest target of the tasks, but at most
            ``input_length``, which is looked up when the configuration is made.
        packed: Whether several examples share a row.
        seed: Decides all that is random.
        split: "train" or "validation", of the corpus.
        format: "parquet", "tfrecord", "json", or None for what the corpus has.
        max_pages: Read the first pages only, again and again (paper section 3.4.2).
        input_shards: Parts the sources are shared out in; None: one for each host. A multiple of
            the hosts, and a divisor of the batch size. Batches depend on it, and not on the
            number of hosts: a run that keeps it may change its hosts.
        workers: Processes of each host that make pairs; 0: this process.
        loss_on_inputs: Without an encoder, whether predicting the inputs counts; None: as in the
            paper (section 3.2.1), in language models yes, in prefix language models no.
        separator: Without an encoder, what stands between inputs and targets: the end-of-sequence
            id, as in the released code, or the text "target:", as in the paper.
    """

    corpus: str | None = option("a finished corpus of c4 build", metavar="DIR", default=None)
    tasks: tuple[TaskInput, ...] = set_by("--tasks", default=())
    corpus_rate: float = set_by(_MIXING, default=1.0)
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
    input_length: int = option("tokens of the inputs", default=512, metavar="N", on_cpu=128)
    target_length: int | None = option(
        "tokens of the targets; longer ones are cut (default: what the objective needs; without "
        "--corpus, the longest target of the tasks)",
        default=None, metavar="N", least=2, most=2**20,
    )  # fmt: skip
    packed: bool = True
    seed: int = option("random seed", default=0, metavar="N", least=0, most=2**32 - 1)
    split: str = "train"
    format: Literal["parquet", "tfrecord", "json"] | None = option(
        "shards to read, if there are several", default=None
    )
    max_pages: int | None = option(
        "train on the first N pages only, again and again", default=None, metavar="N", least=1
    )
    input_shards: int | None = option(
        "parts of the data read side by side, a multiple of the hosts that a run may ever have "
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
        self._check_sources()
        if self.separator not in ("eos", "target:"):
            raise ValueError(f"separator must be 'eos' or 'target:', got {self.separator!r}")
        if self.corpus is not None:
            require_encoder_inputs(self.objective, self.architecture)
        if self.has_encoder and (self.loss_on_inputs or self.separator != "eos"):
            raise ValueError(
                "loss_on_inputs and separator are for models without an encoder, and "
                f"{self.architecture} has one"
            )
        if self.corpus is None and self.target_length is None:
            longest = longest_target(self.tasks, self.vocabulary, self.input_length - 1)
            object.__setattr__(self, "target_length", max(2, longest + 1))
        spec = self.batch_spec()  # refuses an input_length that nothing fits into
        if spec.tokens >= 2**31:
            raise ValueError(
                f"batch_size {self.batch_size} at input_length {self.input_length} makes "
                f"{spec.tokens:.3g} tokens, and a batch must be below 2**31 (--batch-size, "
                "--input-length)"
            )

    def _check_sources(self) -> None:
        if self.corpus is None and not self.tasks:
            raise ValueError("there is nothing to read: give a corpus or tasks (--corpus, --tasks)")
        if not (self.corpus_rate >= 0 and math.isfinite(self.corpus_rate)):
            raise ValueError(f"corpus_rate must be at least 0, got {self.corpus_rate}")
        names = [task.name for task in self.tasks] + [C4] * (self.corpus is not None)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} must be in a mixture once (--tasks)")
        if not self.rates:
            raise ValueError("all rates are 0: there is nothing to read")

    @property
    def rates(self) -> dict[str, float]:
        """The probability of each source that is read: ``c4`` for the corpus, then the tasks."""
        rates = {C4: self.corpus_rate} if self.corpus is not None else {}
        rates |= {task.name: task.rate for task in self.tasks}
        total = sum(rates.values())
        return {name: rate / total for name, rate in rates.items() if rate}

    @property
    def has_encoder(self) -> bool:
        """Whether inputs and targets stand in rows of their own."""
        return _has_encoder(self.architecture)

    @property
    def separator_ids(self) -> list[int]:
        """What ends the inputs."""
        if self.separator == "target:":
            return self.vocabulary.encode("target:")
        return [self.vocabulary.eos_id]

    @property
    def lengths(self) -> Lengths:
        """Raw, input and target lengths, and that of a row for both."""
        separator = None if self.has_encoder else len(self.separator_ids)
        lengths = self.objective.lengths(self.input_length, separator)
        inputs = self.input_length if self.tasks else lengths.inputs
        targets, joined = self.target_length or lengths.targets, lengths.joined
        if separator is not None and (self.tasks or not self.objective.splits):
            joined = self.input_length - 1 + separator + targets
        return Lengths(lengths.raw, inputs, targets, joined)

    def batch_spec(self, hosts: int = 1) -> BatchSpec:
        """Return the arrays of a batch: the whole of it, or one host's part."""
        return self.lengths.batch_spec(self.batch_size // hosts)

    def shards_of(self, host: int, hosts: int) -> range:
        """Return the numbers of the input shards that a host reads.

        Raises ValueError for shards that do not divide over the hosts, or rows over the shards.
        """
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
        if self.corpus is None:
            raise ValueError("there is no corpus (--corpus)")
        with naming_option("--corpus"):
            corpus = open_corpus(self.corpus)
        return corpus.split(self.split, self.format, self.max_pages)

    def sources(self, shards: int, readers: int = 1) -> tuple[Source, ...]:
        """Open what is read, in the order of `rates`, for ``shards`` input shards.

        ``readers`` processes share the elements out. Raises CorpusError, and ValueError for data
        that is not there or too little for the shards.
        """
        sources: list[Source] = []
        if C4 in self.rates:
            sources.append(
                CorpusSource(
                    C4, self.open(), self.objective, self.lengths.raw, self.vocabulary, self.seed,
                    shards, readers,
                )
            )  # fmt: skip
        drawn = [task for task in self.tasks if task.rate]
        keep_bytes = KEEP_BYTES // max(1, len(drawn))
        sources += [
            TaskSource(task, self.vocabulary, self.seed, shards, keep_bytes) for task in drawn
        ]
        return tuple(sources)

    def identity(self, shards: int, sources: Sequence[Source] = ()) -> dict[str, Any]:
        """Return all that the rows depend on, as JSON values: a saved position is valid for it.

        ``sources`` are those of as many input shards, if they are open.
        """
        rows = "pairs" if self.has_encoder else f"joined by {self.separator}"
        facts: dict[str, Any] = {
            "vocabulary": [getattr(self.vocabulary, "sha256", ""), self.vocabulary.size],
            "seed": self.seed,
            "input_shards": shards,
            "input_length": self.input_length,
            "rows": rows if self.packed else f"{rows}, one example a row",
        }
        for source in sources or self.sources(shards):
            facts |= source.identity()
        if C4 in self.rates:
            facts |= {f"objective {k}": v for k, v in dataclasses.asdict(self.objective).items()}
        facts["target_length"] = self.lengths.targets
        if len(self.rates) > 1:
            facts |= {f"rate of {name}": rate for name, rate in self.rates.items()}
        return facts


def require_encoder_inputs(objective: Objective, architecture: str) -> None:
    """Raise ValueError for an objective without inputs where the architecture has an encoder."""
    if _has_encoder(architecture) and objective.inputs == "nothing":
        raise ValueError(
            f"objective {objective.name} leaves an encoder nothing to read: for {architecture} "
            "take prefix_lm, as the paper does (--objective prefix_lm)"
        )


def _has_encoder(architecture: str) -> bool:
    return "language-model" not in architecture


def input_option_of(name: str) -> str:
    """Return the options that set an entry of `InputConfig.identity`; empty if there is none."""
    if name in _IDENTITY_OPTIONS:
        return _IDENTITY_OPTIONS[name]
    if name.startswith("objective "):
        return option_of(Objective, name.removeprefix("objective ")) or "--objective"
    if name.startswith("data of "):
        return "--data, --tasks"
    if name.startswith("rate of "):
        return _MIXING
    return option_of(InputConfig, name)


#: Entries that are no field: the corpus is a digest of the data.
_IDENTITY_OPTIONS = {"corpus": "--corpus, --max-pages", "rows": "--architecture"}
