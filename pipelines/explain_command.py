"""``c4 explain``: what each rule did to each page of a WET file, line by line."""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence

from c4_filters.explain import ExplainedPage, explain_page
from c4_filters.pages import PageRules, RawPage, tf_pages
from c4_filters.urls import normalize_url, page_key
from c4_filters.verdicts import LineVerdict, PageVerdict
from pipelines import layout, storage
from pipelines.clean_files import page_digest
from pipelines.config import BuildConfig
from pipelines.handover import SPLITS, CleanedFile, Removals
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


def run(arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    """Prints the explanation. Returns 1 when no page fits what was asked for."""
    del rest
    if arguments.verdict is not None and arguments.verdict not in list(PageVerdict):
        raise ValueError(
            f"unknown verdict {arguments.verdict!r}; known: {', '.join(PageVerdict)} (--verdict)"
        )
    # The same checks as a build's; there is no output.
    config = BuildConfig(
        inputs=(arguments.file,),
        output="none",
        recipe=recipe_of(arguments),
        badwords=badword_lists(arguments),
        domain_list=arguments.domain_list,
        url_list=arguments.url_list,
    )
    rules = config.page_rules()
    paths = storage.match(arguments.file)
    if len(paths) > 1:
        raise ValueError(f"one file at a time, {arguments.file!r} names {len(paths)}")
    path, _ = paths[0]
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
        if arguments.verdict is not None and explained.result.verdict != arguments.verdict:
            continue
        _print_page(explained, offset)
        if corpus is not None and explained.result.verdict is PageVerdict.KEPT:
            corpus.print_removed(page, explained.result.text)
        printed += 1
    if not printed:
        what = arguments.url or arguments.verdict or "page"
        print(f"c4: no page of {path} fits: {what}", file=sys.stderr)
        return 1
    return 0


def _pages(path: str, rules: PageRules) -> Iterator[tuple[int, RawPage] | str]:
    """Pages with their offsets; records that are no pages as a line for people."""
    with storage.open_raw(path) as stream:
        try:
            for record in read_wet(stream, ReadStats()):
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
    print(f"  page {result.verdict}{note}\n")


def _shortened(text: str) -> str:
    shown = printable(text)
    return shown if len(shown) <= _LINE_CHARS else shown[: _LINE_CHARS - 1] + "…"


class _Corpus:
    """A corpus' removals for one of its WET files."""

    def __init__(self, folder: str, path: str, config: BuildConfig) -> None:
        from pipelines import manifest

        made = manifest.read_manifest(folder)
        name = made["recipe"]["name"]
        if name != config.recipe.name:
            raise ValueError(
                f"{folder} was built with recipe {name}, not {config.recipe.name}: "
                f"say --recipe {name} (--corpus)"
            )
        full_path = layout.absolute(path)
        self._name = layout.file_name(full_path)
        self._folder = folder
        if all(file["path"] != full_path for file in made["inputs"]):
            raise ValueError(f"{folder} was not built from {full_path} (--corpus)")

    def print_removed(self, page: RawPage, text: str) -> None:
        """Prints what deduplication took from a page that the rules kept as ``text``."""
        key, digest = page_key(normalize_url(page.url)), page_digest(page, text)
        with (
            CleanedFile(layout.cleaned(self._folder, self._name)) as cleaned,
            Removals(layout.removals(self._folder, self._name), cleaned.pages) as removals,
        ):
            for split in range(len(SPLITS)):
                for rows, first_page, first_unit in cleaned.slices(split, key, key + 1):
                    at = first_unit
                    for row, kept in enumerate(rows.to_pylist()):
                        starts = kept["unit_starts"]
                        gone = removals.units(at, len(starts))
                        at += len(starts)
                        if kept["digest"] != digest:  # another page of this url
                            continue
                        outdated = bool(removals.pages(first_page + row, 1)[0])
                        self._print(kept["text"], starts, gone.tolist(), outdated)

    @staticmethod
    def _print(text: str, starts: list[int], gone: list[bool], outdated: bool) -> None:
        if outdated:
            print("  deduplication: a newer page has this url; the page goes\n")
            return
        ends = [*starts[1:], len(text)]
        for start, end, removed in zip(starts, ends, gone, strict=True):
            if removed:
                print(f"  {'duplicate':>15} | {_shortened(text[start:end].rstrip())}")
        print(f"  deduplication took {sum(gone)} of {len(starts)} units\n")
