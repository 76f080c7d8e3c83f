"""Compiles the training step for a TPU pod on any machine: does it fit, and how fast at best."""

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from model.data.batches import BatchSpec
from model.pods.hlo import program_cost
from model.pods.roofline import Roofline, by_kind, roofline
from model.pods.topologies import Topology, parse_topology, topology_devices
from model.t5.config import ModelConfig
from model.t5.flops import step_flops
from model.t5.network import T5
from model.training import sharding
from model.training.optimizer import adafactor, inverse_square_root, state_axes
from model.training.sharding import MeshShape
from model.training.train_step import StepConfig, TrainState, init_state, make_train_step

__all__ = ["DoesNotFitError", "PodReport", "StepPlan", "compile_step", "report_lines", "run"]

_GIB = 2**30


class DoesNotFitError(ValueError):
    """The compiled step needs more memory than a device has."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepPlan:
    """What to compile."""

    topology: Topology
    config: ModelConfig
    batch: BatchSpec
    #: As ``c4 pretrain`` has it on TPUs.
    step: StepConfig = dataclasses.field(default_factory=lambda: StepConfig(prng="rbg"))
    mesh: str = "auto"  #: as ``--mesh``

    def __post_init__(self) -> None:
        if self.batch.batch_size % self.step.accumulate:
            raise ValueError(
                f"a batch of {self.batch.batch_size} sequences does not divide into "
                f"{self.step.accumulate} microbatches (--batch-size, --accumulate)"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PodReport:
    """What came of compiling. Bytes are of one device."""

    plan: StepPlan
    mesh: str
    refused: tuple[str, ...]  #: meshes tried before that did not fit
    state_bytes: int  #: parameters and optimizer state, updated in place
    batch_bytes: int
    temporary_bytes: int  #: activations, gradients, gathered parameters
    roofline: Roofline
    exchanges: dict[tuple[str, int], tuple[float, float]]
    whole: tuple[str, ...]  #: arrays held whole though a rule would divide them
    compile_s: float

    @property
    def used_bytes(self) -> int:
        """All that the step needs at once."""
        return self.state_bytes + self.batch_bytes + self.temporary_bytes

    @property
    def sequences_per_s(self) -> float:
        """At best."""
        return self.plan.batch.batch_size / self.roofline.step_s

    @property
    def tokens_per_s(self) -> float:
        """Positions of encoder and decoder, at best."""
        return self.sequences_per_s / self.plan.batch.batch_size * self.plan.batch.tokens


def compile_step(plan: StepPlan, say: Callable[[str], None] | None = None) -> PodReport:
    """Compiles one training step as ``c4 pretrain`` would run it, Adafactor and all.

    With ``mesh="auto"`` the candidates of :func:`model.training.sharding.mesh_candidates` are
    compiled one after another until one fits. ``say`` is told of each before it is compiled.

    Raises:
      DoesNotFitError: the mesh, or each of the meshes tried, needs more memory than there is.
      ValueError: the compiler is not installed, or the plan does not divide over the pod.
    """
    devices = topology_devices(plan.topology)
    model = T5(plan.config)
    axes, shapes = model.param_axes(), model.param_shapes()
    meshes = sharding.possible_meshes(
        plan.mesh, devices, plan.config, axes, shapes, plan.batch,
        device_bytes=plan.topology.chip.device_bytes, accumulate=plan.step.accumulate,
    )[:_TRIES]  # fmt: skip
    refused: list[str] = []
    for shape in meshes:
        if say is not None:
            say(f"compiling for mesh {shape}, a matter of one to three minutes")
        try:
            return _compiled(plan, model, shape, devices, tuple(refused))
        except DoesNotFitError as error:
            refused.append(f"{shape} ({error})")
    raise DoesNotFitError(
        f"does not fit {plan.topology}: {'; '.join(refused)}. Give --remat full, a larger "
        "--accumulate, a smaller --batch-size, or a mesh with more fsdp and tensor (--mesh)"
    )


#: Candidates of ``auto`` that are compiled before it gives up.
_TRIES = 4


def _compiled(
    plan: StepPlan, model: T5, shape: MeshShape, devices: Sequence[Any], refused: tuple[str, ...]
) -> PodReport:
    mesh = sharding.make_mesh(shape, devices)
    axes, shapes = model.param_axes(), model.param_shapes()
    rate = inverse_square_root()
    optimizer = adafactor(rate, axes)
    state = jax.eval_shape(lambda: init_state(model, optimizer, jax.random.key(0)))
    axes_of_state = TrainState(axes, state_axes(axes, shapes), ())  # type: ignore[arg-type]
    of_state = sharding.params_shardings(mesh, axes_of_state, state)
    of_batch = sharding.batch_sharding(mesh)
    batch = {
        name: jax.ShapeDtypeStruct(size, kind, sharding=of_batch)  # type: ignore[no-untyped-call]
        for name, (size, kind) in plan.batch.arrays.items()
    }
    step = make_train_step(model, optimizer, rate, plan.step)

    def on_mesh(state: Any, batch: Any) -> Any:
        with sharding.use_rules(mesh):
            return step(state, batch)

    placed = jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(  # type: ignore[no-untyped-call]
            leaf.shape, leaf.dtype, sharding=where
        ),
        state,
        of_state,
    )
    start = time.monotonic()
    jitted = jax.jit(on_mesh, donate_argnums=0, out_shardings=(of_state, sharding.replicated(mesh)))
    try:
        compiled = jitted.lower(placed, batch).compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise DoesNotFitError(_refusal(str(error))) from None
    seconds = time.monotonic() - start
    memory, text = compiled.memory_analysis(), compiled.as_text()
    if memory is None or text is None:
        raise ValueError("this release of JAX tells nothing of compiled programs: update jax[tpu]")
    state_bytes = int(memory.alias_size_in_bytes)
    in_order = list(mesh.devices.flat)
    cost = program_cost(text, len(devices))
    flops = step_flops(plan.config, {name: size for name, (size, _) in plan.batch.arrays.items()})
    return PodReport(
        plan=plan,
        mesh=str(shape),
        refused=refused,
        state_bytes=state_bytes,
        batch_bytes=int(memory.argument_size_in_bytes) - state_bytes,
        temporary_bytes=int(memory.temp_size_in_bytes)
        + max(0, int(memory.output_size_in_bytes) - state_bytes),
        roofline=roofline(cost, plan.topology, in_order, flops),
        exchanges=by_kind(cost.collectives, plan.topology, in_order),
        whole=tuple(sharding.undivided_axes(shape, axes, shapes)),
        compile_s=seconds,
    )


def _refusal(message: str) -> str:
    """The compiler's one telling line."""
    lines = [line.strip() for line in message.splitlines() if "memory" in line.lower()]
    return (lines or message.splitlines())[0].removeprefix("RESOURCE_EXHAUSTED: ").rstrip(".")


def run(arguments: argparse.Namespace) -> int:
    """Do ``c4 pretrain --compile-only``. Returns the exit status.

    Raises ValueError for what cannot be compiled or does not fit.
    """
    from model.commands import pretrain  # which imports this module when asked to

    topology = parse_topology(arguments.compile_only)
    if arguments.init_from is not None:
        raise ValueError("--compile-only takes the model from --size: leave --init-from out")
    vocab_size = None
    if arguments.vocab is not None:
        from model.data.vocabulary import Vocabulary

        vocab_size = Vocabulary(arguments.vocab).padded_size
    config = pretrain.model_of(arguments, vocab_size)
    # Without an encoder one sequence holds both, with a separator of one token between.
    lengths = pretrain.objective_of(arguments).lengths(
        arguments.input_length, None if config.has_encoder else 1
    )
    if lengths.joined is None:
        batch = BatchSpec(arguments.batch_size, lengths.targets, encoder_length=lengths.inputs)
    else:
        batch = BatchSpec(arguments.batch_size, lengths.joined)
    step = pretrain.step_of(arguments, "rbg")
    plan = StepPlan(topology=topology, config=config, batch=batch, step=step, mesh=arguments.mesh)
    parameters = f"{config.parameter_count():,} parameters on {topology}"
    report = compile_step(
        plan, lambda line: print(f"{parameters}: {line}", file=sys.stderr, flush=True)
    )
    for line in report_lines(report):
        print(line, flush=True)
    return 0


def report_lines(report: PodReport) -> Iterator[str]:
    """A report for people."""
    plan, line = report.plan, report.roofline
    topology, chip = plan.topology, plan.topology.chip
    config = plan.config
    lengths = "/".join(
        str(length) for length in (plan.batch.encoder_length, plan.batch.decoder_length) if length
    )
    yield (
        f"{config.parameter_count():,} parameters, {config.architecture}, {config.dtype}, remat "
        f"{config.remat}, dropout {config.dropout_rate:g}"
    )
    yield (
        f"{topology}: {topology.chip_count:,} chips, {topology.device_count:,} devices of "
        f"{chip.device_bytes / _GIB:.2f} GiB"
    )
    yield (
        f"batch: {plan.batch.batch_size:,} sequences of {lengths} tokens in {plan.step.accumulate} "
        f"microbatch{'es' if plan.step.accumulate > 1 else ''}"
    )
    for each in report.refused:
        yield f"did not fit: {each}"
    yield f"mesh: {report.mesh}{' (chosen)' if plan.mesh == 'auto' else ''}"
    for each in report.whole:
        yield f"  {each}"
    yield (
        f"bytes a device: {_gib(report.state_bytes)} state + {_gib(report.batch_bytes)} batch + "
        f"{_gib(report.temporary_bytes)} temporary = {_gib(report.used_bytes)} GiB, "
        f"{report.used_bytes / chip.device_bytes:.0%} of what there is"
    )
    program = line.program_flops * topology.device_count
    yield (
        f"FLOPs a step: {line.model_flops:.3e} of the model, {program:.3e} of the program's matrix "
        f"products ({program / line.model_flops:.2f} times as many)"
    )
    yield (
        f"seconds a step, estimated: {line.products_s:.3f} matrix products at peak; "
        f"{line.work_s:.3f} all work; {line.waiting_s:.3f} exchanges waited for; "
        f"{line.overlapped_s:.3f} exchanges beside the work"
    )
    for (kind, devices), (size, seconds) in report.exchanges.items():
        if seconds >= 0.01 * line.step_s:
            yield f"  {kind} of {devices}: {size / _GIB:.2f} GiB, {seconds:.3f} s"
    yield (
        f"step: {line.step_s:.3f} s at best, {report.tokens_per_s:,.0f} tokens/s, "
        f"{line.utilization:.1%} of peak"
    )
    yield f"compiled in {report.compile_s:.0f} s; nothing was run"


def _gib(size: float) -> str:
    return f"{size / _GIB:.2f}"
