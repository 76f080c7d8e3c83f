"""``c4 why``: where a page or a sentence of a corpus came from, and why it is in or out."""

import argparse
import dataclasses
import json

from pipelines.commands.explain import note_versions
from pipelines.config import BuildConfig
from pipelines.corpus import layout
from pipelines.options import add_options, given_values, option
from pipelines.printing import counted, print_note
from pipelines.provenance.answers import answer_of, ask, is_address
from pipelines.provenance.built_with import build_config
from pipelines.provenance.explainer import Account
from pipelines.provenance.kept import KeptCorpus
from pipelines.provenance.printed import print_account, print_rejected

_LISTS = ("badwords", "domain_list", "url_list", "allow_rules")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options:
    """What to ask of which corpus."""

    question: str | None = option(
        "an address, in any form that is equal when normalised; or one sentence, in quotes",
        "question", default=None, metavar="URL|SENTENCE", nargs="?",
    )  # fmt: skip
    corpus: str = option("a finished corpus, built with --keep all", metavar="DIR")
    json: bool = option("print the answer as JSON: an object, or a list of several", default=False)
    index: bool = option(
        "build the index first, which the first sentence asked would build", default=False
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``c4 why``."""
    parser.epilog = (
        "A corpus that was built with lists of your own needs the same options again.\n\n"
        "exit status: 0 found; 1 failed, or nothing has that address or sentence"
    )
    add_options(parser, _Options)
    add_options(parser, BuildConfig, *_LISTS)


def run(arguments: argparse.Namespace) -> int:
    """Print the answer. Return 1 if there is none."""
    options = _Options(**given_values(arguments, _Options))
    if options.question is None and not options.index:
        arguments.parser.error("give a URL or a sentence, or --index")
    with KeptCorpus(layout.absolute(options.corpus)) as corpus:
        lists = given_values(arguments, BuildConfig, *_LISTS)
        config = build_config(corpus.made, corpus.folder, lists)
        note_versions(corpus, config)
        if options.index:
            corpus.require_index()
        if options.question is None:
            return 0
        found = ask(corpus, config, options.question)
    if options.json:
        answers = [answer_of(each, options.question).as_dict() for each in found.accounts]
        shown = answers[0] if len(answers) == 1 else answers
        print(json.dumps(shown, indent=2))
    else:
        for account in found.accounts:
            if isinstance(account, Account):
                unit = config.recipe.dedup_unit
                print_account(account, True, unit, sentence=found.sentence)
            else:
                print_rejected(account, True)
    if found.sentence is not None and found.total > len(found.accounts):
        print_note(
            f"c4: note: this sentence is on cleaned pages {counted(found.total, 'time')}; "
            f"{counted(len(found.accounts), 'page')} shown, those that keep it first"
        )
    if found.accounts:
        return 0
    missing = []
    if is_address(options.question.strip()):
        missing.append(f"no record of {options.corpus} has the address {options.question}")
    if found.sentence is not None:
        missing.append(f"no cleaned page of {options.corpus} has this sentence: {options.question}")
    for line in missing:
        print_note(f"c4: {line}")
    return 1
