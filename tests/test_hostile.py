"""What no page and no file of a corpus folder may bring about: other code, other files, escapes."""

import json
import os
import pathlib
import pickle
import re
from collections.abc import Callable

import pytest

from pipelines.corpus.errors import CorpusError
from pipelines.corpus.reading import PageReader, open_corpus
from testing.helpers import Outcome, run_c4, wet_record, write_wet

ROOT = pathlib.Path(__file__).resolve().parents[1]
DATE = "2019-04-18T10:00:00Z"
CARDS = ("README.md", "dataset_info.json", "features.json", "croissant.json")
TEXT = "\n".join(
    f"The {what} rose during the night, and nobody had expected it. We left. It was cold outside."
    for what in ("river", "price of bread", "water in the cellar", "number of visitors")
)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines import storage

    monkeypatch.setattr(storage.os, "fsync", lambda descriptor: None)


def build(wet: pathlib.Path, out: pathlib.Path, *more: str) -> Outcome:
    return run_c4("build", "--input", wet, "--output", out, "--recipe", "en.noblocklist", *more)


def tree(folder: pathlib.Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# Pickles ------------------------------------------------------------------------------------------


class Payload:
    """What loading its pickle does: it makes a folder."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_the_payload_works(tmp_path: pathlib.Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / "loaded")))
    assert (tmp_path / "loaded").is_dir()


@pytest.mark.slow
def test_no_pickle_of_a_corpus_folder_is_loaded(tmp_path: pathlib.Path) -> None:
    wet, out, loaded = tmp_path / "a.warc.wet.gz", tmp_path / "out", tmp_path / "loaded"
    write_wet(wet, [(f"http://site.example/{i}", DATE, TEXT) for i in range(2)])
    assert build(wet, out, "--format", "parquet,tfrecord").status == 0
    good = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert len(good) >= 12
    for protocol in (0, pickle.HIGHEST_PROTOCOL):
        evil = pickle.dumps(Payload(loaded), protocol)
        for planted in good:
            for path, content in good.items():
                path.write_bytes(evil if path == planted else content)
            for name in ("x.pkl", "cleaned/x.pickle", "removals/x.npy", "train-x.parquet.pkl"):
                (out / name).write_bytes(evil)
            # Once for each file that a build reads is enough of whole builds.
            described = planted.name in CARDS
            if protocol == 0 and not described and "00000" not in planted.name:
                build(wet, out, "--format", "parquet,tfrecord", "--quiet")
                planted.write_bytes(evil)
                run_c4("explain", wet, "--corpus", out)
            for kind in ("parquet", "tfrecord"):
                try:
                    corpus = open_corpus(str(out)).split(format=kind)
                    PageReader(corpus, 1).read(0, 0, 1)
                except CorpusError:
                    pass
            assert not loaded.exists(), planted


# What could load one, or run what it reads. Input workers are our own processes, on a socket of
# this machine; what they exchange is in no folder.
LOADERS = re.compile(
    r"\b(pickle|cPickle|cloudpickle|dill|shelve|marshal|joblib|jsonpickle)\b"
    r"|allow_pickle\s*=\s*True|\bnp\.load\(|\byaml\.load\(|\btorch\.load\(|(?<![.\w])(eval|exec)\("
)
MAY = {"model/data/workers.py", "c4_filters/own_rules.py"}  # the second with --allow-rules


def test_no_module_loads_what_could_be_code() -> None:
    found = set()
    for package in ("c4_filters", "dataflow_templates", "model", "pipelines"):
        for path in (ROOT / package).rglob("*.py"):
            code = re.sub(r"#.*", "", path.read_text(encoding="utf-8"))
            if re.search(rf"(?m)^\s*(import|from) .*({LOADERS.pattern})|{LOADERS.pattern}", code):
                name = path.relative_to(ROOT).as_posix()
                words = {match[0] for match in LOADERS.finditer(code)}
                if name not in MAY:
                    found.add((name, *sorted(words)))
    assert found == set()


# Names --------------------------------------------------------------------------------------------

NAMES = [
    "../../../../planted",
    "..\\..\\planted",
    "/planted",
    "file:///planted",
    "C:\\planted",
    "http://site.example/../../planted",
    "http://site.example/%2e%2e/%2fplanted",
    "~/planted",
    "$(touch planted)",
    "planted\0.txt",
    "gs://planted/planted",
]


@pytest.mark.slow
def test_no_header_names_a_file(tmp_path: pathlib.Path) -> None:
    info = "".join(
        f"WARC/1.0\r\nWARC-Type: warcinfo\r\nWARC-Date: {DATE}\r\nWARC-Filename: {name}\r\n"
        f"WARC-Record-ID: {name}\r\nContent-Length: 0\r\n\r\n\r\n\r\n"
        for name in NAMES
    )
    for folder in ("plain", "hostile"):
        (tmp_path / folder / "crawl").mkdir(parents=True)
    pages = [wet_record(f"http://site.example/{i}", DATE, TEXT) for i in range(len(NAMES))]
    hostile = [wet_record(name, DATE, TEXT) for name in NAMES]
    (tmp_path / "plain/crawl/a.warc.wet").write_bytes(b"".join(pages))
    (tmp_path / "hostile/crawl/a.warc.wet").write_bytes(info.encode() + b"".join(hostile))
    found = {}
    for folder in ("plain", "hostile"):
        before = tree(ROOT)
        outcome = build(tmp_path / folder / "crawl/a.warc.wet", tmp_path / folder / "out")
        assert outcome.status == 0, outcome.err
        assert tree(ROOT) - before <= {name for name in tree(ROOT) if "__pycache__" in name}
        # The digest of its path is part of the name.
        found[folder] = {re.sub(r"-[0-9a-f]{32}\.", "-.", each) for each in tree(tmp_path / folder)}
    assert found["hostile"] == found["plain"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hostile", "plain"]


# Escapes ------------------------------------------------------------------------------------------

ESCAPES = [
    "\x1b[31mred\x1b]0;title\x07",
    "\x9b31m",
    "a\rb\x08\x7f",
    "\u202emirrored\u2066",
    "<script>alert(1)</script>",
    "[link](javascript:alert(1)) ![x](http://track.example/)",
    "| --- |\n---\nconfigs: []\n---",
    "=HYPERLINK(1)",
    '"\\u0000"',
    "line\u2028separator\u0085",
    "{% raw %}",
]


def hostile_wet(path: pathlib.Path) -> None:
    """Pages kept, dropped and rejected, each with all escapes in its address, date and text."""
    said = " ".join(ESCAPES)
    shown = said.replace("\n", " ").replace("\r", " ")
    records = [
        wet_record(
            f"http://site.example/{shown}/kept", DATE, f"{TEXT}\n{shown[:80]} and so on it went."
        ),
        wet_record(f"http://site.example/{shown}/short", DATE, said),
        wet_record(f"http://site.example/{shown}/odd", f"{DATE}{shown}", said),
        wet_record(f"http://site.example/{shown}/undated", "", said),
        f"WARC/1.0\r\nWARC-Type: conversion\r\n{shown}\r\n\r\n{said}\r\n\r\n".encode(),
        shown.encode(),
    ]
    path.write_bytes(b"".join(records))


def shows_only(text: str) -> bool:
    return all(char.isprintable() or char == "\n" for char in text)


@pytest.mark.slow
def test_escapes_reach_neither_terminal_nor_reports(tmp_path: pathlib.Path) -> None:
    wet, out = tmp_path / "a.warc.wet", tmp_path / "out"
    hostile_wet(wet)
    built = build(wet, out, "--format", "json")
    assert built.status == 0, built.err
    assert "site.example" in built.out
    explained = run_c4("explain", wet)
    assert explained.status == 0
    assert "rejected at" in explained.out
    with_corpus = run_c4("explain", wet, "--corpus", out)
    for outcome in (built, explained, with_corpus):
        assert shows_only(outcome.out)
        assert shows_only(outcome.err)

    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert "short" in json.dumps(manifest["samples"])
    [rejects] = (out / "rejects").iterdir()
    lines = rejects.read_bytes().rstrip(b"\n").split(b"\n")
    assert len(lines) >= 2
    assert all(set(json.loads(line)) >= {"file", "offset", "reason"} for line in lines)

    # The dataset's card says nothing of any page.
    plain = tmp_path / "b.warc.wet"
    plain.write_bytes(wet_record("http://site.example/", DATE, TEXT))
    assert build(plain, tmp_path / "plain", "--format", "json").status == 0
    for name in CARDS:
        card, other = ((folder / name).read_text() for folder in (out, tmp_path / "plain"))
        digits = re.compile(r"\d+")
        assert digits.sub("0", card) == digits.sub("0", other)


@pytest.mark.skipif(os.name != "posix", reason="needs names of any bytes")
def test_a_name_that_is_no_text_is_told_before_anything_is_written(tmp_path: pathlib.Path) -> None:
    wet = pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\x1b[31m.warc.wet"))
    wet.write_bytes(wet_record("http://site.example/", DATE, TEXT))
    good = tmp_path / "good.warc.wet"
    wet.rename(good)
    refused = build(good, wet)
    assert (refused.status, refused.out) == (1, "")
    assert refused.err.endswith(
        "\\xff\\x1b[31m.warc.wet' is not UTF-8: give it another name (--output)\n"
    )
    good.rename(wet)
    refused = build(tmp_path / "*.wet", tmp_path / "out")
    assert (refused.status, refused.out) == (1, "")
    assert refused.err.endswith(
        "\\xff\\x1b[31m.warc.wet' is not UTF-8: give it another name (--input)\n"
    )
    assert list(tmp_path.iterdir()) == [wet]
