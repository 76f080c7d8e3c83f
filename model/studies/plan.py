"""What has to run for the rows of an experiment, as commands: planned once, whoever shares it."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence

from model.studies.experiments import CORPORA, Mixing, Pretrain, Row
from model.studies.scales import Scale
from model.tasks.prepared import Prepared, prepared_tasks
from model.tasks.registry import TASKS

#: Members of an ensemble (paper, section 3.6).
_MEMBERS = 4
#: Tasks that a beam search decodes, where there is one (section 3.7).
_GENERATED = ("cnn_dailymail", "wmt_ende", "wmt_enfr", "wmt_enro")


class MissingError(ValueError):
    """What a row needs and the user did not give."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One command.

    Attributes:
        kind: ``pretrain``, ``finetune`` or ``evaluate``.
        name: its folder under the study's, or its file of scores.
        words: the command; ``{out}`` stands for the study's folder.
        needs: the jobs before it.
    """

    kind: str
    name: str
    words: tuple[str, ...]
    needs: tuple["Job", ...] = ()

    def command(self, out: str) -> list[str]:
        """Return the command in a study's folder."""
        return [word.replace("{out}", out) for word in self.words]

    def in_order(self) -> Iterator["Job"]:
        """Yield the job after all that it needs."""
        for job in self.needs:
            yield from job.in_order()
        yield self


@dataclasses.dataclass(frozen=True)
class Study:
    """What the rows of a study share.

    Attributes:
        scale: how large runs are.
        corpora: folders by name.
        data: folder of prepared tasks.
        vocabulary: SentencePiece model.
        tasks: the prepared tasks that the paper trains on.
        tokens_per_page: of each corpus, for repeated data.
    """

    scale: Scale
    corpora: Mapping[str, str]
    data: str
    vocabulary: str
    tasks: tuple[str, ...]
    tokens_per_page: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @staticmethod
    def usable_tasks(data: str) -> tuple[str, ...]:
        """Return the tasks of a folder that the paper trains on. Raises ValueError if none is."""
        found = tuple(
            name
            for name in prepared_tasks(data)
            if name in TASKS
            and TASKS[name].mixing_examples
            and "train" in Prepared(data, name).splits
        )
        if not found:
            raise ValueError(
                f"{data} has no training data of the paper's tasks: c4 tasks prepare (--data)"
            )
        return found


@dataclasses.dataclass(frozen=True)
class RowPlan:
    """The evaluations of a row with one seed; together they give its scores."""

    row: Row
    seed: int
    evaluations: tuple[Job, ...]


def plan_row(study: Study, row: Row, seed: int) -> RowPlan:
    """Plan a row. Raises MissingError if the user did not give what it needs."""
    evaluations = []
    together = row.finetune is None or row.finetune.together
    for name, tasks in _groups(study.tasks, together):
        scored = tuple(task for task in tasks if TASKS[task].evaluated)
        if not scored:
            continue
        members = [_trained(study, row, seed, name, tasks, 0)]
        if row.ensemble is not None:
            members += [
                _trained(study, row, seed, name, tasks, member) for member in range(1, _MEMBERS)
            ]
        beams = row.finetune.beams if row.finetune is not None else None
        evaluations.append(_evaluation(study, scored, members, beams))
    return RowPlan(row, seed, tuple(evaluations))


def _groups(tasks: Sequence[str], together: bool) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield what is fine-tuned on together: GLUE, SuperGLUE with DPR, and each other task."""
    seen = set()
    for task in tasks:
        group = TASKS[task].group
        if group and together:
            if group not in seen:
                seen.add(group)
                yield group, tuple(each for each in tasks if TASKS[each].group == group)
        else:
            yield task, (task,)


def _trained(
    study: Study, row: Row, seed: int, name: str, tasks: tuple[str, ...], member: int
) -> Job:
    """Return the run that is evaluated, one of an ensemble's members."""
    # Seeds of members are far from those of repetitions.
    member_seed = seed + 1000 * member
    pretrain_seed = member_seed if row.ensemble == "pretrain" else seed
    # A fine-tuning from random weights takes the baseline's model, and not its parameters.
    pretrained = _pretraining(study, row.pretrain or Pretrain(), pretrain_seed, tasks)
    if row.finetune is None:
        return pretrained
    glue = TASKS[tasks[0]].group != ""
    words = ["--task", ",".join(tasks), "--data", study.data, "--seed", str(member_seed)]
    words += [*study.scale.finetune_options(row.finetune, glue), "--quiet"]
    if row.pretrain is None:
        words.append("--random-weights")
    words += ["--from", f"{{out}}/{pretrained.name}"]
    return _job("finetune", name, words, (pretrained,), out=True)


def _pretraining(study: Study, pretrain: Pretrain, seed: int, finetuned: tuple[str, ...]) -> Job:
    scale, mixing = study.scale, pretrain.mixing
    words = ["--vocab", study.vocabulary, "--seed", str(seed), *scale.pretrain_options(pretrain)]
    words.append("--quiet")
    if mixing is None or mixing.unsupervised:
        words += ["--corpus", _corpus(study, pretrain.corpus)]
    if pretrain.repeats is not None:
        words += ["--max-pages", str(_pages(study, pretrain))]
    if mixing is not None:
        words += _mixture(study, mixing, finetuned)
    return _job("pretrain", pretrain.objective, words, out=True)


def _mixture(study: Study, mixing: Mixing, finetuned: tuple[str, ...]) -> list[str]:
    tasks = [task for task in study.tasks if not (mixing.leave_out and task in finetuned)]
    if not tasks:
        return []  # only the corpus is left
    words = ["--tasks", ",".join(tasks), "--data", study.data]
    if mixing.equal:
        return [*words, "--equal"]
    words += ["--mixing-limit", str(mixing.limit)]
    if mixing.temperature != 1:
        words += ["--temperature", f"{mixing.temperature:g}"]
    if mixing.unsupervised_size is not None:
        words += ["--unsupervised-size", str(mixing.unsupervised_size)]
    return words


def _evaluation(
    study: Study, tasks: tuple[str, ...], members: Sequence[Job], beams: int | None
) -> Job:
    words = ["--task", ",".join(tasks), "--data", study.data, "--resamples", "0"]
    words += ["--input-length", str(study.scale.input_length), *study.scale.evaluate]
    for member in members:
        words += ["--from", f"{{out}}/{member.name}"]
    if beams is not None and set(tasks) <= set(_GENERATED):
        words += ["--beams", str(beams)]
    return _job("evaluate", tasks[0], words, tuple(members), out=False)


def _job(
    kind: str, label: str, words: Sequence[str], needs: tuple[Job, ...] = (), *, out: bool
) -> Job:
    """Return a job whose name says what it is; the same words have the same name."""
    digest = hashlib.sha256(json.dumps([kind, *words]).encode()).hexdigest()[:12]
    name = f"{kind}/{label}-{digest}"
    target = ["--out", f"{{out}}/{name}"] if out else ["--json", f"{{out}}/{name}.json"]
    return Job(kind, name, (kind, *words, *target), needs)


def _corpus(study: Study, name: str) -> str:
    if name not in study.corpora:
        raise MissingError(f"corpus {name} ({CORPORA[name]}): give --corpus {name}=DIR")
    return study.corpora[name]


def _pages(study: Study, pretrain: Pretrain) -> int:
    """Return how many pages hold the tokens that are read ``repeats`` times."""
    assert pretrain.repeats is not None
    _corpus(study, pretrain.corpus)
    tokens = study.scale.tokens(pretrain) / pretrain.repeats
    return max(1, round(tokens / study.tokens_per_page[pretrain.corpus]))
