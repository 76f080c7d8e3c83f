"""``c4 status`` while a build runs, after it died, when it is done."""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pipelines import builders, progress, storage, worker_notes
from pipelines.corpus import layout
from pipelines.input_list import write_input_list
from pipelines.stages import graph
from pipelines.status import Status, prometheus, status
from pipelines.storage import FileInfo
from pipelines.worker_notes import WorkerNotes
from samples.make_samples import WET_DIR
from testing.fake_object_store import fake_s3
from testing.helpers import run_c4

SAMPLES = sorted(pathlib.Path(WET_DIR).iterdir())


def kept(output: pathlib.Path) -> int:
    return len(list((output / "cleaned").glob("*.arrow")))


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_notes, "_EVERY_LOCAL_S", 0.0)


def spied(
    monkeypatch: pytest.MonkeyPatch, output: pathlib.Path
) -> list[tuple[int, int, int, Status]]:
    """Lets a build look at itself whenever a worker reports.

    Gives what the worker has read of its file, of the files before it, its pages, and the status.
    """
    seen: list[tuple[int, int, int, Status]] = []
    real: Callable[..., Any] = graph.clean_file
    before = [0, 0]

    def clean_file(path: str, size: int, *arguments: Any) -> Any:
        *first, report, most, content, verify, new, source = arguments

        def watched(bytes_read: int, pages: int) -> None:
            report(bytes_read, pages)
            seen.append((bytes_read, before[0], before[1] + pages, status(str(output))))

        summary = real(path, size, *first, watched, most, content, verify, new, source)
        before[0] += size
        before[1] += summary.pages_read
        return summary

    monkeypatch.setattr(graph, "clean_file", clean_file)
    monkeypatch.setattr("pipelines.stages.clean_files._PROGRESS_EVERY_S", 0.0)
    return seen


@pytest.mark.usefixtures("often")
def test_a_running_build_is_followed_to_its_end(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    seen = spied(monkeypatch, out)
    (tmp_path / "broken.warc.wet.gz").write_bytes(b"PK\3\4" + bytes(9000))
    inputs = [str(path) for path in SAMPLES[:2]] + [f"{tmp_path}/broken.warc.wet.gz"]
    done = run_c4("build", "--input", *inputs, "--output", out, "--shards", "1", "--workers", "1",
                  "--quiet", "--allow-unreadable-files", "1")  # fmt: skip
    assert done.status == 0, done.err
    total = sum(os.path.getsize(path) for path in inputs)
    assert len(seen) > 10
    for number, (bytes_read, bytes_before, pages, found) in enumerate(seen):
        assert found.state == "running"
        assert found.stage.name == "clean"
        assert (found.files_total, found.bytes_total) == (3, total)
        assert found.files_cleaned + found.files_failed + found.files_left == 3
        assert found.files_in_progress == 1
        assert found.bytes_read == bytes_before + bytes_read  # it has been noted just now
        assert found.pages_read == pages
        assert found.pid == os.getpid()
        if number > 5:
            assert found.pages_per_s
            assert found.seconds_left is not None
    assert {found.files_cleaned for *_, found in seen} == {0, 1}
    finished = status(str(out))
    assert (finished.state, finished.files_cleaned, finished.files_failed) == ("done", 2, 1)
    assert finished.files_cleaned == kept(out)
    assert finished.bytes_read == finished.bytes_total == total
    assert finished.seconds_left == 0
    assert not builders.progress_paths(str(out))
    assert "is a ZIP archive" in finished.failed[0].error
    shown = run_c4("status", out)
    assert shown.status == 0
    assert shown.out.startswith(f"{out}: done (")
    assert "files: 2 of 3 cleaned, 1 failed, 0 left (0 in progress)\n" in shown.out


@pytest.mark.slow
def test_a_killed_build_has_died_and_its_files_are_counted(tmp_path: pathlib.Path) -> None:
    (tmp_path / "wet").mkdir()
    for number in range(12):
        sample = SAMPLES[number % len(SAMPLES)]
        (tmp_path / "wet" / f"{number:02}.warc.wet.gz").write_bytes(sample.read_bytes())
    (tmp_path / "wet" / "99-large.warc.wet.gz").write_bytes(bytes(1 << 24))  # read first, fails
    out = tmp_path / "out"
    command = [
        *(sys.executable, "-m", "pipelines.c4_main", "build", "--quiet", "--workers", "2"),
        *("--input", f"{tmp_path}/wet/*.gz", "--output", str(out)),
    ]
    process = subprocess.Popen(command, start_new_session=True)
    found = None
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(ValueError):  # nothing has begun
                found = status(str(out))
                if found.files_cleaned > 1 and found.files_failed:
                    assert found.state == "running"
                    break
            threading.Event().wait(0.01)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert found is not None
    died = status(str(out))
    assert died.state == "died"
    assert (died.files_total, died.files_cleaned, died.files_failed) == (13, kept(out), 1)
    assert died.files_left == 13 - kept(out) - 1
    assert died.files_in_progress == 0
    assert died.seconds_left is None
    assert "run the same command again to resume: cleaned" in run_c4("status", out).out
    values = json.loads(run_c4("status", out, "--json").out)
    assert values["state"] == "died"
    assert values["files_cleaned"] == kept(out)
    assert [failed["path"] for failed in values["failed"]] == [
        f"{tmp_path}/wet/99-large.warc.wet.gz"
    ]


def test_a_folder_without_a_build_is_one_line(tmp_path: pathlib.Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        done = run_c4("status", folder)
        assert (done.status, done.out) == (1, "")
        assert done.err == f"c4: error: {folder}: no build of a corpus has begun here\n"


def claim(folder: str, kind: str, **changed: Any) -> None:
    with builders.hold(folder, kind=kind, runner="FlinkRunner"):
        pass
    for name, value in changed.items():
        path = builders._path(folder, 1, "json")
        content = json.loads(storage.read_bytes(path)) | {name: value}
        with storage.write_atomically(path) as file:
            file.write(json.dumps(content).encode())


@pytest.mark.parametrize("started", ["yesterday", "0001-01-01T00:00:00", 5, ["x"]])
def test_a_damaged_start_is_unknown(tmp_path: pathlib.Path, started: Any) -> None:
    claim(str(tmp_path), builders.DETACHED, host="elsewhere", started=started)
    assert status(str(tmp_path)).state == "running"


def test_an_interrupted_build_says_so(tmp_path: pathlib.Path) -> None:
    out = str(tmp_path)
    started = tmp_path / "cleaned" / f"{layout.file_name('/wet/a.gz')}{layout.STARTED}"
    started.parent.mkdir()
    for raised, state in ((KeyboardInterrupt, "interrupted"), (OSError, "died")):
        with contextlib.suppress(raised), builders.hold(out):
            write_input_list(out, [FileInfo("/wet/a.gz", 9)])
            started.touch()
            assert status(out).files_in_progress == 1
            raise raised
        found = status(out)
        assert (found.state, found.files_in_progress) == (state, 0)
        shown = run_c4("status", out).out
        assert shown.startswith(f"{out}: {state} (")
        assert "(0 in progress)" in shown
        assert "run the same command again to resume: cleaned" in shown


def test_elsewhere_the_heartbeat_decides(tmp_path: pathlib.Path) -> None:
    out = str(tmp_path)
    claim(out, builders.DETACHED, host="elsewhere", pid=1)
    beat = tmp_path / layout.BUILDERS / "00001.beat"
    assert status(out).state == "running"
    old = time.time() - 16 * 60
    os.utime(beat, (old, old))
    assert status(out).state == "died"
    beat.unlink()
    assert status(out).state == "died"
    claim_of_template = tmp_path / "template"
    claim(str(claim_of_template), builders.TEMPLATE)
    assert status(str(claim_of_template)).state == "waiting"


def test_notes_of_other_runs_and_damaged_ones_count_for_nothing(tmp_path: pathlib.Path) -> None:
    out, name = str(tmp_path), layout.file_name("/a")
    with builders.hold(out) as held:
        write_input_list(out, [FileInfo("/a", 1000)], held.run_id)
        notes = WorkerNotes(held)
        notes._due = 0.0
        notes.report(name, 400, 7)
        assert (status(out).bytes_read, status(out).pages_read) == (400, 7)
        # A launcher shows the same of workers elsewhere.
        launcher = progress.CorpusFolder(out, {name: 1000}, run_id=held.run_id)
        assert launcher.read(ended=True) == ("clean", 400, 1000, 0)
        other = WorkerNotes(dataclasses.replace(held, run_id="x"))
        other._due = 0.0
        other.report(name, 900, 9)
        for content in (b"{", b"[]", b'{"run": 3}', b"\xff"):
            path = builders.progress_path(out, 1, f"{len(content):032x}")
            with storage.write_atomically(path) as file:
                file.write(content)
        assert (status(out).bytes_read, status(out).pages_read) == (400, 7)
        notes.finish(name, 1000, 9, "broken")  # at once
        found = status(out)
        assert (found.files_failed, found.files_left, found.bytes_read) == (1, 0, 1000)
        notes.finish(name, 1000, 9, "")  # at once too: another attempt has read it
        assert status(out).files_failed == 0
    assert status(out).state == "died"


def test_notes_are_seldom_where_they_cost_something(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    @contextlib.contextmanager
    def write_atomically(path: str, durable: bool = True) -> Iterator[io.BytesIO]:
        written.append(path)
        yield io.BytesIO()

    monkeypatch.setattr(storage, "write_atomically", write_atomically)
    clock = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    for output, expected in ((str(tmp_path), 60), ("hdfs://a/b", 12), ("gs://a/b", 2)):
        clock = 0.0
        notes = WorkerNotes(builders.Claim(output, 1, "run"))
        written.clear()
        while clock < 60.1:
            notes.report("a", 1, 1)
            clock += 0.25
        assert expected - 2 <= len(written) <= expected + 1, output


def test_notes_of_killed_workers_are_removed(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / layout.BUILDERS
    folder.mkdir()
    name = f"00003.{'a' * 32}.progress"
    kept = ["00003.json", "00003.beat", "x.progress", f"00003.{'a' * 31}.progress"]
    for each in (name, f".{name}.tmp-{'b' * 32}", *kept):
        (folder / each).write_text("")
    builders.remove_progress(str(tmp_path))
    assert sorted(os.listdir(folder)) == sorted(kept)


def test_prometheus_can_read_it(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / 'a"b\\c'
    with builders.hold(str(folder)):
        pass
    found = dataclasses.replace(
        status(str(folder)), files_cleaned=5, files_left=7, pages_per_s=12.5, bytes_total=10**12
    )
    text = prometheus(found)
    name = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
    label = r'[a-z_]+="(?:[^"\\\n]|\\["\\n])*"'
    for line in text.splitlines():
        assert re.fullmatch(
            rf"# HELP {name} .+|# TYPE {name} gauge|{name}\{{{label}(,{label})*\}} [0-9.e+-]+", line
        ), line
    quoted = f'folder="{tmp_path}/a\\"b\\\\c"'
    assert f'c4_build_files{{{quoted},state="cleaned"}} 5\n' in text
    assert f"c4_build_input_bytes{{{quoted}}} 1000000000000\n" in text
    assert f"c4_build_pages_per_second{{{quoted}}} 12.5\n" in text
    assert f'c4_build_state{{{quoted},state="died"}} 1\n' in text
    assert "seconds_left" not in text  # unknown
    try:
        from prometheus_client.parser import text_string_to_metric_families
    except ImportError:
        return
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["c4_build_files"].samples[0].labels["folder"] == str(folder)


def test_a_build_on_a_bucket_is_looked_at_with_few_requests() -> None:
    pytest.importorskip("obstore", reason="needs the extra aws")
    out = "s3://bucket/out"
    with fake_s3() as server:
        storage.use_options(
            [f"--s3_endpoint_url={server.address}", "--s3_access_key_id=me",
             "--s3_secret_access_key", "secret", "--s3_region_name=eu-west-1"]
        )  # fmt: skip
        try:
            with builders.hold(out) as held:
                write_input_list(out, [FileInfo(f"/{n}", 10) for n in range(500)], held.run_id)
                for number in range(400):
                    path = layout.cleaned(out, layout.file_name(f"/{number}"))
                    server.objects[path] = b""
                server.requests.clear()
                found = status(out)
                assert (found.files_cleaned, found.files_left) == (400, 100)
                assert sum(server.requests.values()) < 25
        finally:
            storage.use_options([])
