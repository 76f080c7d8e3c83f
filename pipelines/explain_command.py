"""``c4 explain``: what each rule did to each page of a WET file, line by line."""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence

from c4_filters.explain import ExplainedPage, explain_page
from c4_filters.pages import PageRules, RawPage, tf_pages
from c4_filters.recipes import Recipe, load_recipe
from c4_filters.spans import cut
from c4_filters.urls import normalize_url, page_key
from c4_filters.verdicts import LineVerdict, PageVerdict
from pipelines import layout, storage
from pipelines.clean_files import page_digest
from pipelines.config import BuildConfig
from pipelines.corpus.cleaned import SPLITS, CleanedFile
from pipelines.corpus.removals import Removals
from pipelines.printing import printable
from pipelines.read_wet import ReadStats, Reject, UnreadableWetError, read_wet
from pipelines.recipe_option import add_recipe_arguments, badword_lists, recipe_of

__all__ = ["add_arguments", "run"]

_LINE_CHARS = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``c4 explain``."""
    parser.epilog = (
        "Deduplication needs the whole corpus: give a finished one made from this file with\n"
        "--corpus to see which sentences it took."
    )
    parser.add_argument("file", metavar="FILE", help="a WET file")
    parser.add_argument("--url", help="only the page of this address (compared in normalised form)")
    parser.add_argument(
        "--verdict", metavar="NAME", help="only pages of this verdict, such as few_sentences"
    )
    parser.add_argument(
        "--corpus", metavar="DIR", help="a corpus built from this file, to show deduplication"
    )
    add_recipe_arguments(parser)
    parser.set_defaults(recipe=None)  # that of the corpus, or en


# Verdicts that only a whole corpus tells.
_OF_DEDUP = {
    PageVerdict.DUPLICATE_URL,
    PageVerdict.EMPTY_AFTER_DEDUP,
}


def run(arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    """Prints the explanation. Returns 1 when no page fits what was asked for."""
    del rest
    if arguments.verdict is not None and arguments.verdict not in list(PageVerdict):
        raise ValueError(
            f"unknown verdict {arguments.verdict!r}; known: {', '.join(PageVerdict)} (--verdict)"
        )
    if arguments.verdict in _OF_DEDUP and arguments.corpus is None:
        raise ValueError(f"{arguments.verdict} is known over a whole corpus only: give --corpus")
    # The same checks as a build's; there is no output.
    config = BuildConfig(
        inputs=(arguments.file,),
        output="none",
        recipe=_recipe(arguments),
        badwords=badword_lists(arguments),
        domain_list=arguments.domain_list,
        url_list=arguments.url_list,
    )
    rules = config.page_rules()
    paths = storage.match(arguments.file)
    if len(paths) > 1:
        raise ValueError(f"one file at a time, {arguments.file!r} names {len(paths)}")
    path = paths[0].path
    corpus = None
    if arguments.corpus is not None:
        corpus = _Corpus(arguments.corpus, path, config)
    wanted = normalize_url(arguments.url) if arguments.url else None
    printed = 0
    for item in _pages(path, rules):
        if isinstance(item, str):
            if wanted is None and arguments.verdict is None:
                print(item)
            continue
        offset, page = item
        if wanted is not None and normalize_url(page.url) != wanted:
            continue
        explained = explain_page(page, rules)
        verdict, removed = explained.result.verdict, None
        if corpus is not None and verdict is PageVerdict.KEPT:
            verdict, removed = corpus.fate(page, explained.result.text, rules)
        if arguments.verdict is not None and verdict != arguments.verdict:
            continue
        _print_page(explained, offset)
        if removed is not None:
            _print_removed(verdict, removed)
        print()
        printed += 1
    if not printed:
        what = f"has the address {arguments.url}" if arguments.url else "is there"
        if arguments.verdict:
            what += f" with the verdict {arguments.verdict}"
        print(f"c4: in {path} no page {what}", file=sys.stderr)
        return 1
    return 0


def _recipe(arguments: argparse.Namespace) -> Recipe:
    if arguments.recipe is not None:
        return recipe_of(arguments)
    if arguments.corpus is None:
        return load_recipe("en")
    from pipelines import manifest

    return Recipe.from_mapping(manifest.read_manifest(arguments.corpus)["recipe"])


def _pages(path: str, rules: PageRules) -> Iterator[tuple[int, RawPage] | str]:
    """Pages with their offsets; records that are no pages as a line for people."""
    with storage.open_raw(path) as stream:
        try:
            for record in read_wet(stream, ReadStats(), as_tf=rules.recipe.drop_parser_accidents):
                if isinstance(record, Reject):
                    yield f"rejected at {record.offset}: {record.reason}: {record.detail}\n"
                    continue
                page = RawPage(
                    record.url,
                    record.timestamp,
                    record.content_type,
                    record.content_length,
                    record.text,
                )
                if rules.recipe.drop_parser_accidents:
                    for part in tf_pages(page, Counter()):
                        if part.url and part.timestamp:
                            yield record.offset, part
                        else:  # a build rejects it, too
                            yield f"rejected at {record.offset}: begun by a body line WARC/1.0\n"
                else:
                    yield record.offset, page
        except UnreadableWetError as error:
            raise ValueError(f"{path}: {error}") from None


def _print_page(explained: ExplainedPage, offset: int) -> None:
    page, result = explained.page, explained.result
    print(f"{printable(page.url)}  ({printable(page.timestamp)}, offset {offset})")
    for line in explained.lines:
        verdict = "not judged" if line.verdict is None else str(line.verdict)
        print(f"  {verdict:>15} | {_shortened(line.text)}")
        if line.verdict is LineVerdict.KEPT and line.kept_as != line.text:
            print(f"  {'kept as':>15} | {_shortened(line.kept_as)}")
    note = f": {explained.note}" if explained.note else ""
    print(f"  page {result.verdict}{note}")


def _print_removed(verdict: PageVerdict, removed: list[tuple[str, bool]]) -> None:
    for text, goes in removed:
        if goes:
            print(f"  {'duplicate':>15} | {_shortened(text)}")
    count = sum(goes for _, goes in removed)
    what = f"{count} of {len(removed)} removed" if count else "nothing removed"
    print(f"  after deduplication, {what}: page {verdict}")


def _shortened(text: str) -> str:
    shown = printable(text)
    return shown if len(shown) <= _LINE_CHARS else shown[: _LINE_CHARS - 1] + "…"


class _Corpus:
    """A corpus' removals for one of its WET files."""

    def __init__(self, folder: str, path: str, config: BuildConfig) -> None:
        from pipelines import manifest

        made = manifest.read_manifest(folder)
        asked = {
            key: value for key, value in config.recipe.as_dict().items() if key != "description"
        }
        if any(made["recipe"].get(key) != value for key, value in asked.items()):
            raise ValueError(
                f"{folder} was built with recipe {made['recipe'].get('name')}, not "
                f"{config.recipe.name} as it stands: leave --recipe out (--corpus)"
            )
        full_path = layout.absolute(path)
        self._name = layout.file_name(full_path)
        self._folder = folder
        if all(file["path"] != full_path for file in made["inputs"]):
            raise ValueError(f"{folder} was not built from {full_path} (--corpus)")

    def fate(
        self, page: RawPage, text: str, rules: PageRules
    ) -> tuple[PageVerdict, list[tuple[str, bool]]]:
        """What deduplication made of a page that the rules kept as ``text``.

        Returns the page's verdict and its sentences (or lines), each with whether it goes.
        """
        key, digest = page_key(normalize_url(page.url)), page_digest(page, text)
        with (
            CleanedFile(layout.cleaned(self._folder, self._name)) as cleaned,
            Removals(layout.removals(self._folder, self._name)) as removals,
        ):
            for split in range(len(SPLITS)):
                for rows, first_page, first_unit in cleaned.slices(split, key, key + 1):
                    at = first_unit
                    for row, kept in enumerate(rows.to_pylist()):
                        starts = kept["unit_starts"]
                        gone = removals.units(at, len(starts)).tolist()
                        at += len(starts)
                        if kept["digest"] != digest:  # another page of this url
                            continue
                        if removals.pages(first_page + row, 1)[0]:
                            return PageVerdict.DUPLICATE_URL, []
                        ends = [*starts[1:], len(text)]
                        units = [
                            (text[start:end].rstrip(), goes)
                            for start, end, goes in zip(starts, ends, gone, strict=True)
                        ]
                        left = None
                        if rules.recipe.dedup_unit == "sentences":
                            left = gone.count(False)
                        elif not any(gone):  # a build does not judge such a page again
                            return PageVerdict.KEPT, units
                        result = rules.finish(cut(text, starts, gone), left, page.url)
                        return result.verdict, units
        raise ValueError(f"{self._folder} does not hold {page.url}: its files do not fit together")
