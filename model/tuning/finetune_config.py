"""What a fine-tuning is: where it starts, on which tasks, and what of the model it trains."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from model.data.input_config import InputConfig
from model.t5.config import ModelConfig
from model.tasks.prepared import OWN
from model.training.train_config import LossDivisor, StepConfig, TrainConfig, TrainedPart
from model.tuning.own_pairs import is_pairs_file
from pipelines.options import check_bounds, comma_separated, option

_MOST_STEPS = 2**31 - 1
#: Fields of other configurations that a fine-tuning has, too.
OTHERS: Mapping[type, tuple[str, ...]] = {
    TrainConfig: (
        "warmup", "cooldown", "keep_last", "keep_every", "eval_batches", "divergence", "log_every",
        "peak_flops", "profile_steps", "report_to", "quiet", "mesh",
    ),
    StepConfig: ("accumulate", "z_loss", "label_smoothing"),
    ModelConfig: ("dtype", "remat", "attention"),
    InputConfig: ("workers", "input_shards"),
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """A fine-tuning. Raises ValueError for what cannot be.

    It starts from ``source``; or, as the paper's "no pre-training", from new parameters: with
    ``random_weights`` of the source's model, or of ``model`` and ``vocabulary`` without a source.
    Where a value is None, it is decided by the device: the paper's (section 3.1) on accelerators,
    a small one on a CPU.

    >>> FinetuneConfig(source="run", tasks=("glue_cola",), data="tasks", out="tuned").trained
    'all'
    """

    source: str | None = option(
        "what to start from: a run (its newest checkpoint), one of its checkpoints, RUN/best/TASK, "
        "a folder of c4 import-hf, or one in Hugging Face's layout",
        "--from", metavar="RUN|CKPT|HF_DIR", default=None,
    )  # fmt: skip
    vocabulary: str | None = option(
        "without --from: SentencePiece model, for a model with new parameters",
        "--vocab", metavar="FILE", default=None,
    )  # fmt: skip
    model: ModelConfig | None = None  #: without a source: of how many layers, and so on
    tasks: tuple[str, ...] = option(
        "tasks separated by commas, glue and super_glue for all of theirs; or a file of your own "
        "pairs: TSV, CSV or JSONL with inputs and targets",
        "--task", metavar="NAMES|FILE", action="append", read=comma_separated("--task"),
    )  # fmt: skip
    validation: str | None = option(
        "with a file of your own: pairs to validate on (default: a tenth of it, by hash, is held "
        "out)",
        default=None, metavar="FILE",
    )  # fmt: skip
    data: str | None = option(
        "folder of prepared tasks (c4 tasks prepare)", default=None, metavar="DIR"
    )
    form: Literal["code", "paper"] = option(
        "form of tasks: of the released code (default), or of the paper where it differs",
        default="code",
    )
    out: str = option("folder of the run, new or existing", "--out", "--output", metavar="DIR")

    steps: int | None = option(
        "steps to train (default: 262144, the paper's; on a CPU 500)",
        default=None, metavar="N", least=1, most=_MOST_STEPS,
    )  # fmt: skip
    batch_size: int | None = option(
        "sequences per step, on all devices together (default: 128; on a CPU 32)",
        default=None, metavar="N", least=1,
    )  # fmt: skip
    input_length: int | None = option(
        "tokens of the inputs; longer ones are cut (default: 512; on a CPU 128)",
        default=None, metavar="N", least=2,
    )  # fmt: skip
    target_length: int | None = option(
        "tokens of the targets; longer ones are cut (default: the longest target)",
        default=None, metavar="N", least=2,
    )  # fmt: skip
    seed: int = option("random seed", default=0, metavar="N", least=0, most=2**32 - 1)

    random_weights: bool = option(
        "draw new parameters for the model of --from: what it would reach without pre-training",
        default=False,
    )
    optimizer_state: Literal["new", "keep"] = option(
        "whether to keep Adafactor's statistics and the step of the run that --from is of "
        "(default, as the released code), or to start with new ones at step 0",
        default="keep",
    )
    adapter: int | None = option(
        "train adapter layers of width N, one after each feed-forward layer, and nothing else",
        default=None, metavar="N", least=1,
    )  # fmt: skip
    adapter_norms: Literal["own", "all"] = option(
        "norms that train with adapter layers: their own (default, as the released code), or all "
        "(as the paper says)",
        default="own",
    )
    unfreeze: bool = option(
        "gradual unfreezing: as many equal episodes as there are blocks, each trains one block "
        "more from above, and the embedding",
        default=False,
    )

    schedule: str = option(
        "constant or inverse-square-root",
        "--learning-rate-schedule", default="constant", metavar="NAME",
    )  # fmt: skip
    learning_rate: float | None = option(
        "scale of the schedule (default: 0.001 for constant, 1 for inverse-square-root)",
        default=None, metavar="RATE",
    )  # fmt: skip
    dropout_rate: float = option("dropout rate", "--dropout", default=0.1, metavar="RATE")
    #: Target tokens: then the gradient has the scale of pre-training's mean over tokens, which the
    #: statistics that are carried on are of, however much of the rows is padding.
    loss_divisor: LossDivisor = option(
        "what the sum of the losses is divided by: target tokens, sequences times target length, "
        "or nothing",
        default="tokens",
    )

    keep_best: str | None = option(
        "score by which the best checkpoint of each task is kept (default: the task's number in "
        "the paper's tables, the mean over its metrics)",
        default=None, metavar="METRIC",
    )  # fmt: skip
    eval_every: int | None = option(
        "steps between evaluations, 0 for none (default: a tenth of --steps, at most 1000)",
        default=None, metavar="N", least=0,
    )  # fmt: skip
    eval_limit: int | None = option(
        "evaluate on the first N examples of each validation set (default: all)",
        default=None, metavar="N", least=1,
    )  # fmt: skip
    checkpoint_every: int = option("steps between checkpoints", default=1000, metavar="N", least=1)
    #: Values of fields in `OTHERS`, by name.
    others: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.source is None and (self.model is None or self.vocabulary is None):
            raise ValueError(
                "there is nothing to start from: name a trained model (--from), or for one with "
                "new parameters its vocabulary and size (--vocab, --size)"
            )
        if self.source is not None and (self.model or self.vocabulary):
            raise ValueError(
                "--from says which model it is and keeps its vocabulary: leave --size and --vocab "
                "out"
            )
        if not self.tasks:
            raise ValueError("there is nothing to train on: name a task (--task)")
        files = [name for name in self.tasks if is_pairs_file(name)]
        if len(files) > 1:
            raise ValueError(f"one file of pairs at a time, got {', '.join(files)} (--task)")
        if files and OWN in self.tasks:
            raise ValueError(
                f"{OWN} is also the name of the pairs in {files[0]}: give one of the two (--task)"
            )
        if self.validation is not None and not files:
            raise ValueError(
                "--validation is for a file of your own pairs: a prepared task has its own "
                "validation split"
            )
        if self.data is None and len(files) < len(self.tasks):
            raise ValueError("--data is missing: the folder of c4 tasks prepare")
        if self.unfreeze and self.adapter is not None:
            raise ValueError("--unfreeze and --adapter are two ways to fine-tune: give one")
        if self.draws_parameters and (self.unfreeze or self.adapter is not None):
            raise ValueError(
                "all parameters are new, so nothing can stay as it is: leave out "
                f"{'--unfreeze' if self.unfreeze else '--adapter'}"
            )
        if not 0 <= self.dropout_rate < 1:
            raise ValueError(f"dropout_rate must be in [0, 1), got {self.dropout_rate} (--dropout)")
        known = [name for fields in OTHERS.values() for name in fields]
        for name in self.others:
            if name not in known:
                raise ValueError(
                    f"there is no setting {name!r} to give in others: give {', '.join(known)}"
                )

    @property
    def draws_parameters(self) -> bool:
        """Whether the run starts with new parameters."""
        return self.random_weights or self.source is None

    @property
    def trained(self) -> TrainedPart:
        """What is trained, as `TrainConfig` names it."""
        if self.unfreeze:
            return "unfreezing"
        if self.adapter is None:
            return "all"
        return "adapters" if self.adapter_norms == "own" else "adapters-and-norms"

    def others_of(self, config: type) -> dict[str, Any]:
        """Return those of ``others`` that are fields of a configuration."""
        return {name: value for name, value in self.others.items() if name in OTHERS[config]}
