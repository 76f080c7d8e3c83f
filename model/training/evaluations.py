"""What is measured of a model while it is trained: functions of its parameters."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax

from model.data.batches import HostBatch
from model.data.input_config import InputConfig
from model.data.input_pipeline import validation_batches, validation_inputs
from model.tasks.mixtures import C4
from model.training import distributed
from model.training.losses import LossSums
from model.training.memory import require_host_room
from model.training.programs import Placement
from model.training.train_config import TrainConfig


class Evaluation(NamedTuple):
    """What an evaluation found."""

    values: Mapping[str, float]  #: by name, for ``metrics.jsonl`` and curves
    line: str  #: the same for people


#: Takes the number of steps done, the parameters after them, and the values that the evaluators
#: before it found there: the loss is the first. With several processes each calls it at the same
#: step, and all get the same.
Evaluator = Callable[[int, Any, Mapping[str, float]], Evaluation]

_FEW_EXAMPLES = 100  # pages or examples of a validation split

Batches = Mapping[str, list[HostBatch]]


def read_validation(
    config: TrainConfig, data: InputConfig, host: tuple[int, int], say: Callable[[str], None]
) -> Batches:
    """Return what every evaluation of the loss goes through, this host's part of it, by source.

    Nothing where evaluation is off.

    Args:
      config: the run.
      data: its input, with the number of input shards decided.
      host: this process's part of the input, and how many parts there are.
      say: takes a line about the number of pages or examples, or about why a source allows no
        evaluation.

    Raises ValueError where evaluation was asked for, and there is nothing to evaluate on.
    """
    if config.eval_every == 0:
        return {}
    rows = config.evaluation_rows(data)
    if rows.batch_size % (rows.input_shards or 1):  # hosts are fewer than shards then
        rows = dataclasses.replace(rows, input_shards=host[1])
    count = config.eval_batches * config.step.accumulate
    arrays = rows.batch_spec().arrays.values()
    each = sum(math.prod(shape) * kind.itemsize for shape, kind in arrays) // host[1]
    inputs = validation_inputs(rows)
    require_host_room(f"--eval-batches {config.eval_batches}", len(inputs) * count * each)
    found: dict[str, list[HostBatch]] = {}
    for name, of_source in inputs.items():
        try:
            size = _validation_size(of_source)
            found[name] = list(validation_batches(rows, count, host, name))
        except ValueError as error:  # no such pages, or too few
            if config.eval_every is not None:
                raise
            say(f"no evaluation: {error}")
            continue
        say(f"validation: {size}" if len(inputs) == 1 else f"validation: {name}, {size}")
    if not inputs:
        line = "no evaluation: the tasks have no validation split"
        if config.eval_every is not None:
            raise ValueError(f"{line} (--eval-every)")
        say(line)
    return found


def _validation_size(data: InputConfig) -> str:
    """Return how much an input of evaluation has."""
    if C4 in data.rates:
        number, what = data.open().page_count, "page"
    else:
        (task,) = data.tasks
        number, what = task.open().pair_counts[task.split], "example"
    few = ": too few to trust its loss" if number < _FEW_EXAMPLES else ""
    return f"{number:,} {what}{'s'[: number != 1]}{few}"


def validation_loss(
    eval_step: Callable[[Any, Any], LossSums], batches: Batches, rows: int, placement: Placement
) -> Evaluator:
    """Return the evaluator of the loss: of each source, and of the tokens of all.

    Args:
      eval_step: parameters and a batch to sums, compiled for the placement.
      batches: of :func:`read_validation`.
      rows: sequences of a batch, of all hosts.
      placement: where it runs.
    """

    def evaluate(step: int, params: Any, before: Mapping[str, float]) -> Evaluation:
        del step, before
        sums = {
            name: [
                eval_step(params, distributed.global_batch(placement.batch, batch, rows))
                for batch in of_source
            ]
            for name, of_source in batches.items()
        }
        return _described({name: _total(each) for name, each in jax.device_get(sums).items()})

    return evaluate


def _total(sums: Iterable[LossSums]) -> LossSums:
    return LossSums(*(sum(map(float, parts)) for parts in zip(*sums, strict=True)))  # type: ignore[arg-type]


def _described(sums: Mapping[str, LossSums]) -> Evaluation:
    whole = _total(sums.values())
    losses = {"validation_": whole}
    if len(sums) > 1:
        losses |= {f"validation/{name}/": each for name, each in sums.items()}
    values: dict[str, float] = {}
    for prefix, each in losses.items():
        count = max(float(each.tokens), 1.0)
        values[f"{prefix}loss"] = float(each.loss) / count
        values[f"{prefix}accuracy"] = float(each.correct) / count
    by_source = "".join(
        f"  {name} {values[f'validation/{name}/loss']:.3f}" for name in sums if len(sums) > 1
    )
    return Evaluation(
        values,
        f"validation loss {values['validation_loss']:.3f}  "
        f"acc {values['validation_accuracy']:.3f}  {float(whole.tokens):,.0f} target tokens"
        f"{by_source}",
    )
