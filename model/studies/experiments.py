"""The paper's experiments as data: Tables 1, 2 and 4 to 15 (arXiv 1910.10683).

A row of a table is a pre-training, a fine-tuning, or both, and the row of the paper's scores that
it is to be held against. Rows that share a pre-training share the run: it is equal as data.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from model.data.objectives import OBJECTIVES
from model.evaluation.published import BASELINE, published_row
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
_STEPS, _FINE_TUNE_STEPS = 2**19, 2**18


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
    steps: int = _STEPS
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

    steps: int = _FINE_TUNE_STEPS
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


_BASELINE = Row(title="baseline", paper=BASELINE)


def _objective(title: str, paper: str, objective: str) -> Row:
    return Row(title=title, paper=paper, pretrain=Pretrain(objective=objective))


def _architecture(title: str, paper: str, architecture: str, objective: str = "iid") -> Row:
    pretrain = Pretrain(architecture=architecture, objective=objective)
    return Row(title=title, paper=paper, pretrain=pretrain)


def _corpus(title: str, paper: str, corpus: str) -> Row:
    return Row(title=title, paper=paper, pretrain=Pretrain(corpus=corpus))


def _repeated(tokens: str, paper: str, repeats: int) -> Row:
    return Row(title=f"{tokens} tokens, {repeats:,} times", paper=paper,
               pretrain=Pretrain(repeats=repeats))  # fmt: skip


def _adapter(width: int) -> Row:
    finetune = FineTune(trained="adapters", adapter=width)
    return Row(title=f"adapter layers, d = {width}", paper=f"adapter_{width}", finetune=finetune)


def _multitask(title: str, paper: str, **mixing: float | bool | None) -> Row:
    # Nothing is fine-tuned: the steps of both phases (section 3.5.2).
    pretrain = Pretrain(steps=_STEPS + _FINE_TUNE_STEPS, mixing=Mixing(**mixing))  # type: ignore[arg-type]
    return Row(title=title, paper=paper, pretrain=pretrain, finetune=None)


def _scaled(title: str, paper: str, size: str, steps: int, batch: int) -> Row:
    return Row(
        title=title,
        paper=paper,
        pretrain=Pretrain(size=size, steps=steps * _STEPS, batch_size=batch * 128),
        # The paper does not say that fine-tuning has the larger batch, too; here it has not.
        finetune=FineTune(steps=steps * _FINE_TUNE_STEPS),
    )


def _final(title: str, paper: str, size: str, unsupervised_size: int) -> Row:
    return Row(
        title=title,
        paper=paper,
        pretrain=Pretrain(
            size=size,
            objective="span3",
            steps=1_000_000,
            batch_size=2**11,
            # WMT En-Fr and En-De count for a million; no other task has so many (section 3.7).
            mixing=Mixing(limit=1_000_000, unsupervised_size=unsupervised_size),
        ),
        finetune=FineTune(glue_batch_size=8, beams=4, together=False),
    )


_K = [
    _multitask(f"examples-proportional, K = 2^{power}", f"proportional_K_2e{power}", limit=2**power)
    for power in range(16, 22)
]
_FINAL = {
    "small": 710_000, "base": 2_620_000, "large": 8_660_000, "3B": 33_500_000, "11B": 133_000_000,
}  # fmt: skip

_TABLES = (
    Experiment(
        name="table1", title="baseline and no pre-training", section="3.1",
        rows=(
            _BASELINE,
            Row(title="no pre-training", paper="no_pretraining", pretrain=None),
        ),
    ),
    Experiment(
        name="table2", title="architectures", section="3.2",
        rows=(
            Row(title="encoder-decoder, denoising", paper=BASELINE),
            _architecture("enc-dec, shared, denoising", "enc_dec_shared_denoising",
                          "shared-encoder-decoder"),
            _architecture("enc-dec, 6 layers, denoising", "enc_dec_6_layers_denoising",
                          "half-layer"),
            _architecture("language model, denoising", "language_model_denoising",
                          "language-model"),
            _architecture("prefix LM, denoising", "prefix_lm_denoising", "prefix-language-model"),
            _architecture("encoder-decoder, LM", "enc_dec_lm", "encoder-decoder", "prefix_lm"),
            _architecture("enc-dec, shared, LM", "enc_dec_shared_lm", "shared-encoder-decoder",
                          "prefix_lm"),
            _architecture("enc-dec, 6 layers, LM", "enc_dec_6_layers_lm", "half-layer",
                          "prefix_lm"),
            _architecture("language model, LM", "language_model_lm", "language-model",
                          "causal_lm"),
            _architecture("prefix LM, LM", "prefix_lm_lm", "prefix-language-model", "prefix_lm"),
        ),
    ),
    Experiment(
        name="table4", title="kinds of objectives", section="3.3.1",
        rows=(
            _objective("prefix language modeling", "objective_prefix_lm", "prefix_lm"),
            _objective("BERT-style", "objective_bert_style", "bert"),
            _objective("deshuffling", "objective_deshuffling", "deshuffle"),
        ),
    ),
    Experiment(
        name="table5", title="simpler BERT-style objectives", section="3.3.2",
        rows=(
            _objective("BERT-style", "objective_bert_style", "bert"),
            _objective("MASS-style", "objective_mass_style", "mass"),
            Row(title="replace corrupted spans", paper=BASELINE),
            _objective("drop corrupted tokens", "objective_drop_tokens", "drop"),
        ),
    ),
    Experiment(
        name="table6", title="corruption rates", section="3.3.3",
        rows=(
            _objective("10 %", "corruption_10", "iid10"),
            Row(title="15 %", paper=BASELINE),
            _objective("25 %", "corruption_25", "iid25"),
            _objective("50 %", "corruption_50", "iid50"),
        ),
    ),
    Experiment(
        name="table7", title="span lengths", section="3.3.4",
        rows=(
            _BASELINE,
            *(_objective(f"{length}", f"span_{length}", f"span{length}")
              for length in (2, 3, 5, 10)),
        ),
    ),
    Experiment(
        name="table8", title="corpora", section="3.4.1",
        rows=(
            Row(title="C4", paper=BASELINE),
            _corpus("C4, unfiltered", "c4_unfiltered", "unfiltered"),
            _corpus("RealNews-like", "realnews_like", "realnewslike"),
            _corpus("WebText-like", "webtext_like", "webtextlike"),
            _corpus("Wikipedia", "wikipedia", "wikipedia"),
            _corpus("Wikipedia + TBC", "wikipedia_tbc", "wikipedia_tbc"),
        ),
    ),
    Experiment(
        name="table9", title="repeated data", section="3.4.2",
        rows=(
            Row(title="full data set", paper=BASELINE),
            _repeated("2^29", "repeat_2e29_x64", 64),
            _repeated("2^27", "repeat_2e27_x256", 256),
            _repeated("2^25", "repeat_2e25_x1024", 1024),
            _repeated("2^23", "repeat_2e23_x4096", 4096),
        ),
    ),
    Experiment(
        name="table10", title="ways of fine-tuning", section="3.5.1",
        rows=(
            Row(title="all parameters", paper=BASELINE),
            *map(_adapter, (32, 128, 512, 2048)),
            Row(title="gradual unfreezing", paper="gradual_unfreezing",
                finetune=FineTune(trained="unfreezing")),
        ),
    ),
    Experiment(
        name="table11", title="mixtures of multi-task learning", section="3.5.2",
        rows=(
            Row(title="baseline (pre-train, fine-tune)", paper=BASELINE),
            _multitask("equal", "equal", equal=True),
            *_K,
            *(_multitask(f"temperature-scaled, T = {t}", f"temperature_{t}", limit=2**21,
                         temperature=float(t))
              for t in (2, 4, 8)),
        ),
    ),
    Experiment(
        name="table12", title="multi-task learning and fine-tuning", section="3.5.3",
        rows=(
            Row(title="unsupervised pre-training + fine-tuning", paper=BASELINE),
            _multitask("multi-task training", "proportional_K_2e19"),
            Row(title="multi-task pre-training + fine-tuning",
                paper="multitask_pretrain_finetune", pretrain=Pretrain(mixing=Mixing())),
            Row(title="leave-one-out multi-task training", paper="leave_one_out",
                pretrain=Pretrain(mixing=Mixing(leave_out=True))),
            Row(title="supervised multi-task pre-training", paper="supervised_multitask_pretrain",
                pretrain=Pretrain(mixing=Mixing(unsupervised=False))),
        ),
    ),
    Experiment(
        name="table13", title="scaling", section="3.6",
        rows=(
            _BASELINE,
            _scaled("1x size, 4x training steps", "size1_steps4", "base", 4, 1),
            _scaled("1x size, 4x batch size", "size1_batch4", "base", 1, 4),
            _scaled("2x size, 2x training steps", "size2_steps2", "2x", 2, 1),
            _scaled("4x size, 1x training steps", "size4_steps1", "4x", 1, 1),
            Row(title="4x ensembled", paper="ensemble4", ensemble="pretrain"),
            Row(title="4x ensembled, fine-tune only", paper="ensemble4_finetune_only",
                ensemble="finetune"),
        ),
    ),
    Experiment(
        name="table14", title="final models; the paper's scores are of test sets", section="3.7",
        rows=tuple(
            _final(f"T5-{size[0].upper()}{size[1:]}", f"test_{size.lower()}", size, examples)
            for size, examples in _FINAL.items()
        ),
    ),
    Experiment(
        name="table15", title="baseline, more training, and T5-Base", section="3.7",
        rows=(
            _BASELINE,
            Row(title="baseline-1T", paper="baseline_1t",
                pretrain=Pretrain(steps=1_000_000, batch_size=2**11)),
            _final("T5-Base", "t5_base", "base", _FINAL["base"]),
        ),
    ),
)  # fmt: skip

#: The tables by name.
EXPERIMENTS: Mapping[str, Experiment] = MappingProxyType({entry.name: entry for entry in _TABLES})


def experiment(name: str) -> Experiment:
    """Return an experiment by its name. Raises ValueError for an unknown one.

    >>> [row.title for row in experiment("table4").rows]
    ['prefix language modeling', 'BERT-style', 'deshuffling']
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"no experiment {name!r}: {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]
