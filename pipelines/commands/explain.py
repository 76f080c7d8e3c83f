"""``c4 explain``: what each rule did to each page of a WET file, line by line."""

import argparse
import dataclasses

from c4_filters.own_rules import is_verdict, modules_of
from c4_filters.recipes import Recipe
from c4_filters.verdicts import PageVerdict
from pipelines import storage
from pipelines.config import BuildConfig
from pipelines.corpus import layout
from pipelines.corpus.removals import PAGE_VERDICTS
from pipelines.options import add_options, given_values, option
from pipelines.printing import print_note
from pipelines.provenance.built_with import build_config, other_versions
from pipelines.provenance.explainer import Account, Explainer
from pipelines.provenance.kept import KeptCorpus
from pipelines.provenance.printed import print_account, print_rejected


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``c4 explain``."""
    parser.epilog = (
        "Deduplication needs the whole corpus. With --corpus, the settings are those of its\n"
        "build, and --url finds the page in all of its WET files."
    )
    add_options(parser, _Options)
    # With a corpus, options that are not given are those of its build.
    add_options(parser, BuildConfig, *_OF_BUILD)


#: What judges pages, of the options of a build.
_OF_BUILD = (
    "source", "recipe", "badwords", "domain_list", "url_list", "allow_rules", "max_record_bytes",
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
    *PAGE_VERDICTS[1:],
    PageVerdict.EMPTY_AFTER_DEDUP,
    PageVerdict.FEW_SENTENCES_AFTER_DEDUP,
}


def run(arguments: argparse.Namespace) -> int:
    """Print the explanation. Return 1 if no page matches."""
    options = _Options(**given_values(arguments, _Options))
    if options.file is None and options.corpus is None:
        arguments.parser.error(
            "the following arguments are required: FILE (or --corpus DIR with --url or --verdict)"
        )
    if options.file is None and options.url is None and options.verdict is None:
        arguments.parser.error(
            "give FILE, --url or --verdict, to choose among the pages of --corpus"
        )
    if options.verdict in _OF_DEDUP and options.corpus is None:
        raise ValueError(
            f"deduplication decides which pages are {options.verdict}, over the whole corpus: "
            "give --corpus DIR"
        )
    if options.corpus is None:
        return _explain(arguments, options, None)
    with KeptCorpus(layout.absolute(options.corpus)) as corpus:
        return _explain(arguments, options, corpus)


def _explain(arguments: argparse.Namespace, options: _Options, corpus: KeptCorpus | None) -> int:
    path = _path(options.file) if options.file is not None else None
    asked = given_values(arguments, BuildConfig, *_OF_BUILD)
    if corpus is None:
        config = BuildConfig(inputs=(options.file or "none",), output="none", **asked)
    else:
        config = build_config(corpus.made, corpus.folder, asked, path)
        note_versions(corpus, config)
        if path is not None and path not in corpus.inputs:
            raise ValueError(f"{corpus.folder} was not built from {path} (--corpus)")
    if options.verdict is not None and not _may_be(options.verdict, config.recipe):
        raise ValueError(
            f"unknown verdict {options.verdict!r}; known: {', '.join(PageVerdict)} (--verdict)"
        )
    advice, judging = ": --corpus DIR", corpus
    if corpus is not None and not corpus.has_pages:
        _require_file(corpus, path, options)
        advice, judging = "", None
    advice = f" (deduplication not considered{advice})"
    recipe, unit = config.recipe, config.recipe.dedup_unit
    if unit == "none" and not recipe.dedup_urls and recipe.near_dedup is None:
        advice = ""
    if recipe.rules and not config.allow_rules:
        modules = ",".join(modules_of(recipe.rules))
        advice = f" (rules of your own not considered: --allow-rules {modules}){advice}"
    printed = 0
    explainer = Explainer(config, judging, options.url, options.verdict)
    for account in explainer.explain(path):
        if isinstance(account, Account):
            print_account(account, path is None, unit, advice)
        else:
            print_rejected(account, path is None)
        printed += isinstance(account, Account) or options.url is not None
    if printed:
        return 0
    where = path if path is not None else options.corpus
    if explainer.skipped:
        where = f"the WET files of {where} that were not skipped"
    asked_for = [f"the address {options.url}"] if options.url else []
    asked_for += [f"the verdict {options.verdict}"] if options.verdict else []
    has = f"has {' and '.join(asked_for)}" if asked_for else "can be read"
    print_note(f"c4: no page of {where} {has}")
    return 1


def _path(file: str) -> str:
    try:
        paths = storage.match(file)
    except storage.NoInputError as error:
        raise storage.NoInputError(str(error).replace("(--input)", "(FILE)")) from None
    if len(paths) > 1:
        raise ValueError(f"{file!r} matches {len(paths)} files: give one")
    return layout.absolute(paths[0].path)


def _may_be(verdict: str, recipe: Recipe) -> bool:
    """Return whether a page can have this verdict: ours, or perhaps that of a user's rule."""
    return verdict in list(PageVerdict) or (bool(recipe.rules) and is_verdict(verdict))


def note_versions(corpus: KeptCorpus, config: BuildConfig) -> None:
    """Print a note if the corpus was built with other versions of what judges pages."""
    if versions := other_versions(corpus.made, config):
        print_note(
            f"c4: note: {corpus.folder} was built with other versions ({versions}), which may "
            "have judged lines and pages differently"
        )


def _require_file(corpus: KeptCorpus, path: str | None, options: _Options) -> None:
    """Refuse what only kept pages can answer, and print that deduplication is not considered."""
    lacks = corpus.lacks_pages
    if path is None:
        raise ValueError(f"{lacks}; give a WET file to see it without deduplication (FILE)")
    if options.verdict in _OF_DEDUP:
        raise ValueError(f"{lacks}, so it cannot say which pages are {options.verdict}")
    print_note(f"c4: note: {lacks}; deduplication is not considered")
