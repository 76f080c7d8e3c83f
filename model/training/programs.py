"""What a run has on its devices: who holds what, the first state, and the compiled steps."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from model.data.batches import BatchSpec
from model.t5.network import T5
from model.training import sharding
from model.training.losses import LossSums
from model.training.memory import StepMemory, available_room, device_limit, require_room
from model.training.model_folders import load_state
from model.training.stop_signal import interruptible
from model.training.train_config import TrainConfig
from model.training.train_step import Learner, StepMetrics, TrainState, make_eval_step
from model.training.trainable import is_adapter

Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class Placement:
    """Who holds what. Trees are like :class:`TrainState`."""

    mesh: jax.sharding.Mesh
    shape: sharding.MeshShape
    state: Any  #: ``jax.ShapeDtypeStruct`` with shardings

    @property
    def batch(self) -> jax.sharding.NamedSharding:
        """Sharding of a batch's arrays."""
        return sharding.batch_sharding(self.mesh)

    @property
    def everywhere(self) -> jax.sharding.NamedSharding:
        """Sharding of what every device holds whole."""
        return sharding.replicated(self.mesh)

    @property
    def state_shardings(self) -> Any:
        """A sharding for each array of the state."""
        return jax.tree.map(lambda leaf: leaf.sharding, self.state)

    def bytes_per_device(self) -> int:
        """Return bytes of parameters and optimizer state on the device that holds most."""
        return _bytes_per_device(self.state)


def learner_of(config: TrainConfig) -> Learner:
    """Return the model of a run with its optimizer."""
    return Learner(T5(config.model), config.rate(), config.step, config.trainable())


def place(
    axes: TrainState, state: TrainState, shape: sharding.MeshShape, devices: Sequence[Any]
) -> Placement:
    """Place a state on a mesh of devices, without making any array.

    Args:
      axes: the logical axes of every array, as of `Learner.axes`.
      state: of anything that has ``.shape`` and ``.dtype``.
      shape: of the mesh.
      devices: all of it.
    """
    mesh = sharding.make_mesh(shape, devices)
    placed = jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(  # type: ignore[no-untyped-call]
            leaf.shape, leaf.dtype, sharding=where
        ),
        state,
        sharding.params_shardings(mesh, axes, state),
    )
    return Placement(mesh, shape, placed)


def place_run(learner: Learner, shape: sharding.MeshShape, devices: Sequence[Any]) -> Placement:
    """Place the state of a run on a mesh of devices, without making any array."""
    state = jax.eval_shape(learner.init, jax.random.key(0))
    return place(learner.axes(), state, shape, devices)


def plan_placement(config: TrainConfig) -> Placement:
    """Place a run on this machine's devices. Raises ValueError as `sharding.possible_meshes`."""
    learner, devices = learner_of(config), jax.devices()
    shapes = sharding.possible_meshes(
        config.mesh, devices, learner.model, config.data.batch_spec(),
        device_bytes=device_limit(jax.local_devices()[0]), accumulate=config.step.accumulate,
    )  # fmt: skip
    return place_run(learner, shapes[0], devices)


def new_state(config: TrainConfig, placement: Placement) -> TrainState:
    """Make a state before the run's first step.

    Parameters are drawn, or those of another checkpoint; adapter layers that it lacks are drawn.
    Statistics are new, or that checkpoint's, too, and so is the step.

    Raises ValueError where the checkpoint cannot be read or has other parameters.
    """
    learner, where = learner_of(config), placement.state_shardings
    seed = jax.random.key(config.data.seed)
    if config.init_from is None:
        state: TrainState = jax.jit(learner.init, out_shardings=where)(seed)
        return state
    kept = config.optimizer_state == "keep"
    params, statistics = load_state(
        config.init_from, placement.state, statistics=kept, may_lack=is_adapter
    )

    # Only what is missing is drawn: what `merged` does not take is not computed.
    def with_new(found: Any) -> Any:
        return merged(learner.model.init(seed), found)

    params = jax.jit(with_new, out_shardings=where.params, donate_argnums=0)(params)
    statistics = jax.jit(
        lambda params, found: merged(learner.optimizer.init(params), found),
        out_shardings=where.optimizer,
    )(params, statistics or {})
    step = np.int32(config.first_step if kept else 0)
    return TrainState(params, statistics, jax.device_put(step, where.step))


def merged(tree: Any, found: Any) -> Any:
    """Return nested dictionaries with what ``found``, a part of the same tree, has in its place.

    >>> merged({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 4}})
    {'a': 1, 'b': {'c': 2, 'd': 4}}
    """
    return unflatten_dict(flatten_dict(tree) | flatten_dict(found))  # type: ignore[no-untyped-call]


@dataclasses.dataclass(frozen=True)
class Program(Generic[Result]):
    """A compiled step of training or evaluation, for a placement."""

    placement: Placement
    compiled: Any
    memory: StepMemory | None  #: per device; None if this backend does not say

    def __call__(self, *arguments: Any) -> Result:
        """Dispatch it; a training step uses up the state that it gets."""
        result: Result = self.compiled(*arguments)
        devices = self.placement.mesh.devices
        if devices.size > 1 and devices.flat[0].platform == "cpu":
            # The devices of one CPU share one pool of threads. Two programs at once, each waiting
            # in a collective for devices that the other holds, would wait for ever.
            jax.block_until_ready(result)  # type: ignore[no-untyped-call]
        return result


TrainProgram = Program[tuple[TrainState, StepMetrics]]


def compile_programs(
    config: TrainConfig,
    placement: Placement,
    *,
    trains: bool,
    evaluates: bool,
    say: Callable[[str], None],
) -> tuple[TrainProgram | None, Program[LossSums] | None]:
    """Compile the steps of a run, and say how long it took and what memory they need.

    Args:
      config: the run.
      placement: where it runs.
      trains: whether there are steps to train.
      evaluates: whether there are evaluations.
      say: takes each line; the first before anything is compiled.

    Raises OutOfMemoryError for a step that does not fit, with the option that helps.
    """
    names = ["the training step"] * trains + ["the evaluation step"] * evaluates
    say(f"compiling {' and '.join(names)}: no progress is shown until this is done")
    began = time.monotonic()
    room = available_room(placement.mesh.devices.flat)
    train = evaluate = None
    learner = learner_of(config)
    lines = []
    if trains:
        train = compile_train_step(learner, config.data.batch_spec(), placement)
        lines.append(require_room(names[0], train.memory, room, config, placement.shape))
    if evaluates:
        rows = config.evaluation_rows(config.data).batch_spec()
        evaluate = _compiled(
            make_eval_step(learner.model), placement.state.params, rows, placement,
            placement.everywhere, updates=False,
        )  # fmt: skip
        line = require_room(names[-1], evaluate.memory, room, config, placement.shape)
        shown = train.memory if train else None
        if not (shown and evaluate.memory and shown.total >= evaluate.memory.total):
            lines.append(line)
    say(f"compiled in {time.monotonic() - began:.1f} s")
    for line in filter(None, lines):
        say(line)
    return train, evaluate


def compile_train_step(learner: Learner, batch: BatchSpec, placement: Placement) -> TrainProgram:
    """Compile the step of training for a placement; it uses up the state that it gets."""
    out = (placement.state_shardings, placement.everywhere)
    return _compiled(learner.step, placement.state, batch, placement, out, updates=True)


def _compiled(
    step: Callable[[Any, Any], Any], first: Any, batch: BatchSpec, placement: Placement, out: Any,
    *, updates: bool,
) -> Program[Any]:  # fmt: skip
    """Compile a function of what is in the place of ``first`` and of a batch."""

    def on_mesh(first: Any, batch: Any) -> Any:
        with sharding.use_rules(placement.mesh):
            return step(first, batch)

    jitted = jax.jit(on_mesh, donate_argnums=0 if updates else (), out_shardings=out)
    rows = {
        name: jax.ShapeDtypeStruct(shape, kind, sharding=placement.batch)  # type: ignore[no-untyped-call]
        for name, (shape, kind) in batch.arrays.items()
    }
    compiled = interruptible(jitted.lower(first, rows).compile)
    parameters = _bytes_per_device(placement.state.params)
    optimizer = _bytes_per_device(placement.state.optimizer)
    memory = StepMemory.of(compiled, parameters, optimizer, updates=updates)
    return Program(placement, compiled, memory)


def _bytes_per_device(tree: Any) -> int:
    return sum(
        int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )
