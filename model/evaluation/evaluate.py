"""Evaluates a trained model on tasks: what ``c4 evaluate`` does."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from model.evaluation.decoding import Decoding
from model.evaluation.published import BASELINE, published_row
from model.evaluation.report import Report
from model.evaluation.scores import TaskScores, evaluate_task
from model.evaluation.submissions import Written, majority_label, submission_name, write_submission
from model.tasks.mixtures import MIXTURES
from model.tasks.prepared import OWN, Prepared, no_data, prepared_tasks
from model.tasks.registry import FORMS, TASKS, unknown_task
from pipelines.options import option

#: Gives, for a task's name, the function that predicts, and the step of the checkpoint.
Opener = Callable[[str], tuple[Callable[[Sequence[str]], Sequence[str]], int | None]]


def task_names(asked: str) -> tuple[str, ...]:
    """Return the tasks of a list such as ``glue_cola,squad``; ``all``, ``glue``, ``super_glue``.

    The groups include the tasks that are for evaluation only. Raises ValueError for unknown names.
    """
    found: list[str] = []
    for name in asked.split(","):
        if name in MIXTURES:
            found += [task for task in TASKS if name in ("all", TASKS[task].group)]
        elif name in TASKS or name == OWN:
            found.append(name)
        else:
            known = (*TASKS, OWN, *MIXTURES)
            raise ValueError(f"{unknown_task(name, known)} (--task)")
    return tuple(dict.fromkeys(found))


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig(Decoding):
    """An evaluation. Raises ValueError for what cannot be.

    The options of decoding are those of `c4 predict`.

    Attributes:
        source: a run's folder (its kept best checkpoint of each task, else its last), a
            checkpoint, or a folder in Hugging Face's layout; several are an ensemble.
        tasks: names of tasks.
        data: folder of prepared tasks.
        split: the validation sets, or the test sets.
        limit: use only the first examples of each split.
        form: of the tasks: the released code's, or the paper's.
        against: the paper's row beside ours.
        resamples: of the bootstrap.
    """

    source: tuple[str, ...] = option(
        "RUN (its kept best checkpoint of each task, else its last), a checkpoint, or a folder in "
        "Hugging Face's layout; given several times, their ensemble: logits are averaged",
        "--from", metavar="RUN|CKPT|HF_DIR", action="append", read=tuple,
    )  # fmt: skip
    tasks: tuple[str, ...] = option(
        "tasks, or all, glue, super_glue; own for your own pairs",
        "--task", metavar="NAME[,NAME]", read=task_names,
    )  # fmt: skip
    data: str = option("folder of data that c4 tasks prepare wrote", metavar="DIR")
    split: Literal["validation", "test"] = option("the sets to evaluate on", default="validation")
    limit: int | None = option(
        "only the first N examples of each set", default=None, metavar="N", least=1
    )
    form: Literal["code", "paper"] = option(
        "form of the tasks: the released code's, or the paper's where it differs", default="code"
    )
    against: str = option(
        "row of the paper to show beside ours, such as baseline, t5_base or test_small",
        default=BASELINE, metavar="ROW",
    )  # fmt: skip
    resamples: int = option(
        "resamples of the confidence intervals, 0 for none", default=1000, metavar="N", least=0,
        most=1_000_000,
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.source, str):
            object.__setattr__(self, "source", (self.source,))
        if isinstance(self.tasks, str):
            object.__setattr__(self, "tasks", task_names(self.tasks))
        if not all(self.source):
            raise ValueError("--from is empty")
        if not self.tasks:
            raise ValueError("no task to evaluate (--task)")
        for name in self.tasks:
            task_names(name)
        for name, allowed in (("split", ("validation", "test")), ("form", FORMS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)} (--{name})")
        published_row(self.against)


def splits_of(prepared: Prepared, split: str) -> tuple[str, ...]:
    """Return the prepared splits of a task that are its validation or its test sets."""
    if split == "validation":
        return prepared.validation_splits
    return tuple(name for name in prepared.splits if name.partition("_")[0] == split)


def evaluate(
    config: EvaluateConfig,
    opener: Opener | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> Report:
    """Evaluate a model on tasks.

    A task whose data are not prepared is listed in the report's ``missing`` and does not fail the
    others. A task that has no set of the kind asked for, as the diagnostics have no validation
    set, is missing only if it was the only one asked for.

    On several hosts, every host calls this with the same configuration and gets the same report.

    Args:
        config: what to evaluate.
        opener: gives the function that predicts; None for that of ``config.source``.
        progress: takes a line about each task.

    Raises ValueError if nothing could be evaluated, or if the model cannot be opened.
    """
    if opener is None:
        from model.evaluation.task_predictors import TaskPredictors  # with JAX

        opener = TaskPredictors(config.source, config)
    there = prepared_tasks(config.data)
    missing: dict[str, str] = {}
    work: list[tuple[Prepared, str]] = []
    for name in config.tasks:
        if name not in there:
            if _has_split(name, config.split):
                missing[name] = f"no data in {config.data}: c4 tasks prepare {name}"
            continue
        prepared = Prepared(config.data, name, config.form)
        splits = splits_of(prepared, config.split)
        work += [(prepared, split) for split in splits]
        if not splits and _has_split(name, config.split):
            missing[name] = f"its data in {config.data} have no {config.split} set"
    if not work and missing and not set(missing) & set(there):
        raise ValueError(f"nothing to evaluate: {no_data(config.data, list(missing))} (--data)")
    if not work:
        why = "; ".join(f"{name}: {reason}" for name, reason in missing.items())
        raise ValueError(f"nothing to evaluate: {why or f'no {config.split} set (--split)'}")
    scores: list[TaskScores] = []
    unlike = [prepared.unlike_published(split) for prepared, split in work]
    steps: dict[str, int | None] = {}
    for prepared, split in work:
        name = prepared.task.name
        predict, steps[name] = opener(name)
        scores.append(evaluate_task(prepared, split, predict, config.limit))
        del predict  # with its parameters, before others are opened
        column = scores[-1].column
        shown = f"{column:.2f}" if column == column else "predicted"
        progress(f"{name} {split}: {shown}, {len(scores[-1].predictions):,} examples")
    return Report(
        " + ".join(config.source),
        config.split,
        scores,
        missing,
        steps,
        config.against,
        config.resamples,
        [f"{each}: its score is not comparable with the paper's" for each in unlike if each],
    )


def write_submissions(config: EvaluateConfig, report: Report, folder: str) -> Iterator[Written]:
    """Write the files of GLUE's and SuperGLUE's servers of a report on test sets.

    Yields each file; tasks of other benchmarks have none. Raises ValueError for a report on
    validation sets, which no server scores.
    """
    if report.split != "test":
        raise ValueError("--submission needs the test sets: give --split test")
    for found in report.scores:
        if submission_name(found.name, found.split) is not None:
            prepared = Prepared(config.data, found.name, config.form)
            yield write_submission(found, folder, majority_label(prepared, found))


def _has_split(name: str, split: str) -> bool:
    """Return whether a task was published with such a set."""
    return name == OWN or any(each.partition("_")[0] == split for each in TASKS[name].splits)
