"""What a run has on its devices: who holds what, the first state, and the compiled steps."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from model.data.batches import BatchSpec
from model.t5.network import T5
from model.training import sharding
from model.training.checkpoints import load_params
from model.training.losses import LossSums
from model.training.optimizer import adafactor, state_axes
from model.training.train_config import TrainConfig
from model.training.train_step import (
    StepMetrics,
    TrainState,
    init_state,
    make_eval_step,
    make_train_step,
)

__all__ = ["Layout", "compiled_eval_step", "compiled_train_step", "new_state", "plan_layout"]


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
        return sum(
            int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize
            for leaf in jax.tree.leaves(self.state)
        )


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
    """With drawn parameters, or with those of another checkpoint; no step done."""
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


def compiled_train_step(
    config: TrainConfig, layout: Layout
) -> Callable[[TrainState, Any], tuple[TrainState, StepMetrics]]:
    """The step of training for a state and batches of this layout; the state is used up.

    Raises ValueError, here or in the step, where a device has too little memory.
    """
    model, rate = T5(config.model), config.rate()
    step = make_train_step(model, adafactor(rate, model.param_axes()), rate, config.step)

    def on_mesh(state: TrainState, batch: Any) -> tuple[TrainState, StepMetrics]:
        with sharding.use_rules(layout.mesh):
            return step(state, batch)

    out = (layout.state_shardings, layout.everywhere)
    jitted = jax.jit(on_mesh, donate_argnums=0, out_shardings=out)
    with _memory_told():
        compiled = jitted.lower(layout.state, _shapes(config.data.batch_spec(), layout)).compile()

    def run(state: TrainState, batch: Any) -> tuple[TrainState, StepMetrics]:
        with _memory_told():
            result: tuple[TrainState, StepMetrics] = _settled(compiled(state, batch), layout)
            return result

    return run


def compiled_eval_step(config: TrainConfig, layout: Layout) -> Callable[[Any, Any], LossSums]:
    """The step of evaluation, for parameters and batches of this layout."""
    step = make_eval_step(T5(config.model))

    def on_mesh(params: Any, batch: Any) -> LossSums:
        with sharding.use_rules(layout.mesh):
            return step(params, batch)

    jitted = jax.jit(on_mesh, out_shardings=layout.everywhere)
    spec = config.evaluation_rows(config.data).batch_spec()
    with _memory_told():
        compiled = jitted.lower(layout.state.params, _shapes(spec, layout)).compile()

    def run(params: Any, batch: Any) -> LossSums:
        result: LossSums = _settled(compiled(params, batch), layout)
        return result

    return run


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


@contextlib.contextmanager
def _memory_told() -> Iterator[None]:
    """Says what helps where a device has too little memory."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        first = str(error).removeprefix("RESOURCE_EXHAUSTED: ").splitlines()[0]
        raise ValueError(
            "the step does not fit the memory of a device: give a larger --accumulate, --remat "
            f"full, a smaller --batch-size, or a --mesh with more fsdp ({first})"
        ) from error


def _device_bytes() -> float | None:
    stats = jax.local_devices()[0].memory_stats()
    limit = (stats or {}).get("bytes_limit")
    return None if limit is None else float(limit)
