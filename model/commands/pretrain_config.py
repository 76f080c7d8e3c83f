"""The options of ``c4 pretrain`` as a configuration of training."""

import argparse
import dataclasses
import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from model.data.objectives import Objective, objective
from model.options import option_of
from model.t5.config import ModelConfig, model_config

if TYPE_CHECKING:
    from model.data.vocabulary import Vocabulary
    from model.training.train_config import TrainConfig
    from model.training.train_step import StepConfig

__all__ = ["Start", "model_of", "objective_of", "step_of", "train_config"]


def objective_of(arguments: argparse.Namespace) -> Objective:
    """The objective asked for. Raises ValueError for an unknown one."""
    chosen = objective(arguments.objective)
    if arguments.noise_density is None:
        return chosen
    return chosen.replace(noise_density=arguments.noise_density)


def model_of(
    arguments: argparse.Namespace, vocab_size: int | None = None, dtype: str = "bfloat16"
) -> ModelConfig:
    """The model asked for by its size.

    ``dtype`` is what --dtype defaults to. Raises ValueError for a size, an architecture or a
    value that cannot be.
    """
    changes = {**_set_values(arguments.set), **_how(arguments, dtype)}
    if vocab_size is not None:
        changes["vocab_size"] = vocab_size
    return model_config(
        arguments.size or "small", arguments.architecture or "encoder-decoder", **changes
    )


def step_of(arguments: argparse.Namespace, prng: Literal["threefry2x32", "rbg"]) -> "StepConfig":
    """The step asked for, its masks drawn by ``prng``. Raises ValueError for what cannot be."""
    from model.training.train_step import StepConfig

    return StepConfig(
        accumulate=arguments.accumulate,
        z_loss=arguments.z_loss,
        loss_divisor=arguments.loss_divisor,
        label_smoothing=arguments.label_smoothing,
        seed=arguments.seed,
        prng=prng,
    )


def _how(arguments: argparse.Namespace, dtype: str) -> dict[str, Any]:
    changes = {
        "dtype": arguments.dtype or dtype,
        "remat": arguments.remat,
        "attention": arguments.attention,
    }
    if arguments.dropout is not None:
        if not 0 <= arguments.dropout < 1:
            raise ValueError(f"--dropout must be in [0, 1), got {arguments.dropout}")
        changes["dropout_rate"] = arguments.dropout
    return changes


def _set_values(assignments: Sequence[str]) -> dict[str, Any]:
    """What ``--set`` gives, as the values of fields.

    >>> _set_values(["d_model=64", "tied_logits=false", "feed_forward=gated-gelu"])
    {'d_model': 64, 'tied_logits': False, 'feed_forward': 'gated-gelu'}
    """
    fields = {field.name: field.type for field in dataclasses.fields(ModelConfig)}
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or name not in fields:
            known = ", ".join(sorted(name for name in fields if _is_set(name)))
            raise ValueError(f"--set {assignment}: write NAME=VALUE; names: {known}")
        if not _is_set(name):
            option = option_of(f"model.{name}")
            raise ValueError(f"--set {assignment}: {name} is given by {option}")
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = text
        wants_bool, wants_float = fields[name] is bool, fields[name] is float
        if wants_bool != isinstance(value, bool) or (
            wants_float and not isinstance(value, int | float)
        ):
            raise ValueError(f"--set {assignment}: {text!r} is no value of {name}")
        values[name] = value
    return values


def _is_set(field: str) -> bool:
    """Return whether ``--set`` sets this field of the model."""
    return "--set" in option_of(f"model.{field}")


@dataclasses.dataclass(frozen=True)
class Start:
    """What a run starts from, besides its options."""

    vocabulary: "Vocabulary"
    model: ModelConfig | None  #: of --init-from

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> "Start":
        """Read vocabulary and model. Raises ValueError where they do not go together."""
        from model.data.vocabulary import Vocabulary

        path, config = arguments.vocab, None
        if arguments.init_from is not None:
            for name in ("size", "architecture"):
                if getattr(arguments, name) is not None:
                    raise ValueError(f"--init-from says which model it is: leave --{name} out")
            if arguments.set:
                raise ValueError("--init-from says which model it is: leave --set out")
            from model.training.checkpoints import read_model

            config, kept = read_model(arguments.init_from)
            if (
                path is not None
                and kept is not None
                and not Vocabulary(path).same_as(Vocabulary(kept))
            ):
                raise ValueError(
                    f"{path} differs from the vocabulary of {arguments.init_from}, whose embedding "
                    "would not fit it: leave --vocab out"
                )
            path = kept or path
            if path is None:
                raise ValueError(
                    f"--vocab is missing: {arguments.init_from} keeps no vocabulary, so give the "
                    "SentencePiece model that it was trained with"
                )
        if path is None:
            raise ValueError("--vocab is missing: c4 vocab makes one from a corpus")
        vocabulary = Vocabulary(path)
        if vocabulary.obstacle is not None:
            raise ValueError(
                f"{path}: {vocabulary.obstacle}, so T5's tokenizer, with which the trained model "
                "would be used, would give other ids: give another vocabulary (--vocab)"
            )
        return cls(vocabulary, config)


def train_config(
    arguments: argparse.Namespace, noise: Objective, start: Start
) -> "TrainConfig":  # fmt: skip
    """The run asked for. Raises ValueError for what no run can be."""
    import jax

    from model.data.rows import InputConfig
    from model.training.train_config import TrainConfig

    on_cpu = jax.default_backend() == "cpu"
    dtype = "float32" if on_cpu else "bfloat16"
    if start.model is None:
        model = model_of(arguments, start.vocabulary.padded_size, dtype)
    else:
        model = start.model.replace(**_how(arguments, dtype))
        if start.vocabulary.id_count > model.vocab_size:
            raise ValueError(
                f"{start.vocabulary.path} has {start.vocabulary.id_count} ids, the model of "
                f"{arguments.init_from} {model.vocab_size}: give the vocabulary it was trained "
                "with (--vocab)"
            )
    data = InputConfig(
        corpus=arguments.corpus,
        vocabulary=start.vocabulary,
        objective=noise,
        architecture=model.architecture,
        batch_size=arguments.batch_size,
        input_length=arguments.input_length,
        seed=arguments.seed,
        format=arguments.format,
        max_pages=arguments.max_pages,
        input_shards=arguments.input_shards,
        workers=_workers(arguments.workers),
    )
    step = step_of(arguments, "threefry2x32" if on_cpu else "rbg")
    peak = arguments.peak_tflops
    if peak is not None and not peak > 0:
        raise ValueError(f"--peak-tflops must be positive, got {peak}")
    return TrainConfig(
        out=arguments.out,
        model=model,
        data=data,
        step=step,
        steps=arguments.steps,
        schedule=arguments.learning_rate_schedule,
        learning_rate=arguments.learning_rate,
        warmup=arguments.warmup,
        init_from=arguments.init_from,
        mesh=arguments.mesh,
        checkpoint_every=arguments.checkpoint_every,
        keep_last=arguments.keep_last,
        keep_every=arguments.keep_every,
        eval_every=arguments.eval_every,
        eval_batches=arguments.eval_batches,
        divergence=arguments.divergence,
        log_every=arguments.log_every,
        peak_flops=None if peak is None else peak * 1e12,
        profile_steps=arguments.profile,
        report_to=_report_to(arguments.report_to),
        quiet=arguments.quiet,
        defaults=getattr(arguments, "defaults", "paper"),
    )


def _report_to(asked: Sequence[str] | None) -> tuple[str, ...]:
    """What ``--report-to`` names, each once.

    >>> _report_to(None), _report_to(["wandb,tensorboard", "wandb"]), _report_to(["none"])
    (('tensorboard',), ('wandb', 'tensorboard'), ())
    """
    if asked is None:
        return ("tensorboard",)
    names = [name.strip() for each in asked for name in each.split(",")]
    if "none" in names and len(set(names)) > 1:
        raise ValueError("--report-to none goes with no other name")
    return tuple(dict.fromkeys(name for name in names if name != "none"))


def _workers(asked: int | None) -> int:
    if asked is not None:
        return asked
    return min(8, len(os.sched_getaffinity(0)) // 2)
