"""A run's configuration, checked when it is made."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from model.data.input_pipeline import InputConfig
from model.options import option_of
from model.t5.config import ModelConfig
from model.training.metrics import DivergenceGuard
from model.training.optimizer import Schedule, schedule
from model.training.reports import REPORTS
from model.training.train_step import StepConfig

__all__ = ["TrainConfig"]


#: Field of ModelConfig to what batches and vocabularies have in its place.
_SPECIAL_IDS: Mapping[str, Any] = MappingProxyType({"pad_id": 0, "start_id": 0, "eos_ids": (1,)})


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A run. Raises ValueError for what no run can be."""

    out: str  #: its folder
    model: ModelConfig
    data: InputConfig
    step: StepConfig = dataclasses.field(default_factory=StepConfig)
    steps: int = 2**19  #: of the paper's baseline (section 3.1.2)
    schedule: str = "inverse-square-root"
    learning_rate: float | None = None  #: the schedule's scale; None: the paper's
    warmup: int = 10_000
    init_from: str | None = None  #: folder to take parameters from

    mesh: str = "auto"
    checkpoint_every: int = 5000  #: as in the paper; also at the end and at SIGTERM
    keep_last: int = 3
    keep_every: int | None = None
    #: None: as checkpoint_every, where the corpus has validation pages.
    eval_every: int | None = None
    eval_batches: int = 16
    divergence: float = 2.0  #: nats that the mean of 100 losses may rise above its best
    #: Steps to a line of the log; None: 100, or a fiftieth of the steps where that is less.
    log_every: int | None = None
    report_to: tuple[str, ...] = ("tensorboard",)  #: of ``reports.REPORTS``
    peak_flops: float | None = None  #: of one device; None: from the table, where it has it
    profile_steps: int = 0  #: to trace, from the third of this start on
    quiet: bool = False
    defaults: str = "paper"  #: what filled in the options not given: "paper" or "cpu"

    def __post_init__(self) -> None:
        for name, least in (
            ("steps", 1), ("checkpoint_every", 1), ("keep_last", 1), ("eval_batches", 1),
            ("profile_steps", 0),
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise ValueError(
                    f"{name} must be at least {least}, got {getattr(self, name)} "
                    f"({option_of(name)})"
                )
        for name, least in (("keep_every", 1), ("eval_every", 0), ("log_every", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(
                    f"{name} must be at least {least}, got {value} ({option_of(name)})"
                )
        for name, value in _SPECIAL_IDS.items():
            if getattr(self.model, name) != value:
                shown = getattr(self.model, name)
                raise ValueError(
                    f"the model of {self.init_from} has {name} {shown}, and training needs "
                    f"{value}: it pads with 0, ends sequences with 1 and starts the decoder with "
                    f"0 ({option_of(f'model.{name}')})"
                )
        if self.data.batch_size % self.step.accumulate:
            raise ValueError(
                f"a batch of {self.data.batch_size} sequences does not divide into "
                f"{self.step.accumulate} microbatches (--batch-size, --accumulate)"
            )
        for name in ("steps", "warmup"):
            if getattr(self, name) >= 2**31:
                raise ValueError(
                    f"{name} must be below 2**31, got {getattr(self, name)} ({option_of(name)}): "
                    "steps are counted in 32 bits"
                )
        for name in self.report_to:
            if name not in REPORTS:
                raise ValueError(
                    f"no report {name!r}; known: {', '.join(REPORTS)}, none (--report-to)"
                )
        DivergenceGuard(self.divergence)
        self.rate()

    def settings(self, data: InputConfig) -> dict[str, Any]:
        """What a run may not change while it goes on: all that its results depend on.

        Not among them: where and how it is computed (mesh, microbatches, rematerialisation,
        attention's kernel, workers), how long, and what is told of it. ``data`` is that of this
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
        }

    @property
    def line_every(self) -> int:
        """Steps to a line of the log, and to a point of a curve."""
        return self.log_every or max(1, min(100, self.steps // 50))

    def rate(self) -> Schedule:
        """The learning rate at each step."""
        return schedule(self.schedule, self.learning_rate, self.warmup)

    def evaluation_rows(self, data: InputConfig) -> InputConfig:
        """Evaluation takes microbatches, too: as many sequences at once as training holds."""
        return dataclasses.replace(data, batch_size=data.batch_size // self.step.accumulate)
