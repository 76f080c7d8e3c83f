import io
import os
import pathlib
import threading

import pytest

from pipelines import progress
from pipelines.progress import Notes, shown


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_POLL_S", 0.01)


@pytest.fixture
def notes(tmp_path: pathlib.Path) -> Notes:
    return Notes(str(tmp_path))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_before_any_note_it_is_the_first_stage(notes: Notes) -> None:
    assert notes.read() == ("clean", 0, 0, 0)


def test_notes_add_up_and_the_last_of_each_part_counts(notes: Notes) -> None:
    notes.total("clean", 1000)
    notes.expect("dedup", 3)
    notes.note("clean", "a-01234567", 100, 3)
    notes.note("clean", "b.c-01234567", 50)
    assert notes.read() == ("clean", 150, 1000, 3)
    notes.note("clean", "a-01234567", 400, 9)
    assert notes.read() == ("clean", 450, 1000, 9)
    notes.note("dedup", "a-01234567", 1)
    assert notes.read() == ("dedup", 1, 3, 0)


def test_the_latest_stage_begun_is_told_whoever_reports_last(notes: Notes) -> None:
    notes.total("write", 7)
    notes.note("dedup", "a", 1)
    notes.note("clean", "a", 5, 5)
    assert notes.read() == ("write", 0, 7, 0)
    notes.note("write", "train-0", 1, 12)
    assert notes.read() == ("write", 1, 7, 12)


def test_files_of_others_and_half_written_ones_are_passed_over(
    notes: Notes, tmp_path: pathlib.Path
) -> None:
    notes.note("clean", "a", 5, 2)
    for name, content in {
        ".clean.b.17": "9 9", "clean.c": "", "clean.d": "7", "clean.e": "x y", "other.f": "1 1",
        "clean": "1 2 3",
    }.items():  # fmt: skip
        (tmp_path / name).write_text(content)
    assert notes.read() == ("clean", 5, 0, 2)


def test_no_reader_sees_half_a_note(notes: Notes, tmp_path: pathlib.Path) -> None:
    stop, seen = threading.Event(), set()

    def watch() -> None:
        while not stop.is_set():
            seen.add(notes.read())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for number in range(1, 200):
        notes.note("clean", "a", number * 10**6, number)
    stop.set()
    watcher.join()
    assert seen <= {("clean", number * 10**6, 0, number) for number in range(200)}
    assert os.listdir(tmp_path) == ["clean.a"]


def test_a_note_that_cannot_be_written_stops_nothing(tmp_path: pathlib.Path) -> None:
    Notes(str(tmp_path / "absent")).note("clean", "a", 1)
    (tmp_path / "file").write_text("")
    Notes(str(tmp_path / "file")).total("clean", 1)
    Notes(str(tmp_path)).note("clean", "x" * 300, 1)  # longer than a name may be
    assert Notes(str(tmp_path)).read() == ("clean", 0, 0, 0)


def until(stream: io.StringIO, words: str) -> None:
    """Waits until the watcher has written ``words``."""
    for _ in range(1000):
        if words in stream.getvalue():
            return
        threading.Event().wait(0.01)
    raise AssertionError(f"never shown: {words}, only {stream.getvalue()!r}")


def test_a_terminal_gets_a_bar_a_stage() -> None:
    stream = Terminal()
    with shown(stream) as notes:
        notes.total("clean", 2_000_000)
        notes.note("clean", "a", 1_000_000, 1234)
        until(stream, "1.00MB/2.00MB")
        until(stream, "1,234 pages")
        notes.total("write", 4)
        notes.note("write", "train-0", 3)
        until(stream, " write:  75%")
    assert "\r" in stream.getvalue()
    assert " clean:  50%" in stream.getvalue()
    assert stream.getvalue().endswith("\n")


def test_a_bar_is_full_when_its_stage_has_ended_and_not_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "_FIRST_RATE_S", 1e9)
    stream = Terminal()
    with shown(stream) as notes:
        notes.total("clean", 2_000_000)
        until(stream, "clean:   0%")
        notes.note("clean", "a", 2_000_000)
        until(stream, "clean:  99%")  # the file that it makes is not there yet
        assert "100%" not in stream.getvalue()
        notes.total("write", 4)
        until(stream, "clean: 100%")
        notes.note("write", "train-0", 4)
        until(stream, "write:  99%")
    assert stream.getvalue().count("write: 100%") >= 1
    assert "?" not in stream.getvalue()
    assert "/s" not in stream.getvalue()
    assert "<" not in stream.getvalue()


def test_the_bar_of_a_failed_build_stays_where_it_was() -> None:
    stream = Terminal()

    def fail() -> None:
        with shown(stream) as notes:
            notes.total("clean", 4)
            notes.note("clean", "a", 1)
            until(stream, "clean:  25%")
            raise KeyError("from the block")

    with pytest.raises(KeyError, match="from the block"):
        fail()
    assert "100%" not in stream.getvalue()
    assert stream.getvalue().endswith("\n")


def test_a_rate_and_the_time_left_come_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_FIRST_RATE_S", 0.05)
    stream = Terminal()
    with shown(stream) as notes:
        notes.total("clean", 2_000_000)
        notes.note("clean", "a", 500_000)
        until(stream, "B/s")
        assert "<00:0" in stream.getvalue()
        notes.total("dedup", 2)  # files come in leaps: no rate
        notes.note("dedup", "a", 1)
        until(stream, "1/2 files, 00:00<00:00")
    assert "files/s" not in stream.getvalue()


def test_more_done_than_was_known_is_all_of_it() -> None:
    stream = Terminal()
    with shown(stream) as notes:
        notes.total("write", 2)
        notes.note("write", "train-0", 3)
        until(stream, "2/2")
    assert "3/2" not in stream.getvalue()


def test_a_log_gets_whole_lines_and_few_of_them() -> None:
    stream = io.StringIO()
    with shown(stream) as notes:
        notes.note("clean", "a", 70, 9)
        notes.total("clean", 70)
        threading.Event().wait(0.2)
        notes.total("write", 4)
        until(stream, "clean: ")
        notes.note("write", "train-0", 1, 1234)
        threading.Event().wait(0.2)  # twenty looks
    text = stream.getvalue()
    assert "\r" not in text
    lines = text.splitlines()
    assert lines[0] == "clean: 70 of 70 bytes, 9 pages"
    assert lines[-1] == "write: 1 of 4 shards, 1,234 pages"
    assert len(lines) <= 3


def test_a_log_hears_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_PLAIN_EVERY_S", 0.03)
    stream = io.StringIO()
    with shown(stream) as notes:
        for done in range(1, 4):
            notes.note("dedup", "a", done)
            until(stream, f"dedup: {done} files")


def test_nothing_is_left_behind_even_when_the_block_fails() -> None:
    threads = threading.active_count()
    stream = io.StringIO()

    def fail() -> str:
        with shown(stream) as notes:
            folder.append(notes.folder)
            notes.note("clean", "a", 1)
            raise KeyError("from the block")

    folder: list[str] = []
    with pytest.raises(KeyError, match="from the block"):
        fail()
    assert not os.path.exists(folder[0])
    assert threading.active_count() == threads


@pytest.mark.slow
def test_a_watched_folder_that_vanishes_stops_nothing() -> None:
    stream = io.StringIO()
    with shown(stream) as notes:
        notes.note("clean", "a", 1)
        until(stream, "clean: ")
        for name in os.listdir(notes.folder):
            os.remove(os.path.join(notes.folder, name))
        os.rmdir(notes.folder)
        notes.note("clean", "a", 2)
        threading.Event().wait(0.05)
        os.mkdir(notes.folder)
