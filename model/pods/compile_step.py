"""Compiles the training step for a TPU pod on any machine: does it fit, and how fast at best."""

import dataclasses
import time
from collections.abc import Callable, Iterator

import jax

from model.data.batches import BatchSpec
from model.pods.hlo import program_cost
from model.pods.roofline import Roofline, by_kind, roofline
from model.pods.topologies import Topology, topology_devices
from model.t5.config import ModelConfig
from model.t5.flops import step_flops
from model.t5.network import T5
from model.training import sharding
from model.training.memory import StepMemory
from model.training.optimizer import inverse_square_root
from model.training.programs import Placement, compile_train_step, place_run
from model.training.train_config import StepConfig
from model.training.train_step import Learner

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
        self.step.require_divides(self.batch.batch_size)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PodReport:
    """What came of compiling."""

    plan: StepPlan
    mesh: str
    refused: tuple[str, ...]  #: meshes tried before that did not fit
    memory: StepMemory
    roofline: Roofline
    exchanges: dict[tuple[str, int], tuple[float, float]]
    whole: tuple[str, ...]  #: arrays held whole though a rule would divide them
    compile_s: float

    @property
    def state_bytes(self) -> int:
        """Bytes of parameters and optimizer state on one device, updated in place."""
        return self.memory.parameters + self.memory.optimizer

    @property
    def tokens_per_s(self) -> float:
        """Positions of encoder and decoder per second, at best."""
        return self.plan.batch.tokens / self.roofline.step_s


def compile_step(plan: StepPlan, say: Callable[[str], None] | None = None) -> PodReport:
    """Compile one training step as ``c4 pretrain`` would run it, Adafactor and all.

    With ``mesh="auto"`` the meshes of :func:`model.training.sharding.possible_meshes` are
    compiled one after another until one fits. ``say`` gets a line before each is compiled.

    Raises:
      DoesNotFitError: the mesh, or each of the meshes tried, needs more memory than there is.
      ValueError: the compiler is not installed, or the plan does not divide over the pod.
    """
    devices = topology_devices(plan.topology)
    learner = Learner(T5(plan.config), inverse_square_root(), plan.step)
    bytes_there = plan.topology.chip.device_bytes
    meshes = sharding.possible_meshes(
        plan.mesh, devices, learner.model, plan.batch,
        device_bytes=bytes_there, accumulate=plan.step.accumulate,
    )  # fmt: skip
    refused: list[str] = []
    for shape in meshes[:_TRIES]:
        if say is not None:
            say(f"compiling for mesh {shape}, which takes one to three minutes")
        try:
            return _compiled(plan, learner, place_run(learner, shape, devices), tuple(refused))
        except DoesNotFitError as error:
            refused.append(f"{shape} ({error})")
    raise DoesNotFitError(
        f"does not fit {plan.topology}: {'; '.join(refused)}. Give --remat full, a larger "
        "--accumulate, a smaller --batch-size, or a mesh with more fsdp and tensor (--mesh)"
    )


#: How many candidates of ``auto`` are compiled.
_TRIES = 4


def _compiled(
    plan: StepPlan, learner: Learner, placement: Placement, refused: tuple[str, ...]
) -> PodReport:
    start = time.monotonic()
    try:
        program = compile_train_step(learner, plan.batch, placement)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise DoesNotFitError(_refusal(str(error))) from None
    seconds = time.monotonic() - start
    text = program.compiled.as_text()
    if program.memory is None or text is None:
        raise ValueError(
            "this release of JAX reports no memory use of compiled programs: update jax[tpu]"
        )
    in_order = list(placement.mesh.devices.flat)
    cost = program_cost(text, len(in_order))
    batch = plan.batch
    flops = step_flops(plan.config, batch.batch_size, batch.decoder_length, batch.encoder_length)
    return PodReport(
        plan=plan,
        mesh=str(placement.shape),
        refused=refused,
        memory=program.memory,
        roofline=roofline(cost, plan.topology, in_order, flops),
        exchanges=by_kind(cost.collectives, plan.topology, in_order),
        whole=tuple(sharding.undivided_axes(placement.shape, learner.model)),
        compile_s=seconds,
    )


def _refusal(message: str) -> str:
    """Return the one line of the compiler that says why."""
    lines = [line.strip() for line in message.splitlines() if "memory" in line.lower()]
    return (lines or message.splitlines())[0].removeprefix("RESOURCE_EXHAUSTED: ").rstrip(".")


def report_lines(report: PodReport) -> Iterator[str]:
    """Yield a report as lines for people."""
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
        f"bytes a device: {_gib(report.state_bytes)} state + {_gib(report.memory.batch)} batch + "
        f"{_gib(report.memory.temporaries)} temporary = {_gib(report.memory.total)} GiB, "
        f"{report.memory.total / chip.device_bytes:.0%} of what there is"
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
