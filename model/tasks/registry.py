"""The paper's tasks, as data: prefix, fields, labels, metrics, splits and sources.

The default form of a task is the released code's (text-to-text-transfer-transformer); where the
paper differs, ``task(name, form="paper")`` gives its form.
"""

import dataclasses
import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from model.tasks import metrics, text, winograd
from model.tasks.metrics import Metric
from model.tasks.values import Pair, Raw, field, label_index, plain

#: The released code's forms, and those that the paper prints or used where they differ.
FORMS = ("code", "paper")

_TWO = ("False", "True")
_ENTAILMENT = ("entailment", "not_entailment")
_THREE_WAY = ("entailment", "neutral", "contradiction")


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a task's data is published.

    Attributes:
        url: the download, or the page that leads to it.
        tfds: name of the TensorFlow Datasets builder and its configuration.
        hub: name of the Hugging Face dataset and its configuration, or "".
        files: layout of the files, a key of ``model.tasks.sources.published``.
    """

    url: str
    tfds: str
    hub: tuple[str, str]
    files: str


@dataclasses.dataclass(frozen=True)
class Task:
    """One task: how an example reads as text, and how predictions are scored.

    Attributes:
        name: as in commands.
        title: as in the paper's tables.
        template: the inputs, with a name in braces for each field.
        make: the pairs of a raw example.
        read: what a prediction says, given the raw example.
        gold: what a perfect prediction would be read as, or None if the example has no label.
        metrics: what is computed, in the paper's order.
        summary: names of the scores whose mean is the task's column in the paper's tables.
        splits: the published splits and their numbers of raw examples.
        evaluated: the splits that validation scores come from.
        source: where the data is published.
        sample: a raw example, made up.
        labels: the label words by index, if there are labels.
        group: ``glue`` or ``super_glue`` for tasks of those benchmarks and of their mixtures.
        mixing_examples: training examples, as mixtures count them; 0 if never trained on.
        trains_on: whether training uses a raw example.
        group_field: the field by which examples are grouped for scores.
        one_per_group: whether only the first example of a group is scored.
        form: ``code`` or ``paper``.
    """

    name: str
    title: str
    template: str
    make: Callable[[Raw], list[Pair]]
    read: Callable[[str, Raw], Any]
    gold: Callable[[Raw], Any]
    metrics: tuple[Metric, ...]
    summary: tuple[str, ...]
    splits: Mapping[str, int]
    evaluated: tuple[str, ...]
    source: Source
    sample: Raw
    labels: tuple[str, ...] = ()
    group: str = ""
    mixing_examples: int = 0
    trains_on: Callable[[Raw], bool] | None = None
    group_field: str = ""
    one_per_group: bool = False
    form: str = "code"

    def __reduce__(self) -> tuple[Callable[..., "Task"], tuple[str, ...]]:
        return (task, (self.name, self.form)) if self.name in TASKS else (own_task, (self.name,))

    def examples(self, raw: Raw, split: str = "validation") -> list[Pair]:
        """Return the (inputs, targets) of one raw example in the fields of TensorFlow Datasets.

        There is one pair, except for ReCoRD (one per gold answer) and for an example that
        training leaves out (``split="train"``). Raises ValueError for an example that is none.
        """
        return self.checked_examples(self._checked(raw), split)

    def checked_examples(self, raw: Raw, split: str) -> list[Pair]:
        """Return what `examples` does of an example in JSON's types, such as a prepared one."""
        if split == "train" and self.trains_on and not self._naming(self.trains_on, raw):
            return []
        pairs: list[Pair] = self._naming(self.make, raw)
        return pairs

    def parse(self, prediction: str, raw: Raw | None = None) -> Any:
        """Return what a prediction says.

        It is the label's index (-1 for anything that is no label), a float for STS-B (-1 for what
        is no number), 1, 0 or -1 for WSC and WNLI (the referent, another, nothing), and the text
        itself for other tasks. Only WSC and WNLI need the raw example.
        """
        return self._naming(self.read, plain(prediction), self._checked(raw or {}))

    def score(self, raws: Sequence[Raw], predictions: Sequence[str]) -> dict[str, float]:
        """Return the metrics, from 0 to 100, of a prediction for each raw example.

        ReCoRD also takes one for each pair. A correlation is NaN where it is undefined, as of
        equal predictions. Raises ValueError if there is nothing to score, an example has no gold
        label, or a library is missing (extra ``tasks``).
        """
        if not self.metrics:
            return {}
        gold, parsed, groups = self.compared(raws, predictions)
        if not gold:
            raise ValueError(f"{self.name}: no examples to score")
        scores: dict[str, float] = {}
        for metric in self.metrics:
            scores |= metric(gold, parsed, groups)
        return scores

    def compared(
        self, raws: Sequence[Raw], predictions: Sequence[str]
    ) -> tuple[list[Any], list[Any], list[Any]]:
        """Return what metrics compare: gold values, parsed predictions, and groups of examples.

        Of a task that scores one example of each group, only those are left. For the arguments
        and errors see `score`.
        """
        raws = [self._checked(raw) for raw in raws]
        if len(predictions) != len(raws):
            raws = [raw for raw in raws for _ in self._naming(self.make, raw)]
        if len(predictions) != len(raws):
            raise ValueError(
                f"{self.name}: {len(predictions):,} predictions for {len(raws):,} examples"
            )
        pairs = list(zip(raws, predictions, strict=True))
        if self.one_per_group:
            first: dict[Any, tuple[Raw, str]] = {}
            for index, pair in enumerate(pairs):
                first.setdefault(self._group(pair[0], index), pair)
            pairs = list(first.values())
        groups = [self._group(raw, index) for index, (raw, _) in enumerate(pairs)]
        gold = [self._naming(self.gold, raw) for raw, _ in pairs]
        if (missing := sum(value is None for value in gold)) > 0:
            raise ValueError(
                f"{self.name}: {missing:,} of {len(gold):,} examples have no gold label: "
                "test sets cannot be scored here"
            )
        return gold, [self.parse(prediction, raw) for raw, prediction in pairs], groups

    def invalid(self, raws: Sequence[Raw], predictions: Sequence[str]) -> int:
        """Return how many predictions are outside the labels; scores count them as wrong."""
        parsed = map(self.parse, predictions, raws)
        return sum(map(is_invalid, parsed))

    def column(self, scores: Mapping[str, float]) -> float:
        """Return the task's number in the paper's tables: the mean over its metrics, mostly."""
        return sum(scores[name] for name in self.summary) / len(self.summary)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names of the scores."""
        return tuple(name for metric in self.metrics for name in metric.names)

    def _group(self, raw: Raw, index: int) -> Any:
        # Without the field, as in a user's own file, each example is a group of its own.
        if not self.group_field or "idx" not in raw:
            return index
        found = field(raw, self.group_field)
        return tuple(sorted(found.items())) if isinstance(found, Mapping) else found

    def _checked(self, raw: Raw) -> Raw:
        found = plain(raw)
        if not isinstance(found, dict):
            raise ValueError(f"{self.name}: an example must be a mapping, got {type(raw).__name__}")
        return found

    def _naming(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self.name}: {error}") from error


def task(name: str, form: str = "code") -> Task:
    """Return a task by its name.

    ``form="paper"`` gives the paper's form where the released code's, the default, differs.

    >>> task("glue_cola").parse("acceptable")
    1
    """
    if name not in TASKS:
        raise ValueError(unknown_task(name, TASKS))
    if form not in FORMS:
        raise ValueError(f"the form of a task is {' or '.join(FORMS)}, got {form!r}")
    found = TASKS[name]
    if form == "paper":
        found = dataclasses.replace(found, **_PAPER.get(name, {}), form=form)
    return found


def unknown_task(name: str, known: Iterable[str], what: str = "task") -> str:
    """Return what is wrong with a name that is none of a task, and which may be meant.

    >>> unknown_task("glue_col", TASKS)
    "no task 'glue_col', perhaps 'glue_cola': c4 tasks list shows the tasks"
    >>> unknown_task("rte", TASKS)
    "no task 'rte', perhaps 'glue_rte': c4 tasks list shows the tasks"
    """
    names = list(known)
    ending = [each for each in names if name and each.endswith(f"_{name}")]
    near = ending or difflib.get_close_matches(name, names, 1)
    hint = f", perhaps {near[0]!r}" if near else ""
    return f"no {what} {name!r}{hint}: c4 tasks list shows the tasks"


def own_task(name: str = "own") -> Task:
    """Return the task of a user's own pairs: raw examples have ``inputs`` and ``targets``."""
    return Task(
        name=name,
        title=name,
        template="{inputs}",
        make=text.own,
        read=_as_text,
        gold=partial(_first_target, text.own),
        metrics=(metrics.ACCURACY,),
        summary=("accuracy",),
        splits={},
        evaluated=("validation",),
        source=Source("", "", ("", ""), "pairs"),
        sample={"inputs": "topic: The match ended in a draw.", "targets": "sports"},
    )


def mixed_tasks(group: str | None = None) -> tuple[str, ...]:
    """Return the names of the tasks that mixtures train on, of one benchmark or of all."""
    return tuple(
        name
        for name, entry in TASKS.items()
        if entry.mixing_examples and group in (None, entry.group)
    )


def is_invalid(parsed: Any) -> bool:
    """Return whether what `Task.parse` returned is none of a task's labels or numbers."""
    return isinstance(parsed, int | float) and (parsed == -1 or not math.isfinite(parsed))


def _as_text(prediction: str, raw: Raw) -> str:
    del raw
    return prediction


def _named_by(make: Callable[[Raw], list[Pair]], prediction: str, raw: Raw, empty: int = -1) -> int:
    return winograd.same_referent(prediction, make(raw)[0][1], empty)


def _first_target(make: Callable[[Raw], list[Pair]], raw: Raw) -> str | None:
    target = make(raw)[0][1]
    return None if target == text.NO_LABEL else target


def _gold_label(labels: Sequence[str], raw: Raw) -> int | None:
    index = label_index(raw, labels)
    return None if index < 0 else index


def _labelled(
    name: str,
    title: str,
    prefix: str,
    fields: Sequence[str | tuple[str, str]],
    labels: tuple[str, ...],
    scores: tuple[Metric, ...],
    markup: bool = True,
    **rest: Any,
) -> Task:
    """Make a task whose target is a label word. A field may be shown under another name."""
    shown = [(entry, entry) if isinstance(entry, str) else entry for entry in fields]
    names = tuple(name for metric in scores for name in metric.names)
    return Task(
        name=name,
        title=title,
        template=" ".join([prefix, *(f"{printed}: {{{key}}}" for printed, key in shown)]),
        make=partial(text.labelled, prefix=prefix, fields=shown, labels=labels, markup=markup),
        read=lambda prediction, _: text.label_of_text(prediction, labels),
        gold=partial(_gold_label, labels),
        metrics=scores,
        summary=names,
        labels=labels,
        **{"evaluated": ("validation",), **rest},
    )


def _glue(config: str, archive: str) -> Source:
    return Source(archive, f"glue/{config}", ("nyu-mll/glue", config), f"glue_{config}")


def _super_glue(config: str, archive: str) -> Source:
    url = f"https://dl.fbaipublicfiles.com/glue/superglue/data/v2/{archive}.zip"
    return Source(url, f"super_glue/{config}", ("aps/super_glue", config), f"super_glue_{config}")


_GLUE_URL = "https://dl.fbaipublicfiles.com/glue/data/"
_F1_ACCURACY = (metrics.F1, metrics.ACCURACY)
_SENTENCES = ("sentence1", "sentence2")


def _splits(train: int, validation: int, test: int) -> dict[str, int]:
    return {"train": train, "validation": validation, "test": test}


_GLUE_TASKS = [
    _labelled(
        "glue_cola",
        "CoLA",
        "cola",
        ["sentence"],
        ("unacceptable", "acceptable"),
        (metrics.MATTHEWS,),
        splits=_splits(8_551, 1_043, 1_063),
        mixing_examples=8_551,
        source=_glue("cola", _GLUE_URL + "CoLA.zip"),
        sample={"sentence": "The cat slept on the mat.", "label": 1, "idx": 0},
    ),
    _labelled(
        "glue_sst2",
        "SST-2",
        "sst2",
        ["sentence"],
        ("negative", "positive"),
        (metrics.ACCURACY,),
        splits=_splits(67_349, 872, 1_821),
        mixing_examples=67_349,
        source=_glue("sst2", _GLUE_URL + "SST-2.zip"),
        sample={"sentence": "a warm and funny film . ", "label": 1, "idx": 0},
    ),
    _labelled(
        "glue_mrpc",
        "MRPC",
        "mrpc",
        _SENTENCES,
        ("not_equivalent", "equivalent"),
        _F1_ACCURACY,
        splits=_splits(3_668, 408, 1_725),
        mixing_examples=3_668,
        source=_glue("mrpc", "https://www.microsoft.com/en-us/download/details.aspx?id=52398"),
        sample={
            "sentence1": "The shop opens at nine.",
            "sentence2": "The shop opens at nine o'clock.",
            "label": 1,
            "idx": 0,
        },
    ),
    Task(
        name="glue_stsb",
        title="STS-B",
        template="stsb sentence1: {sentence1} sentence2: {sentence2}",
        make=text.similarity,
        read=lambda prediction, _: text.number_of_text(prediction),
        gold=lambda raw: _gold_number(text.similarity, raw),
        metrics=(metrics.CORRELATIONS,),
        summary=metrics.CORRELATIONS.names,
        splits=_splits(5_749, 1_500, 1_379),
        evaluated=("validation",),
        mixing_examples=5_749,
        source=_glue("stsb", _GLUE_URL + "STS-B.zip"),
        sample={
            "sentence1": "A man is playing a guitar.",
            "sentence2": "A man plays an instrument.",
            "label": 3.75,
            "idx": 0,
        },
        group="glue",
    ),
    _labelled(
        "glue_qqp",
        "QQP",
        "qqp",
        ["question1", "question2"],
        ("not_duplicate", "duplicate"),
        _F1_ACCURACY,
        splits=_splits(363_849, 40_430, 390_965),
        mixing_examples=363_849,
        source=_glue("qqp", _GLUE_URL + "QQP.zip"),
        sample={
            "question1": "How do I bake bread?",
            "question2": "Why is bread brown?",
            "label": 0,
            "idx": 0,
        },
    ),
    _labelled(
        "glue_mnli",
        "MNLI",
        "mnli",
        ["hypothesis", "premise"],
        _THREE_WAY,
        (metrics.ACCURACY,),
        splits={
            "train": 392_702,
            "validation_matched": 9_815,
            "validation_mismatched": 9_832,
            "test_matched": 9_796,
            "test_mismatched": 9_847,
        },
        evaluated=("validation_matched", "validation_mismatched"),
        mixing_examples=392_702,
        source=_glue("mnli", _GLUE_URL + "MNLI.zip"),
        sample={
            "premise": "He parked the car.",
            "hypothesis": "He owns a boat.",
            "label": 1,
            "idx": 0,
        },
    ),
    _labelled(
        "glue_qnli",
        "QNLI",
        "qnli",
        ["question", "sentence"],
        _ENTAILMENT,
        (metrics.ACCURACY,),
        splits=_splits(104_743, 5_463, 5_463),
        mixing_examples=104_743,
        source=_glue("qnli", _GLUE_URL + "QNLIv2.zip"),
        sample={
            "question": "Where does the river end?",
            "sentence": "The river ends in a lake.",
            "label": 0,
            "idx": 0,
        },
    ),
    _labelled(
        "glue_rte",
        "RTE",
        "rte",
        _SENTENCES,
        _ENTAILMENT,
        (metrics.ACCURACY,),
        splits=_splits(2_490, 277, 3_000),
        mixing_examples=2_490,
        source=_glue("rte", _GLUE_URL + "RTE.zip"),
        sample={
            "sentence1": "The bridge was closed on Monday.",
            "sentence2": "The bridge is open.",
            "label": 1,
            "idx": 0,
        },
    ),
]

_WNLI = Task(
    name="glue_wnli",
    title="WNLI",
    template="wsc: {sentence1, the pronoun in stars}",
    make=winograd.wnli,
    read=partial(_named_by, winograd.wnli),
    gold=partial(_gold_label, ("not_entailment", "entailment")),
    metrics=(metrics.ACCURACY,),
    summary=("accuracy",),
    splits=_splits(635, 71, 146),
    evaluated=("validation",),
    source=_glue("wnli", _GLUE_URL + "WNLI.zip"),
    sample={
        "sentence1": "The jar fell off the shelf because it was wobbly.",
        "sentence2": "The shelf was wobbly.",
        "label": 1,
        "idx": 0,
    },
    group="glue",
    trains_on=lambda raw: False,
)

_AX = _labelled(
    "glue_ax",
    "AX",
    "mnli",
    ["hypothesis", "premise"],
    _THREE_WAY,
    (),
    splits={"test": 1_104},
    evaluated=(),
    source=_glue("ax", "https://gluebenchmark.com/diagnostics"),
    sample={
        "premise": "No dog barked.",
        "hypothesis": "A dog barked.",
        "label": -1,
        "idx": 0,
    },
)

_SUPER_GLUE_TASKS = [
    _labelled(
        "super_glue_boolq",
        "BoolQ",
        "boolq",
        ["passage", "question"],
        _TWO,
        (metrics.ACCURACY,),
        splits=_splits(9_427, 3_270, 3_245),
        mixing_examples=9_427,
        source=_super_glue("boolq", "BoolQ"),
        sample={
            "passage": "Salt -- Salt dissolves in water.",
            "question": "does salt dissolve in water",
            "label": 1,
            "idx": 0,
        },
    ),
    _labelled(
        "super_glue_cb",
        "CB",
        "cb",
        ["hypothesis", "premise"],
        ("entailment", "contradiction", "neutral"),
        (metrics.MEAN_F1, metrics.ACCURACY),
        splits=_splits(250, 56, 250),
        mixing_examples=250,
        source=_super_glue("cb", "CB"),
        sample={
            "premise": "A: Do you think it will rain? B: I doubt it.",
            "hypothesis": "it will rain",
            "label": 1,
            "idx": 0,
        },
    ),
    _labelled(
        "super_glue_copa",
        "COPA",
        "copa",
        ["choice1", "choice2", "premise", "question"],
        ("choice1", "choice2"),
        (metrics.ACCURACY,),
        splits=_splits(400, 100, 500),
        mixing_examples=400,
        source=_super_glue("copa", "COPA"),
        sample={
            "premise": "The ice melted.",
            "choice1": "The sun came out.",
            "choice2": "It snowed.",
            "question": "cause",
            "label": 0,
            "idx": 0,
        },
    ),
    _labelled(
        "super_glue_multirc",
        "MultiRC",
        "multirc",
        ["question", "answer", "paragraph"],
        _TWO,
        (metrics.F1, metrics.GROUP_MATCH),
        markup=False,
        splits=_splits(27_243, 4_848, 9_693),
        mixing_examples=27_243,
        group_field="idx/question",
        source=_super_glue("multirc", "MultiRC"),
        sample={
            "paragraph": "<b>Sent 1: </b>Ann met Bob.<br><b>Sent 2: </b>They had tea.<br>",
            "question": "Who had tea?",
            "answer": "Ann and Bob",
            "label": 1,
            "idx": {"paragraph": 0, "question": 0, "answer": 0},
        },
    ),
    Task(
        name="super_glue_record",
        title="ReCoRD",
        template="record query: {query} entities: {entities} passage: {passage}",
        make=text.record,
        read=_as_text,
        gold=lambda raw: list(raw.get("answers") or ()) or None,
        metrics=(metrics.SQUAD,),
        summary=("f1", "em"),
        splits=_splits(100_730, 10_000, 10_000),
        evaluated=("validation",),
        mixing_examples=138_854,  # one per answer
        group_field="idx",
        one_per_group=True,
        source=_super_glue("record", "ReCoRD"),
        sample={
            "passage": "Ann Lee won the race\n@highlight\nShe beat Bob Ray.\n@highlight\nIt rained",
            "query": "@placeholder came second.",
            "entities": ["Ann Lee", "Bob Ray"],
            "answers": ["Bob Ray"],
            "idx": {"passage": 0, "query": 0},
        },
    ),
    _labelled(
        "super_glue_rte",
        "RTE",
        "rte",
        ["hypothesis", "premise"],
        _ENTAILMENT,
        (metrics.ACCURACY,),
        splits=_splits(2_490, 277, 3_000),
        mixing_examples=2_490,
        source=_super_glue("rte", "RTE"),
        sample={
            "premise": "The bridge was closed on Monday.",
            "hypothesis": "The bridge is open.",
            "label": 1,
            "idx": 0,
        },
    ),
    _labelled(
        "super_glue_wic",
        "WiC",
        "wic",
        ["sentence1", "sentence2", "word"],
        _TWO,
        (metrics.ACCURACY,),
        splits=_splits(5_428, 638, 1_400),
        mixing_examples=5_428,
        source=_super_glue("wic", "WiC"),
        sample={
            "word": "bank",
            "sentence1": "She sat on the bank of the river.",
            "sentence2": "He went to the bank for a loan.",
            "start1": 15,
            "start2": 15,
            "end1": 19,
            "end2": 19,
            "label": 0,
            "idx": 0,
        },
    ),
    Task(
        name="super_glue_wsc",
        title="WSC",
        template="wsc: {text, the word at span2_index in stars}",
        make=winograd.wsc,
        read=partial(_named_by, winograd.wsc),
        gold=partial(_gold_label, _TWO),
        metrics=(metrics.ACCURACY,),
        summary=("accuracy",),
        splits=_splits(554, 104, 146),
        evaluated=("validation",),
        mixing_examples=259,  # those whose label is True
        trains_on=lambda raw: label_index(raw, _TWO) == 1,
        source=_super_glue("wsc.fixed", "WSC"),
        sample={
            "text": "Mitchell asked Tom if he could lend some money.",
            "span1_text": "Tom",
            "span1_index": 2,
            "span2_text": "he",
            "span2_index": 4,
            "label": 1,
            "idx": 0,
        },
        group="super_glue",
    ),
]

_SUPER_GLUE_DIAGNOSTICS = [
    _labelled(
        "super_glue_axb",
        "AX-b",
        "rte",
        [("hypothesis", "sentence2"), ("premise", "sentence1")],
        _ENTAILMENT,
        (),
        splits={"test": 1_104},
        evaluated=(),
        source=_super_glue("axb", "AX-b"),
        sample={
            "sentence1": "No dog barked.",
            "sentence2": "A dog barked.",
            "label": 1,
            "idx": 0,
        },
    ),
    _labelled(
        "super_glue_axg",
        "AX-g",
        "rte",
        ["hypothesis", "premise"],
        _ENTAILMENT,
        (),
        splits={"test": 356},
        evaluated=(),
        source=_super_glue("axg", "AX-g"),
        sample={
            "premise": "The cook called the waiter because she was late.",
            "hypothesis": "The cook was late.",
            "label": 1,
            "idx": 0,
        },
    ),
]

_DPR = Task(
    name="dpr",
    title="DPR",
    template="wsc: {sentence, the pronoun in stars}",
    make=winograd.dpr,
    read=_as_text,
    gold=partial(_first_target, winograd.dpr),
    metrics=(metrics.ACCURACY,),
    summary=("accuracy",),
    splits={"train": 1_322, "test": 564},
    evaluated=(),
    mixing_examples=1_322,
    source=Source(
        "https://www.hlt.utdallas.edu/~vince/data/emnlp12/",
        "definite_pronoun_resolution",
        ("community-datasets/definite_pronoun_resolution", ""),
        "dpr",
    ),
    sample={
        "sentence": "Bob asked Tom if he can lend some money.",
        "pronoun": "he",
        "candidates": ["Bob", "Tom"],
        "label": 1,
    },
    group="super_glue",  # it joins that mixture
)

_SQUAD = Task(
    name="squad",
    title="SQuAD",
    template="question: {question} context: {context}",
    make=text.squad,
    read=_as_text,
    gold=lambda raw: text.squad_answers(raw) or None,
    metrics=(metrics.SQUAD,),
    summary=("em",),
    splits={"train": 87_599, "validation": 10_570},
    evaluated=("validation",),
    mixing_examples=87_599,
    source=Source(
        "https://rajpurkar.github.io/SQuAD-explorer/",
        "squad/v1.1",
        ("rajpurkar/squad", ""),
        "squad",
    ),
    sample={
        "id": "0",
        "title": "Rivers",
        "context": "The Elbe's mouth is near Cuxhaven, in the north.",
        "question": "Where is the mouth of the Elbe?",
        "answers": {"text": ["near Cuxhaven", "Cuxhaven"], "answer_start": [20, 25]},
    },
)

_CNN_DAILY_MAIL = Task(
    name="cnn_dailymail",
    title="CNN/DM",
    template="summarize: {article}",
    make=text.summary,
    read=_as_text,
    gold=partial(_first_target, text.summary),
    metrics=(metrics.ROUGE,),
    summary=("rouge2",),
    splits=_splits(287_113, 13_368, 11_490),
    evaluated=("validation",),
    mixing_examples=287_113,
    source=Source(
        "https://cs.nyu.edu/~kcho/DMQA/",
        "cnn_dailymail",
        ("abisee/cnn_dailymail", "3.0.0"),
        "cnn_dailymail",
    ),
    sample={
        "article": "The old bridge reopened on Monday. Hundreds of people came to see it.",
        "highlights": "Old bridge reopens .\nHundreds come .",
        "id": "0",
        "publisher": "cnn",
    },
)


def _wmt(
    name: str, language: str, english_name: str, year: str, splits: dict[str, int], builder: str
) -> Task:
    make = partial(text.translation, language=language, name=english_name)
    return Task(
        name=name,
        title=f"WMT En{language.capitalize()}",
        template=f"translate English to {english_name}: {{en}}",
        make=make,
        read=_as_text,
        gold=partial(_first_target, make),
        metrics=(metrics.BLEU,),
        summary=("bleu",),
        splits=splits,
        evaluated=("validation",),
        mixing_examples=splits["train"],
        source=Source(
            f"https://www.statmt.org/wmt{year}/translation-task.html",
            f"{builder}/{language}-en",
            (f"wmt/wmt{year}", f"{language}-en"),
            "wmt",
        ),
        sample={"en": "Good morning.", language: _GREETINGS[language]},
    )


_GREETINGS = {"de": "Guten Morgen.", "fr": "Bonjour.", "ro": "Bună dimineața."}
_OTHERS = [
    _CNN_DAILY_MAIL,
    _SQUAD,
    _wmt("wmt_ende", "de", "German", "14", _splits(4_592_289, 3_000, 3_003), "wmt_t2t_translate"),
    # Hugging Face's count of the 2015 training data; the splits of TFDS hold more than the paper's.
    _wmt("wmt_enfr", "fr", "French", "15", _splits(40_853_137, 4_503, 1_500), "wmt15_translate"),
    _wmt("wmt_enro", "ro", "Romanian", "16", _splits(610_320, 1_999, 1_999), "wmt16_translate"),
]


def _gold_number(make: Callable[[Raw], list[Pair]], raw: Raw) -> float | None:
    number = float(make(raw)[0][1])
    return None if number < 0 else number


def _in_group(tasks: Sequence[Task], group: str) -> list[Task]:
    return [dataclasses.replace(entry, group=group) for entry in tasks]


#: All tasks by name, in the order of the paper's tables.
TASKS: dict[str, Task] = {
    entry.name: entry
    for entry in [
        *_in_group([*_GLUE_TASKS, _WNLI, _AX], "glue"),
        *_in_group([*_SUPER_GLUE_TASKS, *_SUPER_GLUE_DIAGNOSTICS, _DPR], "super_glue"),
        *_OTHERS,
    ]
}

_CLASSES = tuple(f"{fifth / 5:.1f}" for fifth in range(5, 26))
_paper_similarity = partial(text.similarity, lowest=1.0)
_paper_squad = partial(text.squad, symbols=True)
_paper_summary = partial(text.summary, paper=True)


def _paper_labels(name: str, labels: tuple[str, ...], markup: bool, *fields: str) -> dict[str, Any]:
    """Return what the paper's form of a task with labels replaces."""
    made = _labelled(
        name,
        "",
        name.rpartition("_")[2],
        fields,
        labels,
        TASKS[name].metrics,
        markup,
        splits={},
        source=TASKS[name].source,
        sample={},
    )
    return {key: getattr(made, key) for key in ("template", "make", "read", "gold", "labels")}


#: What the paper prints (Appendix D) or its experiments used, where the released code differs.
_PAPER: dict[str, dict[str, Any]] = {
    "glue_stsb": {  # 21 classes from 1 to 5; anything else is incorrect
        "make": _paper_similarity,
        "read": lambda prediction, _: text.number_of_text(prediction, _CLASSES),
        "gold": partial(_gold_number, _paper_similarity),
    },
    "super_glue_copa": _paper_labels(
        "super_glue_copa", _TWO, True, "choice1", "choice2", "premise", "question"
    ),
    "super_glue_multirc": _paper_labels(  # with its tags
        "super_glue_multirc", _TWO, True, "question", "answer", "paragraph"
    ),
    "super_glue_record": {"one_per_group": False},  # rows of the same query count each
    "super_glue_wic": {
        **_paper_labels("super_glue_wic", _TWO, True, "pos", "sentence1", "sentence2", "word"),
        "sample": {**TASKS["super_glue_wic"].sample, "pos": "N"},
    },
    "super_glue_wsc": {  # an empty prediction names another referent
        "read": partial(_named_by, winograd.wsc, empty=0)
    },
    "glue_wnli": {"read": partial(_named_by, winograd.wnli, empty=0)},
    "squad": {  # every symbol spaced, letters with accents too
        "make": _paper_squad,
        "gold": lambda raw: text.squad_answers(raw, symbols=True) or None,
    },
    "cnn_dailymail": {  # lower-cased, on one line
        "make": _paper_summary,
        "gold": partial(_first_target, _paper_summary),
    },
}
