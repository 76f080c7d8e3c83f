"""``make audit``: known vulnerabilities of what the lock files pin.

Asks PyPI's own list of advisories through pip-audit, or reads a copy of OSV's database, for those
who reach no service::

    python scripts/audit.py --pip-audit build/audit/bin/pip-audit
    python scripts/audit.py --database all.zip    # osv-vulnerabilities.storage.googleapis.com/PyPI

A finding that cannot be mended stands in ``audit_ignore.toml`` with a reason and a day on which it
is looked at again; from that day on it fails the audit.

Exit status: 0 nothing known; 1 something is; 2 wrong usage; 3 nobody could be asked, so that
nothing is known of anything.
"""

import argparse
import datetime
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[1]
LOCKS = (ROOT / "requirements.lock", ROOT / "dataflow_templates" / "requirements.lock")
IGNORED = ROOT / "scripts" / "audit_ignore.toml"
COULD_NOT = 3

# Known to be vulnerable: a service that knows nothing of it answers, but knows nothing.
_CANARY = ("jinja2", "3.1.2")
_PINNED = re.compile(r"(?m)^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?==([^\s;\\]+)")
_TIMEOUT_S = 600


class Pin(NamedTuple):
    """A package as a lock file pins it, its name in normal form (PEP 503)."""

    name: str
    version: str


class Finding(NamedTuple):
    """One advisory about one pinned package."""

    pin: Pin
    id: str
    names: frozenset[str]  # of the same advisory elsewhere, this one's included
    mended_in: tuple[str, ...]  # versions


class Ignored(NamedTuple):
    """An entry of the list of findings that are known and left."""

    id: str
    package: str
    reason: str
    until: datetime.date


class AuditError(Exception):
    """Nobody could be asked, or a list is not what it should be."""


def pins(text: str) -> set[Pin]:
    r"""All packages that a lock file names, for whatever platform.

    >>> pins("Foo_Bar==1.2 ; python_version < '4' \\\n    --hash=sha256:00\n")
    {Pin(name='foo-bar', version='1.2')}
    """
    return {Pin(_normal(name), version) for name, version in _PINNED.findall(text)}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def ask_pip_audit(program: str, wanted: Iterable[Pin]) -> list[Finding]:
    """Findings of pip-audit. Raises AuditError unless it was told of every package."""
    canary = Pin(*_CANARY)
    if not _asked(program, [canary]):
        raise AuditError(
            f"the service that pip-audit asks knows of no fault in {canary.name} {canary.version}, "
            "which has some: it was not reached, or an index without advisories stands in for it"
        )
    return _asked(program, sorted(wanted))


def _asked(program: str, wanted: Sequence[Pin]) -> list[Finding]:
    with tempfile.TemporaryDirectory() as folder:
        asked = pathlib.Path(folder) / "pins.txt"
        asked.write_text("".join(f"{pin.name}=={pin.version}\n" for pin in wanted))
        command = [program, "--no-deps", "--disable-pip", "--progress-spinner=off"]
        try:
            done = subprocess.run(
                [*command, "--format=json", f"--requirement={asked}"],
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise AuditError(f"pip-audit did not run: {error} (--pip-audit)") from None
    try:
        told = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise AuditError(f"pip-audit failed: {last}") from None
    skipped = [f"{each['name']}: {each['skip_reason']}" for each in told if "skip_reason" in each]
    if skipped and len(wanted) > 1:
        raise AuditError(f"{len(skipped)} packages could not be asked about, such as {skipped[0]}")
    return [
        Finding(
            Pin(_normal(each["name"]), each["version"]),
            fault["id"],
            frozenset((fault["id"], *fault.get("aliases", ()))),
            tuple(fault.get("fix_versions", ())),
        )
        for each in told
        for fault in each.get("vulns", ())
    ]


def look_up(database: pathlib.Path, wanted: Iterable[Pin]) -> list[Finding]:
    """Findings in a copy of OSV's database (ossf.github.io/osv-schema). Raises AuditError."""
    by_name: dict[str, set[str]] = {}
    for pin in wanted:
        by_name.setdefault(pin.name, set()).add(pin.version)
    found = []
    records = 0
    try:
        for record in _records(database):
            records += 1
            if "withdrawn" in record:
                continue
            for affected in record.get("affected", ()):
                package = affected.get("package", {})
                name = _normal(package.get("name", ""))
                if package.get("ecosystem") != "PyPI" or name not in by_name:
                    continue
                names = frozenset((record["id"], *record.get("aliases", ())))
                found += [
                    Finding(Pin(name, version), record["id"], names, _mended_in(affected))
                    for version in sorted(by_name[name])
                    if _affects(affected, version)
                ]
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise AuditError(f"{database} cannot be read: {error} (--database)") from None
    if not records:
        raise AuditError(f"{database} holds no advisory (--database)")
    return found


def _records(database: pathlib.Path) -> Iterator[dict[str, Any]]:
    with zipfile.ZipFile(database) as packed:
        for name in packed.namelist():
            if name.endswith(".json"):
                yield json.loads(packed.read(name))


def _events(affected: dict[str, Any]) -> Iterator[list[tuple[str, str]]]:
    for span in affected.get("ranges", ()):
        if span.get("type") == "ECOSYSTEM":
            yield [(kind, version) for event in span["events"] for kind, version in event.items()]


def _affects(affected: dict[str, Any], version: str) -> bool:
    if version in affected.get("versions", ()):
        return True
    from packaging.version import Version  # of the environment that is audited

    pinned = Version(version)
    for events in _events(affected):
        inside = False
        # Versions grow from event to event; "0" stands before all.
        for kind, bound in sorted(events, key=lambda event: Version(event[1])):
            at = Version(bound)
            if kind == "introduced" and pinned >= at:
                inside = True
            elif (kind == "fixed" and pinned >= at) or (kind == "last_affected" and pinned > at):
                inside = False
        if inside:
            return True
    return False


def _mended_in(affected: dict[str, Any]) -> tuple[str, ...]:
    return tuple(v for events in _events(affected) for kind, v in events if kind == "fixed")


def read_ignored(path: pathlib.Path) -> list[Ignored]:
    """The list of findings that are left. Raises AuditError where an entry lacks what it needs."""
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8")).get("ignore", [])
    except (OSError, ValueError) as error:
        raise AuditError(f"{path}: {error}") from None
    found = []
    for entry in entries:
        kinds = {key: type(value) for key, value in entry.items()}
        if kinds != {"id": str, "package": str, "reason": str, "until": datetime.date} or not all(
            entry.values()
        ):
            raise AuditError(
                f"{path}: an entry needs id, package and reason (text) and until (a day such as "
                f"2027-01-31), got {entry}"
            )
        found.append(Ignored(**{**entry, "package": _normal(entry["package"])}))
    return found


def judge(findings: Iterable[Finding], ignored: Sequence[Ignored], today: datetime.date) -> int:
    """Prints what was found, and returns how much of it nobody has excused."""
    left = 0
    used = set()
    for finding in sorted(set(findings), key=lambda each: (each.pin, each.id)):
        pin = finding.pin
        excuses = [
            each for each in ignored if each.package == pin.name and each.id in finding.names
        ]
        used.update(excuses)
        mended = f"mended in {', '.join(finding.mended_in)}" if finding.mended_in else "not mended"
        line = f"{pin.name} {pin.version}: {finding.id}, {mended}"
        if valid := [each for each in excuses if today < each.until]:
            print(f"left until {valid[0].until}: {line}: {valid[0].reason}")
            continue
        left += 1
        late = f"; was left until {excuses[0].until}: {excuses[0].reason}" if excuses else ""
        print(f"{line}{late}")
    for excuse in ignored:
        if excuse not in used:
            print(f"no longer found, take it off the list: {excuse.package} {excuse.id}")
    return left


def main(words: Sequence[str] | None = None) -> int:
    """Audits the lock files; returns the exit status."""
    parser = argparse.ArgumentParser(prog="audit", description=__doc__.split("\n")[0])
    parser.add_argument("--pip-audit", default="pip-audit", metavar="PROGRAM")
    parser.add_argument("--database", type=pathlib.Path, metavar="ZIP", help="a copy of OSV's")
    parser.add_argument("--lock", type=pathlib.Path, nargs="+", default=LOCKS, metavar="FILE")
    parser.add_argument("--ignored", type=pathlib.Path, default=IGNORED, metavar="TOML")
    parser.add_argument(
        "--unreached-ok", action="store_true", help="exit with 0 although nobody could be asked"
    )
    arguments = parser.parse_args(words)
    try:
        wanted: set[Pin] = set()
        for lock in arguments.lock:
            wanted |= pins(lock.read_text(encoding="utf-8"))
        if not wanted:
            raise AuditError(f"{arguments.lock[0]} pins nothing (--lock)")
        ignored = read_ignored(arguments.ignored)
        if arguments.database is not None:
            findings = look_up(arguments.database, wanted)
        else:
            findings = ask_pip_audit(arguments.pip_audit, wanted)
    except (AuditError, OSError) as error:
        print(f"audit: NOT DONE, nothing is known of any package: {error}", file=sys.stderr)
        return 0 if arguments.unreached_ok else COULD_NOT
    left = judge(findings, ignored, datetime.date.today())
    print(f"audit: {len(wanted)} packages, {left} finding{'' if left == 1 else 's'} to mend")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
