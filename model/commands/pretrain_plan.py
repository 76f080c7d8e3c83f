"""What ``c4 pretrain`` says of a run before it begins."""

import dataclasses

from model.data.input_config import InputConfig
from model.data.objectives import OBJECTIVES
from model.data.passes import input_size
from model.tasks.mixtures import C4
from model.training.distributed import is_first
from model.training.programs import Placement
from model.training.train_config import TrainConfig
from pipelines.printing import print_lines, print_note


def check_sentinels(data: InputConfig) -> None:
    """Print a warning where texts may have more noise spans than the vocabulary has sentinels.

    Raises ValueError where the objective needs sentinels and there are none.
    """
    if C4 not in data.rates:
        return
    needed, there = data.objective.most_sentinels(data.lengths.raw), data.vocabulary.extra_ids
    if data.objective.sentinels and not there:
        without = ", ".join(name for name, other in OBJECTIVES.items() if not other.sentinels)
        raise ValueError(
            f"objective {data.objective.name} needs sentinels, and the vocabulary has none: "
            f"{without} need none (--objective)"
        )
    if needed > there and is_first():
        print_note(
            f"c4: warning: objective {data.objective.name} makes up to {needed} spans of a text of "
            f"{data.lengths.raw} tokens, and the vocabulary has {there} sentinels: spans beyond "
            f"the last share it; c4 vocab --extra-ids {needed} makes more, and a smaller "
            "--input-length or --noise-density needs fewer"
        )


def print_plan(config: TrainConfig, placement: Placement, data: InputConfig) -> None:
    """Print what would be trained, in one process of the run."""
    if not is_first():
        return
    spec, model = config.data.batch_spec(), config.model
    lengths = config.data.lengths
    print_lines(
        f"model        {model.architecture}, {model.parameter_count():,} parameters: "
        f"{model.num_layers} layers of d_model {model.d_model}, d_ff {model.d_ff}, "
        f"{model.num_heads} heads of {model.d_kv}, {model.feed_forward}, vocabulary "
        f"{model.vocab_size:,}, dropout {model.dropout_rate:g}, {model.dtype}"
    )
    print_lines(f"mesh         {placement.shape} of {placement.mesh.devices.flat[0].device_kind}")
    state = placement.bytes_per_device() / 2**20
    print_lines(f"state        {state:,.1f} MiB per device, without activations")
    pieces = ""
    if C4 in data.rates:
        noise = {
            name.replace("_", " "): value
            for name, value in dataclasses.asdict(data.objective).items()
            if value is not None and name not in ("name", "approach")
        }
        print_lines(
            f"objective    {data.objective.name}: {data.objective.approach}, "
            + ", ".join(f"{name} {value}" for name, value in noise.items())
        )
        pieces = f" from pieces of {lengths.raw}"
    print_lines(
        f"batch        {spec.batch_size} sequences of {lengths.inputs} + {lengths.targets} tokens"
        f"{pieces}, in {config.step.accumulate} microbatch(es)"
    )
    rate = "the paper's" if config.learning_rate is None else config.learning_rate
    print_lines(f"schedule     {config.schedule}, scale {rate}, warmup {config.warmup:,}")
    print_lines(f"steps        {config.steps:,}: {config.steps * spec.tokens:,} tokens")
    size = input_size(data, data.input_shards or 1)
    for line in (*size.lines(config.steps * config.data.batch_size), size.mixture()):
        if line:
            what, _, rest = line.partition(": ")
            print_lines(f"{what:<12} {rest}")
