"""The options of ``c4 pretrain`` as a configuration of training."""

import argparse
import dataclasses
import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from model.commands.mixture_options import mixed_inputs
from model.data.input_config import InputConfig
from model.data.objectives import Objective
from model.small_files import naming_option
from model.t5.config import ARCHITECTURES, SIZES, ModelConfig, model_config
from model.training.train_config import StepConfig, TrainConfig
from pipelines.options import given_values, option, option_of

if TYPE_CHECKING:
    from model.data.vocabulary import Vocabulary


def _set_values(assignments: Sequence[str]) -> dict[str, Any]:
    """Return what ``--set`` gives, as the values of fields.

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
            raise ValueError(
                f"--set {assignment}: {name} is given by {option_of(ModelConfig, name)}"
                f"{' of c4 finetune' if name == 'adapter' else ''}"
            )
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = text
        wants_bool, wants_float = fields[name] is bool, fields[name] is float
        if wants_bool != isinstance(value, bool) or (
            wants_float and not isinstance(value, int | float)
        ):
            raise ValueError(f"--set {assignment}: {text!r} is not a value of {name}")
        values[name] = value
    return values


def _is_set(field: str) -> bool:
    """Return whether ``--set`` sets this field of the model."""
    option = option_of(ModelConfig, field)
    return not option or "--set" in option


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """A model by its size, as options name it."""

    size: str = option(f"one of {', '.join(SIZES)}", default="small", metavar="NAME", on_cpu="tiny")
    architecture: str = option(
        f"one of {', '.join(ARCHITECTURES)}", default="encoder-decoder", metavar="NAME"
    )
    changes: dict[str, Any] = option(
        "another value for a field of the size, such as d_model=64 or num_layers=2; may be "
        "repeated",
        "--set", default_factory=dict, metavar="NAME=VALUE", action="append", read=_set_values,
    )  # fmt: skip


def objective_of(arguments: argparse.Namespace) -> Objective:
    """Return the objective asked for. Raises ValueError for an unknown one."""
    chosen = given_values(arguments, InputConfig, "objective").get("objective")
    return (chosen or InputConfig.objective).replace(**given_values(arguments, Objective))


def model_of(
    arguments: argparse.Namespace, vocab_size: int | None = None, dtype: str = "bfloat16"
) -> ModelConfig:
    """Return the model asked for by its size.

    ``dtype`` is the default of --dtype. Raises ValueError for a size, an architecture or a value
    that cannot be.
    """
    asked = ModelOptions(**given_values(arguments, ModelOptions))
    changes = asked.changes | {"dtype": dtype} | given_values(arguments, ModelConfig)
    if vocab_size is not None:
        changes["vocab_size"] = vocab_size
    return model_config(asked.size, asked.architecture, **changes)


def step_of(arguments: argparse.Namespace, prng: Literal["threefry2x32", "rbg"]) -> StepConfig:
    """Return the step asked for, its masks drawn by ``prng``."""
    seed = getattr(arguments, "seed", InputConfig.seed)
    return StepConfig(seed=seed, prng=prng, **given_values(arguments, StepConfig))


@dataclasses.dataclass(frozen=True)
class Start:
    """What a run starts from, besides its options."""

    vocabulary: "Vocabulary"
    model: ModelConfig | None  #: of --init-from

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> "Start":
        """Read vocabulary and model. Raises ValueError where they do not go together."""
        from model.data.vocabulary import Vocabulary

        path, config = getattr(arguments, "vocab", None), None
        with naming_option("--vocab"):
            given = None if path is None else Vocabulary(path)
        if hasattr(arguments, "init_from"):
            for name in ("size", "architecture", "set"):
                if hasattr(arguments, name):
                    raise ValueError(f"--init-from says which model it is: leave --{name} out")
            from model.training.model_folders import read_model

            config, kept = read_model(arguments.init_from)
            if given is not None and kept is not None and not given.same_as(Vocabulary(kept)):
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
        vocabulary = given if given is not None and path == given.path else Vocabulary(path)
        if vocabulary.obstacle is not None:
            raise ValueError(
                f"{path}: {vocabulary.obstacle}, so T5's tokenizer, with which the trained model "
                "would be used, would give other ids: give another vocabulary (--vocab)"
            )
        return cls(vocabulary, config)


def train_config(arguments: argparse.Namespace, noise: Objective, start: Start) -> TrainConfig:
    """Return the run asked for. Raises ValueError for what no run can be."""
    import jax

    on_cpu = jax.default_backend() == "cpu"
    dtype = "float32" if on_cpu else "bfloat16"
    if start.model is None:
        model = model_of(arguments, start.vocabulary.padded_size, dtype)
    else:
        model = start.model.replace(**{"dtype": dtype} | given_values(arguments, ModelConfig))
        if start.vocabulary.id_count > model.vocab_size:
            raise ValueError(
                f"{start.vocabulary.path} has {start.vocabulary.id_count} ids, the model of "
                f"{arguments.init_from} {model.vocab_size}: give the vocabulary it was trained "
                "with (--vocab)"
            )
    made = {
        "vocabulary": start.vocabulary, "objective": noise, "architecture": model.architecture,
        **mixed_inputs(arguments),
    }  # fmt: skip
    workers = {"workers": min(8, len(os.sched_getaffinity(0)) // 2)}
    return TrainConfig(
        model=model,
        data=InputConfig(**workers | given_values(arguments, InputConfig) | made),
        step=step_of(arguments, "threefry2x32" if on_cpu else "rbg"),
        defaults=getattr(arguments, "defaults", "paper"),
        **given_values(arguments, TrainConfig),
    )
