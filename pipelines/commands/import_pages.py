"""``c4 import``: a build of other text than WET files, without rules unless a recipe is given."""

import argparse
import dataclasses
import functools
from collections.abc import Sequence

from c4_filters.recipes import Recipe, load_recipe
from pipelines.commands import build
from pipelines.config import BuildConfig, read_recipe
from pipelines.imports.sources import SOURCES
from pipelines.options import given_values, option

_AS_IS = functools.partial(load_recipe, "as_is")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options(BuildConfig):
    """The options that differ from those of a build of WET files."""

    source: str = option(
        "what the inputs are: dumps of Wikipedia (or another MediaWiki), books as text files, JSON "
        "lines, Parquet, data sets of Hugging Face or of TensorFlow Datasets",
        "--from", choices=tuple(SOURCES),
    )  # fmt: skip
    inputs: Sequence[str] = option(
        "files, patterns or folders, local or remote; with --from hf also "
        "hf://datasets/OWNER/NAME/PATTERN",
        "--input", nargs="+", action="extend", metavar="GLOB",
    )  # fmt: skip
    recipe: Recipe = option(
        "rules to apply and deduplication, as in c4 build (default: as_is, which keeps every page)",
        metavar="NAME|FILE.toml", read=read_recipe, default_factory=_AS_IS,
    )  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``c4 import``."""
    parser.epilog = """
        The result is a corpus like any other. Each file is a unit of work: the same command run
        again skips files that are done already. Options of Apache Beam may be given too, as to
        c4 build.

        exit status: 0 imported; 1 failed or refused, or more files unreadable than allowed; 2 an
        option is missing or has no value; 130 interrupted
    """
    build.add_build_options(parser, _Options, without=("crawl", "files", "base_url"))


def run(arguments: argparse.Namespace) -> int:
    """Import the pages that the options describe and return the exit status."""
    values = {"recipe": _AS_IS()} | given_values(arguments, _Options)
    return build.run_build(values, arguments)
