"""``c4 finetune``: check the options, fine-tune, print a table of the results."""

import argparse

from model.commands.pretrain_config import ModelOptions, model_of
from model.commands.starting import add_process_options, joined_processes, report_failures_once
from model.data.input_config import InputConfig
from model.t5.config import ModelConfig
from model.training.train_config import StepConfig, TrainConfig
from model.tuning.finetune_config import OTHERS, FinetuneConfig
from pipelines.options import add_options, given_values, refuse_empty

_SCHEDULE = ("warmup", "cooldown")  # fields of TrainConfig that the help text shows elsewhere
_DEVICES = ("mesh",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``c4 finetune``."""
    parser.epilog = """
        Run the same command again to resume from the newest checkpoint in --out. You may then
        change --steps (but with --unfreeze), --mesh, --accumulate, --remat, --attention, --workers
        and the options about logs and kept checkpoints; any other change is refused.

        OUT/best/TASK is the best checkpoint of each task on its validation data, and OUT/best.json
        has its scores; c4 predict and c4 evaluate take it when they are given OUT.

        exit status: 0 done; 1 failed, refused, or stopped because the loss is NaN or diverges;
        2 wrong usage; 130 interrupted (SIGINT or SIGTERM: the state was saved, unless it came
        before the first step)
    """
    add_options(parser, FinetuneConfig, "source", "tasks", "validation", "data", "form", "out")
    group = parser.add_argument_group(
        "a model with new parameters", "Without --from: what the tasks alone teach a model."
    )
    add_options(group, FinetuneConfig, "vocabulary")
    add_options(group, ModelOptions)
    group = parser.add_argument_group("what is trained")
    add_options(
        group, FinetuneConfig, "random_weights", "optimizer_state", "adapter", "adapter_norms",
        "unfreeze",
    )  # fmt: skip
    group = parser.add_argument_group("training")
    add_options(
        group, FinetuneConfig, "steps", "batch_size", "input_length", "target_length", "seed",
        "schedule", "learning_rate",
    )  # fmt: skip
    add_options(group, TrainConfig, *_SCHEDULE)
    add_options(group, FinetuneConfig, "dropout_rate", "loss_divisor")
    add_options(group, StepConfig, *OTHERS[StepConfig])
    group = parser.add_argument_group("checkpoints, evaluation, metrics")
    add_options(group, FinetuneConfig, "keep_best", "eval_every", "eval_limit", "checkpoint_every")
    shown_elsewhere = (*_SCHEDULE, *_DEVICES)
    others = [name for name in OTHERS[TrainConfig] if name not in shown_elsewhere]
    add_options(group, TrainConfig, *others)
    group = parser.add_argument_group("devices")
    add_options(group, ModelConfig, *OTHERS[ModelConfig])
    add_options(group, TrainConfig, *_DEVICES)
    add_options(group, InputConfig, *OTHERS[InputConfig])
    add_process_options(parser)


def _new_model(arguments: argparse.Namespace) -> ModelConfig:
    """Return the model asked for by its size, with an embedding for the vocabulary."""
    if not hasattr(arguments, "vocab"):
        return model_of(arguments)
    from model.data.vocabulary import Vocabulary

    return model_of(arguments, Vocabulary(arguments.vocab).padded_size)


def run(arguments: argparse.Namespace) -> int:
    """Fine-tune as the options say. Returns the exit status."""
    interruption = getattr(arguments, "interruption", None)  # None for callers from Python
    refuse_empty(arguments)
    others = {
        name: value
        for config, names in OTHERS.items()
        for name, value in given_values(arguments, config, *names).items()
    }
    given = given_values(arguments, FinetuneConfig)
    if hasattr(arguments, "vocab") or given_values(arguments, ModelOptions):
        given["model"] = _new_model(arguments)
    config = FinetuneConfig(**given, others=others)
    if interruption is not None:
        interruption.expect("c4: interrupted before the first step: nothing was saved", 0.8)
    report_failures_once()
    with joined_processes(arguments):
        from model.training import distributed
        from model.tuning.finetune import finetune, result_table

        results = finetune(config, interruption)
        if distributed.is_first():
            print("\n".join(result_table(results)))
        return 0
