"""Options that say which tasks a run draws examples from, and how often."""

import argparse
import dataclasses
from typing import Any

from model.data.sources.task import TaskInput
from model.tasks.mixtures import C4, mixture
from model.tasks.prepared import Prepared, no_data, prepared_tasks
from pipelines.options import check_bounds, comma_separated, given_values, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixtureOptions:
    """A mixture of prepared tasks, and of the corpus where there is one."""

    data: str | None = option(
        "folder of prepared tasks (c4 tasks prepare)", default=None, metavar="DIR"
    )
    tasks: tuple[str, ...] = option(
        "tasks to draw examples from: names, glue, super_glue or all, separated by commas",
        default=(), metavar="NAMES", action="append", read=comma_separated("--tasks"),
    )  # fmt: skip
    mixing_limit: int = option(  # that of the paper's multi-task pre-training (section 3.5.3)
        "a task counts for at most N examples", default=2**19, metavar="N", least=1
    )
    temperature: float = option(
        "1: in proportion to the limited examples; the higher, the more even",
        default=1.0, metavar="T",
    )  # fmt: skip
    equal: bool = option("draw all tasks equally often", default=False)
    leave_out: str | None = option(
        "leave out a task, or all of glue or super_glue", default=None, metavar="NAME"
    )
    unsupervised_size: int | None = option(
        "examples that the corpus counts for, whatever the limit (default: more than any limit)",
        default=None, metavar="N", least=1,
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_bounds(self)


def mixed_inputs(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the tasks and rates of `InputConfig` that the options of a mixture ask for.

    Nothing without ``--tasks``. Raises ValueError for tasks that are not there, or options that do
    not go together.
    """
    given = given_values(arguments, MixtureOptions)
    options = MixtureOptions(**given)
    if not options.tasks:
        if given:
            first = f"--{next(iter(given)).replace('_', '-')}"
            raise ValueError(f"{first} is for tasks: name them too (--tasks)")
        return {}
    if options.data is None:
        raise ValueError("--data is missing: the folder of c4 tasks prepare")
    with_corpus = hasattr(arguments, "corpus")
    if options.unsupervised_size is not None and not with_corpus:
        raise ValueError("--unsupervised-size is for a mixture with a corpus (--corpus)")
    mixed = mixture(
        options.tasks,
        limit=options.mixing_limit,
        temperature=options.temperature,
        equal=options.equal,
        leave_out=options.leave_out,
        unsupervised=with_corpus,
        unsupervised_size=options.unsupervised_size,
    )
    names = [name for name in mixed.tasks if name != C4]
    there = prepared_tasks(options.data)
    lacking = [name for name in names if name not in there]
    if lacking:
        raise ValueError(no_data(options.data, lacking))
    counts = {name: Prepared(options.data, name).pair_counts.get("train", 0) for name in names}
    rates = mixed.rates(counts)
    tasks = tuple(TaskInput(data=options.data, name=name, rate=rates[name]) for name in names)
    return {"tasks": tasks, "corpus_rate": rates.get(C4, 0.0)}
