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
    found = [pins(lock.read_text(encoding="utf-8")) for lock in LOCKS]
    assert all(len(packages) > 100 for packages in found)
    for packages in found:
        assert {"apache-beam", "pyarrow", "numpy"} <= {pin.name for pin in packages}
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
