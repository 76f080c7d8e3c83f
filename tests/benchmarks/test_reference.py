"""The reference builder: its pages, its counters, and the golden file it must equal."""

import gzip
import json
import pathlib

import pytest

pytest.importorskip("tensorflow_datasets", reason="needs the extra `tfds`")
pytest.importorskip("nltk", reason="needs the extra `dev`")

from benchmarks import reference
from testing.helpers import write_wet

SHARED = pathlib.Path(__file__).resolve().parents[2] / ".." / "shared"
SMALLEST_WET = SHARED / "wet" / "orig-04-CC-MAIN-2013-2014-2015-2024.warc.wet.gz"
GOLDEN = SHARED / "golden" / "tfds_c4"
needs_golden = pytest.mark.skipif(not GOLDEN.exists(), reason="needs ../shared/golden")

WORDS = ["heckbadger", "two words"]
EARLIER, LATER = "2026-03-08T12:00:00Z", "2026-03-09T12:00:00Z"

BRIDGE = """\
The old bridge was closed in spring because two of its arches had moved.
Engineers measured the gap every morning and wrote the figures in a book.
By the end of the summer the arches had come to rest again.
"""
GARDEN = """\
A hedge of hornbeam keeps the wind away from the beds behind the house.
Peas and beans are sown there as soon as the soil is dry enough to rake.
The gardener waters them at dawn and never in the heat of the day.
"""
GARDEN_FIRST_LINE = GARDEN.splitlines(keepends=True)[0]
GERMAN = """\
Die alte Brücke wurde im Frühling gesperrt, weil sich zwei Bögen bewegt hatten.
Jeden Morgen wurde der Abstand gemessen und in ein dickes Heft geschrieben.
Gegen Ende des Sommers kamen die Bögen langsam wieder zur Ruhe.
"""
RUDE = """\
The carter shouted at his horses the whole way up the hill to the mill.
He called the smallest of them a heckbadger, and the miller closed his door.
Nobody in the village would lend him a wagon for the rest of that year.
"""
CODE = """\
The second chapter shows how a loop is written in four older languages.
Every one of them opens a block with the sign { and closes it with another.
The exercises at the end of the chapter ask for the same loop in a fifth.
"""
GATE = "Visitors are asked to leave the gate as they have found it.\n"

PAGES = [
    ("http://www.bridge.example/", EARLIER, BRIDGE + "This line was on the older copy only.\n"),
    ("http://garden.example/beds", EARLIER, GARDEN + GATE.upper() + GARDEN_FIRST_LINE),
    ("http://bridge.example?utm_source=mail", LATER, "Menu\n" + BRIDGE + GATE + "Read more...\n"),
    ("http://bruecke.example", EARLIER, GERMAN),
    ("http://rude.example", EARLIER, RUDE),
    ("http://code.example", EARLIER, CODE),
    ("http://empty.example", EARLIER, ""),
]


def build(tmp_path, pages):
    path = tmp_path / "pages.warc.wet.gz"
    write_wet(path, pages)
    return reference.run_reference([path], WORDS)


@pytest.mark.slow
def test_a_hand_made_corpus_comes_out_as_read_off_the_published_rules(tmp_path):
    # The later copy of the bridge stays. The gate line stays where the md5 of the url is smaller:
    # e4dd... for the bridge, e6c6... for the garden, which comes first in the file.
    assert build(tmp_path, PAGES) == [
        {
            "content-length": str(len("Menu\n" + BRIDGE + GATE + "Read more...\n")),
            "content-type": "text/plain",
            "text": (BRIDGE + GATE).strip(),
            "timestamp": LATER,
            "url": "http://bridge.example?utm_source=mail",
        },
        {
            "content-length": str(len(GARDEN + GATE + GARDEN_FIRST_LINE)),
            "content-type": "text/plain",
            "text": GARDEN.strip(),
            "timestamp": EARLIER,
            "url": "http://garden.example/beds",
        },
    ]


@needs_golden
def test_pages_of_one_file_equal_the_golden_rows_of_its_urls():
    """Lines that other files repeat may be missing from the golden rows, and only those."""
    words = (GOLDEN / "badwords-en.txt").read_text(encoding="utf-8").splitlines()
    pages = reference.run_reference([SMALLEST_WET], words)
    with gzip.open(GOLDEN / "en.jsonl.gz", "rt", encoding="utf-8") as lines:
        golden = {page["url"]: page for page in map(json.loads, lines)}
    json_lines = [reference.json_line(page) for page in pages]
    assert json_lines == sorted(json_lines)
    compared = equal = 0
    for page in pages:
        if page["url"] not in golden:
            continue  # dropped for lines that it shares with a page of another file
        expected = golden[page["url"]]
        compared += 1
        equal += page == expected
        assert page.keys() == expected.keys()
        assert page | {"text": ""} == expected | {"text": ""}
        assert is_subsequence(expected["text"].split("\n"), page["text"].split("\n"))
    assert compared >= 10
    assert equal >= compared - 3
    assert compared >= len(pages) - 3


def is_subsequence(part, whole):
    rest = iter(whole)
    return all(line in rest for line in part)


@needs_golden
def test_the_packaged_word_list_is_the_one_the_golden_pages_were_made_with():
    golden = (GOLDEN / "badwords-en.txt").read_text(encoding="utf-8").splitlines()
    assert set(reference.packaged_english_badwords()) == set(golden)
