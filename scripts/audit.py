"""``make audit``: ask pip-audit for known vulnerabilities of every version that a lock pins.

Options other than ``--unreached-ok`` are passed to pip-audit (``-s osv``: another service).
``audit_ignore.toml`` lists the findings that are accepted for now, each until a day.

Exit status: 0 nothing is known; 1 something is, or a file of ours is wrong; 3 NOT DONE: no service
was reached, or it did not answer for every package.
"""

import datetime
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Known to be vulnerable. An index without advisories answers, but finds nothing even here.
_CANARY = "jinja2==3.1.2"
_PIN = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;*,=]+)(?: ;.*| \\)?")


class NotDoneError(Exception):
    """No service was reached, or the answer is incomplete."""


def pins(lock: str) -> set[str]:
    r"""Return every ``NAME==VERSION`` of a lock file's text, for whatever platform.

    Raises ValueError for a line that pins nothing: a skipped line would look like a clean result.

    >>> pins("foo==1.2 ; python_version < '4' \\\n    --hash=sha256:00\n")
    {'foo==1.2'}
    """
    lines = [line for line in lock.splitlines() if line and line[0] not in " #"]
    for line in lines:
        if not _PIN.fullmatch(line):
            raise ValueError(f"not a pin NAME==VERSION: {line!r}")
    return {_PIN.sub(r"\1==\2", line) for line in lines}


def ask(wanted: set[str], options: Sequence[str]) -> list[dict[str, Any]]:
    """Return pip-audit's answer for each package. Raises NotDoneError unless it has all."""
    # One list of requirements must not hold two versions of a package, but several lists may.
    lists: list[dict[str, str]] = []
    for pin in sorted(wanted):
        name = pin.split("==")[0]
        if all(name in each for each in lists):
            lists.append({})
        next(each for each in lists if name not in each)[name] = pin
    with tempfile.TemporaryDirectory() as folder:
        files = [pathlib.Path(folder, f"{n}.txt") for n in range(len(lists))]
        for file, each in zip(files, lists, strict=True):
            file.write_text("\n".join(each.values()))
        command = "-m pip_audit --strict --no-deps --disable-pip --progress-spinner=off -f json"
        done = subprocess.run(
            [sys.executable, *command.split(), *(f"-r{file}" for file in files), *options],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
    try:
        answer: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
        answered = [each for each in answer if "vulns" in each]
    except (ValueError, KeyError, TypeError):
        said = done.stderr.strip().splitlines() or ["no answer"]
        raise NotDoneError(said[-1][:300]) from None
    if len(answered) != len(wanted):
        raise NotDoneError(f"asked about {len(wanted)} packages, {len(answered)} answered")
    return answered


def main(words: Sequence[str], locks: Sequence[pathlib.Path], ignored: pathlib.Path) -> int:
    """Audit the lock files; return the exit status."""
    options = [word for word in words if word != "--unreached-ok"]
    wanted = set().union(*(pins(lock.read_text(encoding="utf-8")) for lock in locks))
    accepted = []
    for entry in tomllib.loads(ignored.read_text(encoding="utf-8")).get("ignore", []):
        if datetime.date.today() < entry["until"]:
            print(f"accepted until {entry['until']}: {entry['id']}: {entry['reason']}")
            accepted.append(f"--ignore-vuln={entry['id']}")
    try:
        if not ask({_CANARY}, options)[0]["vulns"]:
            raise NotDoneError(f"the service knows no vulnerability of {_CANARY}, which has some")
        packages = ask(wanted, [*options, *accepted])
    except NotDoneError as error:
        print(f"audit: NOT DONE, nothing is known of any package: {error}", file=sys.stderr)
        return 0 if "--unreached-ok" in words else 3
    found = [(each, finding) for each in packages for finding in each["vulns"]]
    for each, finding in found:
        fixed = ", ".join(finding["fix_versions"]) or "no version"
        line = f"{each['name']} {each['version']}: {finding['id']}, fixed in {fixed}"
        print("".join(char if char.isprintable() else "?" for char in line))
    print(f"audit: {len(wanted)} packages, {len(found)} vulnerabilities")
    return 1 if found else 0


if __name__ == "__main__":
    locks = sorted((ROOT / "requirements").glob("*.lock"))
    sys.exit(main(sys.argv[1:], locks, ROOT / "scripts" / "audit_ignore.toml"))
