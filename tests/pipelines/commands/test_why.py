import gzip
import json
import os
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest

from c4_filters.urls import normalize_url, page_key
from c4_filters.verdicts import PageVerdict
from pipelines import why
from pipelines.corpus import layout
from pipelines.corpus.removals import PAGE_VERDICTS, Removals, write_removals
from pipelines.provenance import kept
from testing.helpers import Page, run_c4, wet_bytes, write_wet

pytestmark = pytest.mark.slow

OLD, NEW = "2019-04-18T10:00:00Z", "2019-04-20T10:00:00Z"
SHARED = "The old harbour was rebuilt by hand. It took two winters. Nobody had a machine."
OWN = [
    f"The {what} was older than the church. It stood by the water. People liked it very much."
    for what in ("mill", "inn", "ferry house", "lime kiln")
]
MILL, INN = "http://www.a.example/mill/", "http://b.example/inn"
FIRST: list[Page] = [
    (MILL, OLD, f"Menu\n{SHARED}\n{OWN[0]}"),
    ("http://c.example/ferry", OLD, f"{OWN[2]}\nIt is out of date."),
    ("http://d.example/short", OLD, "Menu\nToo short to stay for long."),
    ("http://e.example/code", OLD, "It is a good day for a walk.\nif (a) { b; and so on and on."),
]
SECOND: list[Page] = [
    (INN, OLD, f"{OWN[1]}\n{SHARED}"),
    ("http://c.example/ferry/", NEW, f"{OWN[2]}\nIt is quite up to date by now."),
]


@pytest.fixture(scope="module")
def wet(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("wet")
    write_wet(folder / "1.warc.wet.gz", FIRST)
    write_wet(folder / "2.warc.wet.gz", SECOND)
    return folder


@pytest.fixture(scope="module")
def built(wet: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("corpus") / "out"
    outcome = run_c4("build", "--input", wet / "*.gz", "--output", out, "--workers", 1, "--quiet")
    assert outcome.status == 0, outcome.err
    return out


@pytest.fixture(params=["scanned", "indexed"])
def corpus(
    request: pytest.FixtureRequest, built: pathlib.Path, tmp_path: pathlib.Path
) -> pathlib.Path:
    out = tmp_path / "out"
    shutil.copytree(built, out)
    if request.param == "indexed":
        assert run_c4("why", "--corpus", out, "--index") == (0, "", "")
    return out


def ask(corpus: pathlib.Path, question: str) -> Any:
    outcome = run_c4("why", "--corpus", corpus, question, "--json")
    assert (outcome.status, outcome.err) == (0, "")
    return json.loads(outcome.out)


def test_an_address_tells_its_record_its_lines_and_who_keeps_its_sentences(
    wet: pathlib.Path, corpus: pathlib.Path
) -> None:
    keeper, loser = sorted((MILL, INN), key=lambda url: page_key(normalize_url(url)))
    sentences = [f"{sentence.rstrip('.')}." for sentence in SHARED.split(". ")]
    for url in (loser, keeper):
        answer = ask(corpus, normalize_url(url))
        assert list(answer) == ["url", "source", "fate", "verdict", "lines", "kept_by"]
        assert (answer["url"], answer["fate"], answer["verdict"]) == (url, "written", "kept")
        path, pages = ("1", FIRST) if url == MILL else ("2", SECOND)
        assert answer["source"] == {
            "file": str(wet / f"{path}.warc.wet.gz"),
            "offset": len(wet_bytes(pages[:0])),
        }
        lines = [(line["text"], line["verdict"]) for line in answer["lines"]]
        text = next(text for other, _, text in pages if other == url)
        verdicts = {"Menu": "no_end_mark", SHARED: "duplicate" if url == loser else "kept"}
        assert lines == [(line, verdicts.get(line, "kept")) for line in text.split("\n")]
        kept_by = [{"sentence": sentence, "url": keeper} for sentence in sentences]
        assert answer["kept_by"] == (kept_by if url == loser else [])


def test_an_address_with_several_records_is_a_list(corpus: pathlib.Path) -> None:
    written, outdated = ask(corpus, "https://c.example/ferry?utm_source=x")
    assert (written["url"], written["fate"]) == ("http://c.example/ferry/", "written")
    assert (outdated["fate"], outdated["verdict"]) == ("dropped", "duplicate_url")
    assert [line["verdict"] for line in outdated["lines"]] == ["kept", "kept"]


def test_pages_that_the_rules_dropped_have_their_verdicts(corpus: pathlib.Path) -> None:
    short, code = ask(corpus, "d.example/short"), ask(corpus, "e.example/code")
    assert (short["fate"], short["verdict"]) == ("dropped", "few_sentences")
    assert [line["verdict"] for line in short["lines"]] == ["no_end_mark", "kept"]
    assert (code["verdict"], code["kept_by"]) == ("curly_bracket", [])
    assert [line["verdict"] for line in code["lines"]] == ["kept", "curly_bracket"]


def test_a_sentence_is_found_where_deduplication_removed_it_too(corpus: pathlib.Path) -> None:
    keeper, loser = sorted((MILL, INN), key=lambda url: page_key(normalize_url(url)))
    for question in ("It took two winters.", "  it took two\n winters. "):
        answers = {answer["url"]: answer for answer in ask(corpus, question)}
        assert answers.keys() == {keeper, loser}
        assert answers[keeper]["kept_by"] == []
        found = [{"sentence": "It took two winters.", "url": keeper}]
        assert answers[loser]["kept_by"] == found
    shown = run_c4("why", "--corpus", corpus, "It took two winters.").out
    assert shown.count("kept | The old harbour was rebuilt by hand. It took two winters.") == 2
    assert f"      duplicate | It took two winters.\n               of | {keeper}\n" in shown
    assert "Menu" not in shown


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("Menu", "no cleaned page of {corpus} has this sentence: Menu"),
        ("Too short to stay for long.", "no cleaned page of {corpus} has this sentence: Too short"),
        ("http://z.example/", "no record of {corpus} has the address http://z.example/"),
        ("It took two winters. Nobody had a machine.", "error: the question reads as 2 sentences"),
        ("f.example/no", "no record of {corpus} has the address f.example/no\nc4: no cleaned page"),
        (" ", "error: the question is empty"),
        ("It took \udcff winters.", "error: the question is not UTF-8"),
    ],
)
def test_what_is_nowhere_is_status_1(built: pathlib.Path, question: str, message: str) -> None:
    outcome = run_c4("why", "--corpus", built, question)
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err.startswith(f"c4: {message.format(corpus=built)}")
    if "error" not in message:
        assert run_c4("why", "--corpus", built, question, "--json").out == "[]\n"


def test_without_the_file_all_but_the_lines_is_told(
    wet: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    shutil.copytree(wet, tmp_path / "wet")
    out = tmp_path / "out"
    assert run_c4("build", "--input", tmp_path / "wet" / "*.gz", "--output", out,
                  "--workers", 1, "--quiet").status == 0  # fmt: skip
    asked = (MILL, INN, "c.example/ferry", "d.example/short", "It took two winters.")
    before = [ask(out, question) for question in asked]
    shutil.rmtree(tmp_path / "wet")
    for question, answers in zip(asked, before, strict=True):
        for answer in answers if isinstance(answers, list) else [answers]:
            answer["lines"] = None
            if question.startswith("d."):  # of a dropped page, only the hash of its url is kept
                answer["url"] = question
        assert ask(out, question) == answers
    shown = run_c4("why", "--corpus", out, MILL).out
    assert "1.warc.wet.gz is gone: its lines cannot be shown\n" in shown


def test_a_rejected_record_that_names_the_address_is_told(tmp_path: pathlib.Path) -> None:
    good = wet_bytes([("http://x.example/", OLD, SHARED)])
    record = (
        b"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: http://bad.example/\r\n"
        b"WARC-Date: " + OLD.encode() + b"\r\nContent-Length: 2\r\n\r\n\xff\xfe\r\n\r\n"
    )
    (tmp_path / "a.wet.gz").write_bytes(good + gzip.compress(record))
    out = tmp_path / "out"
    assert run_c4("build", "--input", tmp_path / "a.wet.gz", "--output", out,
                  "--workers", 1, "--quiet").status == 0  # fmt: skip
    answer = ask(out, "http://bad.example/")
    assert (answer["fate"], answer["verdict"]) == ("dropped", "not_utf8")
    assert answer["source"] == {"file": str(tmp_path / "a.wet.gz"), "offset": len(good)}


def test_an_index_of_an_earlier_build_is_built_again(
    wet: pathlib.Path, built: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(built, out)
    assert len(ask(out, "It took two winters.")) == 2
    first = (out / "why" / "index.bin").read_bytes()
    more = tmp_path / "more.warc.wet.gz"
    write_wet(more, [("http://f.example/", OLD, f"{OWN[3]} {SHARED}")])
    build = ("build", "--output", out, "--workers", 1, "--quiet", "--input", wet / "*.gz")
    assert run_c4(*build).status == 0
    assert len(ask(out, "It took two winters.")) == 2
    assert (out / "why" / "index.bin").read_bytes() == first
    assert run_c4(*build, more).status == 0
    assert len(ask(out, "It took two winters.")) == 3
    assert ask(out, OWN[3].split(". ")[0] + ".")["url"] == "http://f.example/"
    (out / "why" / "index.bin").write_bytes(first)  # of another build
    assert ask(out, "f.example")["url"] == "http://f.example/"
    assert run_c4(*build, "--start-over").status == 0
    assert not (out / "why" / "index.bin").exists()


@pytest.mark.parametrize("question", ["It took two winters.", MILL])
def test_a_damaged_index_is_built_again(
    built: pathlib.Path, tmp_path: pathlib.Path, question: str
) -> None:
    out = tmp_path / "out"
    shutil.copytree(built, out)
    assert run_c4("why", "--corpus", out, "--index").status == 0
    index = out / "why" / "index.bin"
    whole, wanted = index.read_bytes(), ask(out, question)
    for place in range(20, len(whole), 40):
        index.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        assert ask(out, question) == wanted
    index.write_bytes(whole[:-200] + whole[-1:])
    assert ask(out, question) == wanted


def test_an_index_that_cannot_be_written_is_one_line(
    built: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(built, out)
    shutil.rmtree(out / "why", ignore_errors=True)
    (out / "why").symlink_to("nowhere")  # also root cannot write there
    outcome = run_c4("why", "--corpus", out, "It took two winters.")
    assert (outcome.status, outcome.err.count("\n")) == (1, 1)
    assert f"run c4 why --corpus {out} --index as a user who may" in outcome.err


def test_a_sentence_on_many_pages_shows_some_that_keep_it_first(tmp_path: pathlib.Path) -> None:
    pages = [
        (f"http://a.example/{n}", OLD, f"{SHARED} {OWN[n % 4]} Page {n} is new." * 2)
        for n in range(30)
    ]
    pages.sort(key=lambda page: page_key(normalize_url(page[0])))
    first, *others = pages
    write_wet(tmp_path / "1.wet.gz", others)
    write_wet(tmp_path / "2.wet.gz", [first])
    out = tmp_path / "out"
    assert run_c4("build", "--input", tmp_path / "*.wet.gz", "--output", out, "--workers", 1,
                  "--quiet").status == 0  # fmt: skip
    outcome = run_c4("why", "--corpus", out, "It took two winters.", "--json")
    answers = json.loads(outcome.out)
    assert len(answers) == 20
    assert answers[0]["url"] == first[0]
    assert {keeper["url"] for keeper in answers[0]["kept_by"]} == {first[0]}  # twice on the page
    assert outcome.err == (
        "c4: note: this sentence is on cleaned pages 60 times; 20 pages shown, those that keep it "
        "first\n"
    )


def test_from_python(built: pathlib.Path) -> None:
    [answer] = why(built, MILL)
    assert answer.source.file.endswith("1.warc.wet.gz")
    assert answer.as_dict() == ask(built, MILL)


def test_what_cannot_be_asked_is_one_line(built: pathlib.Path, tmp_path: pathlib.Path) -> None:
    outcome = run_c4("why", "--corpus", built)
    assert (outcome.status, outcome.out) == (2, "")
    assert "give a URL or a sentence, or --index" in outcome.err
    out = tmp_path / "out"
    shutil.copytree(built, out)
    wet = json.loads((out / "manifest.json").read_bytes())["inputs"][0]["path"]
    shutil.rmtree(out / "removals")
    outcome = run_c4("why", "--corpus", out, MILL)
    assert (outcome.status, outcome.err.count("\n")) == (1, 1)
    assert layout.file_name(wet) in outcome.err
    assert run_c4("build", "--input", os.path.dirname(wet) + "/*.gz", "--output", out, "--workers",
                  1, "--quiet", "--keep", "none").status == 0  # fmt: skip
    outcome = run_c4("why", "--corpus", out, MILL)
    assert outcome.err.endswith(
        "was built with --keep none: it has no cleaned pages; build it with --keep all\n"
    )


def test_pages_are_found_by_the_index_alone(
    built: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(built, out)
    assert run_c4("why", "--corpus", out, "--index").status == 0
    wanted = ask(out, MILL)
    opened = []
    original = kept.KeptCorpus.open

    def open_(self: kept.KeptCorpus, path: str) -> kept.KeptFile:
        opened.append(path)
        return original(self, path)

    monkeypatch.setattr(kept.KeptCorpus, "open", open_)
    assert ask(out, MILL) == wanted
    assert [path for path in opened if path.endswith("2.warc.wet.gz")] in ([], opened[1:])


@pytest.mark.parametrize("verdict", ["near_duplicate", "opted_out"])
def test_pages_that_are_removed_whole_say_why(
    wet: pathlib.Path, corpus: pathlib.Path, verdict: str
) -> None:
    path = layout.removals(str(corpus), layout.file_name(str(wet / "1.warc.wet.gz")))
    with Removals(path) as file:
        pages, units = file.pages(0, file.page_count), file.units(0, file.unit_count)
        keepers = [file.keeper_of_unit(at) for at in np.flatnonzero(units)]
        [outdated] = np.flatnonzero(pages)
        of_pages = {int(outdated): file.keeper_of_page(int(outdated))}
    [mill] = np.flatnonzero(pages == 0)
    pages = pages.copy()
    pages[mill] = PAGE_VERDICTS.index(PageVerdict(verdict))
    of_pages[int(mill)] = page_key(normalize_url(INN)) if verdict == "near_duplicate" else 0
    in_order = np.array([of_pages[at] for at in sorted(of_pages)], np.uint64)
    write_removals(path, pages, units, in_order, np.array(keepers, np.uint64), "")
    answer = ask(corpus, MILL)
    assert (answer["fate"], answer["verdict"]) == ("dropped", verdict)
    assert {line["verdict"] for line in answer["lines"]} == {"no_end_mark", "kept"}
    near = verdict == "near_duplicate"
    assert answer["kept_by"] == ([{"sentence": None, "url": INN}] if near else [])
    note = f"much of it is in {INN}" if near else "its address is on the list of --opt-out"
    for words in (["why", MILL], ["explain", "--url", MILL]):
        shown = run_c4(words[0], "--corpus", corpus, *words[1:]).out
        assert shown.endswith(f"\n  page {verdict}: {note}\n\n")
