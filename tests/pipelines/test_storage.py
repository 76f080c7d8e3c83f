import contextlib
import errno
import io
import logging
import os
import pathlib
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import storage
from pipelines.storage.streams import RangeFile

_SOME_UUID = uuid.UUID("0123456789abcdef0123456789abcdef")


def _names(folder: pathlib.Path) -> list[str]:
    """All names in a folder, hidden ones too."""
    return sorted(os.listdir(folder))


def _write_and_raise(path: str, data: bytes, failure: BaseException) -> None:
    with storage.write_atomically(path) as file:
        file.write(data)
        raise failure


def _write_after_close(path: str) -> None:
    with storage.write_atomically(path) as file:
        file.write(b"new")
        file.close()
        file.write(b"more")


# --- writing to a local path


def test_a_file_appears_whole_under_its_name_and_parents_are_made(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a" / "b" / "shard.bin"
    with storage.write_atomically(str(path)) as file:
        file.write(b"one")
        file.flush()
        assert not path.exists()
        assert file.tell() == 3
        file.write(memoryview(b" two"))
    assert path.read_bytes() == b"one two"
    assert _names(path.parent) == ["shard.bin"]


def test_an_empty_file_is_a_file(tmp_path: pathlib.Path) -> None:
    with storage.write_atomically(str(tmp_path / "empty")):
        pass
    assert storage.stat(str(tmp_path / "empty")).size == 0


@pytest.mark.parametrize("failure", [ValueError("bad page"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_and_no_temporary(
    tmp_path: pathlib.Path, failure: BaseException
) -> None:
    path = tmp_path / "shard.bin"
    path.write_bytes(b"old")
    with pytest.raises(type(failure)):
        _write_and_raise(str(path), b"new", failure)
    assert path.read_bytes() == b"old"
    assert _names(tmp_path) == ["shard.bin"]


def test_closing_inside_the_block_publishes_nothing(tmp_path: pathlib.Path) -> None:
    with storage.write_atomically(str(tmp_path / "shard.bin")) as file:
        file.write(b"new")
        file.close()
        assert _names(tmp_path) != ["shard.bin"]
    assert (tmp_path / "shard.bin").read_bytes() == b"new"
    with pytest.raises(ValueError, match="after close"):
        _write_after_close(str(tmp_path / "other.bin"))
    assert _names(tmp_path) == ["shard.bin"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs the device that is always full")
@pytest.mark.parametrize("n_bytes", [10, 1_000_000], ids=["fails at flush", "fails at write"])
def test_a_full_disk_is_an_oserror_that_names_the_file(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, n_bytes: int
) -> None:
    monkeypatch.setattr(uuid, "uuid4", lambda: _SOME_UUID)
    path = tmp_path / "shard.bin"
    path.write_bytes(b"old")
    os.symlink("/dev/full", tmp_path / f".shard.bin.tmp-{_SOME_UUID.hex}")
    with pytest.raises(OSError, match=r"shard\.bin") as caught:  # noqa: SIM117
        with storage.write_atomically(str(path)) as file:
            file.write(b"x" * n_bytes)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert _names(tmp_path) == ["shard.bin"]


def test_an_oserror_of_somebody_else_is_left_alone(tmp_path: pathlib.Path) -> None:
    with (
        pytest.raises(FileNotFoundError, match="input"),
        storage.write_atomically(str(tmp_path / "out")),
    ):
        raise FileNotFoundError(errno.ENOENT, "gone", "input")


def test_a_parent_that_is_a_file_is_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "taken").write_bytes(b"")
    target = str(tmp_path / "taken" / "shard")
    with pytest.raises(OSError, match="taken"), storage.write_atomically(target):
        pass


@pytest.mark.slow
def test_a_killed_writer_leaves_a_temporary_that_is_no_input_and_can_be_swept(
    tmp_path: pathlib.Path,
) -> None:
    program = (
        "import os, sys; from pipelines import storage\n"
        "with storage.write_atomically(sys.argv[1]) as file:\n"
        "    file.write(b'half'); file.flush(); os._exit(9)\n"
    )
    path = str(tmp_path / "shard.bin")
    assert subprocess.run([sys.executable, "-c", program, path], check=False).returncode == 9
    (tmp_path / "kept").write_bytes(b"")
    (tmp_path / ".bashrc.tmp-1").write_bytes(b"")  # not one of ours
    assert len(_names(tmp_path)) == 3
    assert [file.path for file in storage.match(str(tmp_path / "*"))] == [
        str(tmp_path / ".bashrc.tmp-1"),
        str(tmp_path / "kept"),
    ]
    assert storage.listdir(str(tmp_path)) == [".bashrc.tmp-1", "kept"]
    assert storage.sweep_temporaries(str(tmp_path)) == 1
    assert storage.sweep_temporaries(str(tmp_path)) == 0
    assert _names(tmp_path) == [".bashrc.tmp-1", "kept"]


# --- finding and reading


@pytest.fixture
def crawl(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    for name, n_bytes in {"b.gz": 2, "a.gz": 1, "deep/c.gz": 3, "x[1].gz": 4, "x1.gz": 5}.items():
        path = tmp_path / "crawl" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"." * n_bytes)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "crawl"


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ("crawl/[ab].gz", [("crawl/a.gz", 1), ("crawl/b.gz", 2)]),
        ("./crawl/a.gz", [("./crawl/a.gz", 1)]),
        (["crawl/b*", "crawl/?.gz"], [("crawl/a.gz", 1), ("crawl/b.gz", 2)]),
        (["crawl/a.gz", "{crawl}/a.gz"], [("crawl/a.gz", 1)]),
        ("crawl/**/c.gz", [("crawl/deep/c.gz", 3)]),
        ("crawl/x[1].gz", [("crawl/x[1].gz", 4)]),
        ("crawl/x*.gz", [("crawl/x1.gz", 5), ("crawl/x[1].gz", 4)]),
        ("{crawl}/deep/*", [("{crawl}/deep/c.gz", 3)]),
    ],
)
def test_match(
    crawl: pathlib.Path, patterns: str | list[str], expected: list[tuple[str, int]]
) -> None:
    wanted = [
        p.format(crawl=crawl) for p in ([patterns] if isinstance(patterns, str) else patterns)
    ]
    found = storage.match(wanted[0] if isinstance(patterns, str) else wanted)
    assert [file[:2] for file in found] == [
        (path.format(crawl=crawl), n_bytes) for path, n_bytes in expected
    ]


def test_match_in_the_working_folder(crawl: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(crawl)
    assert [file[:2] for file in storage.match("a*")] == [("a.gz", 1)]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["crawl/a.gz", "crawl/*.wet"], r"'crawl/\*\.wet'.*--input"),
        (["missing.gz"], r"'missing\.gz'.*--input"),
        (["nowhere/*"], r"'nowhere/\*'"),
        (["crawl/[z-a]*"], r"'\[z-a\]\*' is not a valid pattern: bad character range z-a"),
        (["crawl"], r"'crawl' is a folder.*crawl/\*\.warc\.wet\.gz"),
    ],
)
@pytest.mark.usefixtures("crawl")
def test_nothing_to_read_is_one_line_with_the_pattern(patterns: list[str], message: str) -> None:
    with pytest.raises(storage.NoInputError, match=message) as caught:
        storage.match(patterns)
    assert "\n" not in str(caught.value)


def test_gz_is_read_as_stored(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "page.gz"
    path.write_bytes(b"\x1f\x8bnot gzip at all")
    assert storage.read_bytes(str(path)) == b"\x1f\x8bnot gzip at all"
    with storage.open_raw(str(path)) as file:
        assert file.read(2) == b"\x1f\x8b"
    with pytest.raises(OSError, match=r"missing"):
        storage.open_raw(str(tmp_path / "missing"))


def test_listdir_names_files_only(crawl: pathlib.Path) -> None:
    assert storage.listdir(str(crawl)) == ["a.gz", "b.gz", "x1.gz", "x[1].gz"]
    assert storage.listdir(str(crawl / "nowhere")) == []


def test_a_file_that_is_removed_meanwhile_hides_no_other(
    crawl: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = os.scandir

    @contextlib.contextmanager
    def late(folder: str) -> Iterator[Iterator[os.DirEntry[str]]]:
        with scan(folder) as entries:
            found = list(entries)
        (crawl / "x1.gz").unlink()
        yield iter(found)

    monkeypatch.setattr(os, "scandir", late)
    assert storage.sizes(str(crawl)).keys() == {"a.gz", "b.gz", "x[1].gz"}


def test_remove_takes_names_literally_and_never_a_folder(crawl: pathlib.Path) -> None:
    storage.remove([str(crawl / "x[1].gz"), str(crawl / "missing")])
    assert storage.listdir(str(crawl)) == ["a.gz", "b.gz", "x1.gz"]
    with pytest.raises(OSError, match="deep"):
        storage.remove([str(crawl / "deep")])
    assert (crawl / "deep" / "c.gz").exists()


def test_size_and_exists(crawl: pathlib.Path) -> None:
    assert storage.exists(str(crawl / "b.gz"))
    assert storage.stat(str(crawl / "b.gz")).size == 2
    assert not storage.exists(str(crawl / "missing"))
    with pytest.raises(FileNotFoundError) as caught:
        storage.stat(str(crawl / "missing"))
    assert caught.value.filename == str(crawl / "missing")


# --- names


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("s3://b", "c", "d.gz"), "s3://b/c/d.gz"),
        (("hdfs://host/x/", "y"), "hdfs://host/x/y"),
        (("out", "cleaned", "a"), os.path.join("out", "cleaned", "a")),
    ],
)
def test_join(parts: tuple[str, ...], expected: str) -> None:
    assert storage.join(*parts) == expected


# --- importing Beam


@pytest.mark.slow
def test_beam_is_imported_without_a_word_and_logging_is_left_alone() -> None:
    program = (
        "import logging; from pipelines.quiet_beam import beam\n"
        "assert logging.getLogger().handlers == [], logging.getLogger().handlers\n"
        "assert logging.getLogger().filters == []\n"
        "logging.getLogger().warning('after')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "after\n")


def test_other_warnings_of_the_import_still_show(capsys: pytest.CaptureFixture[str]) -> None:
    from pipelines import quiet_beam

    root = logging.getLogger()
    handlers, root.handlers = root.handlers, []
    try:
        with quiet_beam._without_apitools_line():
            logging.warning("apitools not found, and more")
            logging.warning("something else")
            logging.info("a detail")
        assert root.handlers == []
    finally:
        root.handlers = handlers
    assert capsys.readouterr().err == "something else\n"


# --- what a pattern matches but cannot be read (A4), and where it looks (B2)


def test_a_dangling_link_is_named(crawl: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    (crawl / "lost.gz").symlink_to("/nowhere/x.gz")
    for pattern in ("crawl/*.gz", "crawl/lost.gz", "*/lost.gz", "crawl/**.gz", "crawl/lost.gz/*",
                    "crawl/lo*/*.gz"):  # fmt: skip
        with pytest.raises(OSError, match=r"dangling link to /nowhere/x\.gz.*--input") as caught:
            storage.match(pattern)
        assert caught.value.filename.endswith("crawl/lost.gz")
    assert len(storage.match("crawl/[ab].gz")) == 2
    assert capsys.readouterr().err == ""
    assert len(storage.match("crawl/**/c.gz")) == 1
    assert "c4: note: crawl/lost.gz: skipped, a dangling link to" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
def test_what_is_no_regular_file_is_named_and_never_opened(crawl: pathlib.Path) -> None:
    os.mkfifo(crawl / "pipe.gz")
    for pattern in ("crawl/*.gz", "*/pipe.gz", "crawl/**"):
        with pytest.raises(OSError, match=r"not a regular file but a FIFO.*--input") as caught:
            storage.match(pattern)
        assert caught.value.filename == "crawl/pipe.gz"
    with pytest.raises(storage.NoInputError, match="not a regular file"):
        storage.match("crawl/pipe.gz")


def refuse(call: Any, where: str, number: int) -> Any:
    """Return a function of `os` that fails for one path, as on a broken mount."""

    def refusing(path: Any = ".", **options: Any) -> Any:
        if os.fspath(path).rstrip("/").endswith(where):
            raise OSError(number, os.strerror(number), path)
        return call(path, **options)

    return refusing


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("pattern", ["crawl/*/*.gz", "crawl/**.gz", "*/deep/*", "crawl/deep/c*"])
@pytest.mark.usefixtures("crawl")
def test_a_folder_that_cannot_be_listed_is_named(
    pattern: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "listdir", refuse(os.listdir, "deep", number))
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        storage.match(pattern)
    assert str(caught.value.filename).rstrip("/") == "crawl/deep"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("pattern", ["crawl/*.gz", "crawl/a.gz", "*/a.gz", "**/a.gz"])
@pytest.mark.usefixtures("crawl")
def test_a_file_that_cannot_be_looked_at_is_named(
    pattern: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "stat", refuse(os.stat, "crawl/a.gz", number))
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        storage.match(pattern)
    assert caught.value.filename == "crawl/a.gz"


@pytest.mark.usefixtures("crawl")
def test_the_folder_of_fsck_is_left_out_with_a_note(
    crawl: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (crawl / "lost+found").mkdir()
    monkeypatch.setattr(os, "listdir", refuse(os.listdir, "lost+found", errno.EACCES))
    assert len(storage.match("crawl/*/*.gz")) == 1
    assert capsys.readouterr().err == "c4: note: crawl/lost+found/: skipped, not readable\n"


def test_links_to_folders_are_followed_but_not_in_rings(crawl: pathlib.Path) -> None:
    (crawl / "deep" / "up").symlink_to(crawl)
    (crawl / "link").symlink_to(crawl / "deep")
    for pattern in ("crawl/*/c.gz", "crawl/**/c.gz"):
        found = [file.path for file in storage.match(pattern)]
        assert found == ["crawl/deep/c.gz", "crawl/link/c.gz"]


def test_only_folders_that_can_match_are_listed(
    crawl: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = []
    original = os.listdir

    def listdir(path: Any = ".") -> list[str]:
        listed.append(os.fspath(path))
        return original(path)

    monkeypatch.setattr(os, "listdir", listdir)
    with pytest.raises(storage.NoInputError):
        storage.match("/nope*")
    with pytest.raises(storage.NoInputError):
        storage.match("/nope*/*/x.gz")
    assert listed == ["/", "/"]
    listed.clear()
    storage.match(f"{crawl}/d*/c.gz")
    assert listed == [f"{crawl}/"]


@pytest.mark.usefixtures("crawl")
def test_odd_patterns_are_no_input() -> None:
    for pattern in ("a\0b", "a\0*", "x" * 300, "", "crawl/a.gz/"):
        with pytest.raises(OSError, match=r"no input file|too long|Not a directory") as caught:
            storage.match(pattern)
        assert "\n" not in str(caught.value)


# --- creating a file where there are no hard links


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_a_file_is_created_once_without_hard_links(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def link(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", link)
    path = str(tmp_path / "lock")
    assert storage.create_if_absent(path, b"one")
    assert not storage.create_if_absent(path, b"two")
    assert storage.read_bytes(path) == b"one"
    assert _names(tmp_path) == ["lock"]


def test_a_link_whose_answer_was_lost_is_still_ours(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = os.link

    def link(source: str, target: str) -> None:
        original(source, target)
        original(source, target)  # asked again, as over NFS

    monkeypatch.setattr(os, "link", link)
    assert storage.create_if_absent(str(tmp_path / "lock"), b"one")
    assert not storage.create_if_absent(str(tmp_path / "lock"), b"two")


@pytest.mark.parametrize("has_links", [True, False])
def test_a_creation_that_fails_leaves_nothing(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    def fsync(_: int) -> None:
        if has_links or os.path.exists(tmp_path / "lock"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def link(*_: Any) -> None:
        raise OSError(errno.EPERM, "no links")

    monkeypatch.setattr(os, "fsync", fsync)
    if not has_links:
        monkeypatch.setattr(os, "link", link)
    with pytest.raises(OSError, match="No space") as caught:
        storage.create_if_absent(str(tmp_path / "lock"), b"one")
    assert caught.value.filename == str(tmp_path / "lock")
    assert _names(tmp_path) == []


# --- file://


def test_file_addresses_are_local_paths(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "new crawl" / "ä%.gz"
    path.parent.mkdir()
    path.write_bytes(b"12")
    assert [file.path for file in storage.match(path.as_uri())] == [str(path)]
    assert storage.read_bytes(f"file://localhost{path.as_uri()[7:]}") == b"12"
    assert storage.is_local(path.as_uri())
    for wrong in ("file://host/a", "file://a", "file://"):
        with pytest.raises(ValueError, match="file:///FOLDER/NAME"):
            storage.match(wrong)


# --- weight


def test_local_paths_import_no_client() -> None:
    program = (
        "import sys; from pipelines import storage\n"
        "storage.use_options(['--s3_region_name=x']); storage.listdir('.'); storage.exists('x')\n"
        "heavy = {'apache_beam', 'requests', 'urllib3', 'obstore', 'botocore', 'google.auth'}\n"
        "assert heavy.isdisjoint(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
def test_a_fifo_is_never_waited_for(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "pipe")
    os.mkfifo(path)
    for read in (storage.read_bytes, storage.open_raw):
        with pytest.raises(OSError, match="not a regular file but a FIFO") as caught:
            read(path)
        assert caught.value.filename == path
    with pytest.raises(OSError, match="not a regular file"):
        storage.read_bytes("/dev/zero")
    assert storage.read_bytes(os.devnull) == b""


def test_a_pattern_with_a_reversed_range_is_named(crawl: pathlib.Path) -> None:
    wanted = r"'\[z-a\]\*' is not a valid pattern: bad character range.*--input"
    with pytest.raises(storage.NoInputError, match=wanted):
        storage.match("crawl/[z-a]*")


def test_a_file_takes_the_place_of_no_pipe_and_no_folder(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, message in (("pipe", "a device or a pipe"), ("folder", "Is a directory")):
        with (
            pytest.raises(OSError, match=message),
            storage.write_atomically(str(tmp_path / name)) as file,
        ):
            file.write(b"x")
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "pipe"]


# ------------------------------------------------------------------------------- read in ranges

CONTENT = bytes(range(251)) * 2


@given(
    block=st.integers(1, 300),
    ahead=st.booleans(),
    steps=st.lists(st.tuples(st.none() | st.integers(0, 510), st.integers(-1, 300)), max_size=12),
)
def test_ranges_are_read_like_a_file(
    block: int, ahead: bool, steps: list[tuple[int | None, int]]
) -> None:
    file = io.BytesIO(CONTENT)
    fetched: list[tuple[int, int]] = []

    def fetch(start: int, length: int) -> bytes:
        fetched.append((start, length))
        assert 0 <= start < start + length <= len(CONTENT)
        return CONTENT[start : start + length]

    with RangeFile(fetch, len(CONTENT), block, CONTENT[:block], 0, ahead) as ranges:
        for place, size in steps:
            if place is not None:
                ranges.seek(place)
                file.seek(place)
            assert ranges.read(size) == file.read(size)
            assert ranges.tell() == min(file.tell(), len(CONTENT)) or file.tell() > len(CONTENT)


def test_the_next_range_comes_while_one_is_worked_on() -> None:
    asked = threading.Event()

    def fetch(start: int, length: int) -> bytes:
        asked.set()
        return CONTENT[start : start + length]

    with RangeFile(fetch, len(CONTENT), 100, CONTENT[:100], 0, ahead=True) as ranges:
        ranges.read(50)
        assert not asked.is_set()  # of a file whose head alone is looked at
        ranges.read(1)
        assert asked.wait(10)
        assert ranges.read() == CONTENT[51:]


def test_a_range_that_fails_ahead_fails_when_it_is_read() -> None:
    def fetch(start: int, length: int) -> bytes:
        raise OSError(f"no bytes {start}")

    with RangeFile(fetch, len(CONTENT), 100, CONTENT[:100], 0, ahead=True) as ranges:
        assert ranges.read(100) == CONTENT[:100]
        with pytest.raises(OSError, match="no bytes 100"):
            ranges.read(1)


@pytest.mark.parametrize("path", ["out", "gs://bucket/out"])
def test_calls_ahead_keep_their_order_and_their_errors(path: str) -> None:
    assert list(storage.map_ahead(lambda item: item * 2, range(50), path)) == [*range(0, 100, 2)]
    results = storage.map_ahead(lambda item: 6 // item, [3, 2, 0, 1], path)
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(results)
