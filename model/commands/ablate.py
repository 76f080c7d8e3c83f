"""``c4 ablate``: compare two corpora, or two recipes, by the models that they make."""

import argparse
import functools

from model.studies.ablate import AblateConfig, ablate, outcome_lines
from pipelines.options import add_options, given_values
from pipelines.printing import print_lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``c4 ablate``."""
    parser.epilog = (
        "Trains pairs of small models that share seed, vocabulary and number of tokens, one on "
        "each corpus, and compares their bits per byte on text that neither was trained on. It "
        "prints the difference with its confidence interval, and says cannot tell when the "
        "interval includes 0.\n\n"
        "  c4 ablate corpus-1 corpus-2 --out comparison\n"
        "  c4 ablate --recipe-a en --recipe-b c4-2019 --input 'wet/*.gz' --out comparison\n"
        "  c4 ablate corpus-1 corpus-2 --out comparison --seeds 10     more pairs, later\n\n"
        "exit status: 0 done, whatever the verdict; 1 failed; 2 wrong usage; 130 interrupted"
    )
    add_options(parser, AblateConfig, "a", "b")
    add_options(parser, AblateConfig, "recipe_a", "recipe_b", "inputs", "out", "seeds", "level")
    group = parser.add_argument_group("what is judged on")
    add_options(group, AblateConfig, "held_out", "held_out_share", "tasks", "data")
    group = parser.add_argument_group("runs")
    add_options(
        group, AblateConfig, "vocabulary", "vocabulary_size", "size", "changes", "architecture",
        "objective", "steps", "batch_size", "input_length", "warmup", "fine_tune_steps",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Compare as the options say. Returns the exit status."""
    config = AblateConfig(**given_values(arguments, AblateConfig))
    outcome = ablate(config, functools.partial(print_lines, flush=True))
    print()
    print(*outcome_lines(config, outcome), sep="\n")
    return 0
