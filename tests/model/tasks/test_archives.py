"""Archives from strangers: what is refused, and that nothing of them lands on the disk."""

import bz2
import gzip
import io
import lzma
import os
import random
import stat
import struct
import tarfile
import zipfile

import pytest

from model.tasks.sources import files
from model.tasks.sources.files import Files


def zip_of(path, members, mode=None, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            if mode is not None:
                info.external_attr = mode << 16
            archive.writestr(info, content)
    return path


def tar_of(path, members, opener=None):
    with tarfile.open(path, opener or "w:gz") as archive:
        for name, content in members:
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.name = name
            body = b"" if isinstance(content, tarfile.TarInfo) else content
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return path


def link(kind, target="/etc/passwd"):
    info = tarfile.TarInfo("x")
    info.type, info.linkname = kind, target
    return info


def contents(path):
    with Files(path) as found:
        read = {}
        for name in found.names:
            with found.open(name) as stream:
                read[name] = stream.read()
        return read


@pytest.fixture(autouse=True)
def nothing_is_unpacked(tmp_path, monkeypatch):
    """Whatever a test reads: no file appears beside what the test itself made."""
    monkeypatch.chdir(tmp_path)
    spools = tmp_path / "spools"
    spools.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(spools))
    yield
    assert not list(spools.iterdir())


def test_a_folder_is_read_with_the_archives_in_it(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_bytes(b"a")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"b"))
    (tmp_path / "c.txt.bz2").write_bytes(bz2.compress(b"c"))
    (tmp_path / "d.txt.xz").write_bytes(lzma.compress(b"d"))
    zip_of(tmp_path / "z.zip", [("in/e.txt", b"e"), ("in/", b"")])
    tar_of(tmp_path / "t.tgz", [("in/f.txt", b"f")])
    tar_of(tmp_path / "u.tar", [("g.txt", b"g")], "w")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "nowhere").symlink_to("absent")

    assert contents(tmp_path) == {
        "sub/a.txt": b"a", "b.txt": b"b", "c.txt": b"c", "d.txt": b"d", "z.zip/in/e.txt": b"e",
        "t.tgz/in/f.txt": b"f", "u.tar/g.txt": b"g",
    }  # fmt: skip


def test_a_file_and_a_single_archive_are_read_too(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"a")
    assert contents(path) == {"a.txt": b"a"}
    assert contents(tar_of(tmp_path / "t.tar.gz", [("x", b"1")])) == {"t.tar.gz/x": b"1"}
    with pytest.raises(FileNotFoundError):
        Files(tmp_path / "absent")


def test_two_members_can_be_read_in_turns(tmp_path):
    path = tar_of(tmp_path / "t.tgz", [("a", b"1\n2\n"), ("b", b"3\n4\n")])
    with Files(path) as found, found.open("t.tgz/a") as a, found.open("t.tgz/b") as b:
        assert [a.readline(), b.readline(), a.readline(), b.readline()] == [
            b"1\n", b"3\n", b"2\n", b"4\n",
        ]  # fmt: skip


NAMES = ["/etc/passwd", "../x", "a/../../x", "..\\x", "\\x", "C:/x", "c:x", "a/.."]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_names_that_lead_outside_are_refused(tmp_path, make, name):
    path = make(tmp_path / ("a.zip" if make is zip_of else "a.tgz"), [("ok", b""), (name, b"x")])
    with pytest.raises(ValueError, match="absolute name or leads outside"):
        Files(path)
    with pytest.raises(ValueError, match="absolute name or leads outside"):
        Files(tmp_path)


def test_a_name_with_a_null_character_is_refused(tmp_path):
    path = zip_of(tmp_path / "a.zip", [("okXevil", b"x")])
    path.write_bytes(path.read_bytes().replace(b"okXevil", b"ok\0evil"))
    with pytest.raises(ValueError, match="absolute name or leads outside"):
        Files(path)


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE],
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind):
    path = tar_of(tmp_path / "a.tgz", [("train.tsv", link(kind))])
    with pytest.raises(ValueError, match=r"member 'train.tsv' is a link or a device"):
        Files(path)


@pytest.mark.parametrize("mode", [stat.S_IFLNK | 0o777, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_in_a_zip_are_refused(tmp_path, mode):
    path = zip_of(tmp_path / "a.zip", [("train.tsv", b"/etc/passwd")], mode)
    with pytest.raises(ValueError, match=r"member 'train.tsv' is a link or a device"):
        Files(path)


def test_two_members_of_one_name_are_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = zip_of(tmp_path / "a.zip", [("x", b"1"), ("x", b"2")])
    with pytest.raises(ValueError, match=r"a.zip/x: there are two files of that name"):
        Files(path)


@pytest.fixture
def small_limit(monkeypatch):
    monkeypatch.setattr(files, "_FREE_BYTES", 10_000)


BOMB = bytes(1_000_000)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("a.zip", lambda path: zip_of(path, [("x", BOMB)])),
        ("a.zip", lambda path: zip_of(path, [(f"x{n}", BOMB[:200_000]) for n in range(9)])),
        ("a.tgz", lambda path: tar_of(path, [("x", BOMB)])),
        ("a.txt.gz", lambda path: path.write_bytes(gzip.compress(BOMB))),
        ("a.txt.bz2", lambda path: path.write_bytes(bz2.compress(BOMB))),
        ("a.txt.xz", lambda path: path.write_bytes(lzma.compress(BOMB))),
    ],
)
def test_a_bomb_is_refused_before_it_inflates(tmp_path, small_limit, name, make):
    make(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name}: inflates to [0-9,]+ bytes, over 100 times"):
        contents(tmp_path / name)


def test_a_zip_that_lies_about_a_size_is_refused(tmp_path, small_limit):
    path = zip_of(tmp_path / "a.zip", [("x", BOMB)])
    content = path.read_bytes()
    # Both headers say 100 bytes.
    path.write_bytes(content.replace(struct.pack("<L", len(BOMB)), struct.pack("<L", 100)))
    with pytest.raises(ValueError, match=r"a\.zip: "):
        contents(path)


def test_text_as_it_is_published_is_below_the_limit(tmp_path, small_limit):
    text = b"".join(b"%d\tsome sentence\n" % n for n in range(20_000))
    assert contents(zip_of(tmp_path / "a.zip", [("x", text)])) == {"a.zip/x": text}


@pytest.mark.parametrize("name", ["a.zip", "a.tgz", "a.tar", "b.txt.gz"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "junk", "empty"])
def test_a_damaged_archive_is_named(tmp_path, name, damage):
    path = tmp_path / name
    body = random.Random(1).randbytes(3_000)
    if name == "a.zip":
        zip_of(path, [("x", body)])
    elif name == "b.txt.gz":
        path.write_bytes(gzip.compress(body))
    else:
        tar_of(path, [("x", body)], "w:gz" if name == "a.tgz" else "w")
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[:1_500]
    elif damage == "flipped":
        content[1_000] ^= 255
    else:
        content = bytearray(b"junk" * 200 if damage == "junk" else b"")
    path.write_bytes(content)
    if (name, damage) in {("a.tar", "flipped"), ("b.txt.gz", "empty")}:
        assert len(contents(path)) == 1  # no checksum of the content; an empty file
        return
    with pytest.raises(ValueError, match=rf"{name}: damaged or encrypted: "):
        contents(path)


def test_an_encrypted_member_is_named(tmp_path):
    path = zip_of(tmp_path / "a.zip", [("x", b"secret")], method=zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(header) + flags] |= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.zip: damaged or encrypted: "):
        contents(path)
