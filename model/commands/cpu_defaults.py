"""Defaults of ``c4 pretrain`` for a machine without an accelerator."""

import argparse
from collections.abc import Callable, Mapping
from types import MappingProxyType

from model.commands.pretrain_config import ModelOptions
from model.data.input_config import InputConfig
from model.training.train_config import TrainConfig
from pipelines.options import on_cpu

#: Instead of the paper's settings: some minutes on two cores, with a falling loss.
CPU_DEFAULTS: Mapping[str, str | int] = MappingProxyType(
    on_cpu(ModelOptions) | on_cpu(InputConfig) | on_cpu(TrainConfig)
)

#: A run with one of these options gets the paper's values for the others.
_SHAPES = (
    "size", "batch_size", "input_length", "accumulate", "architecture", "set", "init_from",
)  # fmt: skip


def apply_cpu_defaults(arguments: argparse.Namespace, say: Callable[[str], None]) -> None:
    """Choose the defaults of the options that were not given, by device and by folder.

    A folder with a step keeps the defaults that it was begun with, also on other devices and beside
    options that give a shape. Sets ``arguments.defaults`` to "cpu" or "paper".

    Args:
      arguments: of ``c4 pretrain``; changed.
      say: takes a line about the choice.
    """
    import jax

    from model.training.run_folder import RunFolder

    shaped = any(hasattr(arguments, name) for name in _SHAPES)
    folder = RunFolder(arguments.out)
    begun = folder.defaults()
    arguments.defaults = begun or (
        "cpu" if jax.default_backend() == "cpu" and not shaped else "paper"
    )
    if arguments.defaults != "cpu":
        return
    chosen = {name: value for name, value in CPU_DEFAULTS.items() if not hasattr(arguments, name)}
    for name, value in chosen.items():
        setattr(arguments, name, value)
    options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in chosen.items())
    say(
        f"{folder.path} was begun with the defaults of a CPU: {options}"
        if begun
        else f"no accelerator and no size given, so this run is small: {options}; the paper's: "
        "--size base --batch-size 128 --input-length 512"
    )
