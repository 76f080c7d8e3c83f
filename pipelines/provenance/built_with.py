"""The settings that a finished corpus was built with, to judge its pages again."""

from collections.abc import Mapping
from typing import Any

from c4_filters.recipes import Recipe
from pipelines.config import BuildConfig
from pipelines.corpus.manifest import OPT_OUT, Manifest
from pipelines.options import option_of


def build_config(
    made: Manifest, folder: str, asked: Mapping[str, Any], file: str | None = None
) -> BuildConfig:
    """Return the settings of the build, to judge its pages again.

    Args:
        made: Manifest of the corpus.
        folder: Where the corpus is, for messages.
        asked: Fields of `BuildConfig` that were given, such as lists.
        file: One of its WET files.

    Raises:
        OSError: A list cannot be read.
        ValueError: A field differs from the build's, or a list of the build is missing.
    """
    source = made.settings.source
    if asked.get("source", source) != source:
        raise ValueError(f"{folder} was made of {source}: leave --from out")
    recipe = Recipe.from_mapping(made.recipe)
    built: dict[str, Any] = {
        "source": source,
        "recipe": recipe,
        "max_record_bytes": made.settings.max_record_bytes,
        "max_file_bytes": made.settings.max_file_bytes,
    }
    if "recipe" in asked and asked["recipe"].digest() != recipe.digest():
        raise ValueError(
            f"{folder} was built with recipe {recipe.name}, not with "
            f"today's {asked['recipe'].name}: leave --recipe out (--corpus)"
        )
    for name in ("max_record_bytes", "max_file_bytes"):
        if asked.get(name, built[name]) != built[name]:
            limit = f"{option_of(BuildConfig, name)} {built[name] >> 20}"
            raise ValueError(f"{folder} was built with {limit}: leave it out")
    config = BuildConfig(inputs=(file or "none",), output="none", **{**built, **asked})
    _require_lists(made, folder, config)
    return config


def _require_lists(made: Manifest, folder: str, config: BuildConfig) -> None:
    """Raise ValueError, naming the option, unless lists and own rules are the build's.

    Own rules that are not allowed now are no fault: the kept files have their verdicts.
    """
    # Which pages the opt-out list covers is in the removals.
    built = {name: of for name, of in made.settings.lists.items() if name != OPT_OUT}
    given: dict[str, str] = config.identity["lists"]
    rules = made.settings.rules
    for module, digest in config.identity.get("rules", rules).items():
        if rules.get(module) != digest:
            raise ValueError(
                f"the module {module} is not the one that {folder} was built with: leave "
                "it out, and its verdicts come from the kept files (--allow-rules)"
            )
    for option in sorted({*built, *given}):
        if option not in given:
            raise ValueError(
                f"{folder} was built with a list of its own: give the same one ({option})"
            )
        if option not in built:
            raise ValueError(f"{folder} was built without {option}: leave it out")
        if built[option] != given[option]:
            raise ValueError(
                f"{given and config.lists()[option]} is not the list that {folder} was "
                f"built with ({option})"
            )


def other_versions(made: Manifest, config: BuildConfig) -> str:
    """Return what of the build's software had another version, for people, or nothing."""
    built, now = made.versions, config.identity["versions"]
    return ", ".join(f"{name} {built.get(name)}" for name in now if built.get(name) != now[name])
