"""Mixtures: how often each task is drawn, by its number of examples."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from types import EllipsisType

from model.tasks.prepared import OWN
from model.tasks.registry import TASKS, mixed_tasks, unknown_task

#: Names of mixtures, beside those of tasks: all supervised tasks, and those of two benchmarks.
MIXTURES = ("all", "glue", "super_glue")
#: The unsupervised task.
C4 = "c4"
#: Training pages of the released C4 (TFDS c4/en 3.0.1): more than any limit.
C4_EXAMPLES = 364_868_901
_LIMIT = 2**19
_RTE = ("glue_rte", "super_glue_rte")


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Tasks to draw from.

    Attributes:
        tasks: names of tasks, ``c4`` among them for the unsupervised objective.
        limit: a task counts for at most so many examples; None for no limit.
        temperature: 1 is proportional to the examples; the higher, the more even.
        equal: every task is drawn equally often.
        unsupervised_size: the examples that ``c4`` counts for, whatever the limit and the
            temperature; None for its real size under both.
    """

    tasks: tuple[str, ...]
    limit: int | None = None
    temperature: float = 1.0
    equal: bool = False
    unsupervised_size: int | None = None

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ValueError("a mixture needs at least one task")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"the limit of a mixture must be at least 1, got {self.limit}")
        if not self.temperature > 0:
            raise ValueError(f"the temperature must be positive, got {self.temperature}")
        if self.unsupervised_size is not None and self.unsupervised_size < 1:
            raise ValueError(
                f"the unsupervised size must be at least 1, got {self.unsupervised_size}"
            )

    def rates(self, examples: Mapping[str, int] | None = None) -> dict[str, float]:
        """Return the probability of each task.

        ``examples`` gives numbers of training examples, in place of the published ones, as of
        prepared data. Raises ValueError for a task whose number is unknown, and for a temperature
        so low that rates cannot be computed.
        """
        known = {C4: C4_EXAMPLES} | {
            name: task.mixing_examples for name, task in TASKS.items() if task.mixing_examples
        }
        known |= examples or {}
        unknown = [name for name in self.tasks if not known.get(name)]
        if unknown:
            raise ValueError(f"no training examples are known of {', '.join(unknown)}")
        weights = {name: self._weight(name, known[name]) for name in self.tasks}
        total = sum(weights.values())
        return {name: weight / total for name, weight in weights.items()}

    def _weight(self, name: str, examples: float) -> float:
        if self.equal:
            return 1.0
        if name == C4 and self.unsupervised_size is not None:
            return float(self.unsupervised_size)
        if name in _RTE and set(_RTE) <= set(self.tasks):
            examples *= 0.5  # GLUE and SuperGLUE have the same examples of it
        if self.limit is not None:
            examples = min(examples, self.limit)
        try:
            weight = float(examples ** (1.0 / self.temperature))
        except OverflowError:
            weight = math.inf
        if weight == math.inf:
            raise ValueError(
                f"a temperature of {self.temperature:g} is too low for {examples:,} examples of "
                f"{name}: no number holds their weight (--temperature)"
            )
        return weight


def mixture_tasks(name: str) -> tuple[str, ...]:
    """Return the supervised tasks of ``all``, ``glue`` or ``super_glue``; else just ``name``."""
    if name not in MIXTURES:
        return (name,)
    return mixed_tasks(None if name == "all" else name)


def mixture(
    name: str | Iterable[str],
    *,
    limit: int | EllipsisType | None = ...,
    temperature: float = 1.0,
    equal: bool = False,
    leave_out: str | None = None,
    unsupervised: bool | None = None,
    unsupervised_size: int | None = None,
) -> Mixture:
    """Return a mixture of the paper, or of given tasks.

    Args:
        name: ``all`` (the 22 supervised tasks and ``c4``), ``glue``, ``super_glue``, or names of
            tasks.
        limit: the most examples that a task counts for, or None. Default: 2**19 for ``all``,
            else None.
        temperature: the tasks' examples, limited, are raised to 1 / temperature.
        equal: draw every task equally often.
        leave_out: a task, or ``glue`` or ``super_glue`` with all of its tasks.
        unsupervised: whether ``c4`` is among the tasks. Default: for ``all``.
        unsupervised_size: the examples that ``c4`` counts for, whatever the limit.

    >>> mixture("all", limit=2**19).rates()["c4"] == mixture("all", limit=2**19).rates()["wmt_enfr"]
    True
    """
    if isinstance(limit, EllipsisType):
        limit = _LIMIT if name == "all" else None
    names = (name,) if isinstance(name, str) else name
    tasks = tuple(dict.fromkeys(task for entry in names for task in mixture_tasks(entry)))
    for task in tasks:
        known = (*TASKS, OWN, C4)
        if task not in known:
            raise ValueError(unknown_task(task, (*known, *MIXTURES), "task or mixture"))
    if unsupervised or (unsupervised is None and name == "all"):
        tasks = (*tasks, C4)
    if leave_out is not None:
        left = mixture_tasks(leave_out)
        if not set(left) <= set(tasks):
            raise ValueError(f"{leave_out!r} is not in the mixture, so it cannot be left out")
        tasks = tuple(task for task in tasks if task not in left)
    return Mixture(tasks, limit, temperature, equal, unsupervised_size)
