"""The paper's experiments as data: Tables 1, 2 and 4 to 15 (arXiv 1910.10683).

A row of a table is a pre-training, a fine-tuning, or both, and the row of the paper's scores that
it is to be held against. Rows that share a pre-training share the run: it is equal as data.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from model.data.objectives import OBJECTIVES
from model.evaluation.published import published_row
from model.small_files import packaged_toml
from model.t5.config import ARCHITECTURES, SIZES

#: Names of the corpora, as ``--corpus NAME=DIR`` gives them, and what they are (section 3.4).
CORPORA: Mapping[str, str] = MappingProxyType(
    {
        "c4": "C4, recipe en",
        "unfiltered": "C4 without its filters, recipe en.noclean",
        "realnewslike": "C4 of news sites, recipe realnewslike",
        "webtextlike": "C4 of pages that Reddit links to, recipe webtextlike",
        "wikipedia": "English Wikipedia",
        "wikipedia_tbc": "English Wikipedia and the Toronto Books Corpus",
    }
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixing:
    """A pre-training that draws from the supervised tasks, too (section 3.5.2).

    Attributes:
        limit: K, the most examples that a task counts for.
        temperature: T.
        equal: whether every task is drawn equally often.
        unsupervised: whether the corpus is drawn from.
        unsupervised_size: examples that the corpus counts for; None for more than the limit.
        leave_out: whether what is fine-tuned on later is left out.
    """

    limit: int = 2**19
    temperature: float = 1.0
    equal: bool = False
    unsupervised: bool = True
    unsupervised_size: int | None = None
    leave_out: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretrain:
    """A pre-training (section 3.1.2); the defaults are the baseline's.

    Attributes:
        corpus: a name of ``CORPORA``.
        architecture: as of ``c4 pretrain``.
        objective: as of ``c4 pretrain``.
        size: as of ``c4 pretrain``.
        steps: steps of ``batch_size`` sequences of 512 tokens.
        batch_size: sequences.
        repeats: how often the corpus, cut to fit, is read; None for the whole corpus.
        mixing: the mixture with supervised tasks; None for none.
    """

    corpus: str = "c4"
    architecture: str = "encoder-decoder"
    objective: str = "iid"
    size: str = "base"
    steps: int = 2**19
    batch_size: int = 128
    repeats: int | None = None
    mixing: Mixing | None = None

    def __post_init__(self) -> None:
        for name, known in (
            ("corpus", CORPORA), ("architecture", ARCHITECTURES), ("objective", OBJECTIVES),
            ("size", SIZES),
        ):  # fmt: skip
            if getattr(self, name) not in known:
                raise ValueError(f"no {name} {getattr(self, name)!r}: {', '.join(known)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTune:
    """A fine-tuning (sections 3.1.2 and 3.5.1); the defaults are the baseline's.

    Attributes:
        steps: steps of ``batch_size`` sequences of 512 tokens.
        batch_size: sequences.
        glue_batch_size: sequences for GLUE and SuperGLUE, if another number.
        trained: what is trained: all parameters, adapter layers with all norms (as the paper
            says), or one more block of each stack at a time.
        adapter: inner width of adapter layers.
        beams: of the beam search for summaries and translations; None for greedy decoding.
        together: whether GLUE's tasks are one mixture, and SuperGLUE's another; else each task is
            fine-tuned on by itself.
    """

    steps: int = 2**18
    batch_size: int = 128
    glue_batch_size: int | None = None
    trained: Literal["all", "adapters", "unfreezing"] = "all"
    adapter: int | None = None
    beams: int | None = None
    together: bool = True

    def __post_init__(self) -> None:
        if (self.trained == "adapters") != (self.adapter is not None):
            raise ValueError("an adapter's width belongs to adapters")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a table.

    Attributes:
        title: as in the paper.
        paper: name of the paper's row of scores.
        pretrain: None starts from random weights.
        finetune: None evaluates the pre-trained model.
        ensemble: ``pretrain``: the average of four models that were pre-trained and fine-tuned
            apart; ``finetune``: of four that were fine-tuned apart (section 3.6).
    """

    title: str
    paper: str
    pretrain: Pretrain | None = Pretrain()
    finetune: FineTune | None = FineTune()
    ensemble: Literal["pretrain", "finetune"] | None = None

    def __post_init__(self) -> None:
        if self.pretrain is None and self.finetune is None:
            raise ValueError(f"{self.title}: nothing is trained")
        published_row(self.paper)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """A table of the paper.

    Attributes:
        name: such as ``table4``.
        title: what it compares.
        section: of the paper.
        rows: its rows, in the paper's order.
    """

    name: str
    title: str
    section: str
    rows: tuple[Row, ...]


_MADE_OF = {"pretrain": Pretrain, "finetune": FineTune, "mixing": Mixing}


def _made(kind: Any, values: Mapping[str, Any] | Literal[False]) -> Any:
    """Return an object of its values in the file, where false means None."""
    if values is False:
        return None
    return kind(
        **{
            name: _made(_MADE_OF[name], value) if name in _MADE_OF else value
            for name, value in values.items()
        }
    )


def _read_tables() -> dict[str, Experiment]:
    return {
        name: Experiment(
            name=name,
            title=table["title"],
            section=table["section"],
            rows=tuple(_made(Row, row) for row in table["rows"]),
        )
        for name, table in packaged_toml(__name__, "experiments.toml").items()
    }


#: The tables by name.
EXPERIMENTS: Mapping[str, Experiment] = MappingProxyType(_read_tables())


def experiment(name: str) -> Experiment:
    """Return an experiment by its name. Raises ValueError for an unknown one.

    >>> [row.title for row in experiment("table4").rows]
    ['prefix language modeling', 'BERT-style', 'deshuffling']
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"no experiment {name!r}: {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]
