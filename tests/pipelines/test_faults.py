"""Faults on purpose, through the shipped command line: each costs only what is broken."""

import contextlib
import gzip
import json
import os
import pathlib
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from c4_filters.recipes import RECIPES
from pipelines.builders import Claim
from pipelines.config import BuildConfig
from pipelines.engines.failures import BuildError
from pipelines.engines.run import run_build
from pipelines.quiet_beam import beam
from pipelines.stages.graph import BuildCorpus
from samples.make_samples import WET_DIR
from testing.helpers import (
    digests,
    manifest_of,
    read_corpus,
    run_c4,
    wet_bytes,
    wet_record,
    without_first_line,
)

GOOD = [
    (f"http://good{number}.example/page", "2019-04-18T10:00:00Z", text)
    for number, text in enumerate(
        [
            "The lighthouse keeper climbs the stairs at dusk every day.\n"
            "He lights the lamp before the first ship passes the cape.\n"
            "Nobody has missed a single evening in ninety years.",
            "A good loaf of bread needs nothing but patience and flour.\n"
            "The dough rests overnight in a cool corner of the kitchen.\n"
            "In the morning it goes into a very hot oven.",
            "Old maps show a river that no traveller can find today.\n"
            "Some say it dried up after the great earthquake of that year.\n"
            "Others believe that it flows under the town to this day.",
        ]
    )
]
FIRST, SECOND, THIRD = (url for url, _, _ in GOOD)


def members() -> list[bytes]:
    """The warcinfo record and three good pages, a gzip member each."""
    return [wet_bytes([]), *(gzip.compress(wet_record(*page), mtime=0) for page in GOOD)]


def record(head: str, body: bytes = b"") -> bytes:
    return gzip.compress(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body + b"\r\n\r\n")


def damaged(member: bytes) -> bytes:
    middle = len(member) // 2
    return member[:middle] + bytes(byte ^ 0xFF for byte in member[middle : middle + 8]) + (
        member[middle + 8 :]
    )  # fmt: skip


INFO, A, B, C = members()
TEXT = gzip.decompress(INFO + A + B + C)
SAID = re.compile(rb"Content-Length: \d+(?=\r\n\r\nThe light)")  # of the first page
CUT, BEFORE_TRAILER = C[: len(C) // 2], C[:-8]
ALL = {FIRST, SECOND, THIRD}
WITHOUT_URL = record("WARC/1.0\nWARC-Type: conversion\nWARC-Date: 2019-04-18T10:00:00Z\n"
                     "Content-Length: 5", b"Words")  # fmt: skip
WITHOUT_DATE = record("WARC/1.0\nWARC-Type: conversion\nWARC-Target-URI: http://x.example/\n"
                      "Content-Length: 5", b"Words")  # fmt: skip
NOT_UTF8 = record("WARC/1.0\nWARC-Type: conversion\nWARC-Target-URI: http://x.example/\n"
                  "WARC-Date: 2019-04-18T10:00:00Z\nContent-Length: 5", b"Caf\xe9.")  # fmt: skip
BAD_HEADER = record("WARC/1.0\nWARC-Type conversion and no colon\nContent-Length: 0")

# What is on disk, which pages must survive, and which reasons are to be counted.
HOSTILE = {
    "as it should be": (INFO + A + B + C, ALL, {}),
    "gzip cut in the last member": (INFO + A + B + CUT, {FIRST, SECOND}, {"truncated": 1}),
    "gzip without its trailer": (INFO + A + B + BEFORE_TRAILER, ALL, {"truncated": 1}),
    "one single member": (gzip.compress(TEXT, mtime=0), ALL, {}),
    "no compression": (TEXT, ALL, {}),
    "CRLF rewritten, one member": (gzip.compress(TEXT.replace(b"\r\n", b"\n"), mtime=0), ALL, {}),
    "LF rewritten, no compression": (TEXT.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"), ALL, {}),
    "a record without address": (INFO + A + WITHOUT_URL + B, {FIRST, SECOND}, {"no_url": 1}),
    "a record without date": (INFO + A + WITHOUT_DATE + B, {FIRST, SECOND}, {"no_date": 1}),
    "bytes that are not UTF-8": (INFO + A + NOT_UTF8 + B, {FIRST, SECOND}, {"not_utf8": 1}),
    "a malformed header": (INFO + A + BAD_HEADER + B + C, ALL, {"bad_header": 1}),
    "a damaged member": (INFO + A + damaged(B) + C, {FIRST, THIRD}, {"corrupt_gzip": 1}),
    "Content-Length far too large": (SAID.sub(b"Content-Length: 99999", TEXT), ALL, {}),
    "Content-Length too small": (SAID.sub(b"Content-Length: 7", TEXT), ALL, {}),
    "zeros at the end": (INFO + A + B + bytes(512), {FIRST, SECOND}, None),
    "a stray text between members": (
        INFO + A + gzip.compress(b"what is this\n") + B,
        {FIRST, SECOND},
        {"not_warc": 1},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_costs_only_what_is_broken(name: str, tmp_path: pathlib.Path) -> None:
    content, kept, reasons = HOSTILE[name]
    path = tmp_path / "hostile.warc.wet.gz"
    path.write_bytes(content)
    outcome = run_c4("build", "--input", path, "--output", tmp_path / "out", "--workers", "1")
    assert outcome.status == 0, outcome.err
    pages = read_corpus(tmp_path / "out")["train"]
    assert {page["url"] for page in pages} == kept
    texts = {url: text for url, _, text in GOOD}
    assert all(page["text"] == texts[page["url"]] for page in pages), "a page was cut, or glued"
    counts = manifest_of(tmp_path / "out")["counts"]
    if reasons is not None:
        assert counts["records_rejected_by_reason"] == reasons
    assert counts["pages_read"] == len(kept)


UNREADABLE = {
    "an empty file": b"",
    "a text": b"Dear diary, today I found no records at all.\n" * 50,
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20,
    "gzip of a text": gzip.compress(b"nothing of a WARC file\n" * 100),
    "gzip of nothing": gzip.compress(b""),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_file_is_named_and_the_rest_is_built(name: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "bad.warc.wet.gz").write_bytes(UNREADABLE[name])
    (tmp_path / "good.warc.wet.gz").write_bytes(INFO + A + B)
    arguments = ("build", "--input", tmp_path / "*.gz", "--output", tmp_path / "out")
    outcome = run_c4(*arguments, "--workers", "1")
    assert outcome.status == 1
    assert "bad.warc.wet.gz" in outcome.err
    assert "--allow-unreadable-files 1" in outcome.err
    assert outcome.err.count("bad.warc.wet.gz: ") == 1  # its diagnosis once
    made = manifest_of(tmp_path / "out")
    assert [file["path"] for file in made["unreadable_inputs"]] == [
        str(tmp_path / "bad.warc.wet.gz")
    ]
    assert {page["url"] for page in read_corpus(tmp_path / "out")["train"]} == {FIRST, SECOND}
    outcome = run_c4(*arguments, "--workers", "1", "--allow-unreadable-files", "1")
    assert outcome.status == 0, outcome.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_file_without_permission_is_unreadable(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "secret.warc.wet.gz"
    path.write_bytes(INFO + A)
    path.chmod(0)
    outcome = run_c4("build", "--input", path, "--output", tmp_path / "out", "--workers", "1")
    assert outcome.status == 1
    assert "secret.warc.wet.gz" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--input", "nowhere/*.gz", "--output", "OUT"), "no input file matches"),
        (("--input", "GOOD", "nowhere.gz", "--output", "OUT"), "nowhere.gz"),
        (("--input", "GOOD", "--output", "OUT", "--recipe", "eng"), "did you mean 'en'"),
        (("--input", "GOOD", "--output", "OUT", "--recipe", "no.toml"), "no.toml"),
        (("--input", "GOOD", "--output", "OUT", "--format", "csv"), "unknown format 'csv'"),
        (("--input", "GOOD", "--output", "OUT", "--shards", "0"), "--shards"),
        (("--input", "GOOD", "--output", "OUT", "--shards", "many"), "--shards"),
        (("--input", "GOOD", "--output", "OUT", "--workers", "0"), "--workers"),
        (("--input", "GOOD", "--output", "OUT", "--badwords", "en"), "LANG=FILE"),
        (("--input", "GOOD", "--output", "OUT", "--badwords", "en=none.txt"), "none.txt"),
        (("--input", "GOOD", "--output", "OUT", "--recipe", "realnewslike"), "--domain-list"),
        (("--input", "GOOD", "--output", "OUT", "--shard", "3"), "--shards"),
        (("--input", "GOOD", "--output", "OUT", "--runer=Flink"), "--runner"),
        (("--input", "GOOD", "--output", "FOLDER"), "files that c4 build did not write"),
    ],
)
def test_wrong_usage_is_one_line_with_the_way_out(
    arguments: tuple[str, ...], says: str, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "good.warc.wet.gz").write_bytes(INFO + A)
    words = {
        "GOOD": str(tmp_path / "good.warc.wet.gz"),
        "OUT": str(tmp_path / "out"),
        "FOLDER": str(tmp_path),
    }
    outcome = run_c4("build", *(words.get(word, word) for word in arguments))
    assert outcome.status == 1
    assert says in outcome.err
    assert len(outcome.err.splitlines()) == 1, outcome.err
    assert not (tmp_path / "out" / "manifest.json").exists()


def _c4(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "pipelines.c4_main", *map(str, arguments)]


def _with_files_up_to(kib: int, command: list[str]) -> list[str]:
    # Every write beyond the limit fails half-way with EFBIG, as it does with ENOSPC on a full disk.
    # By a shell, not by preexec_fn: other tests have left threads in this process.
    return ["bash", "-c", f"trap '' XFSZ; ulimit -f {kib}; exec \"$@\"", "bash", *command]


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_failing_write_is_one_line_and_the_next_run_goes_on(
    workers: str, tmp_path: pathlib.Path
) -> None:
    arguments = ("build", "--input", WET_DIR / "*.wet*", "--output", tmp_path / "out")
    failed = subprocess.run(
        _with_files_up_to(40, _c4(*arguments, "--workers", workers)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert failed.returncode == 1
    errors = [line for line in failed.stderr.splitlines() if line.startswith("c4: error")]
    assert len(errors) == 1, failed.stderr
    assert "File too large" in errors[0]
    assert ".arrow" in errors[0]
    assert "Error:" not in errors[0], "the kind of exception is no news for people"
    assert "Traceback" not in failed.stderr
    out = tmp_path / "out"
    assert not (out / "manifest.json").exists()
    whole = {path: path.stat().st_mtime_ns for path in (out / "cleaned").glob("*.arrow")}
    outcome = run_c4(*arguments, "--workers", "1")
    assert outcome.status == 0, outcome.err
    assert all(path.stat().st_mtime_ns == mtime for path, mtime in whole.items())
    assert manifest_of(out)["timing"]["files_resumed"] == len(whole)
    assert not [path for path in out.rglob(".*") if path.is_file()], "temporaries are swept"
    fresh = tmp_path / "fresh"
    assert run_c4("build", "--input", WET_DIR / "*.wet*", "--output", fresh).status == 0
    assert digests(out) == digests(fresh)


def _wait_for(what: object, process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    assert callable(what)
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        if process.poll() is not None:
            return
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["first file cleaned", "removals written", "first shard"])
def test_kill_9_and_the_same_command_again(moment: str, tmp_path: pathlib.Path) -> None:
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    arguments = ("build", "--input", WET_DIR / "*.wet*", "--shards", "5", "--output")
    seen = {
        "first file cleaned": lambda: list((out / "cleaned").glob("*.arrow")),
        "removals written": lambda: list((out / "removals").glob("*.bin")),
        "first shard": lambda: list(out.glob("train-*.parquet")),
    }[moment]
    process = subprocess.Popen(
        _c4(*arguments, out, "--workers", "2"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    _wait_for(seen, process)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # the launcher and its workers
    process.wait()
    whole = {path: path.stat().st_mtime_ns for path in (out / "cleaned").glob("*.arrow")}
    assert whole
    outcome = run_c4(*arguments, out, "--workers", "1")
    assert outcome.status == 0, outcome.err
    assert all(path.stat().st_mtime_ns == mtime for path, mtime in whole.items()), "cleaned twice"
    assert run_c4(*arguments, fresh, "--workers", "1").status == 0
    assert digests(out) == digests(fresh)
    assert not [path for path in out.rglob(".*") if path.is_file()], "temporaries are swept"


@pytest.mark.slow
def test_dead_worker_is_one_line(tmp_path: pathlib.Path) -> None:
    # A worker that the system kills (out of memory, say) leaves nobody to say why.
    out = tmp_path / "out"
    process = subprocess.Popen(
        _c4("build", "--input", WET_DIR / "*.wet*", "--output", out, "--workers", "2"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    _wait_for(lambda: _workers_of(process.pid), process)  # type: ignore[arg-type]
    _wait_for(lambda: list((out / "cleaned").glob("*.arrow")), process)  # type: ignore[arg-type]
    for worker in _workers_of(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    if process.returncode == 0:
        pytest.skip("the build was done before its workers could be killed")
    assert process.returncode == 1
    lines = [line for line in errors.splitlines() if line.startswith("c4: error")]
    assert len(lines) == 1, errors
    assert "Traceback" not in errors
    assert run_c4("build", "--input", WET_DIR / "*.wet*", "--output", out).status == 0


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["workers start", "a file is cleaned", "manifest written"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_build_and_its_workers(
    moment: str, number: int, tmp_path: pathlib.Path
) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        [
            *("env", "--default-signal=SIGINT"),  # a background job's children are born deaf to it
            *_c4("build", "--input", WET_DIR / "*.wet*", "--output", out, "--workers", "2"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    seen = {
        "workers start": lambda: _workers_of(process.pid),
        "a file is cleaned": lambda: list((out / "cleaned").glob("*.arrow")),
        "manifest written": (out / "manifest.json").exists,
    }[moment]
    _wait_for(seen, process)
    process.send_signal(number)
    said, _ = process.communicate(timeout=40)  # waits until no worker holds the pipe any more
    if moment == "manifest written" and process.returncode == 0:
        return  # it was done by then
    assert process.returncode == 130
    assert "c4: interrupted; run the same command again" in said
    assert "Traceback" not in said


def test_a_folder_that_a_worker_does_not_see_is_one_line(tmp_path: pathlib.Path) -> None:
    # What a worker of another machine finds where the launcher's disk is not mounted: nothing.
    config = BuildConfig(
        inputs=(str(WET_DIR / "*.wet*"),),
        output=str(tmp_path / "launchers" / "disk"),
        recipe=RECIPES["en"],
    )
    options = beam.options.pipeline_options.PipelineOptions(["--runner=FnApiRunner"])
    with pytest.raises(
        BuildError, match=r"does not see the folder \S+/disk: .* \(--output\)"
    ) as got:
        run_build(BuildCorpus(config, claim=Claim(config.output, 1, "run")), options, None)
    assert socket.gethostname() in str(got.value)
    assert not list(tmp_path.iterdir()), "nothing is scattered there"


def _workers_of(launcher: int) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(launcher).children(recursive=True)]


@pytest.mark.slow
def test_control_characters_and_paths_in_names_stay_inside(tmp_path: pathlib.Path) -> None:
    # Nothing that stands in a record becomes a path.
    url = "http://x.example/../../../../etc/passwd\x1b[31m"
    page = (url, "2019-04-18T10:00:00Z", GOOD[0][2])
    odd = (url, "../../2019-04-18", GOOD[1][2])
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.warc.wet.gz").write_bytes(wet_bytes([page, odd]))
    outcome = run_c4("build", "--input", tmp_path / "in" / "*", "--output", tmp_path / "out")
    assert outcome.status == 0, outcome.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    assert json.loads(json.dumps(read_corpus(tmp_path / "out")["train"][0]["url"])) == url


@pytest.mark.slow
def test_terminal_without_our_letters_is_no_failure(tmp_path: pathlib.Path) -> None:
    arguments = ("build", "--input", WET_DIR / "sample-00000.warc.wet.gz", "--output")
    done = subprocess.run(
        _c4(*arguments, tmp_path / "out"),
        env={**os.environ, "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "LC_ALL": "C"},
        capture_output=True,
        check=True,
        timeout=120,
    )
    assert b"\\u" in done.stdout


@pytest.mark.slow
def test_closed_output_is_no_failure(tmp_path: pathlib.Path) -> None:
    arguments = ("build", "--input", WET_DIR / "sample-00002.warc.wet.gz", "--output")
    command = " ".join(map(shlex.quote, _c4(*arguments, tmp_path / "out")))
    assert subprocess.run(f"{command} >&-", shell=True, check=False, timeout=120).returncode == 0
    assert (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_is_one_line_and_the_next_run_goes_on(
    number: int, workers: str, tmp_path: pathlib.Path
) -> None:
    out = tmp_path / "out"
    for number_of_copy in range(100):  # some seconds of work
        shutil.copy(WET_DIR / "sample-00000.warc.wet.gz", tmp_path / f"{number_of_copy}.wet.gz")
    inputs = tmp_path / "*.wet.gz"
    arguments = ("build", "--input", inputs, "--output", out, "--workers", workers)
    process = subprocess.Popen(
        _c4(*arguments),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    _wait_for(lambda: list((out / "cleaned").glob("*.arrow")), process)
    os.killpg(process.pid, number)  # as a terminal does: to the launcher and its workers
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    said = [
        line
        for line in without_first_line(errors).splitlines()
        if not line.startswith(("clean:", "dedup:", "write:"))
    ]
    assert [line for line in said if line] == [
        "c4: interrupted; run the same command again to resume: cleaned files are kept"
    ]
    assert run_c4(*arguments).status == 0


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/zero", tmp_path / "pipe"):
        outcome = run_c4("build", "--input", path, "--output", tmp_path / "out")
        assert outcome.status == 1
        assert "not a regular file" in outcome.err


@pytest.mark.slow
def test_long_and_strange_file_names(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("y" * 240 + ".wet", "a b'\".gz", "[1].gz", "é" * 100):
        (folder / name).write_bytes(INFO + A)
    outcome = run_c4("build", "--input", folder / "*", "--output", tmp_path / "out", "--quiet")
    assert outcome.status == 0, outcome.err
    assert manifest_of(tmp_path / "out")["counts"]["pages_read"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["swapped", "manifest {}", "shard cut"])
def test_damaged_folder_is_mended_or_refused(damage: str, tmp_path: pathlib.Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "a.wet").write_bytes(wet_bytes(GOOD[:2]))
    # The same number of pages in both, and a passage that both have.
    shared = (GOOD[0][0] + "/copy", *GOOD[0][1:])
    (tmp_path / "b.wet").write_bytes(wet_bytes([shared, GOOD[2]]))
    arguments = ("build", "--input", tmp_path / "*.wet", "--output", out)
    assert run_c4(*arguments).status == 0
    good = digests(out)
    if damage == "swapped":
        first, second = sorted((out / "fingerprints").iterdir())
        content = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(content)
        (out / "manifest.json").unlink()
    elif damage == "manifest {}":
        (out / "manifest.json").write_text('{"manifest_version": 1}')
    else:
        [shard] = out.glob("train-*")
        shard.write_bytes(shard.read_bytes()[:-9])
    outcome = run_c4(*arguments)
    assert outcome.status == 0, outcome.err
    assert digests(out) == good


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["cleaned", "fingerprints", "removals"])
def test_a_kept_file_with_a_flipped_bit_is_made_again_by_the_same_command(
    folder: str, tmp_path: pathlib.Path
) -> None:
    out = tmp_path / "out"
    (tmp_path / "a.wet").write_bytes(wet_bytes(GOOD[:2]))
    shared = (GOOD[0][0] + "/copy", *GOOD[0][1:])  # a passage that both files have
    (tmp_path / "b.wet").write_bytes(wet_bytes([shared, GOOD[2]]))
    arguments = ("build", "--input", tmp_path / "*.wet", "--output", out)
    assert run_c4(*arguments).status == 0
    good = digests(out)
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(3):
        for path in sorted((out / folder).iterdir()):
            content = bytearray(path.read_bytes())
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
            path.write_bytes(content)
        (out / "manifest.json").unlink()  # as a build that was stopped leaves the folder
        outcome = run_c4(*arguments)
        assert outcome.status == 0, outcome.err
        assert digests(out) == good
        assert manifest_of(out)["timing"]["files_resumed"] == (2 if folder == "removals" else 0)
        line = "2 cleaned files were damaged and cleaned again"
        assert (line in outcome.out) == (folder != "removals"), "removals belong to one run"


@pytest.mark.slow
def test_fewer_inputs_than_before_are_told(tmp_path: pathlib.Path) -> None:
    for name in ("a.wet", "b.wet"):
        (tmp_path / name).write_bytes(INFO + A)
    out = tmp_path / "out"
    assert run_c4("build", "--input", tmp_path / "*.wet", "--output", out).status == 0
    outcome = run_c4("build", "--input", tmp_path / "a.wet", "--output", out, "--quiet")
    assert outcome.status == 0
    assert outcome.err == (
        "c4: note: 1 file of the previous build not in --input: rebuilding without them\n"
    )
