"""What a run has on its devices: who holds what, the first state, and the compiled steps."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import jax
import numpy as np

from model.data.batches import BatchSpec
from model.t5.network import T5
from model.training import sharding
from model.training.checkpoints import load_params
from model.training.losses import LossSums
from model.training.memory import StepMemory, available_room, require_room
from model.training.optimizer import adafactor, state_axes
from model.training.stop_signal import interruptible
from model.training.train_config import TrainConfig
from model.training.train_step import (
    StepMetrics,
    TrainState,
    init_state,
    make_eval_step,
    make_train_step,
)

__all__ = ["Layout", "Program", "compile_programs", "new_state", "plan_layout"]

Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class Layout:
    """Who holds what. Trees are like :class:`TrainState`."""

    mesh: jax.sharding.Mesh
    shape: sharding.MeshShape
    state: Any  #: ``jax.ShapeDtypeStruct`` with shardings
    batch: jax.sharding.NamedSharding
    everywhere: jax.sharding.NamedSharding

    @property
    def state_shardings(self) -> Any:
        """A sharding for each array of the state."""
        return jax.tree.map(lambda leaf: leaf.sharding, self.state)

    def bytes_per_device(self) -> int:
        """Of parameters and optimizer state, on the device that holds most."""
        return _bytes_per_device(self.state)


def plan_layout(config: TrainConfig) -> Layout:
    """Lays a run out over the devices there are; makes no array.

    Raises ValueError for a mesh that is not of these devices, or that divides no batch.
    """
    model = T5(config.model)
    axes, shapes = model.param_axes(), model.param_shapes()
    spec = config.data.batch_spec()
    devices = jax.devices()
    shape = sharding.possible_meshes(
        config.mesh, devices, config.model, axes, shapes, spec,
        device_bytes=_device_bytes(), accumulate=config.step.accumulate,
    )[0]  # fmt: skip
    mesh = sharding.make_mesh(shape, devices)
    optimizer = adafactor(config.rate(), axes)
    state = jax.eval_shape(
        functools.partial(init_state, model, optimizer), jax.random.key(0)
    )  # fmt: skip
    of_state = sharding.params_shardings(
        mesh, TrainState(axes, state_axes(axes, shapes), ()), state  # type: ignore[arg-type]
    )  # fmt: skip
    placed = jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(  # type: ignore[no-untyped-call]
            leaf.shape, leaf.dtype, sharding=where
        ),
        state,
        of_state,
    )
    return Layout(mesh, shape, placed, sharding.batch_sharding(mesh), sharding.replicated(mesh))


def new_state(config: TrainConfig, layout: Layout) -> TrainState:
    """Make a state without a step: with drawn parameters, or those of another checkpoint."""
    model = T5(config.model)
    optimizer = adafactor(config.rate(), model.param_axes())
    where = layout.state_shardings
    if config.init_from is None:
        draw = jax.jit(functools.partial(init_state, model, optimizer), out_shardings=where)
        state: TrainState = draw(jax.random.key(config.data.seed))
        return state
    params = load_params(config.init_from, where.params).params
    statistics = jax.jit(optimizer.init, out_shardings=where.optimizer)(params)
    return TrainState(params, statistics, jax.device_put(np.int32(0), where.step))


@dataclasses.dataclass(frozen=True)
class Program(Generic[Result]):
    """A compiled step of training or evaluation, for a layout."""

    layout: Layout
    compiled: Any
    memory: StepMemory | None  #: per device; None if this backend does not say

    def __call__(self, *arguments: Any) -> Result:
        """Dispatch it; a training step uses up the state that it gets."""
        result: Result = _settled(self.compiled(*arguments), self.layout)
        return result


TrainProgram = Program[tuple[TrainState, StepMetrics]]


def compile_programs(
    config: TrainConfig,
    layout: Layout,
    *,
    trains: bool,
    evaluates: bool,
    say: Callable[[str], None],
) -> tuple[TrainProgram | None, Program[LossSums] | None]:
    """Compile the steps of a run, and say how long it took and what memory they need.

    Args:
      config: the run.
      layout: where it runs.
      trains: whether there are steps to train.
      evaluates: whether there are evaluations.
      say: takes each line; the first before anything is compiled.

    Raises OutOfMemoryError for a step that does not fit, with the option that helps.
    """
    names = ["the training step"] * trains + ["the evaluation step"] * evaluates
    say(f"compiling {' and '.join(names)}: no progress is shown until this is done")
    began = time.monotonic()
    room = available_room(layout.mesh.devices.flat)
    train = evaluate = None
    lines = []
    if trains:
        train = _compiled_train_step(config, layout)
        lines.append(require_room(names[0], train.memory, room, config, layout.shape))
    if evaluates:
        evaluate = _compiled_eval_step(config, layout)
        line = require_room(names[-1], evaluate.memory, room, config, layout.shape)
        if not (train and _keeps_more(train, evaluate)):
            lines.append(line)
    say(f"compiled in {time.monotonic() - began:.1f} s")
    for line in filter(None, lines):
        say(line)
    return train, evaluate


def _keeps_more(one: Program[Any], other: Program[Any]) -> bool:
    return bool(one.memory and other.memory and one.memory.total >= other.memory.total)


def _compiled_train_step(config: TrainConfig, layout: Layout) -> TrainProgram:
    model, rate = T5(config.model), config.rate()
    step = make_train_step(model, adafactor(rate, model.param_axes()), rate, config.step)

    def on_mesh(state: TrainState, batch: Any) -> tuple[TrainState, StepMetrics]:
        with sharding.use_rules(layout.mesh):
            return step(state, batch)

    out = (layout.state_shardings, layout.everywhere)
    jitted = jax.jit(on_mesh, donate_argnums=0, out_shardings=out)
    lowered = jitted.lower(layout.state, _shapes(config.data.batch_spec(), layout))
    return _compiled(lowered, layout, updates=True)


def _compiled_eval_step(config: TrainConfig, layout: Layout) -> Program[LossSums]:
    step = make_eval_step(T5(config.model))

    def on_mesh(params: Any, batch: Any) -> LossSums:
        with sharding.use_rules(layout.mesh):
            return step(params, batch)

    jitted = jax.jit(on_mesh, out_shardings=layout.everywhere)
    spec = config.evaluation_rows(config.data).batch_spec()
    lowered = jitted.lower(layout.state.params, _shapes(spec, layout))
    return _compiled(lowered, layout, updates=False)


def _compiled(lowered: Any, layout: Layout, *, updates: bool) -> Program[Any]:
    compiled = interruptible(lowered.compile)
    parameters = _bytes_per_device(layout.state.params)
    optimizer = _bytes_per_device(layout.state.optimizer)
    memory = StepMemory.of(compiled, parameters, optimizer, updates=updates)
    return Program(layout, compiled, memory)


def _bytes_per_device(tree: Any) -> int:
    return sum(
        int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _settled(result: Any, layout: Layout) -> Any:
    """The same; several devices of a CPU are done with it before they are given more.

    They share one pool of threads. Two programs at once, each waiting in a collective for devices
    that the other holds, would wait for ever.
    """
    devices = layout.mesh.devices
    if devices.size > 1 and devices.flat[0].platform == "cpu":
        jax.block_until_ready(result)  # type: ignore[no-untyped-call]
    return result


def _shapes(spec: BatchSpec, layout: Layout) -> dict[str, jax.ShapeDtypeStruct]:
    return {
        name: jax.ShapeDtypeStruct(shape, kind, sharding=layout.batch)  # type: ignore[no-untyped-call]
        for name, (shape, kind) in spec.arrays.items()
    }


def _device_bytes() -> float | None:
    stats = jax.local_devices()[0].memory_stats()
    limit = (stats or {}).get("bytes_limit")
    return None if limit is None else float(limit)
