import datetime
import json
import pathlib

import pytest

from scripts.audit import ROOT, main, pins

LOCK = """\
# by make lock
foo-bar==1.4.0 ; python_version >= '3.11' \\
    --hash=sha256:00
    # via x
foo-bar==1.3 ; python_version < '3.11' \\
    --hash=sha256:11
other[extra]==2.0 \\
    --hash=sha256:22
"""
FAULT = {"id": "PYSEC-1\x1b[2J", "aliases": ["CVE-1"], "fix_versions": ["1.5"]}
CANARY = {"jinja2": {"vulns": [{"id": "X", "fix_versions": [], "aliases": []}]}}


class PipAudit:
    """Stands in for the module pip_audit, lock files included."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self.lock = folder / "a.lock"
        self.lock.write_text(LOCK)
        self.ignored = folder / "ignored.toml"
        self.ignored.touch()

    def answers(self, answers: dict[str, object], stderr: str = "") -> None:
        """Answer as pip-audit does, but for the packages of ``answers``; None: leave it out."""
        (self._folder / "pip_audit.py").write_text(
            "import json, sys\n"
            f"answers = json.loads({json.dumps(json.dumps(answers))})\n"
            "ignored = {w[14:] for w in sys.argv if w.startswith('--ignore-vuln=')}\n"
            f"sys.stderr.write({stderr!r})\n"
            "told = []\n"
            "for file in [w[2:] for w in sys.argv if w.startswith('-r')]:\n"
            "    pairs = [line.split('==') for line in open(file).read().split()]\n"
            "    assert len(dict(pairs)) == len(pairs), 'pip-audit: duplicate requirements'\n"
            "    for name, version in pairs:\n"
            "        answer = answers.get(name, {'vulns': []})\n"
            "        if answer and 'vulns' in answer:\n"
            "            answer['vulns'] = [\n"
            "                v for v in answer['vulns'] if not ignored & set(v['aliases'])]\n"
            "        if answer is not None:\n"
            "            told.append({'name': name, 'version': version, **answer})\n"
            "if answers:\n"
            "    print(json.dumps({'dependencies': told, 'fixes': []}))\n"
        )

    def main(self, *words: str) -> int:
        return main(words, [self.lock], self.ignored)


@pytest.fixture
def pip_audit(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> PipAudit:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return PipAudit(tmp_path)


def test_every_pin_of_the_projects_locks_is_read() -> None:
    locks = {path.stem: path.read_text() for path in (ROOT / "requirements").glob("*.lock")}
    assert {pin.split("==")[0] for pin in pins(locks.pop("tools"))} == {"setuptools"}
    for lock in locks.values():
        assert {"apache-beam", "pyarrow", "numpy"} <= {pin.split("==")[0] for pin in pins(lock)}
    assert len(pins(locks["test"])) > 200
    assert pins(LOCK) == {"foo-bar==1.4.0", "foo-bar==1.3", "other==2.0"}


@pytest.mark.parametrize(
    "line",
    [
        *("foo>=1.0", "foo", "foo==1.*", "foo==1.0,<2", "foo===1.0", "foo==1.0 bar==2.0"),
        *("foo @ https://a.example/foo.zip", "-r other.txt", "-e .", "--hash=sha256:00"),
    ],
)
def test_a_line_that_pins_nothing_is_never_skipped(line: str) -> None:
    with pytest.raises(ValueError, match="not a pin"):
        pins(f"{LOCK}{line}\n")


def test_nothing_known(pip_audit: PipAudit, capsys: pytest.CaptureFixture[str]) -> None:
    pip_audit.answers(CANARY)
    assert pip_audit.main() == 0
    assert capsys.readouterr().out == "audit: 3 packages, 0 vulnerabilities\n"


def test_a_vulnerability_of_any_version_fails_unless_accepted_until_a_later_day(
    pip_audit: PipAudit, capsys: pytest.CaptureFixture[str]
) -> None:
    pip_audit.answers({**CANARY, "foo-bar": {"vulns": [FAULT]}})
    assert pip_audit.main() == 1
    assert capsys.readouterr().out == (
        "foo-bar 1.3: PYSEC-1?[2J, fixed in 1.5\nfoo-bar 1.4.0: PYSEC-1?[2J, fixed in 1.5\n"
        "audit: 3 packages, 2 vulnerabilities\n"
    )
    today = datetime.date.today()
    for until, status in ((today, 1), (today + datetime.timedelta(days=1), 0)):
        pip_audit.ignored.write_text(
            f'[[ignore]]\nid = "CVE-1"\nreason = "no use of it"\nuntil = {until}\n'
        )
        assert pip_audit.main() == status
    assert f"accepted until {until}: CVE-1: no use of it\n" in capsys.readouterr().out
    pip_audit.ignored.write_text('[[ignore]]\nid = "CVE-1"\nreason = "no day"\n')
    with pytest.raises(KeyError, match="until"):
        pip_audit.main()


@pytest.mark.parametrize(
    ("answers", "stderr", "words"),
    [
        ({"x": {}}, "", "knows no vulnerability of jinja2==3.1.2"),
        ({}, "boom\nno route to host\n", "package: no route to host"),
        ({}, "", "no answer"),
        ({**CANARY, "other": None}, "", "asked about 3 packages, 2 answered"),
        ({**CANARY, "other": {"skip_reason": "gone"}}, "", "asked about 3 packages, 2 answered"),
    ],
)
def test_an_audit_that_was_not_done_is_not_mistaken_for_a_clean_result(
    answers: dict[str, object],
    stderr: str,
    words: str,
    pip_audit: PipAudit,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pip_audit.answers(answers, stderr)
    assert pip_audit.main() == 3
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("audit: NOT DONE, nothing is known of any package: ")
    assert words in told.err
    assert told.err.count("\n") == 1
    assert pip_audit.main("--unreached-ok") == 0
    assert "NOT DONE" in capsys.readouterr().err
