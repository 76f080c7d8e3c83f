"""Folders that builds come back to: inputs that changed, corpora that were damaged, what is kept,
a builder that was stopped."""

import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from pipelines import builders, storage
from pipelines.corpus import layout
from pipelines.stages import clean_files
from pipelines.storage import FileInfo, local
from testing.helpers import Outcome, digests, manifest_of, run_c4, write_wet

pytestmark = pytest.mark.slow

TEXT = (
    "The {0} ferry leaves the harbour at seven every morning.\n"
    "It carries letters, bread and the {0} newspaper to the islands.\n"
    "Nobody waits at the {0} pier for longer than ten minutes."
)


def page(name: str) -> tuple[str, str, str]:
    return f"http://{name}.example/", "2019-04-18T10:00:00Z", TEXT.format(name)


@pytest.fixture
def wet(tmp_path: pathlib.Path) -> pathlib.Path:
    """Two WET files."""
    folder = tmp_path / "wet"
    folder.mkdir()
    write_wet(folder / "a.warc.wet.gz", [page("north"), page("south")])
    write_wet(folder / "b.warc.wet.gz", [page("east"), page("west")])
    return folder


def build(wet: pathlib.Path, *options: str, output: pathlib.Path | None = None) -> Outcome:
    out = output or wet.parent / "out"
    return run_c4("build", "--input", wet / "*.gz", "--output", out, "--workers", "1", *options)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A parent folder with wet/ and the finished corpus out/, to be copied."""
    parent = tmp_path_factory.mktemp("made")
    (parent / "wet").mkdir()
    write_wet(parent / "wet" / "a.warc.wet.gz", [page("north"), page("south")])
    write_wet(parent / "wet" / "b.warc.wet.gz", [page("east"), page("west")])
    outcome = build(parent / "wet")
    assert outcome.status == 0, outcome.err
    return parent


@pytest.fixture
def out(made: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of the finished corpus; `again` builds it from the inputs of the first."""
    return pathlib.Path(shutil.copytree(made / "out", tmp_path / "out"))


@pytest.fixture
def again(made: pathlib.Path, out: pathlib.Path) -> Callable[..., Outcome]:
    return lambda *options: build(made / "wet", *options, output=out)


def tree(folder: pathlib.Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def without_builders(files: dict[str, str]) -> dict[str, str]:
    return {name: it for name, it in files.items() if not name.startswith("builders/")}


def flip(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


# ------------------------------------------------------------------------------- changed inputs


def same_size_as(path: pathlib.Path, name: str) -> None:
    """Replaces a stored file by one of the same size and other pages."""
    size = path.stat().st_size
    write_wet(path, [page(name)])
    content = path.read_bytes()
    assert len(content) <= size
    path.write_bytes(content + bytes(size - len(content)))  # zeros end the file


def test_an_input_that_was_changed_in_place_is_cleaned_again(wet: pathlib.Path) -> None:
    assert build(wet).status == 0
    same_size_as(wet / "a.warc.wet.gz", "mended")
    outcome = build(wet)
    assert outcome.status == 0, outcome.err
    assert "complete already" not in outcome.out
    assert "1 cleaned file was cleaned again because the input has changed" in outcome.out
    out = wet.parent / "out"
    made = manifest_of(out)
    assert made["recleaned"] == [{"path": str(wet / "a.warc.wet.gz"), "reason": "changed input"}]
    assert made["timing"]["files_resumed"] == 1
    content = (wet / "a.warc.wet.gz").read_bytes()
    assert made["inputs"][0]["sha256"] == hashlib.sha256(content).hexdigest()
    assert build(wet, output=wet.parent / "fresh").status == 0
    assert digests(out) == digests(wet.parent / "fresh")
    assert "complete already" in build(wet).out
    assert manifest_of(out)["recleaned"] == made["recleaned"]


def test_an_input_that_was_only_touched_is_not(wet: pathlib.Path) -> None:
    assert build(wet).status == 0
    os.utime(wet / "a.warc.wet.gz", (1, 1))
    outcome = build(wet)
    assert outcome.status == 0, outcome.err
    made = manifest_of(wet.parent / "out")
    assert (made["timing"]["files_resumed"], made["recleaned"]) == (2, [])
    assert made["inputs"][0]["identity"].startswith("mtime:1000000000,ctime:")
    assert "complete already" in build(wet).out


def test_an_input_whose_time_was_set_back_is_cleaned_again(wet: pathlib.Path) -> None:
    assert build(wet).status == 0
    path = wet / "a.warc.wet.gz"
    stat = path.stat()
    same_size_as(path, "mended")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert "1 cleaned file was cleaned again because the input has changed" in build(wet).out


def test_what_the_file_system_does_not_know_verify_inputs_finds(
    wet: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_info", lambda path, found: FileInfo(path, found.st_size))
    assert build(wet).status == 0
    same_size_as(wet / "a.warc.wet.gz", "mended")
    assert "complete already" in build(wet).out, "path and size are the same"
    outcome = build(wet, "--verify-inputs")
    assert "1 cleaned file was cleaned again because the input has changed" in outcome.out
    assert "complete already" in build(wet, "--verify-inputs").out


@pytest.mark.parametrize(
    ("before", "now", "verify", "resumed"),
    [
        ("etag:1", "etag:1", False, True),
        ("etag:1", "etag:2", False, False),
        ("", "etag:2", False, True),
        ("etag:1", "", False, True),
        ("", "", True, False),
        ("etag:1", "etag:1", True, False),
    ],
)
def test_the_digest_decides_where_identities_differ(
    before: str, now: str, verify: bool, resumed: bool, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"other bytes")
    summary = clean_files.FileSummary(str(path), "a", 11, sha256="0" * 64, identity=before)
    assert clean_files.same_content(summary, now, verify) == resumed
    right = hashlib.sha256(b"other bytes").hexdigest()
    summary = clean_files.FileSummary(str(path), "a", 11, sha256=right, identity=before)
    assert clean_files.same_content(summary, now, verify)
    path.unlink()
    assert clean_files.same_content(summary, now, verify) == resumed


# ------------------------------------------------------------------------------ damaged corpora


def test_a_finished_corpus_is_left_alone(out: pathlib.Path, again: Callable[..., Outcome]) -> None:
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    for options in ([], ["--verify"], ["--verify-inputs"]):
        outcome = again(*options)
        assert (outcome.status, outcome.err) == (0, "")
        assert "complete already" in outcome.out
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_a_shard_with_a_flipped_bit_is_found_and_made_again(
    out: pathlib.Path, again: Callable[..., Outcome]
) -> None:
    before = digests(out)
    flip(out / "train-00000-of-00001.parquet")
    outcome = run_c4("verify", out)
    assert outcome.status == 1
    assert outcome.out.splitlines()[0] == (
        "train-00000-of-00001.parquet is damaged (checksum mismatch)"
    )
    assert "1 problem (2 shards" in outcome.out
    outcome = again("--verify")
    assert outcome.status == 0, outcome.err
    assert "train-00000-of-00001.parquet is damaged (checksum mismatch): rebuilding it" in (
        outcome.err
    )
    assert digests(out) == before
    outcome = run_c4("verify", out)
    assert outcome.status == 0
    assert "no problems (2 shards" in outcome.out


@pytest.mark.parametrize("folder", ["cleaned", "fingerprints", "removals"])
def test_a_kept_file_with_a_flipped_bit_is_found_and_made_again(
    folder: str, out: pathlib.Path, again: Callable[..., Outcome]
) -> None:
    before = tree(out / folder) | digests(out)
    damaged = sorted((out / folder).iterdir())[0]
    flip(damaged)
    outcome = run_c4("verify", out)
    assert outcome.status == 1
    assert f"{folder}/{damaged.name} is damaged (" in outcome.out
    outcome = again("--verify")
    assert outcome.status == 0, outcome.err
    assert f"{folder}/{damaged.name} is damaged" in outcome.err
    if folder != "removals":  # which every build writes
        assert "1 cleaned file was damaged and cleaned again" in outcome.out
    assert (tree(out / folder) | digests(out)).keys() == before.keys()
    assert digests(out).items() <= before.items()
    outcome = run_c4("verify", out)
    assert (outcome.status, "2 shards, 6 kept files" in outcome.out) == (0, True), outcome.out


@pytest.mark.parametrize(
    "name", ["dataset_info.json", "features.json", "croissant.json", "README.md"]
)
def test_a_side_file_that_is_missing_is_made_again_without_a_build(
    name: str, out: pathlib.Path, again: Callable[..., Outcome]
) -> None:
    before = tree(out)
    (out / name).unlink()
    assert f"{name} is missing" in run_c4("verify", out).out
    outcome = again()
    assert outcome.status == 0
    assert f"{name} is missing: written again" in outcome.err
    assert "complete already" in outcome.out
    now = tree(out)
    manifest_now = {"manifest.json": now["manifest.json"]}
    assert without_builders(now) == without_builders(before) | manifest_now
    assert run_c4("verify", out).status == 0


def test_a_corpus_of_an_earlier_version_has_no_problems_and_gets_what_it_lacks(
    out: pathlib.Path, again: Callable[..., Outcome]
) -> None:
    before = tree(out)
    made = json.loads((out / "manifest.json").read_text())
    del made["checksum"], made["root_digest"]
    made["side_files"] = [each for each in made["side_files"] if "croissant" not in each["name"]]
    (out / "manifest.json").write_text(json.dumps(made))
    (out / "croissant.json").unlink()
    assert run_c4("verify", out).status == 0
    outcome = again()
    assert "complete already" in outcome.out
    assert "note" not in outcome.err
    assert without_builders(tree(out)) == without_builders(before)


def test_a_damaged_side_file_is_made_again_but_not_the_users_readme(
    out: pathlib.Path, again: Callable[..., Outcome]
) -> None:
    before = (out / "features.json").read_bytes()
    flip(out / "features.json")
    (out / "README.md").write_text("# Mine\n")
    outcome = again()
    assert "features.json is damaged (checksum mismatch): written again" in outcome.err
    assert (out / "features.json").read_bytes() == before
    assert (out / "README.md").read_text() == "# Mine\n"
    assert run_c4("verify", out).status == 0
    outcome = again()
    assert "complete already" in outcome.out


EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "pages_written": lambda made: made["counts"].update(pages_written=99_999),
    "both ends": lambda made: made["counts"].update(
        pages_written=99_999, pages_read=99_999 + sum(made["counts"]["pages_dropped"].values())
    ),
    "lines_read": lambda made: made["counts"].update(lines_read=7),
    "dropped": lambda made: made["counts"]["pages_dropped"].update(no_text=3),
    "files_read": lambda made: made["counts"].update(files_read=3),
    "rejected": lambda made: made["counts"].update(records_rejected=1),
    "split": lambda made: made["splits"]["train"].update(pages=0),
    "shard": lambda made: made["shards"][0].update(pages=0),
    "digest": lambda made: made["shards"][0].update(sha256="0"),
    "no list": lambda made: made.update(inputs={}),
    "a text": lambda made: made["shards"][0].update(pages="4"),
    "path": lambda made: made["shards"][0].update(name="../train-00000-of-00001.parquet"),
    "twice": lambda made: made["shards"].append(made["shards"][0]),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_manifest_is_damaged_and_verify_says_so(edit: str, out: pathlib.Path) -> None:
    made = manifest_of(out)
    EDITS[edit](made)
    (out / "manifest.json").write_text(json.dumps(made))
    outcome = run_c4("verify", out)
    assert outcome.status == 1
    assert outcome.out.startswith("manifest.json ")


def test_an_edited_manifest_is_built_again(
    out: pathlib.Path, again: Callable[..., Outcome]
) -> None:
    before = manifest_of(out)
    made = manifest_of(out)
    EDITS["both ends"](made)
    (out / "manifest.json").write_text(json.dumps(made))
    outcome = again()
    assert outcome.status == 0, outcome.err
    assert "manifest.json is damaged: pages" in outcome.err
    assert "pages_written must be 4, got 99,999" in outcome.err
    assert "99,999" not in outcome.out
    assert manifest_of(out)["counts"] == before["counts"]


#: One edit for every kind of place: what is shown, what is looked up, what nothing else repeats.
ANY_EDIT: dict[str, Callable[[dict[str, Any]], object]] = {
    "no recipe": lambda made: made.update(recipe=None),
    "recipe": lambda made: made["recipe"].update(min_sentences=4),
    "settings": lambda made: made["settings"].update(max_file_bytes=1),
    "versions": lambda made: made.update(versions=None),
    "input digest": lambda made: made["inputs"][0].update(sha256="0" * 64),
    "input size": lambda made: made["inputs"][0].update(bytes=-3),
    "identity": lambda made: made["inputs"][0].update(identity=[1]),
    "other records": lambda made: made["counts"].update(records_of_other_types={"response": 9}),
    "text bytes": lambda made: made["splits"]["train"].update(text_bytes=1),
    "keep": lambda made: made.update(keep=[1]),
    "keep none": lambda made: made.update(keep="none"),
    "no side files": lambda made: made.update(side_files=None),
    "side file": lambda made: made["side_files"].append({}),
    "side file name": lambda made: made["side_files"][0].update(name=None),
    "side file path": lambda made: made["side_files"][0].update(name="../../x\0"),
    "side file size": lambda made: made["side_files"][0].update(bytes=None),
    "recleaned": lambda made: made.update(recleaned=[{"path": "a", "reason": [1]}]),
    "shown page": lambda made: made["kept_page"].update(text="Buy now."),
    "samples": lambda made: made.update(samples=7),
    "time": lambda made: made["timing"].update(clean_cpu_s=-1),
}


@pytest.mark.parametrize("edit", ANY_EDIT)
def test_no_edit_of_a_manifest_passes(
    edit: str, out: pathlib.Path, again: Callable[..., Outcome]
) -> None:
    made = manifest_of(out)
    ANY_EDIT[edit](made)
    (out / "manifest.json").write_text(json.dumps(made))
    outcome = run_c4("verify", out)
    assert outcome.status == 1
    assert outcome.out.startswith("manifest.json ")
    outcome = again()
    assert outcome.status == 0, outcome.err
    assert "rebuilding it" in outcome.err
    assert run_c4("verify", out).status == 0
    for folder in ("cleaned", "fingerprints", "removals"):
        assert len(list((out / folder).iterdir())) == 2, "keep is not read from a damaged manifest"


def test_a_manifest_may_be_formatted_otherwise(
    out: pathlib.Path, again: Callable[..., Outcome]
) -> None:
    made = manifest_of(out)
    (out / "manifest.json").write_text(json.dumps(dict(reversed(made.items())), indent=4))
    assert run_c4("verify", out).status == 0
    assert "complete already" in again().out


def test_a_foreign_shard_is_named(out: pathlib.Path, again: Callable[..., Outcome]) -> None:
    (out / "train-00003-of-00009.parquet").write_text("mine")
    (out / "train-00003-of-00009.tfrecord").write_text("of no format of this corpus")
    for outcome in (again(), again("--verify"), run_c4("verify", out)):
        assert outcome.status == 0, outcome.err
        assert "train-00003-of-00009.parquet is not part of this corpus" in outcome.err
        assert "train-*-of-*.parquet" in outcome.err
        assert "tfrecord" not in outcome.err
    assert (out / "train-00003-of-00009.parquet").read_text() == "mine"


@pytest.mark.parametrize("folder", ["cleaned", "fingerprints", "removals"])
def test_a_kept_file_that_is_gone_is_found_and_made_again(
    folder: str, out: pathlib.Path, again: Callable[..., Outcome]
) -> None:
    before = digests(out)
    gone = min((out / folder).iterdir())
    gone.unlink()
    outcome = run_c4("verify", out)
    assert outcome.status == 1
    assert outcome.out.startswith(f"{folder}/{gone.name} is missing\n")
    assert again("--verify").status == 0
    assert run_c4("verify", out).status == 0
    assert digests(out) == before
    shutil.rmtree(out / folder)
    assert run_c4("verify", out).out.count(" is missing\n") == 2


def test_an_unfinished_list_of_what_was_written_is_swept(
    out: pathlib.Path, again: Callable[..., Outcome]
) -> None:
    left = out / "builders" / ".written.json.tmp-121e240394fc44cd90db24e84dcd1202"
    left.write_text("{")
    (out / "manifest.json").unlink()
    assert again().status == 0
    assert not left.exists()


def test_kept_files_that_keep_removed_are_not_missed(
    out: pathlib.Path, again: Callable[..., Outcome]
) -> None:
    for keep in ("fingerprints", "none"):
        assert again("--keep", keep).status == 0
        assert run_c4("verify", out).status == 0


def test_verify_prints_json(out: pathlib.Path, tmp_path: pathlib.Path) -> None:
    outcome = run_c4("verify", out, "--json")
    found = json.loads(outcome.out)
    assert (outcome.status, found["ok"], found["shards"], found["problems"]) == (0, True, 2, [])
    os.truncate(out / "validation-00000-of-00001.parquet", 3)
    outcome = run_c4("verify", out, "--json")
    [problem] = json.loads(outcome.out)["problems"]
    assert outcome.status == 1
    assert problem["file"] == "validation-00000-of-00001.parquet"
    assert "has 3 bytes instead of" in problem["problem"]
    outcome = run_c4("verify", tmp_path / "none", "--json")
    assert outcome.status == 1
    [problem] = json.loads(outcome.out)["problems"]
    assert problem["file"] == "manifest.json"
    assert problem["problem"].startswith("is missing: this is not a corpus")


def test_verify_of_no_corpus_does_not_advise_a_repair(tmp_path: pathlib.Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for folder in (tmp_path, tmp_path / "none", tmp_path / "notes.txt"):
        outcome = run_c4("verify", folder)
        assert (outcome.status, outcome.err) == (1, "")
        first, last = outcome.out.splitlines()
        assert first.startswith("manifest.json is missing: this is not a corpus")
        assert last.endswith("check the path, or run the same c4 build again to finish it")


def test_a_build_says_what_verify_found(again: Callable[..., Outcome]) -> None:
    assert "same settings, every checksum matches\n" in again("--verify").out
    assert "same settings\n" in again().out


# ------------------------------------------------------------------------------------ what stays


@pytest.mark.parametrize(
    ("keep", "stay"), [("fingerprints", {"fingerprints"}), ("none", set[str]())]
)
def test_what_is_not_kept_goes_and_comes_back_when_it_is_needed(
    keep: str, stay: set[str], wet: pathlib.Path
) -> None:
    out = wet.parent / "out"
    assert build(wet, "--keep", keep).status == 0
    kept = {path.parent.name for path in out.glob("*/*")} - {"builders"}
    assert kept == stay
    assert manifest_of(out)["keep"] == keep
    assert "complete already" in build(wet, "--keep", keep).out
    outcome = build(wet)
    assert "complete already" in outcome.out
    assert f"removed kept folders (--keep {keep})" in outcome.err
    write_wet(wet / "c.warc.wet.gz", [page("upper")])
    outcome = build(wet, "--keep", keep)
    assert outcome.status == 0, outcome.err
    assert manifest_of(out)["timing"]["files_resumed"] == 0
    assert {path.parent.name for path in out.glob("*/*")} - {"builders"} == stay
    assert build(wet, output=wet.parent / "fresh").status == 0
    assert digests(out) == digests(wet.parent / "fresh")
    assert run_c4("verify", out).status == 0


def test_a_finished_corpus_can_be_told_to_keep_less(
    out: pathlib.Path, again: Callable[..., Outcome]
) -> None:
    mine = out / "cleaned" / "mine.arrow"
    mine.write_bytes(b"mine")
    before = digests(out)
    outcome = again("--keep", "none")
    assert "complete already" in outcome.out
    assert manifest_of(out)["keep"] == "none"
    assert {path for path in out.glob("*/*") if path.parent.name != "builders"} == {mine}
    assert digests(out) == before


# ------------------------------------------------------------------------------ others' folders


def test_start_over_is_not_proposed_and_not_done_in_a_folder_of_something_else(
    wet: pathlib.Path,
) -> None:
    out = wet.parent / "out"
    (out / "cleaned").mkdir(parents=True)
    for name in ("build.json", "README.md", "features.json", "cleaned/mine.arrow"):
        (out / name).write_text("{}")
    before = tree(out)
    for options in ([], ["--start-over"]):
        outcome = build(wet, *options)
        assert outcome.status == 1
        assert "holds files that c4 build did not write: its build.json" in outcome.err
        assert "--start-over" not in outcome.err
        assert tree(out) == before


def test_files_of_the_user_stay_when_an_input_is_added(wet: pathlib.Path) -> None:
    out = wet.parent / "out"
    assert build(wet).status == 0
    mine = ["README.md", "train-00003-of-00009.parquet", "cleaned/mine.arrow"]
    for name in mine:
        (out / name).write_text("mine")
    write_wet(wet / "c.warc.wet.gz", [page("upper")])
    outcome = build(wet)
    assert outcome.status == 0, outcome.err
    assert "README.md was not written by a build; it is left unchanged" in outcome.err
    assert build(wet, "--start-over", "--shards", "2").status == 0
    for name in mine:
        assert (out / name).read_text() == "mine"
    assert not (out / "train-00000-of-00001.parquet").exists()


@pytest.mark.parametrize("pattern", ["**", "out/**", "**/*.parquet", "out/cleaned/*"])
def test_a_pattern_that_matches_the_output_is_refused(pattern: str, wet: pathlib.Path) -> None:
    parent = wet.parent
    command = ("build", "--input", f"{parent}/{pattern}", "--output", parent / "out")
    if not pattern.startswith("out") and "parquet" not in pattern:
        outcome = run_c4(*command)
        assert outcome.status == 1
        assert "matches files that the build itself writes" in outcome.err
    assert not (parent / "out").exists(), "said before work begins"
    assert build(wet).status == 0
    before = tree(parent / "out")
    outcome = run_c4(*command)
    assert outcome.status == 1
    assert "lies in the output folder" in outcome.err
    assert outcome.err.count("\n") == 1
    assert tree(parent / "out") == before
    link = parent / "link"
    link.symlink_to(parent / "out")
    outcome = run_c4("build", "--input", f"{link}/*.parquet", "--output", parent / "out")
    assert "lies in the output folder" in outcome.err


def test_no_page_is_a_warning(wet: pathlib.Path) -> None:
    for path in wet.iterdir():
        path.unlink()
    write_wet(wet / "a.warc.wet.gz", [("http://a.example/", page("x")[1], "Too short.")])
    outcome = build(wet, "--quiet")
    assert outcome.status == 0
    assert outcome.err.startswith("c4: warning: the corpus in ")
    assert "has no pages: none of the 1 pages read was kept" in outcome.err


# ------------------------------------------------------------------------------------- overlaps

_HOLD = """
import os, signal, sys
from pipelines import builders, c4_main
from pipelines.stages import graph
write = graph._write_manifest
def stop(*arguments):
    os.kill(os.getpid(), signal.SIGSTOP)  # all that it writes is written, but for the manifest
    return write(*arguments)
graph._write_manifest = stop
if sys.argv.pop(1) == "elsewhere":
    builders._this_machine = lambda: {"host": "elsewhere", "boot": "x", "pid_namespace": "1"}
sys.exit(c4_main.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_a_build_that_is_stopped_before_its_end(
    where: str, wet: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = wet.parent / "out"
    first = subprocess.Popen(
        [
            *(sys.executable, "-c", _HOLD, where, "build", "--workers", "1", "--quiet"),
            *("--input", str(wet / "a*"), "--output", str(out)),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 120
        while _state(first.pid) != "T":
            assert first.poll() is None, first.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        monkeypatch.setattr(builders, "_PATIENCE_S", 1.0)
        monkeypatch.setattr(builders, "_LOOK_S", 0.1)
        before = tree(out)
        second = build(wet)
        if where == "here":
            assert second.status == 1
            assert f"another build is running in {out}" in second.err
            assert f"pid {first.pid}, started" in second.err
            assert second.err.count("\n") == 1
            assert tree(out) == before
        else:
            assert second.status == 0, second.err
            assert "host elsewhere" in second.err
        now = tree(out)
        first.send_signal(signal.SIGCONT)
        _, said = first.communicate(timeout=120)
        if where == "here":
            assert first.returncode == 0, said
            assert build(wet).status == 0
        else:
            assert first.returncode == 1
            assert "another build has taken the folder" in said
            assert said.count("\n") == 1
            assert without_builders(tree(out)) == without_builders(now), "nothing more is published"
        assert len(manifest_of(out)["inputs"]) == 2
        assert build(wet, output=wet.parent / "fresh").status == 0
        assert digests(out) == digests(wet.parent / "fresh")
    finally:
        first.kill()
        first.communicate()


def _state(pid: int) -> str:
    stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0]


def test_a_build_that_was_killed_is_followed_at_once(
    wet: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = wet.parent / "out"
    first = subprocess.Popen(
        [
            *(sys.executable, "-c", _HOLD, "here", "build", "--workers", "1", "--quiet"),
            *("--input", str(wet / "*"), "--output", str(out)),
        ]
    )
    while _state(first.pid) != "T":
        assert first.poll() is None
        time.sleep(0.05)
    first.kill()
    first.wait()
    outcome = build(wet)
    assert (outcome.status, outcome.err.count("c4: note")) == (0, 0), outcome.err
    assert manifest_of(out)["timing"]["files_resumed"] == 2
    claims = sorted(path.name for path in (out / layout.BUILDERS).glob("*.json"))
    assert claims == ["00001.json", "00002.json", "written.json"]


# ------------------------------------------------------------ inputs that change while read


@pytest.mark.parametrize("change", ["grows", "shrinks", "is replaced", "becomes a pipe"])
def test_an_input_that_changes_while_it_is_read_counts_as_unreadable(
    change: str, wet: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = wet / "b.warc.wet.gz"
    waiting = [victim]
    opened, read = storage.open_raw, clean_files.read_wet

    def replace() -> None:
        waiting.clear()
        if change == "grows":
            victim.write_bytes(victim.read_bytes() * 2)
        elif change == "shrinks":
            os.truncate(victim, victim.stat().st_size - 100)
        elif change == "is replaced":
            same_size_as(victim, "later")
        else:
            victim.unlink()
            os.mkfifo(victim)

    def open_raw(path: str, scattered: bool = False) -> Any:
        if path == str(victim) and waiting and change != "is replaced":
            replace()
        return opened(path, scattered)

    def read_wet(stream: Any, *arguments: Any, **named: Any) -> Any:
        yield from read(stream, *arguments, **named)
        if stream.name == str(victim) and waiting:
            replace()

    monkeypatch.setattr(storage, "open_raw", open_raw)
    monkeypatch.setattr(clean_files, "read_wet", read_wet)
    outcome = build(wet)
    assert outcome.status == 1
    assert f"such as {victim}: " in outcome.err
    wanted = "not a regular file" if change == "becomes a pipe" else "has changed while it was read"
    assert wanted in outcome.err
    assert [file["path"] for file in manifest_of(wet.parent / "out")["inputs"]] == [
        str(wet / "a.warc.wet.gz")
    ]
    if change == "is replaced":
        assert build(wet).status == 0
        assert build(wet, output=wet.parent / "fresh").status == 0
        assert digests(wet.parent / "out") == digests(wet.parent / "fresh")


def test_an_input_that_is_only_touched_while_it_is_read_is_good(
    wet: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = clean_files.read_wet

    def read_wet(stream: Any, *arguments: Any, **named: Any) -> Any:
        yield from read(stream, *arguments, **named)
        os.utime(stream.name, ns=(1, 1))

    monkeypatch.setattr(clean_files, "read_wet", read_wet)
    outcome = build(wet)
    assert outcome.status == 0, outcome.err


@pytest.mark.parametrize("option", ["badwords", "url-list", "domain-list", "recipe"])
def test_a_list_that_can_be_read_only_once_is_refused(option: str, wet: pathlib.Path) -> None:
    """Workers read it again, and would find it empty."""
    pipe = wet.parent / "pipe.toml"
    os.mkfifo(pipe)
    value = f"en={pipe}" if option == "badwords" else str(pipe)
    recipe = {"url-list": ["--recipe", "webtextlike"], "domain-list": ["--recipe", "realnewslike"]}
    outcome = build(wet, f"--{option}", value, *recipe.get(option, []))
    assert outcome.status == 1
    assert "not a regular file but a FIFO" in outcome.err
    assert str(pipe) in outcome.err
    assert not (wet.parent / "out").exists()


@pytest.mark.parametrize(
    "pattern", ["link/**", "wet/**/[!.]*", "wet/*/[]a-z]*", "wet/*/[^q]*", "link/*/*.parquet"]
)
def test_patterns_of_every_form_that_match_what_is_built_are_refused(
    pattern: str, wet: pathlib.Path
) -> None:
    (wet.parent / "link").symlink_to(wet)
    (wet / "sub").mkdir()
    shutil.copy(wet / "a.warc.wet.gz", wet / "sub" / "a.parquet")
    outcome = run_c4("build", "--input", wet.parent / pattern, "--output", wet / "out")
    assert outcome.status == 1
    assert "matches files that the build itself writes" in outcome.err
    assert not (wet / "out").exists()


def test_a_list_without_entries_is_a_warning(wet: pathlib.Path) -> None:
    (wet / "words.txt").write_text("# none yet\n\n")
    outcome = build(wet, "--badwords", f"en={wet / 'words.txt'}")
    assert outcome.status == 0
    assert (
        f"c4: warning: the list {wet / 'words.txt'} has no entries (--badwords en)" in outcome.err
    )
    (wet / "words.txt").write_text("darn\n")
    outcome = build(wet, "--badwords", f"en={wet / 'words.txt'}", output=wet.parent / "other")
    assert "has no entries" not in outcome.err


def test_a_folder_that_lost_its_mark_says_so(
    out: pathlib.Path, again: Callable[..., Outcome]
) -> None:
    (out / "build.json").unlink()
    outcome = again()
    assert outcome.status == 1
    assert "build.json is missing" in outcome.err
    assert "--start-over" in outcome.err
    assert again("--start-over").status == 0
    assert run_c4("verify", out).status == 0
