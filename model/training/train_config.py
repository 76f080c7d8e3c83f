"""A run's configuration, checked when it is made."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from model.data.input_config import InputConfig, input_option_of
from model.t5.config import ModelConfig
from pipelines import options
from pipelines.options import check_bounds, option, set_by

if TYPE_CHECKING:
    from model.training.optimizer import Schedule
    from model.training.trainable import Trainable


#: What the sum of the losses is divided by before its gradient is taken: sequences times target
#: length, padding included (Mesh TensorFlow, ``transformer.py``, ``_compute_loss``); target tokens
#: that are not padding; or nothing (T5X). Adafactor does not see the difference until another loss
#: continues from its statistics.
LossDivisor = Literal["batch-length", "tokens", "sum"]

#: What is trained: every parameter; adapter layers, with their own norms or all norms; or one more
#: block of each stack in each of equal parts of the run (`model.training.trainable`).
TrainedPart = Literal["all", "adapters", "adapters-and-norms", "unfreezing"]

_REPORTS = ("tensorboard", "wandb")
_MOST_STEPS = 2**31 - 1  # steps are counted in 32 bits

#: Field of ModelConfig to what batches and vocabularies have in its place.
_SPECIAL_IDS: Mapping[str, Any] = {"pad_id": 0, "start_id": 0, "eos_ids": (1,)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepConfig:
    """How a step is computed.

    >>> StepConfig(accumulate=0)
    Traceback (most recent call last):
        ...
    ValueError: accumulate must be at least 1, got 0 (--accumulate)
    """

    accumulate: int = option(
        "split a batch into N microbatches, one after another, to save memory",
        default=1, metavar="N", least=1,
    )  # fmt: skip
    z_loss: float = option("factor of the z-loss", default=1e-4, metavar="FACTOR", least=0)
    loss_divisor: LossDivisor = option(
        "what the sum of the losses is divided by: sequences times target length, target tokens, "
        "or nothing",
        default="batch-length",
    )
    label_smoothing: float = option("label smoothing", default=0.0, metavar="SHARE")
    seed: int = 0  #: of dropout
    #: Of dropout's masks: "rbg" is the generator of the device, fast on TPUs and GPUs; each gives
    #: the same masks for the same seed, step and program.
    prng: Literal["threefry2x32", "rbg"] = "threefry2x32"

    def __post_init__(self) -> None:
        check_bounds(self)
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"label_smoothing must be in [0, 1), got {self.label_smoothing} (--label-smoothing)"
            )
        if self.loss_divisor not in get_args(LossDivisor):
            known = ", ".join(get_args(LossDivisor))
            raise ValueError(f"no loss divisor {self.loss_divisor!r}; known: {known}")

    def require_divides(self, batch_size: int) -> None:
        """Raise ValueError for a batch that does not divide into the microbatches."""
        if batch_size % self.accumulate:
            raise ValueError(
                f"a batch of {batch_size} sequences does not divide into {self.accumulate} "
                "microbatches (--batch-size, --accumulate)"
            )


def _read_tflops(peak: float) -> float:
    if not peak > 0:
        raise ValueError(f"--peak-tflops must be positive, got {peak}")
    return peak * 1e12


def _read_reports(asked: Sequence[str]) -> tuple[str, ...]:
    """Return what ``--report-to`` names, each once.

    >>> _read_reports(["wandb,tensorboard", "wandb"]), _read_reports(["none"])
    (('wandb', 'tensorboard'), ())
    """
    names = [name.strip() for each in asked for name in each.split(",")]
    if "none" in names and len(set(names)) > 1:
        raise ValueError("--report-to none goes with no other name")
    return tuple(dict.fromkeys(name for name in names if name != "none"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A run. Raises ValueError for what no run can be."""

    out: str = option(
        "folder of the run, new or existing", "--out", "--output", metavar="DIR", required=False
    )
    model: ModelConfig
    data: InputConfig
    step: StepConfig = dataclasses.field(default_factory=StepConfig)
    steps: int = option(  # those of the paper's baseline (section 3.1.2)
        "steps to train", default=2**19, metavar="N", least=1, most=_MOST_STEPS, on_cpu=1000
    )
    schedule: str = option(
        "inverse-square-root or constant",
        "--learning-rate-schedule", default="inverse-square-root", metavar="NAME",
    )  # fmt: skip
    learning_rate: float | None = option(
        "scale of the schedule (default: 1 for inverse-square-root, 0.001 for constant)",
        default=None, metavar="RATE",
    )  # fmt: skip
    warmup: int = option(
        "steps at the first learning rate, 1/sqrt(N)",
        default=10_000, metavar="N", most=_MOST_STEPS, on_cpu=1000,
    )  # fmt: skip
    schedule_offset: int = option(
        "use the learning rate of N steps later, as a model that was trained for N steps does",
        default=0, metavar="N", least=0, most=_MOST_STEPS,
    )  # fmt: skip
    cooldown: int = option(
        "lower the learning rate linearly to 0 over the last N steps",
        default=0, metavar="N", least=0,
    )  # fmt: skip
    trained: TrainedPart = set_by("--adapter, --adapter-norms, --unfreeze", default="all")
    init_from: str | None = option(
        "start with the parameters of a folder of c4 import-hf or of another run, and its "
        "vocabulary unless --vocab is given",
        default=None, metavar="CKPT",
    )  # fmt: skip
    optimizer_state: Literal["new", "keep"] = option(
        "whether a run with --init-from starts at step 0 with new statistics of Adafactor, or "
        "keeps the step and the statistics of that run",
        default="new",
    )
    first_step: int = set_by(
        "--optimizer-state", default=0
    )  #: the global step this run starts at; of --init-from where it is kept

    mesh: str = option(
        "data=2,fsdp=4,tensor=1, any of the three, -1 for what is left",
        default="auto", metavar="AXES",
    )  # fmt: skip
    checkpoint_every: int = option(  # also at the end and at SIGTERM
        "steps between checkpoints", default=5000, metavar="N", least=1, on_cpu=500
    )
    keep_last: int = option("newest checkpoints to keep", default=3, metavar="N", least=1)
    keep_every: int | None = option(
        "also keep checkpoints whose step is a multiple of N", default=None, metavar="N", least=1
    )
    eval_every: int | None = option(
        "steps between evaluations on the validation split, 0 for none (default: as "
        "--checkpoint-every, where there are validation pages)",
        default=None, metavar="N", least=0,
    )  # fmt: skip
    eval_batches: int = option("batches per evaluation", default=16, metavar="N", least=1)
    divergence: float = option(
        "stop when the mean of 100 losses rises that far above its best",
        default=2.0, metavar="NATS",
    )  # fmt: skip
    log_every: int | None = option(
        "steps per line of the log and per point of a curve, if 30 seconds do not pass before; "
        "metrics.jsonl has every step (default: 100, or a fiftieth of --steps if that is less)",
        default=None, metavar="N", least=1,
    )  # fmt: skip
    report_to: tuple[str, ...] = option(
        "where curves go: tensorboard (default), wandb (the extra wandb), both separated by a "
        "comma, or none; may be repeated",
        default=("tensorboard",), metavar="NAMES", action="append", read=_read_reports,
    )  # fmt: skip
    peak_flops: float | None = option(
        "peak of one device, for model FLOP utilisation (default: known for TPUs and many GPUs)",
        "--peak-tflops", default=None, metavar="N", type=float, read=_read_tflops,
    )  # fmt: skip
    profile_steps: int = option(  # from the third of this start on
        "trace N steps with JAX's profiler into OUT/profile",
        "--profile", default=0, metavar="N", least=0,
    )  # fmt: skip
    quiet: bool = option("no progress", default=False)
    #: Options of ``c4 pretrain`` to those of the command that was typed, for messages.
    option_names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    defaults: str = "paper"  #: what filled in the options not given: "paper" or "cpu"

    def __post_init__(self) -> None:
        check_bounds(self)
        for name, value in _SPECIAL_IDS.items():
            if getattr(self.model, name) != value:
                shown = getattr(self.model, name)
                raise ValueError(
                    f"the model of {self.init_from} has {name} {shown}, and training needs "
                    f"{value}: it pads with 0, ends sequences with 1 and starts the decoder with "
                    f"0 ({run_option_of(f'model.{name}')})"
                )
        self.step.require_divides(self.data.batch_size)
        for name in self.report_to:
            if name not in _REPORTS:
                raise ValueError(
                    f"no report {name!r}; known: {', '.join(_REPORTS)}, none (--report-to)"
                )
        if not self.divergence > 0:
            raise ValueError(f"divergence must be positive, got {self.divergence} (--divergence)")
        if self.first_step < 0 or self.first_step + self.steps > _MOST_STEPS:
            raise ValueError(
                f"{self.first_step:,} steps of {self.init_from} and {self.steps:,} more are over "
                f"{_MOST_STEPS:,} (--steps)"
            )
        if self.cooldown > self.steps:
            raise ValueError(
                f"cooldown must be at most the run's {self.steps:,} steps, got {self.cooldown:,} "
                "(--cooldown)"
            )
        self.rate()
        self.trainable()

    def settings(self, data: InputConfig) -> dict[str, Any]:
        """Return what a resumed run must not change: everything that its results depend on.

        Not among them: where and how it is computed (mesh, microbatches, rematerialisation,
        attention's kernel, workers), how long, and what is logged. ``data`` is that of this
        run with its number of input shards decided.
        """
        model = dataclasses.asdict(self.model)
        # Training knows one set of special ids: see __post_init__.
        for name in ("remat", "attention", *_SPECIAL_IDS):
            del model[name]
        return {
            "model": model,
            "input": data.identity(data.input_shards or 1),
            "batch_size": data.batch_size,
            "loss_on_inputs": data.loss_on_inputs,
            "learning_rate_schedule": self.schedule,
            "learning_rate": self.learning_rate,
            "warmup": self.warmup,
            "z_loss": self.step.z_loss,
            "loss_divisor": self.step.loss_divisor,
            "label_smoothing": self.step.label_smoothing,
            "init_from": self.init_from,
            **self._settings_of_later_versions(),
        }

    def _settings_of_later_versions(self) -> dict[str, Any]:
        """Return those that the first version did not have, where they are not its behaviour."""
        settings = {
            name: getattr(self, name)
            for name in ("schedule_offset", "trained", "optimizer_state", "first_step")
            if getattr(self, name) != getattr(TrainConfig, name)
        }
        return settings | ({"steps": self.steps} if self.trained == "unfreezing" else {})

    @property
    def line_every(self) -> int:
        """Steps to a line of the log, and to a point of a curve."""
        return self.log_every or max(1, min(100, self.steps // 50))

    def rate(self) -> "Schedule":
        """Return the learning rate at each step."""
        from model.training import optimizer  # with JAX, which --help does not need

        rate = optimizer.schedule(
            self.schedule, self.learning_rate, self.warmup, self.schedule_offset
        )
        return optimizer.linear_tail(rate, self.cooldown, self.first_step + self.steps)

    def trainable(self) -> "Trainable | None":
        """Return what is trained at each step; None: every parameter."""
        if self.trained == "all":
            return None
        from model.t5.network import T5
        from model.training import trainable

        model = T5(self.model)
        if self.trained == "unfreezing":
            return trainable.gradual_unfreezing(model, self.steps, self.first_step)
        mask = trainable.adapter_mask(model, "own" if self.trained == "adapters" else "all")
        return lambda _: mask

    def evaluation_rows(self, data: InputConfig) -> InputConfig:
        """Return the input of evaluation: as many sequences at once as training holds."""
        return dataclasses.replace(data, batch_size=data.batch_size // self.step.accumulate)


def run_option_of(setting: str) -> str:
    """Return the options that set a field of a run, or a setting that ``run.json`` remembers.

    Empty if there is none.

    >>> [run_option_of(name) for name in ("input.seed", "model.d_model", "model.vocab_size")]
    ['--seed', '--size, --set d_model', '--vocab']
    """
    group, _, name = setting.rpartition(".")
    if group == "model":
        return options.option_of(ModelConfig, name) or f"--size, --set {name}"
    if group == "input":
        return input_option_of(name)
    for config in (TrainConfig, InputConfig, StepConfig):
        if name in {field.name for field in dataclasses.fields(config)}:
            return options.option_of(config, name)
    return "--" + name.replace("_", "-")
