"""How a run starts from another's checkpoint: at which step, and what to say about its rate."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from model.training.model_folders import Origin, read_origin
from model.training.optimizer import FINE_TUNING_RATE, schedule
from model.training.train_config import TrainConfig

_JUMP = 1.5  # times the rate that the parameters were last trained with


def first_step(config: TrainConfig, begun: Mapping[str, Any] | None) -> int:
    """Return the global step at which a run starts.

    Args:
      config: the run.
      begun: settings in ``run.json`` of a run that has steps already, else None. The run it
        started from may have been trained further since.

    Raises ValueError where ``init_from`` cannot be read.
    """
    if begun is not None:
        return int(begun.get("first_step", 0))
    if config.init_from is None or config.optimizer_state != "keep":
        return 0
    origin = read_origin(config.init_from)
    return 0 if origin is None else origin.step


def start_notes(config: TrainConfig) -> list[str]:
    """Return what a new run from another checkpoint should say: a line each, perhaps none.

    That there are no statistics to keep; that the learning rate is far above the one that the
    parameters were last trained with, which undoes part of that training.
    """
    if config.init_from is None:
        return []
    origin = read_origin(config.init_from)
    notes = []
    if origin is None and config.optimizer_state == "keep":
        notes.append(
            f"note: {config.init_from} holds no statistics of the optimizer: they are new, and "
            "steps count from 0"
        )
    if config.schedule == "constant":
        return notes  # a rate that was chosen
    now = _rate_at(config.rate(), config.first_step)
    before = FINE_TUNING_RATE if origin is None else _last_rate(origin)
    if before is None or now <= _JUMP * before:
        return notes
    last = "is trained already" if origin is None else f"was last trained at {before:.3g}"
    ways = "--learning-rate-schedule constant trains at 0.001, as for fine-tuning"
    if origin is not None and config.optimizer_state != "keep":
        ways = f"--optimizer-state keep carries on from there; {ways}"
    notes.append(
        f"note: the learning rate starts at {now:.3g}, and {config.init_from} {last}: {ways}"
    )
    return notes


def _last_rate(origin: Origin) -> float | None:
    """Return the rate of the last step before a checkpoint; None where the run does not say."""
    try:
        rate = schedule(
            origin.settings["learning_rate_schedule"],
            origin.settings["learning_rate"],
            origin.settings["warmup"],
            origin.settings.get("schedule_offset", 0),
        )
    except (KeyError, TypeError, ValueError):
        return None
    return _rate_at(rate, origin.step - 1)


def _rate_at(rate: Any, step: int) -> float:
    return float(rate(np.int32(step)))
