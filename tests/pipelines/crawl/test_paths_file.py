import gzip
import pathlib

import pytest

from pipelines import BuildConfig
from pipelines.crawl import paths_file
from pipelines.crawl.paths_file import (
    address,
    base_of,
    input_addresses,
    parse_paths,
    read_paths,
    read_positions,
    require_base_url,
    require_crawls,
    unpack,
)
from testing.fake_web import Answer, FakeWeb, SkippedWaits, fake_web

GOOD = "crawl-data/X/segments/1.1/wet/CC-MAIN-1-2-00000.warc.wet.gz"

HOSTILE = {
    "/etc/passwd": "not relative",
    "~root/x.gz": "not relative",
    "../x.gz": "no plain path",
    "a/../../x.gz": "no plain path",
    "a//x.gz": "no plain path",
    "a/./x.gz": "no plain path",
    "a/": "no plain path",
    "a/.bashrc": "no plain path",
    "a\\..\\x.gz": "backslash",
    "file:///etc/passwd": "scheme",
    "http://169.254.169.254/x": "scheme",
    "javascript:x": "scheme",
    "a/\x1b[31mx.gz": "cannot be printed",
    "a/x\0.gz": "cannot be printed",
    "a/\u202egz.x": "cannot be printed",
    "a/x\t.gz": "cannot be printed",
    " a/x.gz": "blanks",
    "a/" + "x" * 201: "too long",
    "a/" * 600 + "x": "too long",
}


@pytest.mark.parametrize("line", HOSTILE)
def test_hostile_lines_are_named_and_keep_their_positions(line: str) -> None:
    found = parse_paths(f"{GOOD}\n{line}\nb.gz\n".encode())
    assert found.paths == (GOOD, None, "b.gz")
    [problem] = found.problems
    assert problem.startswith("line 2 ")
    assert HOSTILE[line] in problem
    assert problem.isprintable()
    assert found.part((1, 3)) == ("b.gz",)
    assert found.part((0, 1)) == (GOOD,)


def test_lines_may_end_in_any_way_and_repeat() -> None:
    text = b"\xef\xbb\xbfa.gz\r\n\r\nb.gz\na.gz\nc.gz"
    assert parse_paths(text).paths == ("a.gz", "b.gz", "c.gz")
    assert parse_paths(b"a.gz\n\xff.gz").problems[0].startswith("line 2 has characters")
    with pytest.raises(ValueError, match="names no file"):
        parse_paths(b"\n\n")


def test_a_list_is_unpacked_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    text = b"a.gz\n" * 1000
    assert unpack(text) == unpack(gzip.compress(text[:10]) + gzip.compress(text[10:])) == text
    assert unpack(gzip.compress(text) + bytes(8)) == text
    with pytest.raises(ValueError, match="cut off"):
        unpack(gzip.compress(text)[:-9])
    with pytest.raises(ValueError, match="damaged gzip"):
        unpack(gzip.compress(text) + b"x" * 20)
    monkeypatch.setattr(paths_file, "_MOST_LIST_BYTES", 4999)
    for stored in (gzip.compress(text), gzip.compress(text[:4990]) + gzip.compress(text)):
        with pytest.raises(OverflowError, match="unpacks to more"):
            unpack(stored)


def test_a_list_of_too_many_lines_is_refused(tmp_path: pathlib.Path) -> None:
    listed = tmp_path / "wet.paths.gz"
    listed.write_bytes(gzip.compress(b"/\n" * 1_000_001, 1))
    with pytest.raises(OSError, match="has more than 1,000,000 lines, so no list of paths"):
        read_paths(str(listed))


@pytest.mark.parametrize("text", ["", ":", "5", "5:5", "7:2", "-1:3", "0:1:2", "a:b", "٣:٤"])
def test_other_positions_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--files wants A:B"):
        read_positions(text)


@pytest.mark.parametrize("crawl", ["", "CC MAIN", "-x", "crawl?", "ü", "x" * 101])
def test_other_crawls_are_refused(crawl: str) -> None:
    with pytest.raises(ValueError, match="neither a crawl"):
        require_crawls([crawl])


@pytest.mark.parametrize("address", ["http://", "https://[::1/a", "http://h:x/", "http://u:p@h/"])
def test_other_addresses_are_refused(address: str) -> None:
    message = r"names no web server \(--{0}\)|an address on h has a .* password, .* \(--{0}\)"
    with pytest.raises(ValueError, match=message.format("base-url")) as caught:
        require_base_url(address, ["http", "https"])
    assert "u:p" not in str(caught.value)
    with pytest.raises(ValueError, match=message.format("crawl")):
        require_crawls([f"{address}/x.gz"])
    for path in (address, f"@{address}"):
        with pytest.raises(ValueError, match=message.format("input")):
            BuildConfig(inputs=(path,), output="x")
    require_base_url("http://h:8080/a", ["http"])
    for more in ("?a", "#a"):
        with pytest.raises(ValueError, match="nothing can follow"):
            require_base_url(f"http://h/{more}", ["http"])


def test_paths_are_relative_to_the_server_or_the_folder_of_their_list() -> None:
    web = "https://m.example/cc/crawl-data/X/wet.paths.gz"
    assert base_of(web, [GOOD], "") == "https://m.example/cc"
    assert base_of(web, ["a.gz"], "") == "https://m.example/cc/crawl-data/X"
    assert base_of("/tmp/wet.paths.gz", [GOOD], "") == "https://data.commoncrawl.org"
    assert base_of("/tmp/wet.paths.gz", ["a.gz"], "") == "/tmp"
    assert base_of("/tmp/wet.paths.gz", ["a.gz"], "s3://commoncrawl/") == "s3://commoncrawl/"
    assert address("s3://commoncrawl/", GOOD) == f"s3://commoncrawl/{GOOD}"
    assert address("http://h", "a#b?c%.gz") == "http://h/a%23b%3Fc%25.gz"


def test_inputs_of_a_list() -> None:
    found = parse_paths(b"a.gz\nsub/b.gz\n")
    wanted = ("/x/a.gz", "/x/sub/b.gz")
    assert input_addresses("/x/wet.paths", found, None, "", "--input") == wanted
    assert input_addresses("/x/wet.paths", found, (1, 9), "", "--input") == wanted[1:]
    with pytest.raises(ValueError, match="has 2 files, none of --files"):
        input_addresses("/x/wet.paths", found, (2, 9), "", "--input")
    found = parse_paths(b"a.gz\n../b.gz\n/c.gz\n")
    with pytest.raises(ValueError, match=r"line 2 is no plain path.*and 1 more line.*--input"):
        input_addresses("/x/wet.paths", found, None, "", "--input")


def test_a_list_that_a_server_spoils_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = gzip.compress(b"a.gz\nb.gz\n")
    spoilt = [Answer(200, {}, b""), Answer(200, {}, stored[:-9]), Answer(200, {}, stored, 99)]
    skipped = SkippedWaits(monkeypatch)
    with fake_web() as web:
        web.objects["/wet.paths.gz"] = stored
        web.replace = lambda path, headers: spoilt.pop() if spoilt else None
        assert read_paths(f"{web.address}/wet.paths.gz").paths == ("a.gz", "b.gz")
        assert not spoilt
        assert min(skipped.waits) >= 1
        always(web, Answer(200, {}, b""))
        with pytest.raises(OSError, match="names no file, 6 times in a row"):
            read_paths(f"{web.address}/wet.paths.gz")
        always(web, Answer(200, {}, gzip.compress(bytes(70 << 20), 1)))
        with pytest.raises(OSError, match="unpacks to more than 64 MB, so no list of paths"):
            read_paths(f"{web.address}/wet.paths.gz")


def always(web: FakeWeb, answer: Answer) -> None:
    web.replace = lambda path, headers: answer
