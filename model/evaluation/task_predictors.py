"""Which checkpoint predicts each task of an evaluation: opened when it is needed."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from model.evaluation.best_files import kept_best
from model.evaluation.decoding import Decoding
from model.evaluation.predictor import Predictor
from model.evaluation.trained import Trained, open_trained
from model.t5.config import ModelConfig
from model.training.remote_run import STEPS
from pipelines import storage

Predict = Callable[[Sequence[str]], Sequence[str]]

#: Test sets without training data, and the task whose best checkpoint predicts them.
_FOLLOWS = {
    "glue_ax": "glue_mnli", "super_glue_axb": "super_glue_rte", "super_glue_axg": "super_glue_rte",
}  # fmt: skip


class _Place(NamedTuple):
    """A checkpoint, as `open_trained` takes it."""

    path: str
    task: str | None


class TaskPredictors:
    """Gives the function that predicts a task, of one model or of an ensemble.

    Each source gives the checkpoint that it keeps as the best of the task; or else, if it keeps
    several, its last. One model or ensemble is in memory at a time.
    """

    def __init__(self, sources: Sequence[str], decoding: Decoding) -> None:
        """Look at what the sources keep. Raises ValueError for one not there, or damaged."""
        for source in sources:
            if storage.is_local(source) and not os.path.isdir(storage.local_path(source)):
                raise ValueError(f"{source}: no such folder (--from)")
        self._kept = {source: kept_best(source) for source in sources}
        self._sources, self._decoding = sources, decoding
        self._predictors: dict[ModelConfig, Predictor] = {}
        self._places: list[_Place] = []
        self._opened: tuple[Predict, int | None] | None = None

    def __call__(self, task: str) -> tuple[Predict, int | None]:
        """Return what predicts a task, and the step of its checkpoint (of the first source).

        Raises ValueError for a model that cannot be opened, and for models that cannot be an
        ensemble.
        """
        places = [_place(source, self._kept[source], task) for source in self._sources]
        if self._opened is None or places != self._places:
            self._opened = None  # frees its memory before more is taken
            self._opened, self._places = self._open(places), places
        return self._opened

    def _open(self, places: Sequence[_Place]) -> tuple[Predict, int | None]:
        members = [open_trained(*place) for place in places]
        _check_members(members)
        first = members[0]
        if first.config not in self._predictors:
            self._predictors[first.config] = self._decoding.predictor(first)
        predictor = self._predictors[first.config]
        params = tuple(member.params for member in members)
        placed = predictor.placed(params if len(params) > 1 else params[0])
        return functools.partial(predictor, placed), first.step


def _place(source: str, kept: Mapping[str, Any], task: str) -> _Place:
    for name in (task, _FOLLOWS.get(task, task)):
        if name in kept:
            return _Place(source, name)
    # Nothing was kept for the task: the only best one, or else the last.
    return _Place(source if len(kept) < 2 else storage.join(source, STEPS), None)


def _check_members(members: Sequence[Trained]) -> None:
    """Raise ValueError unless models can be an ensemble."""
    first = members[0]
    for other in members[1:]:
        same_words = first.vocabulary.same_as(other.vocabulary)
        if other.config != first.config or not same_words:
            what = "model" if same_words else "vocabulary"
            raise ValueError(
                f"{other.name} has another {what} than {first.name}: an ensemble is of models of "
                "one size that read the same ids (--from)"
            )
