import contextlib
import email.utils
import errno
import fcntl
import gzip
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping

import pytest

from benchmarks.fetch import kill_and_finish
from pipelines.crawl.fetch import FetchConfig, Fetched, fetch
from pipelines.storage import manners
from pipelines.storage.web import Version, WebFile
from testing.fake_web import Answer, FakeWeb, SkippedWaits, fake_web
from testing.helpers import Outcome, run_c4, wet_bytes

FOLDER = "/crawl-data/T/segments/1.1/wet/"
NAMES = [f"CC-MAIN-1-2-0000{number}.warc.wet.gz" for number in range(4)]
PATHS = [FOLDER + name for name in NAMES]
LIST = "/crawl-data/T/wet.paths.gz"


def wet(seed: int, pages: int = 60) -> bytes:
    draw = random.Random(seed)
    return wet_bytes(
        (f"http://{seed}.example/{page}", "2019-04-18T10:00:00Z", f"{draw.getrandbits(9000):x}.")
        for page in range(pages)
    )


FILES = [wet(number) for number in range(4)]


def stored(paths: list[str]) -> bytes:
    return gzip.compress("\n".join(path.removeprefix("/") for path in paths).encode())


@pytest.fixture
def web() -> Iterator[FakeWeb]:
    with fake_web() as server:
        server.weak = False
        server.objects |= {LIST: stored(PATHS), **dict(zip(PATHS, FILES, strict=True))}
        yield server


@pytest.fixture
def skipped(monkeypatch: pytest.MonkeyPatch) -> SkippedWaits:
    return SkippedWaits(monkeypatch)


def c4_fetch(web: FakeWeb, folder: pathlib.Path, *more: str) -> Outcome:
    return run_c4("fetch", "--crawl", "T", "--base-url", web.address, "--to", folder, *more)


def fetched(web: FakeWeb, folder: pathlib.Path, files: tuple[int, int] = (0, 1)) -> Fetched:
    config = FetchConfig(crawl=("T",), to=str(folder), base_url=web.address, files=files)
    return fetch(config, show_progress=False, note=lambda line: None)


def content(folder: pathlib.Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


WHOLE = dict(zip(NAMES, FILES, strict=True))


def test_a_crawl_is_fetched_once(web: FakeWeb, tmp_path: pathlib.Path) -> None:
    done = c4_fetch(web, tmp_path / "wet")
    assert done.status == 0, done.err
    assert content(tmp_path / "wet") == WHOLE
    assert not (tmp_path / "wet" / ".c4-fetch").exists()
    assert web.asked == dict.fromkeys([LIST, *PATHS], 1)
    assert web.requests["HEAD"] == 0
    assert "4 files fetched" in done.out
    for headers in web.seen_headers:
        assert headers["User-Agent"].startswith("colossal-c4/0.")
        assert headers["Accept-Encoding"] == "identity"
    again = c4_fetch(web, tmp_path / "wet")
    assert again.status == 0
    assert "0 files fetched" in again.out
    assert "4 files there already" in again.out
    assert web.asked == {LIST: 2, **dict.fromkeys(PATHS, 1)}


def test_a_part_of_a_list_by_its_address(web: FakeWeb, tmp_path: pathlib.Path) -> None:
    done = run_c4("fetch", "--crawl", web.address + LIST, "--files", "1:3", "--to", tmp_path / "a")
    assert done.status == 0, done.err
    assert content(tmp_path / "a") == {name: WHOLE[name] for name in NAMES[1:3]}
    (tmp_path / "wet.paths").write_bytes(gzip.decompress(web.objects[LIST]))
    done = run_c4("fetch", "--crawl", tmp_path / "wet.paths", "--base-url", web.address, "--to",
                  tmp_path / "b", "--files", "0:1")  # fmt: skip
    assert done.status == 0, done.err
    assert content(tmp_path / "b") == {NAMES[0]: FILES[0]}
    done = c4_fetch(web, tmp_path / "c", "--files", "4:9")
    assert done.status == 1
    assert done.err == f"c4: error: {web.address}{LIST} has 4 files, none of --files\n"


def test_a_crawl_that_is_none_is_named(web: FakeWeb, tmp_path: pathlib.Path) -> None:
    done = run_c4("fetch", "--crawl", "CC-MAIN-2019-99", "--base-url", web.address, "--to",
                  tmp_path)  # fmt: skip
    assert done.status == 1
    assert done.err.startswith(
        f"c4: error: CC-MAIN-2019-99 is not a crawl: there is no {web.address}/crawl-data/"
    )
    done = run_c4("fetch", "--crawl", f"{web.address}/x.paths", "--to", tmp_path)
    assert done.err == f"c4: error: {web.address}/x.paths: No such file or directory\n"


def test_several_crawls_and_files_of_one_name(web: FakeWeb, tmp_path: pathlib.Path) -> None:
    other = PATHS[0].replace("1.1", "2.2")
    web.objects |= {"/crawl-data/U/wet.paths.gz": stored([other, PATHS[1]]), other: FILES[3]}
    done = c4_fetch(web, tmp_path / "wet", "--crawl", "U", "--quiet")
    assert (done.status, done.out, done.err) == (0, "", "")
    found = content(tmp_path / "wet")
    assert found == {
        **{name: WHOLE[name] for name in NAMES[1:]}, PATHS[0][1:]: FILES[0], other[1:]: FILES[3],
    }  # fmt: skip


def test_a_file_that_the_server_lacks_is_named_and_the_rest_fetched(
    web: FakeWeb, tmp_path: pathlib.Path
) -> None:
    del web.objects[PATHS[1]]
    done = c4_fetch(web, tmp_path / "wet")
    assert done.status == 1
    assert f"c4: error: {web.address}{PATHS[1]}: No such file or directory\n" in done.err
    assert "1 file missing, named above" in done.err
    assert web.asked[PATHS[1]] == 1
    assert content(tmp_path / "wet") == {name: WHOLE[name] for name in WHOLE if name != NAMES[1]}


def test_a_folder_in_the_place_of_a_file_is_named(web: FakeWeb, tmp_path: pathlib.Path) -> None:
    (tmp_path / NAMES[1]).mkdir()
    done = c4_fetch(web, tmp_path)
    assert done.status == 1
    assert f"{PATHS[1]}: {tmp_path / NAMES[1]} is a folder: remove it, or give an" in done.err
    assert content(tmp_path) == {name: WHOLE[name] for name in WHOLE if name != NAMES[1]}
    assert web.asked[PATHS[1]] == 0


def test_hostile_lines_are_named_and_nothing_is_written_elsewhere(
    web: FakeWeb, tmp_path: pathlib.Path
) -> None:
    web.objects[LIST] = stored(["/../../x.gz", PATHS[0], "//etc/y.gz", "/a\\..\\z.gz"])
    web.objects["/../../x.gz"] = FILES[1]
    done = c4_fetch(web, tmp_path / "wet")
    assert done.status == 1
    assert content(tmp_path) == {f"wet/{NAMES[0]}": FILES[0]}
    for line in ("line 1 is not a plain path", "line 3 is not relative", "line 4 has a backslash"):
        assert f"{LIST}: {line}" in done.err


# --- one fault, once: survived


def once(*answers: Answer) -> Callable[[str, Mapping[str, str]], Answer | None]:
    """Gives these answers in turn for the first file, then the file itself."""
    left = list(answers)
    return lambda path, headers: left.pop(0) if path == PATHS[0] and left else None


def part(first: int, last: int, size: int, body: bytes, etag: str = "") -> Answer:
    headers = {"Content-Range": f"bytes {first}-{last}/{size}", **({"ETag": etag} if etag else {})}
    return Answer(206, headers, body)


A = FILES[0]
ETAG = f'"{hash(A) & 0xFFFFFFFF:x}"'
SURVIVED = {
    "busy": [Answer(503, {"Retry-After": "7"}), Answer(500), Answer(429), Answer(502)],
    "refused": [Answer(403, {}, b"<h1>Slow down</h1>")] * 3,
    "empty": [Answer(200)] * 2,
    "cut off": [Answer(200, {}, A[:5000], len(A))],
    "cut off without a length": [Answer(200, {}, A[:5000], -1)],
    "length too small": [Answer(200, {}, A, len(A) - 99)],
    "length too large": [Answer(200, {"ETag": ETAG}, A, len(A) + 99)],
    "gzip said": [Answer(200, {"Content-Encoding": "gzip"}, A)],
    "no length": [Answer(200, {}, A, -1)],
    "a page": [Answer(200, {"Content-Type": "text/html"}, b"<html>Log in to the hotel's network")],
    "a part nobody asked for": [part(0, 99, len(A), A[:100])],
    "damaged": [Answer(200, {}, A[:9000] + b"?" * 99 + A[9099:])],
    "bytes after the end": [Answer(200, {}, A + b"more")],
}


@pytest.mark.parametrize("fault", SURVIVED)
def test_a_passing_fault_is_survived(
    fault: str, web: FakeWeb, tmp_path: pathlib.Path, skipped: SkippedWaits
) -> None:
    web.replace = once(*SURVIVED[fault])
    done = fetched(web, tmp_path, (0, 2))
    assert done.failures == ()
    assert content(tmp_path) == {name: WHOLE[name] for name in NAMES[:2]}
    if fault not in ("gzip said", "no length"):
        assert skipped.waits
        assert min(skipped.waits) >= 1
    if fault == "busy":
        assert [wait >= least for wait, least in zip(skipped.waits, (7, 2, 4, 8), strict=True)]
    if fault == "refused":
        pauses = [wait for wait in skipped.waits if wait > 1.99]
        assert [round(pause) for pause in pauses] == [2, 4, 8]
    if fault == "length too large":  # nothing twice
        assert web.sent[PATHS[0]] == 0


def test_retry_after_may_be_a_date(
    web: FakeWeb, tmp_path: pathlib.Path, skipped: SkippedWaits
) -> None:
    date = email.utils.formatdate(time.time() + 100, usegmt=True)
    web.replace = once(
        Answer(503, {"Retry-After": date}), Answer(503, {"Retry-After": "soon"}),
        Answer(503, {"Retry-After": "9" * 40}),
    )  # fmt: skip
    assert fetched(web, tmp_path).fetched == 1
    first, second, third = skipped.waits
    assert 95 < first <= 100
    assert 2 <= second <= 3
    assert third == 3600


# --- a fault that stays: named, in one line; the other files are fetched

ELSEWHERE = "http://127.0.0.1:9/x"  # where nobody listens
NAMED = {
    "empty": (Answer(200), "the server sends an empty file, 6 times in a row"),
    "cut off": (Answer(200, {}, A[:5000], -1), "is cut off: its gzip does not end (fetched 3"),
    "breaks": (Answer(200, {"ETag": '"x"'}, A[:5000], len(A)), "(Connection broken: Incomplete"),
    "a page": (Answer(200, {}, b"<html>Log in"), "is an HTML page, perhaps a server's error"),
    "damaged": (Answer(200, {}, A[:9000] + b"?" * 99 + A[9099:]), "is damaged gzip"),
    "a part": (part(5, 99, len(A), A[5:100]), "the server sends a part that was not"),
    "endless": (Answer(200, {}, gzip.compress(bytes(3 << 20), 1)), "unpacks to more than 2 MB"),
    "to a file": (Answer(302, {"Location": "file:///etc/passwd"}), "not a web address: refused"),
    "to a dead host": (Answer(302, {"Location": ELSEWHERE}), "cannot be reached: "),
    "to a bad address": (Answer(302, {"Location": "http://a b/"}), "cannot be reached: "),
    "to nowhere": (Answer(302, {"Location": "http://[x"}), "not a web address: refused"),
    "loop": (Answer(301, {"Location": PATHS[0]}), "redirects more than 5 times"),
    "gone": (Answer(410), "No such file"),
    "asked wrongly": (Answer(400, {}, b"<p>no\x1b such\npath</p>"), "status 400: no· such path"),
    "refused in gzip": (Answer(400, {}, gzip.compress(b"no " + bytes(99 << 20), 1)), "400: no ··"),
    "refused": (Answer(403, {}, b"<Error><Code>AccessDenied</Code></Error>"), "AccessDenied"),
}


@pytest.mark.parametrize("fault", NAMED)
def test_a_lasting_fault_is_named(
    fault: str, web: FakeWeb, tmp_path: pathlib.Path, skipped: SkippedWaits
) -> None:
    answer, message = NAMED[fault]
    web.replace = lambda path, headers: answer if path == PATHS[0] else None
    done = c4_fetch(web, tmp_path, "--files", "0:3", "--max-file-mb", "2", "--connections", "1")
    assert done.status == 1
    [line] = [line for line in done.err.splitlines() if PATHS[0] in line]
    assert message in line
    if fault == "refused":  # of a single connection, by which the others wait too
        assert content(tmp_path) == {}
        assert [round(wait) for wait in skipped.waits if wait > 1.9] == [2, 4, 8, 16, 32, 64, 128]
        return
    assert content(tmp_path) == {name: WHOLE[name] for name in NAMES[1:3]}
    assert not (tmp_path / ".c4-fetch").exists()
    assert web.asked[PATHS[0]] <= 12


def test_a_file_that_is_not_compressed_is_bounded_too(web: FakeWeb, tmp_path: pathlib.Path) -> None:
    web.objects |= {LIST: stored([FOLDER + "a.wet", FOLDER + "b.wet"]), FOLDER + "a.wet": b"text"}
    web.objects[FOLDER + "b.wet"] = bytes((2 << 20) + 1)
    done = c4_fetch(web, tmp_path, "--max-file-mb", "2")
    assert "b.wet: is larger than 2 MB (--max-file-mb)\n" in done.err
    assert content(tmp_path) == {"a.wet": b"text"}


def test_another_version_is_noticed_before_its_bytes_are_read(web: FakeWeb) -> None:
    for source in (Version('"other"', "", len(A)), Version("", "", len(A) + 1)):
        web.tells_validators = bool(source.etag)
        with pytest.raises(OSError, match="changed while it was read") as caught:
            WebFile(web.address + PATHS[0], start=5000, source=source)
        assert caught.value.errno == errno.ESTALE
    with WebFile(web.address + PATHS[0], start=5000, source=Version("", "", len(A))) as file:
        assert file.read() == A[5000:]


def test_a_server_that_refuses_one_file_only_serves_the_others(
    web: FakeWeb, tmp_path: pathlib.Path, skipped: SkippedWaits
) -> None:
    manners_of_run = manners.Manners(lambda line: None)
    patience = manners_of_run.patience("a")
    for _ in range(7):
        manners_of_run.ask("GET", web.address + PATHS[1], {}, patience).close()
        host = manners_of_run._hosts[web.address.removeprefix("http://")]
        manners_of_run._refuse(host, "h", manners._clock(), "no", patience)
        manners_of_run.ask("GET", web.address + PATHS[1], {}, patience).close()
    with pytest.raises(PermissionError, match="refuses this file"):
        manners_of_run._refuse(host, "h", manners._clock(), "no", patience)
    assert [round(wait) for wait in skipped.waits] == [2, 4, 8, 16, 32, 64, 128]


def test_what_failed_before_the_run_is_refused_is_named_too(
    web: FakeWeb, tmp_path: pathlib.Path, skipped: SkippedWaits
) -> None:
    web.replace = lambda path, headers: (
        Answer(404 if path == PATHS[0] else 403) if (path in PATHS) else None
    )
    done = c4_fetch(web, tmp_path, "--connections", "1")
    assert done.status == 1
    first, last = [line for line in done.err.splitlines() if "c4: error: " in line]
    assert first == f"c4: error: {web.address}{PATHS[0]}: No such file or directory"
    assert last.startswith(f"c4: error: {web.address}{PATHS[1]}: the server refuses requests")
    assert web.asked[PATHS[2]] == 0


def test_a_version_that_changes_between_ranges_is_fetched_anew(
    web: FakeWeb, tmp_path: pathlib.Path, skipped: SkippedWaits
) -> None:
    web.replace = once(Answer(200, {"ETag": '"old"'}, FILES[1][:5000], len(FILES[1])))
    assert fetched(web, tmp_path).failures == ()
    assert content(tmp_path) == {NAMES[0]: A}
    # A server that ignores If-Range and sends the rest of another version.
    web.replace = once(
        Answer(200, {"ETag": '"old"'}, FILES[2][:5000], len(FILES[2])),
        part(5000, len(A) - 1, len(A), A[5000:], '"new"'),
    )
    (tmp_path / NAMES[0]).unlink()
    assert fetched(web, tmp_path).failures == ()
    assert content(tmp_path) == {NAMES[0]: A}
    # One that claims that it is the same version: the gzip shows it.
    web.replace = once(
        Answer(200, {"ETag": '"old"'}, FILES[2][:5000], len(A)),
        part(5000, len(A) - 1, len(A), A[5000:], '"old"'),
    )
    (tmp_path / NAMES[0]).unlink()
    assert fetched(web, tmp_path).failures == ()
    assert content(tmp_path) == {NAMES[0]: A}


def test_a_server_with_wrong_ranges_is_asked_for_the_whole_file(
    web: FakeWeb, tmp_path: pathlib.Path, skipped: SkippedWaits
) -> None:
    def replace(path: str, headers: Mapping[str, str]) -> Answer | None:
        if path != PATHS[0]:
            return None
        if "Range" in headers:
            return part(0, 9, len(A), A[:10], '"x"')
        if web.asked[path] == 1:
            return Answer(200, {"ETag": '"x"'}, A[:5000], len(A))
        return Answer(200, {"ETag": '"x"'}, A)

    web.replace = replace
    assert fetched(web, tmp_path).failures == ()
    assert content(tmp_path) == {NAMES[0]: A}


def test_a_redirect_to_https_is_followed_and_never_back(
    web: FakeWeb, tmp_path: pathlib.Path
) -> None:
    web.objects["/elsewhere"] = A
    web.replace = once(Answer(307, {"Location": "/elsewhere"}))
    assert fetched(web, tmp_path).failures == ()
    assert content(tmp_path) == {NAMES[0]: A}
    assert manners._redirected("http://a/x", "//b/y", "") == "http://b/y"
    assert manners._redirected("http://a/x", "https://b/y", "") == "https://b/y"
    with pytest.raises(OSError, match=r"from https to http \(http://b/y\): refused"):
        manners._redirected("https://a/x", "http://b/y", "https://a/x")


def test_a_server_that_never_answers_is_given_up(
    tmp_path: pathlib.Path, skipped: SkippedWaits
) -> None:
    done = run_c4("fetch", "--crawl", "T", "--base-url", "http://127.0.0.1:9", "--to", tmp_path)
    assert done.status == 1
    [line] = done.err.splitlines()
    assert line.startswith("c4: error: http://127.0.0.1:9/crawl-data/T/wet.paths.gz: the server")
    assert 25 < sum(skipped.waits) < 40
    (tmp_path / "wet.paths").write_text("a.gz\nb.gz\n")
    done = run_c4("fetch", "--crawl", tmp_path / "wet.paths", "--base-url", "http://127.0.0.1:9",
                  "--to", tmp_path / "b", "--quiet")  # fmt: skip
    assert done.status == 1
    [line] = done.err.splitlines()
    assert "the server cannot be reached" in line


def test_a_server_that_has_answered_is_waited_for(
    web: FakeWeb, tmp_path: pathlib.Path, skipped: SkippedWaits
) -> None:
    web.replace = once(*[Answer(503)] * 50)
    assert fetched(web, tmp_path).failures == ()
    assert sum(skipped.waits) > 40 * 60
    assert max(skipped.waits) <= 90


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"\0\x1b[31m\xff" * 50, "the server's answer is no HTTP (BadStatusLine): "),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 500, "is no HTTP (HTTPException): got more than "),
        (b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70000, "is no HTTP (LineTooLong): got more than "),
    ],
)
def test_answers_that_are_no_http_are_given_up(
    answer: bytes, message: str, web: FakeWeb, skipped: SkippedWaits
) -> None:
    run = manners.Manners(lambda line: None)
    url = f"{web.address}/a"
    run.ask("GET", url, {}, run.patience(url)).close()
    name = web.address.partition("://")[2]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        run._hosts[f"127.0.0.1:{port}"] = run._hosts[name]  # which has answered
        thread = threading.Thread(target=answer_all, args=(server, answer))
        thread.start()
        with pytest.raises(manners.FaultError) as caught:
            run.ask("GET", url := f"http://127.0.0.1:{port}/a", {}, run.patience(url))
        thread.join()
    assert message in str(caught.value.strerror)
    assert str(caught.value.strerror).isprintable()
    assert str(caught.value.strerror).endswith(", 6 times in a row")
    assert sum(skipped.waits) < 60


def answer_all(server: socket.socket, answer: bytes) -> None:
    for _ in range(6):
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(1 << 16)
            connection.sendall(answer)


def test_a_server_that_stops_answering_is_named_while_it_is_waited_for(
    skipped: SkippedWaits,
) -> None:
    notes: list[str] = []
    run = manners.Manners(notes.append)
    with fake_web() as web:
        url = f"{web.address}/a"
        run.ask("GET", url, {}, run.patience(url)).close()
    with pytest.raises(OSError, match=r"cannot be reached: .*, for 6 hours: try again later"):
        run.ask("GET", url, {}, run.patience(url))
    [note] = notes
    assert "does not answer (the server cannot be reached: " in note
    assert note.endswith("): trying again")


# --- resuming


def unfinished(folder: pathlib.Path, size: int, etag: str, total: int, address: str) -> None:
    """Leaves what a killed run leaves."""
    state = folder / ".c4-fetch"
    state.mkdir(parents=True)
    (state / f"{NAMES[0]}.unfinished").write_bytes(A[:size])
    source = {"url": f"{address}{PATHS[0]}", "etag": etag, "modified": "", "size": total}
    (state / f"{NAMES[0]}.source").write_text(json.dumps(source))


@pytest.mark.parametrize("left", [1, 700, len(A)])
def test_a_killed_run_is_continued_where_it_was(
    left: int, web: FakeWeb, tmp_path: pathlib.Path
) -> None:
    unfinished(tmp_path, len(A) - left, ETAG, len(A), web.address)
    assert fetched(web, tmp_path) == Fetched(1, left, 0, ())
    assert content(tmp_path) == {NAMES[0]: A}
    assert web.sent[PATHS[0]] == left
    assert web.seen_headers[-1].get("If-Range") == (ETAG if left < len(A) else None)


@pytest.mark.parametrize("size_known", [True, False])
def test_a_kill_before_the_rename_downloads_nothing(
    size_known: bool, web: FakeWeb, tmp_path: pathlib.Path
) -> None:
    unfinished(tmp_path, len(A), ETAG, len(A), web.address)
    if not size_known:  # of a server that sent no length: it is asked, and has no further byte
        side = tmp_path / ".c4-fetch" / f"{NAMES[0]}.source"
        side.write_text(side.read_text().replace(f'"size": {len(A)}', '"size": null'))
    assert fetched(web, tmp_path) == Fetched(1, 0, 0, ())
    assert content(tmp_path) == {NAMES[0]: A}
    assert web.sent[PATHS[0]] == 0
    assert web.asked[PATHS[0]] == (0 if size_known else 1)


@pytest.mark.parametrize("spoilt", ["etag", "source", "bytes", "address", "longer"])
def test_what_is_no_beginning_of_the_file_is_fetched_anew(
    spoilt: str, web: FakeWeb, tmp_path: pathlib.Path, skipped: SkippedWaits
) -> None:
    etag = '"other"' if spoilt == "etag" else ETAG
    address = "http://other.example" if spoilt == "address" else web.address
    unfinished(tmp_path, 5000, etag, len(A), address)
    part = tmp_path / ".c4-fetch" / f"{NAMES[0]}.unfinished"
    if spoilt == "source":
        (tmp_path / ".c4-fetch" / f"{NAMES[0]}.source").write_text("{")
    if spoilt == "bytes":
        part.write_bytes(A[:4000] + bytes(1000))
    if spoilt == "longer":
        part.write_bytes(A + A[:7000])
    assert fetched(web, tmp_path).failures == ()
    if spoilt in ("source", "address"):
        assert not any("Range" in headers for headers in web.seen_headers)
    assert content(tmp_path) == {NAMES[0]: A}


def test_a_cut_file_of_another_tool_is_not_taken_for_whole(
    web: FakeWeb, tmp_path: pathlib.Path
) -> None:
    (tmp_path / NAMES[0]).write_bytes(A[:-30])
    (tmp_path / NAMES[1]).write_bytes(b"")
    (tmp_path / NAMES[2]).write_bytes(FILES[2])
    assert fetched(web, tmp_path, (0, 3))[::2] == (2, 1)
    assert content(tmp_path) == {name: WHOLE[name] for name in NAMES[:3]}
    # Left by a kill between the rename and the end.
    (tmp_path / ".c4-fetch").mkdir()
    (tmp_path / ".c4-fetch" / f"{NAMES[0]}.source").write_text("{}")
    assert fetched(web, tmp_path, (0, 3)).found == 3
    assert not (tmp_path / ".c4-fetch").exists()


def test_two_runs_do_not_share_a_folder(web: FakeWeb, tmp_path: pathlib.Path) -> None:
    lock = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    (tmp_path / ".c4-fetch").mkdir()  # the other's, empty between two files
    done = c4_fetch(web, tmp_path)
    assert (tmp_path / ".c4-fetch").is_dir()
    os.close(lock)
    assert done.status == 1
    assert done.err.startswith(f"c4: error: {tmp_path}: another c4 fetch writes to this folder")
    assert c4_fetch(web, tmp_path).status == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "s3://bucket/x"], "give a folder of this machine (--to)"),
        (["--base-url", "ftp://x"], "give an address with http:// or https://"),
        (["--connections", "11"], "connections must be between 1 and 10, got 11 (--connections)"),
        (["--crawl", "a b"], "neither a crawl"),
    ],
)
def test_other_values_are_refused(words: list[str], message: str, tmp_path: pathlib.Path) -> None:
    given = {"--crawl": "T", "--to": str(tmp_path), **dict([words])}
    done = run_c4("fetch", *[word for pair in given.items() for word in pair])
    assert done.status == 1
    assert message in done.err


def test_the_contact_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("C4_CONTACT", " me@example.org ")
    assert manners.user_agent().endswith(" (+me@example.org)")
    monkeypatch.setenv("C4_CONTACT", "a\r\nHost: b")
    with pytest.raises(ValueError, match="C4_CONTACT must be one line"):
        manners.user_agent()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_run_ends_at_once_and_continues(
    number: int, web: FakeWeb, tmp_path: pathlib.Path
) -> None:
    hold = threading.Event()
    web.block = 4000

    def after_block(path: str, position: int) -> None:
        if path == PATHS[0]:
            hold.wait(30)

    web.after_block = after_block
    words = ["fetch", "--crawl", "T", "--base-url", web.address, "--to", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.c4_main", *words, "--files", "0:1"],
        stderr=subprocess.PIPE,
    )
    part = tmp_path / ".c4-fetch" / f"{NAMES[0]}.unfinished"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not (part.exists() and part.stat().st_size == 4000):
        threading.Event().wait(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=8)
    assert process.returncode == (130 if number == signal.SIGTERM else -number)
    if number == signal.SIGTERM:
        assert err.endswith(b"c4: interrupted; run the same command again to continue\n")
    assert not (tmp_path / NAMES[0]).exists()
    web.block, web.after_block = 1 << 30, lambda path, position: None
    web.sent.clear()
    assert c4_fetch(web, tmp_path, "--files", "0:1").status == 0
    assert web.sent[PATHS[0]] == len(A) - 4000
    hold.set()
    assert content(tmp_path) == {NAMES[0]: A}


@pytest.mark.slow
def test_kills_at_random_points_cost_no_byte(tmp_path: pathlib.Path) -> None:
    result = kill_and_finish(tmp_path, kills=4, seed=1)
    assert result.identical
    assert result.kills == 4
    assert result.twice <= result.allowed
