import datetime
import json
import pathlib
import sys
import zipfile
from typing import Any

import pytest

from scripts import audit
from scripts.audit import LOCKS, Pin, main, pins

LOCK = """\
# by make lock
foo-bar==1.4.0 ; python_version >= '3.11' \\
    --hash=sha256:00
    # via x
other[extra]==2.0 \\
    --hash=sha256:11
"""
FAULT = {"id": "PYSEC-1", "aliases": ["CVE-1", "GHSA-1"], "fix_versions": ["1.5"]}


@pytest.fixture
def lock(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "lock.txt"
    path.write_text(LOCK)
    return path


def pip_audit(folder: pathlib.Path, answers: dict[str, Any], stderr: str = "") -> str:
    """A program that answers as pip-audit does, of the packages it is asked about."""
    path = folder / "pip-audit"
    path.write_text(
        f"#!{sys.executable}\n"
        "import json, sys\n"
        f"answers = json.loads({json.dumps(json.dumps(answers))})\n"
        "[asked] = [w.split('=', 1)[1] for w in sys.argv if w.startswith('--requirement=')]\n"
        f"sys.stderr.write({stderr!r})\n"
        "told = []\n"
        "for line in open(asked).read().split():\n"
        "    name, version = line.split('==')\n"
        "    told.append({'name': name, 'version': version, **answers.get(name, {'vulns': []})})\n"
        "if answers:\n"
        "    print(json.dumps({'dependencies': told, 'fixes': []}))\n"
    )
    path.chmod(0o755)
    return str(path)


CANARY = {"jinja2": {"vulns": [{"id": "X", "fix_versions": [], "aliases": []}]}}


def ignoring(folder: pathlib.Path, entries: str = "") -> str:
    path = folder / "ignore.toml"
    path.write_text(entries)
    return str(path)


def entry(until: datetime.date, found: str = "CVE-1", package: str = "Foo_Bar") -> str:
    return (
        f'[[ignore]]\nid = "{found}"\npackage = "{package}"\nreason = "not reached"\n'
        f"until = {until}\n"
    )


def test_our_own_locks_are_read() -> None:
    found = {lock.stem: pins(lock.read_text(encoding="utf-8")) for lock in LOCKS}
    assert found.keys() >= {"tools", "build", "train", "test", "pods", "image"}
    assert {pin.name for pin in found.pop("tools")} == {"setuptools"}
    for packages in found.values():
        assert {"apache-beam", "pyarrow", "numpy"} <= {pin.name for pin in packages}
    assert len(found["test"]) > 200
    audit.read_ignored(audit.IGNORED)


def test_every_pin_of_a_lock_counts() -> None:
    assert pins(LOCK) == {Pin("foo-bar", "1.4.0"), Pin("other", "2.0")}


def test_nothing_known(
    lock: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = pip_audit(tmp_path, CANARY)
    words = ["--pip-audit", program, "--lock", str(lock), "--ignored", ignoring(tmp_path)]
    assert main(words) == 0
    assert capsys.readouterr().out == "audit: 2 packages, 0 findings to mend\n"


def test_a_finding_fails_and_names_the_version_that_mends_it(
    lock: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = pip_audit(tmp_path, {**CANARY, "foo-bar": {"vulns": [FAULT]}})
    words = ["--pip-audit", program, "--lock", str(lock), "--ignored"]
    assert main([*words, ignoring(tmp_path)]) == 1
    said = "foo-bar 1.4.0: PYSEC-1, mended in 1.5"
    assert capsys.readouterr().out == f"{said}\naudit: 2 packages, 1 finding to mend\n"

    today = datetime.date.today()
    tomorrow = today + datetime.timedelta(days=1)
    assert main([*words, ignoring(tmp_path, entry(tomorrow))]) == 0
    assert f"left until {tomorrow}: {said}: not reached\n" in capsys.readouterr().out

    assert main([*words, ignoring(tmp_path, entry(today))]) == 1
    assert f"{said}; was left until {today}: not reached\n" in capsys.readouterr().out

    assert main([*words, ignoring(tmp_path, entry(tomorrow, "CVE-2"))]) == 1
    assert "no longer found, take it off the list: foo-bar CVE-2\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answers", "stderr", "words"),
    [
        ({"x": {}}, "", "knows of no fault in jinja2 3.1.2"),
        ({}, "boom\nno route to host\n", "pip-audit failed: no route to host"),
        (
            {**CANARY, "other": {"skip_reason": "not on PyPI"}},
            "",
            "1 packages could not be asked about, such as other: not on PyPI",
        ),
    ],
)
def test_an_audit_that_could_not_be_done_never_passes_for_one(
    answers: dict[str, Any],
    stderr: str,
    words: str,
    lock: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program = pip_audit(tmp_path, answers, stderr)
    options = ["--pip-audit", program, "--lock", str(lock), "--ignored", ignoring(tmp_path)]
    assert main(options) == 3
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("audit: NOT DONE, nothing is known of any package: ")
    assert words in told.err
    assert main([*options, "--unreached-ok"]) == 0
    assert "NOT DONE" in capsys.readouterr().err


def test_no_pip_audit_at_all(lock: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--pip-audit", "/nowhere/pip-audit", "--lock", str(lock)]) == 3
    assert "pip-audit did not run" in capsys.readouterr().err


def test_an_entry_without_a_day_is_refused(
    lock: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = ignoring(tmp_path, '[[ignore]]\nid = "a"\npackage = "b"\nreason = "c"\n')
    assert main(["--lock", str(lock), "--ignored", path]) == 3
    assert "until (a day such as 2027-01-31)" in capsys.readouterr().err


def database(folder: pathlib.Path, **affected: Any) -> str:
    package = {"ecosystem": "PyPI", "name": "Foo.Bar"}
    record = {"id": "GHSA-1", "aliases": ["CVE-1"], "affected": [{"package": package, **affected}]}
    path = folder / "all.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("GHSA-1.json", json.dumps(record))
    return str(path)


def span(*events: dict[str, str]) -> dict[str, Any]:
    return {"ranges": [{"type": "ECOSYSTEM", "events": list(events)}]}


@pytest.mark.parametrize(
    ("affected", "status"),
    [
        (span({"introduced": "0"}), 1),
        (span({"introduced": "0"}, {"fixed": "1.4.0"}), 0),
        (span({"introduced": "0"}, {"fixed": "1.4.1"}), 1),
        (span({"introduced": "0"}, {"fixed": "1.10"}), 1),
        (span({"introduced": "0"}, {"last_affected": "1.4.0"}), 1),
        (span({"introduced": "0"}, {"last_affected": "1.3"}), 0),
        (span({"introduced": "1.4.0rc1"}), 1),
        (span({"introduced": "2"}), 0),
        (span({"introduced": "0"}, {"fixed": "1"}, {"introduced": "1.2"}, {"fixed": "1.5"}), 1),
        (span({"introduced": "0"}, {"fixed": "1"}, {"introduced": "1.5"}), 0),
        ({"versions": ["1.3.0", "1.4.0"]}, 1),
        ({"versions": ["1.3.0"]}, 0),
        (span({"introduced": "0"}, {"limit": "*"}), 1),
        (span({"introduced": "0"}, {"limit": "1.4"}), 0),
        ({"ranges": [{"type": "GIT", "events": [{"introduced": "0"}]}]}, 0),
    ],
)
def test_a_copy_of_osvs_database(
    affected: dict[str, Any], status: int, lock: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    words = ["--database", database(tmp_path, **affected), "--lock", str(lock)]
    assert main([*words, "--ignored", ignoring(tmp_path)]) == status


def test_a_database_that_is_none(
    lock: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "all.zip"
    for content in (b"", b"no zip"):
        path.write_bytes(content)
        assert main(["--database", str(path), "--lock", str(lock)]) == 3
        assert "(--database)" in capsys.readouterr().err
    with zipfile.ZipFile(path, "w"):
        pass
    assert main(["--database", str(path), "--lock", str(lock)]) == 3
    assert "holds no advisory" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        "foo>=1.0",
        "  foo==1.0",
        "foo @ https://a.example/foo.zip",
        "-r other.txt",
        "-e .",
        "foo",
        "foo==1.*",
        "foo==1.0,<2",
        "foo===1.0",
        "foo==1.0 bar==2.0",
        "--hash=sha256:00",
    ],
)
def test_a_line_of_a_lock_that_pins_nothing_is_never_skipped(
    line: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "lock.txt"
    path.write_text(f"{LOCK}{line}\n")
    assert main(["--lock", str(path)]) == 3
    assert f"{path}, line 7" in capsys.readouterr().err


def test_what_uv_writes_besides_pins_is_no_fault() -> None:
    options = "--index-url https://a.example/simple\n--only-binary :all:\n\n# goes on \\\nc==3\n"
    assert pins(f"{options}{LOCK}a[b,c] == 1 ; x < '3'  # why\n") == {
        *pins(LOCK),
        Pin("a", "1"),
        Pin("c", "3"),
    }


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ([], "asked about 1 packages and answered for 0; foo 1.0.0 is not in both"),
        ([{"name": "foo", "version": "2", "vulns": []}], "foo 1.0.0 is not in both"),
        ([{"name": "bar", "version": "1.0", "vulns": []}], "bar 1.0 is not in both"),
        ([{"name": "foo", "skip_reason": "gone"}], "1 packages could not be asked about"),
        ([{"name": "foo", "version": "1.0"}], "what pip-audit answers cannot be read: KeyError"),
        (["foo"], "an object is due, got 'foo'"),
        ("foo", "a list is due, got 'foo'"),
        ([{"name": "foo", "version": "1.0", "vulns": ["CVE-1"]}], "object is due, got 'CVE-1'"),
        ([{"name": 3, "version": "1.0", "vulns": []}], "what pip-audit answers cannot be read"),
        ([{"name": "foo", "version": "x y", "vulns": []}], "what pip-audit answers"),
        ([{"name": "foo", "version": "1.0", "vulns": [{"id": 3}]}], "list of texts is due"),
    ],
)
def test_pip_audit_must_answer_for_all_that_it_was_asked(
    told: Any,
    words: str,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "lock.txt"
    path.write_text("Foo==1.0.0\n")
    program = tmp_path / "pip-audit"
    canary = [{"name": "jinja2", "version": "3.1.2", "vulns": [{"id": "X"}]}]
    program.write_text(
        f"#!{sys.executable}\nimport json, sys\n"
        "asked = open(sys.argv[-1].split('=', 1)[1]).read()\n"
        f"told = {canary!r} if 'jinja2' in asked else {told!r}\n"
        "print(json.dumps({'dependencies': told}))\n"
    )
    program.chmod(0o755)
    options = ["--lock", str(path), "--ignored", ignoring(tmp_path), "--pip-audit", str(program)]
    assert main(options) == 3
    said = capsys.readouterr().err
    assert words in said
    assert said.endswith("(--pip-audit)\n")
    assert said.count("\n") == 1


def test_versions_that_are_the_same_are_one_package(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "lock.txt"
    path.write_text("foo-bar==1.0.0\n")
    same = {"foo-bar": {"version": "1.0", "vulns": [FAULT]}}
    options = ["--lock", str(path), "--ignored", ignoring(tmp_path), "--pip-audit"]
    assert main([*options, pip_audit(tmp_path, {**CANARY, **same})]) == 1
    copy = database(tmp_path, versions=["not a version", "1.0"])
    assert main([*options[:-1], "--database", copy]) == 1


def test_two_versions_of_a_package_are_both_asked_about(
    lock: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.txt"
    other.write_text("foo-bar==1.3\n")
    program = pip_audit(tmp_path, {**CANARY, "foo-bar": {"vulns": [FAULT]}})
    words = ["--pip-audit", program, "--lock", str(lock), str(other)]
    assert main([*words, "--ignored", ignoring(tmp_path)]) == 1
    assert "3 packages, 2 findings" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("withdrawn", "status"), [({}, 1), ({"withdrawn": None}, 1), ({"withdrawn": "2026-01-01"}, 0)]
)
def test_only_an_advisory_with_a_day_is_withdrawn(
    withdrawn: dict[str, Any], status: int, lock: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    package = {"ecosystem": "PyPI", "name": "foo-bar"}
    record = {"id": "A", "affected": [{"package": package, "versions": ["1.4.0"]}], **withdrawn}
    copy = packed(tmp_path, json.dumps(record))
    words = ["--database", copy, "--lock", str(lock), "--ignored", ignoring(tmp_path)]
    assert main(words) == status


def packed(folder: pathlib.Path, content: str | bytes, name: str = "a.json") -> str:
    path = folder / "all.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, content)
    return str(path)


def changed(folder: pathlib.Path, local: int, central: int, byte: int) -> str:
    """A zip file with one byte changed in its entry's local and central header."""
    path = pathlib.Path(packed(folder, "{}"))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x03\x04") + local] = byte
    content[content.index(b"PK\x01\x02") + central] = byte
    path.write_bytes(content)
    return str(path)


DEEP = "[" * 100_000
GARBAGE: dict[str, Any] = {
    "encrypted": lambda folder: ("--database", changed(folder, 6, 8, 1)),
    "unknown compression": lambda folder: ("--database", changed(folder, 8, 10, 77)),
    "a list": lambda folder: ("--database", packed(folder, "[]")),
    "a text": lambda folder: ("--database", packed(folder, '{"affected": ["x"]}')),
    "versions that are a text": lambda folder: ("--database", database(folder, versions="1.4.0")),
    "no version": lambda folder: ("--database", database(folder, **span({"fixed": "1 or 2"}))),
    "deep JSON": lambda folder: ("--database", packed(folder, DEEP)),
    "a zip in a zip": lambda folder: ("--database", packed(folder, b"PK", "all.zip")),
    "not UTF-8 in a zip": lambda folder: ("--database", packed(folder, b"\xff\xfe{")),
    "a folder": lambda folder: ("--database", str(folder)),
    "ignore=3": lambda folder: ("--ignored", ignoring(folder, "ignore = 3")),
    "ignore=['x']": lambda folder: ("--ignored", ignoring(folder, "ignore = ['x']")),
    "deep TOML": lambda folder: ("--ignored", ignoring(folder, f"ignore = {DEEP}")),
    "unknown keys": lambda folder: ("--ignored", ignoring(folder, '[[ignore]]\n"\\u001b" = 1')),
    "not UTF-8": lambda folder: ("--ignored", not_text(folder)),
    "lock not UTF-8": lambda folder: ("--lock", not_text(folder)),
    "lock of one line": lambda folder: ("--lock", ignoring(folder, "x" * 10_000)),
    "lock that is a folder": lambda folder: ("--lock", str(folder)),
    "a program that is none": lambda folder: ("--pip-audit", not_text(folder)),
    "no name of a program": lambda folder: ("--pip-audit", "a\0b"),
    "deep answer": lambda folder: ("--pip-audit", saying(folder, DEEP)),
    "an answer not in UTF-8": lambda folder: ("--pip-audit", saying(folder, "\udcff")),
}


def not_text(folder: pathlib.Path) -> str:
    path = folder / "not_text"
    path.write_bytes(b"\xff\xfe\x00")
    path.chmod(0o755)
    return str(path)


def saying(folder: pathlib.Path, text: str) -> str:
    path = folder / "says"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    program = folder / "program"
    program.write_text(f"#!/bin/sh\ncat '{path}'\nprintf '\\033[2Jboom\\a\\n' >&2\n")
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_is_one_line_that_names_the_input(
    kind: str,
    lock: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    option, value = GARBAGE[kind](tmp_path)
    options = {
        "--lock": str(lock),
        "--ignored": ignoring(tmp_path) if option != "--ignored" else "",
    }
    options[option] = value
    assert main([word for pair in options.items() for word in pair]) == 3
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("audit: NOT DONE")
    assert told.err.endswith(f"({option})\n")
    assert told.err.count("\n") == 1
    assert told.err[:-1].isprintable()
    assert len(told.err) < 700


def test_what_others_wrote_moves_no_cursor(
    lock: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fault = {"id": "X\x1b[2J\nY", "aliases": ["CVE-1"], "fix_versions": ["\x9b2J"]}
    program = pip_audit(tmp_path, {**CANARY, "foo-bar": {"vulns": [fault]}})
    late = entry(datetime.date(2026, 1, 1)).replace("not reached", "not\\u001b reached")
    words = ["--pip-audit", program, "--lock", str(lock), "--ignored", ignoring(tmp_path, late)]
    assert main(words) == 1
    first, last = capsys.readouterr().out.splitlines()
    assert first == (
        "foo-bar 1.4.0: X\\x1b[2J\\nY, mended in \\x9b2J; was left until 2026-01-01: "
        "not\\x1b reached"
    )
    assert last.endswith("1 finding to mend")
