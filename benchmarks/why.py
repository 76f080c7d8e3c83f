"""Compare the answers of ``c4 why`` with what the WET records say, read by another reader.

    python -m benchmarks.why CORPUS                          # 10,000 addresses, 10,000 sentences
    python -m benchmarks.why CORPUS --urls 100 --sentences 100 --seed 2

The records of all WET files are read with FastWARC and judged one by one with the rules of the
corpus, and the pages that are written are read from its Parquet shards, not by our readers. Then,
of addresses drawn from all records, and of sentences drawn from those that pass the rules:

- an answer names exactly the records that have the address or sentence, at their offsets, with
  their lines;
- the page is "written" if and only if a shard has it; before deduplication the verdict of the page
  and of each line is that of the rules;
- a line that is "duplicate" is missing from the shard, another that is "kept" has a part there;
- the page that keeps a copy of a sentence passed the rules with that sentence.

Prints seconds a question; fails at the first answer that is wrong, and beyond the bar of one second
once the index exists.
"""

import argparse
import dataclasses
import glob
import random
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence

import pyarrow.parquet as pq
from fastwarc import ArchiveIterator, WarcRecordType

from c4_filters.lines import PAGE_DROPPING, judge_line, split_lines
from c4_filters.pages import CleanPage, PageRules, RawPage
from c4_filters.urls import normalize_url
from c4_filters.verdicts import BEFORE_LINES, LineVerdict, PageVerdict
from pipelines.provenance.answers import Answer, answer_of, ask, is_address
from pipelines.provenance.built_with import build_config
from pipelines.provenance.kept import KeptCorpus
from pipelines.stages.clean_files import read_rejects

_BAR_S = 1.0
_ACCIDENT = re.compile(r"^\s*(WARC|CONTENT-|Content-)", re.MULTILINE)  # TF takes it for a header
_MOST_PAGES = 20  # of a sentence: pipelines.provenance.answers

Key = tuple[str, int]  # WET file, offset


@dataclasses.dataclass
class _Record:
    url: str
    text: str
    before: CleanPage  # what the rules before deduplication make of it


class _Material:
    """All records and all written pages of a corpus, in memory."""

    def __init__(self, folder: str, corpus: KeptCorpus, rules: PageRules) -> None:
        self.rules = rules
        self.records: dict[Key, _Record] = {}
        self.by_url: dict[str, set[Key]] = defaultdict(set)
        for path in sorted(corpus.inputs):
            rejected = {reject["offset"] for reject in read_rejects(folder, path)}
            for key, url, text in _read(path):
                if key[1] in rejected or (
                    rules.recipe.drop_parser_accidents and _ACCIDENT.search(text)
                ):
                    continue  # no page, or read as another text
                page = RawPage(url, "", "", "", text)
                self.records[key] = _Record(url, text, rules.clean(page, Counter()))
                self.by_url[normalize_url(url)].add(key)
        self.written: dict[str, list[str]] = defaultdict(list)
        for name in glob.glob(f"{folder}/*.parquet"):
            table = pq.read_table(name, columns=["url", "text"])
            for url, text in zip(
                *(table[name].to_pylist() for name in ("url", "text")), strict=True
            ):
                self.written[normalize_url(url)].append(text)

    def sentences_of(self, key: Key) -> list[str]:
        """Return the sentences of a record that pass the rules."""
        return self.sentences(self.records[key].before.text)

    def sentences(self, text: str) -> list[str]:
        """Return the sentences of a text."""
        starts = self.rules.splitter.line_starts(text) if text else []
        return [text[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)]


def _read(path: str) -> list[tuple[Key, str, str]]:
    found = []
    with open(path, "rb") as stream:
        for record in ArchiveIterator(stream, record_types=WarcRecordType.conversion):
            url = record.headers.get("WARC-Target-URI", "").strip("<>")
            text = record.reader.read()
            try:
                found.append(((path, record.stream_pos), url, text.decode()))
            except UnicodeDecodeError:
                continue  # rejected, too
    return found


def check(folder: str, urls: int, sentences: int, seed: int) -> dict[str, float]:
    """Compare answers with the records; return the mean and longest seconds a question.

    Raises:
        AssertionError: An answer is wrong.
    """
    with KeptCorpus(folder) as corpus:
        return _check(folder, corpus, urls, sentences, seed)


def _check(
    folder: str, corpus: KeptCorpus, urls: int, sentences: int, seed: int
) -> dict[str, float]:
    config = build_config(corpus.made, folder, {})
    corpus.require_index()
    material = _Material(folder, corpus, config.page_rules())
    draw = random.Random(seed)
    times: dict[str, list[float]] = {"url": [], "sentence": []}

    def answers(kind: str, question: str) -> tuple[list[Answer], int]:
        started = time.perf_counter()
        found = ask(corpus, config, question)
        given = [answer_of(account, question) for account in found.accounts]
        times[kind].append(time.perf_counter() - started)
        return given, found.total

    keys = sorted(material.records)
    for key in _drawn(draw, keys, urls):
        url = material.records[key].url
        given, _ = answers("url", url)
        wanted = material.by_url[normalize_url(url)]
        assert {tuple(answer.source) for answer in given} == wanted, (url, given, wanted)
        assert len(given) == len(wanted), url
        written = sum(answer.fate == "written" for answer in given)
        assert written == len(material.written[normalize_url(url)]), (url, written)
        for answer in given:
            _check_answer(material, answer)
            _check_duplicates(material, answer)
    passed = [key for key in keys if material.records[key].before.text]
    asked = [
        (key, sentence)
        for key in _drawn(draw, passed, sentences)
        if not is_address(sentence := draw.choice(material.sentences_of(key)))
    ]
    holders: dict[str, set[Key]] = {sentence.lower(): set() for _, sentence in asked}
    for key in passed:
        for sentence in material.sentences_of(key):
            if sentence.lower() in holders:
                holders[sentence.lower()].add(key)
    for key, sentence in asked:
        given, total = answers("sentence", sentence)
        wanted, found = holders[sentence.lower()], {tuple(answer.source) for answer in given}
        assert key in wanted, (key, sentence)
        assert len(found) == len(given) == min(len(wanted), _MOST_PAGES), (sentence, found, wanted)
        assert found <= wanted, (sentence, found - wanted)
        assert total >= len(wanted), (sentence, total)
        for answer in given:
            _check_answer(material, answer)
            _check_sentence(material, answer, sentence)
    return {
        f"{kind}_{name}": value
        for kind, spent in times.items()
        if spent
        for name, value in (("mean_s", sum(spent) / len(spent)), ("longest_s", max(spent)))
    }


def _drawn(draw: random.Random, keys: Sequence[Key], count: int) -> list[Key]:
    return draw.sample(keys, count) if count <= len(keys) else draw.choices(keys, k=count)


def _check_answer(material: _Material, answer: Answer) -> None:
    record = material.records[tuple(answer.source)]
    before = record.before.verdict
    assert answer.url == record.url, answer
    assert (answer.fate == "written") == (answer.verdict == "kept"), answer
    if before is not PageVerdict.KEPT:
        assert answer.verdict == before, (answer, before)
    assert answer.lines is not None
    assert [line.text for line in answer.lines] == split_lines(record.text), answer.source
    texts = material.written[normalize_url(record.url)] if answer.fate == "written" else []
    expected = _line_verdicts(material.rules, record)
    for line, (verdict, kept_as) in zip(answer.lines, expected, strict=True):
        if line.verdict == LineVerdict.DUPLICATE:
            assert verdict == LineVerdict.KEPT, (answer.source, line)
            others = sum(
                line.verdict == LineVerdict.KEPT and kept_as == each
                for line, (_, each) in zip(answer.lines, expected, strict=True)
            )  # the same line elsewhere on the page
            assert all(text.split("\n").count(kept_as) <= others for text in texts), answer
            continue
        assert line.verdict == verdict, (answer.source, line, verdict)
        if verdict == LineVerdict.KEPT and answer.fate == "written":
            parts = material.sentences(kept_as)
            stays = any(part in text for text in texts for part in parts)
            assert stays, (answer.source, line)
    for keeper in answer.kept_by:
        assert keeper.url is not None, answer
        if keeper.sentence is None:  # a near duplicate
            assert material.written[normalize_url(keeper.url)], (answer.source, keeper)
            continue
        sentence = keeper.sentence.strip().lower()
        held = [
            each.lower()
            for key in material.by_url[normalize_url(keeper.url)]
            for each in material.records[key].before.text.split("\n")
        ]
        assert any(sentence in line for line in held), (answer.source, keeper)


def _check_duplicates(material: _Material, answer: Answer) -> None:
    """Check that deduplication removed every sentence of a line that is "duplicate"."""
    assert answer.lines is not None
    removed = {part for keeper in answer.kept_by for part in (keeper.sentence or "").split("\n")}
    for line in answer.lines if material.rules.recipe.dedup_unit == "sentences" else ():
        kept_as = judge_line(line.text, material.rules.recipe)[1]
        if line.verdict == LineVerdict.DUPLICATE:
            assert removed.issuperset(material.sentences(kept_as)), (answer.source, line)


def _line_verdicts(rules: PageRules, record: _Record) -> list[tuple[str, str]]:
    judged: list[tuple[str, str]] = []
    unjudged = record.before.verdict in BEFORE_LINES
    for line in split_lines(record.text):
        if unjudged:
            judged.append((LineVerdict.ON_DROPPED_PAGE, line))
        elif not rules.recipe.line_rules:
            judged.append((LineVerdict.KEPT, line))
        else:
            judged.append(judge_line(line, rules.recipe))
            unjudged = judged[-1][0] in PAGE_DROPPING
    return judged


def _check_sentence(material: _Material, answer: Answer, sentence: str) -> None:
    """Check that a sentence is in the written page, or that another page keeps its copy."""
    url = normalize_url(answer.url)
    if answer.fate == "written" and not answer.kept_by:
        texts = [text.lower() for text in material.written[url]]
        assert any(sentence.lower() in text for text in texts), (answer, sentence)


def main(argv: Sequence[str] | None = None) -> int:
    """Check, and print the times. Return 1 beyond the bar."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", metavar="CORPUS")
    parser.add_argument("--urls", type=int, default=10_000, metavar="N")
    parser.add_argument("--sentences", type=int, default=10_000, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="S")
    options = parser.parse_args(argv)
    found = check(options.corpus, options.urls, options.sentences, options.seed)
    print(f"{options.urls:,} addresses and {options.sentences:,} sentences: all answers right")
    for name, value in found.items():
        print(f"{name:>18} {value:.4f}")
    return int(max(found.values(), default=0.0) > _BAR_S)


if __name__ == "__main__":
    sys.exit(main())
