"""The paper's tasks, as tasks.toml describes them, and how their predictions are scored.

The default form of a task is the released code's (text-to-text-transfer-transformer); where the
paper differs, ``task(name, form="paper")`` gives its form.
"""

import dataclasses
import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

from model.small_files import packaged_toml
from model.tasks import metrics, text, winograd
from model.tasks.metrics import Metric
from model.tasks.values import Pair, Raw, field, label_index, plain

#: The released code's forms, and those that the paper prints or used where they differ.
FORMS = ("code", "paper")


@dataclasses.dataclass(frozen=True)
class Publication:
    """Where a task's data is published.

    Attributes:
        url: the download, or the page that leads to it.
        tfds: name of the TensorFlow Datasets builder and its configuration.
        hub: name of the Hugging Face dataset and its configuration, or "".
    """

    url: str = ""
    tfds: str = ""
    hub: tuple[str, str] = ("", "")


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
    source: Publication
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
    return TASKS[name] if form == "code" else _task_of(name, form)


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
        **_with_target("{inputs}", "{targets}")._asdict(),
        metrics=(metrics.ACCURACY,),
        summary=("accuracy",),
        splits={},
        evaluated=("validation",),
        source=Publication(),
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


def _gold_number(make: Callable[[Raw], list[Pair]], raw: Raw) -> float | None:
    number = float(make(raw)[0][1])
    return None if number < 0 else number


class _Kind(NamedTuple):
    """What of `Task` is code, under the names of its fields."""

    make: Callable[[Raw], list[Pair]]
    read: Callable[[str, Raw], Any]
    gold: Callable[[Raw], Any]
    trains_on: Callable[[Raw], bool] | None = None


def _free_text(
    make: Callable[[Raw], list[Pair]], gold: Callable[[Raw], Any] | None = None
) -> _Kind:
    return _Kind(make, _as_text, gold or partial(_first_target, make))


@cache  # the forms of a task that read alike have the same functions
def _with_target(template: str, target: str) -> _Kind:
    return _free_text(partial(text.filled, template=template, target=target))


@cache
def _with_labels(template: str, labels: tuple[str, ...], markup: bool = True) -> _Kind:
    return _Kind(
        partial(text.labelled, template=template, labels=labels, markup=markup),
        lambda prediction, _: text.label_of_text(prediction, labels),
        partial(_gold_label, labels),
    )


def _similarity(allowed: tuple[str, ...] = (), lowest: float | None = None) -> _Kind:
    make = partial(text.similarity, lowest=lowest)
    return _Kind(
        make,
        lambda prediction, _: text.number_of_text(prediction, allowed),
        partial(_gold_number, make),
    )


def _squad(symbols: bool = False) -> _Kind:
    return _free_text(
        partial(text.squad, symbols=symbols),
        lambda raw: text.squad_answers(raw, symbols) or None,
    )


def _wsc(empty: int = -1) -> _Kind:
    labels = ("False", "True")
    return _Kind(
        winograd.wsc,
        partial(_named_by, winograd.wsc, empty=empty),
        partial(_gold_label, labels),
        trains_on=lambda raw: label_index(raw, labels) == 1,
    )


def _wnli(empty: int = -1) -> _Kind:
    return _Kind(
        winograd.wnli,
        partial(_named_by, winograd.wnli, empty=empty),
        partial(_gold_label, ("not_entailment", "entailment")),
        trains_on=lambda raw: False,
    )


_CLASSES = tuple(f"{fifth / 5:.1f}" for fifth in range(5, 26))
_KINDS: Mapping[str, _Kind] = {
    "similarity": _similarity(),
    "similarity_classes": _similarity(_CLASSES, lowest=1.0),
    "record": _free_text(text.record, lambda raw: list(raw.get("answers") or ()) or None),
    "wsc": _wsc(),
    "wsc_empty": _wsc(empty=0),
    "wnli": _wnli(),
    "wnli_empty": _wnli(empty=0),
    "dpr": _free_text(winograd.dpr),
    "squad": _squad(),
    "squad_symbols": _squad(symbols=True),
    "summary": _free_text(text.summary),
    "summary_lower_case": _free_text(partial(text.summary, paper=True)),
}


def _task_of(name: str, form: str = "code") -> Task:
    """Return a task as the file describes it; its ``paper`` says what differs in that form."""
    values = dict(_DESCRIBED[name])
    paper = values.pop("paper", {})
    if form == "paper":
        values |= paper
    template, labels = values["template"], tuple(values.pop("labels", ()))
    if "kind" in values:
        kind = _KINDS[values.pop("kind")]
    elif labels:
        kind = _with_labels(template, labels, values.pop("markup", True))
    else:
        kind = _with_target(template, values.pop("target"))
    scored = tuple(getattr(metrics, metric.upper()) for metric in values.pop("metrics"))
    scores = [score for metric in scored for score in metric.names]
    splits = values["splits"]
    return Task(
        name=name,
        **kind._asdict(),
        metrics=scored,
        summary=tuple(values.pop("summary", scores)),
        evaluated=tuple(split for split in splits if split.startswith("validation")),
        mixing_examples=values.pop("mixing_examples", splits.get("train", 0)),
        source=Publication(values.pop("url"), values.pop("tfds"), tuple(values.pop("hub"))),
        labels=labels,
        form=form,
        **values,
    )


_DESCRIBED = packaged_toml(__name__, "tasks.toml")
#: All tasks by name, in the order of the paper's tables.
TASKS: dict[str, Task] = {name: _task_of(name) for name in _DESCRIBED}
