"""``c4 explain``: what each rule did to each page of a WET file, line by line."""

import argparse
import dataclasses
import sys
from collections.abc import Sequence

from c4_filters.own_rules import is_verdict
from c4_filters.recipes import Recipe
from c4_filters.verdicts import PageVerdict
from pipelines import storage
from pipelines.config import BuildConfig
from pipelines.corpus import layout
from pipelines.explain_corpus import KeptCorpus
from pipelines.explain_pages import Explainer
from pipelines.options import add_options, given_values, option, option_of
from pipelines.printing import printable

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``c4 explain``."""
    parser.epilog = (
        "Deduplication needs the whole corpus. With --corpus, the settings are those of its\n"
        "build, and --url finds the page in all of its WET files."
    )
    add_options(parser, _Options)
    # With a corpus, options that are not given are those of its build.
    add_options(parser, BuildConfig, *_OF_BUILD)
    parser.set_defaults(refuse=parser.error)


#: What judges pages, of the options of a build.
_OF_BUILD = (
    "recipe", "badwords", "domain_list", "url_list", "allow_rules", "max_record_bytes",
    "max_file_bytes",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options:
    """Which pages to explain."""

    file: str | None = option(
        "a WET file; may be left out with --corpus", "file", default=None, metavar="FILE", nargs="?"
    )
    url: str | None = option(
        "only the page of this address (compared in normalised form)", default=None
    )
    verdict: str | None = option(
        "only pages of this verdict, such as few_sentences", default=None, metavar="NAME"
    )
    corpus: str | None = option(
        "a finished corpus, to explain pages as its build did", default=None, metavar="DIR"
    )


# Verdicts that only a whole corpus tells.
_OF_DEDUP = {
    PageVerdict.DUPLICATE_URL,
    PageVerdict.NEAR_DUPLICATE,
    PageVerdict.EMPTY_AFTER_DEDUP,
    PageVerdict.FEW_SENTENCES_AFTER_DEDUP,
}


def run(arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    """Print the explanation. Return 1 if no page matches."""
    del rest
    options = _Options(**given_values(arguments, _Options))
    if options.file is None and options.corpus is None:
        arguments.refuse(
            "the following arguments are required: FILE (or --corpus DIR with --url or --verdict)"
        )
    if options.file is None and options.url is None and options.verdict is None:
        arguments.refuse("give FILE, --url or --verdict, to choose among the pages of --corpus")
    if options.verdict in _OF_DEDUP and options.corpus is None:
        raise ValueError(
            f"deduplication decides which pages are {options.verdict}, over the whole corpus: "
            "give --corpus DIR"
        )
    corpus = None if options.corpus is None else KeptCorpus(layout.absolute(options.corpus))
    config = _config(arguments, options.file, corpus)
    if options.verdict is not None and not _may_be(options.verdict, config.recipe):
        raise ValueError(
            f"unknown verdict {options.verdict!r}; known: {', '.join(PageVerdict)} (--verdict)"
        )
    path = _path(options.file) if options.file is not None else None
    explainer = Explainer(config, corpus, options.url, options.verdict)
    if corpus is not None:
        corpus.require_lists(config)
        _note_versions(corpus, config)
        if path is not None and path not in corpus.inputs:
            raise ValueError(f"{corpus.folder} was not built from {path} (--corpus)")
        if not corpus.has_pages:
            explainer = _without_dedup(corpus, config, path, options)
    explainer.explain(path)
    if explainer.printed:
        return 0
    where = path if path is not None else options.corpus
    asked = [f"the address {options.url}"] if options.url else []
    asked += [f"the verdict {options.verdict}"] if options.verdict else []
    has = f"has {' and '.join(asked)}" if asked else "can be read"
    print(printable(f"c4: no page of {where} {has}"), file=sys.stderr)
    return 1


def _path(file: str) -> str:
    paths = storage.match(file)
    if len(paths) > 1:
        raise ValueError(f"{file!r} matches {len(paths)} files: give one")
    return layout.absolute(paths[0].path)


def _config(
    arguments: argparse.Namespace, file: str | None, corpus: KeptCorpus | None
) -> BuildConfig:
    """Return the settings of the corpus, or the given ones, with the checks of a build."""
    asked = given_values(arguments, BuildConfig, *_OF_BUILD)
    if corpus is not None:
        built = {name: getattr(corpus, name) for name in _OF_BUILD if hasattr(corpus, name)}
        if "recipe" in asked and _rules(asked["recipe"]) != _rules(corpus.recipe):
            raise ValueError(
                f"{corpus.folder} was built with recipe {corpus.recipe.name}, not with "
                f"today's {asked['recipe'].name}: leave --recipe out (--corpus)"
            )
        for name in ("max_record_bytes", "max_file_bytes"):
            if asked.get(name, built[name]) != built[name]:
                limit = f"{option_of(BuildConfig, name)} {built[name] >> 20}"
                raise ValueError(f"{corpus.folder} was built with {limit}: leave it out")
        asked = built | asked
    return BuildConfig(inputs=(file or "none",), output="none", **asked)


def _may_be(verdict: str, recipe: Recipe) -> bool:
    """Return whether a page can have this verdict: ours, or perhaps that of a rule of one's own."""
    return verdict in list(PageVerdict) or (bool(recipe.rules) and is_verdict(verdict))


def _rules(recipe: Recipe) -> dict[str, object]:
    """Return the parts of a recipe that change pages."""
    return {key: value for key, value in recipe.as_dict().items() if key != "description"}


def _note_versions(corpus: KeptCorpus, config: BuildConfig) -> None:
    if versions := corpus.other_versions(config):
        print(
            printable(
                f"c4: note: {corpus.folder} was built with other versions ({versions}), which may "
                "have judged lines and pages differently"
            ),
            file=sys.stderr,
        )


def _without_dedup(
    corpus: KeptCorpus, config: BuildConfig, path: str | None, options: _Options
) -> Explainer:
    """Return what explains pages of a corpus that did not keep them."""
    lacks = f"{corpus.folder} was built with --keep {corpus.keep}: it has no cleaned pages"
    if path is None:
        raise ValueError(f"{lacks}; give a WET file to see it without deduplication (FILE)")
    if options.verdict in _OF_DEDUP:
        raise ValueError(f"{lacks}, so it cannot say which pages are {options.verdict}")
    print(printable(f"c4: note: {lacks}; deduplication is not considered"), file=sys.stderr)
    return Explainer(config, None, options.url, options.verdict, advice="")
