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
import contextlib
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
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

if TYPE_CHECKING:
    from packaging.version import Version

ROOT = pathlib.Path(__file__).resolve().parents[1]
LOCKS = tuple(sorted((ROOT / "requirements").glob("*.lock")))
IGNORED = ROOT / "scripts" / "audit_ignore.toml"
COULD_NOT = 3

# Known to be vulnerable: a service that knows nothing of it answers, but knows nothing.
_CANARY = ("jinja2", "3.1.2")
# What uv writes into a lock: a pin with its marker and hashes, or where it looked for packages.
_PINNED = re.compile(
    r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?\s*==\s*([^\s;]+)"
    r"(?:\s*;(?:(?!--hash).)*)?(?:\s+--hash=\S+)*\s*"
)
_OPTION = re.compile(r"--(?:(?:extra-)?index-url|find-links|(?:no|only)-binary|no-index)\b.*")
_COMMENT = re.compile(r"(?:^|\s)#.*")
_MOST_SHOWN = 500  # characters of an error
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


def pins(text: str, path: pathlib.Path | str = "lock") -> set[Pin]:
    r"""All packages that the lock file ``path`` names in its ``text``, for whatever platform.

    Raises AuditError for a line that pins nothing: what is skipped would pass for sound.

    >>> pins("Foo_Bar==1.2 ; python_version < '4' \\\n    --hash=sha256:00\n")
    {Pin(name='foo-bar', version='1.2')}
    """
    found = set()
    lines = enumerate(text.splitlines(), start=1)  # splits where pip does
    for number, line in lines:
        whole = last = line
        while last.endswith("\\") and not last.lstrip().startswith("#"):  # a comment ends there
            last = next(lines, (0, ""))[1]
            whole = f"{whole[:-1]} {last}"
        whole = _COMMENT.sub("", whole).rstrip()
        if not whole or _OPTION.fullmatch(whole):
            continue
        pinned = _PINNED.fullmatch(whole)
        if pinned is None:
            raise AuditError(f"{path}, line {number} is no pin NAME==VERSION: {line} (--lock)")
        name, version = pinned.groups()
        try:
            _version(version)
        except ValueError:
            raise AuditError(f"{path}, line {number}: no version: {version} (--lock)") from None
        found.add(Pin(_normal(name), version))
    return found


def _version(text: str) -> "Version":
    """Raise ValueError if it is none by PEP 440."""
    try:
        from packaging.version import Version
    except ImportError:
        raise AuditError("it needs packaging: run it with the Python of make audit") from None
    return Version(text)


@contextlib.contextmanager
def _reading(what: str, option: str) -> Iterator[None]:
    """Whatever the reading of foreign data raises is an AuditError that names it."""
    try:
        yield
    except AuditError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise AuditError(f"{what} cannot be read: {reason} ({option})") from None


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def ask_pip_audit(program: str, wanted: Iterable[Pin]) -> list[Finding]:
    """Return findings of pip-audit. Raises AuditError unless it was told of every package."""
    canary = Pin(*_CANARY)
    try:
        known = _asked(program, [canary])
    except _UnansweredError:
        known = []
    if not known:
        raise AuditError(
            f"the service that pip-audit asks knows of no fault in {canary.name} {canary.version}, "
            "which has some: it was not reached, or an index without advisories stands in for it "
            "(--pip-audit)"
        )
    # A package may stand in two locks in two versions, which one list of requirements may not.
    lists: list[dict[str, Pin]] = []
    for pin in sorted(wanted):
        free = next((each for each in lists if pin.name not in each), None)
        if free is None:
            lists.append(free := {})
        free[pin.name] = pin
    return [finding for each in lists for finding in _asked(program, list(each.values()))]


class _UnansweredError(AuditError):
    """pip-audit answered, but not for all packages."""


def _asked(program: str, wanted: Sequence[Pin]) -> list[Finding]:
    with _reading("what pip-audit answers", "--pip-audit"):
        return _judged(_run_pip_audit(program, wanted), wanted)


def _run_pip_audit(program: str, wanted: Sequence[Pin]) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        asked = pathlib.Path(folder) / "pins.txt"
        asked.write_text("".join(f"{pin.name}=={pin.version}\n" for pin in wanted))
        command = [program, "--no-deps", "--disable-pip", "--progress-spinner=off"]
        try:
            done = subprocess.run(
                [*command, "--format=json", f"--requirement={asked}"],
                capture_output=True,
                encoding="utf-8",
                errors="backslashreplace",
                timeout=_TIMEOUT_S,
                check=False,
            )
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            raise AuditError(f"pip-audit did not run: {error} (--pip-audit)") from None
    try:
        told = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError, RecursionError):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise AuditError(f"pip-audit failed: {last} (--pip-audit)") from None
    return [_dict(each) for each in _list(told)]


def _judged(told: Sequence[dict[str, Any]], wanted: Sequence[Pin]) -> list[Finding]:
    """The findings, if every package of ``wanted`` was looked up, and no other."""
    skipped = [f"{each['name']}: {each['skip_reason']}" for each in told if "skip_reason" in each]
    if skipped:
        raise _UnansweredError(
            f"{len(skipped)} packages could not be asked about, such as {skipped[0]} (--pip-audit)"
        )
    asked = {(pin.name, _version(pin.version)): pin for pin in wanted}
    answered = {(_normal(each["name"]), _version(each["version"])): each for each in told}
    if odd := sorted(asked.keys() ^ answered.keys()):
        raise _UnansweredError(
            f"pip-audit was asked about {len(asked)} packages and answered for {len(answered)}; "
            f"{odd[0][0]} {odd[0][1]} is not in both (--pip-audit)"
        )
    found = []
    for key, each in answered.items():
        for fault in map(_dict, _list(each["vulns"])):
            names = frozenset(_texts([fault["id"], *_list(fault.get("aliases"))]))
            mended_in = tuple(_texts(fault.get("fix_versions")))
            found.append(Finding(asked[key], fault["id"], names, mended_in))
    return found


def _list(value: Any) -> list[Any]:
    if value is not None and not isinstance(value, list):
        raise TypeError(f"a list is due, got {value!r}")
    return value or []


def _dict(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"an object is due, got {value!r}")
    return value


def _texts(value: Any) -> list[str]:
    found = _list(value)
    if not all(isinstance(each, str) for each in found):
        raise TypeError(f"a list of texts is due, got {value!r}")
    return found


def look_up(database: pathlib.Path, wanted: Iterable[Pin]) -> list[Finding]:
    """Return findings in a copy of the OSV database (ossf.github.io). Raises AuditError."""
    by_name: dict[str, set[str]] = {}
    for pin in wanted:
        by_name.setdefault(pin.name, set()).add(pin.version)
    found = []
    records = 0
    with _reading(str(database), "--database"):
        for place, record in _records(database):
            records += 1
            with _reading(f"{database}: {place}", "--database"):
                found += _findings(_dict(record), by_name)
    if not records:
        raise AuditError(f"{database} holds no advisory (--database)")
    return found


def _records(database: pathlib.Path) -> Iterator[tuple[str, Any]]:
    with zipfile.ZipFile(database) as packed:
        for name in packed.namelist():
            if name.endswith(".json"):
                with _reading(f"{database}: {name}", "--database"):
                    record = json.loads(packed.read(name))
                yield name, record


def _findings(record: dict[str, Any], wanted: dict[str, set[str]]) -> Iterator[Finding]:
    if record.get("withdrawn") is not None:
        return
    for affected in map(_dict, _list(record.get("affected"))):
        package = _dict(affected.get("package", {}))
        name = _normal(package.get("name", ""))
        if package.get("ecosystem") != "PyPI" or name not in wanted:
            continue
        names = frozenset(_texts([record["id"], *_list(record.get("aliases"))]))
        for version in sorted(wanted[name]):
            if _affects(affected, version):
                yield Finding(Pin(name, version), record["id"], names, _mended_in(affected))


def _events(affected: dict[str, Any]) -> Iterator[list[tuple[str, str]]]:
    for span in map(_dict, _list(affected.get("ranges"))):
        if span.get("type") == "ECOSYSTEM":
            yield [pair for event in _list(span["events"]) for pair in _dict(event).items()]


def _affects(affected: dict[str, Any], version: str) -> bool:
    pinned = _version(version)
    if any(_same(each, pinned) for each in _texts(affected.get("versions"))):
        return True
    return any(_within(events, pinned) for events in _events(affected))


def _same(text: str, pinned: "Version") -> bool:
    try:
        return _version(text) == pinned
    except ValueError:  # older than PEP 440, and so none that can be pinned
        return False


def _within(events: Sequence[tuple[str, str]], pinned: "Version") -> bool:
    """Whether a version lies in a range, as ossf.github.io/osv-schema evaluates it."""
    limits = [bound for kind, bound in events if kind == "limit"]
    if limits and not any(bound == "*" or pinned < _version(bound) for bound in limits):
        return False
    inside = False
    # Versions grow from event to event; "0" stands before all.
    bounds = [(kind, bound == "0", _version(bound)) for kind, bound in events if kind != "limit"]
    for kind, first, at in sorted(bounds, key=lambda event: (not event[1], event[2])):
        if kind == "introduced" and (first or pinned >= at):
            inside = True
        elif (kind == "fixed" and pinned >= at) or (kind == "last_affected" and pinned > at):
            inside = False
    return inside


def _mended_in(affected: dict[str, Any]) -> tuple[str, ...]:
    return tuple(v for events in _events(affected) for kind, v in events if kind == "fixed")


def read_ignored(path: pathlib.Path) -> list[Ignored]:
    """The list of findings that are left. Raises AuditError where an entry lacks what it needs."""
    with _reading(str(path), "--ignored"):
        entries = _list(tomllib.loads(path.read_text(encoding="utf-8")).get("ignore"))
    found = []
    for entry in entries:
        if not isinstance(entry, dict):
            raise AuditError(f"{path}: an entry is a table [[ignore]], got {entry!r} (--ignored)")
        kinds = {key: type(value) for key, value in entry.items()}
        if kinds != {"id": str, "package": str, "reason": str, "until": datetime.date} or not all(
            entry.values()
        ):
            raise AuditError(
                f"{path}: an entry needs id, package and reason (text) and until (a day such as "
                f"2027-01-31), got {entry} (--ignored)"
            )
        found.append(Ignored(**{**entry, "package": _normal(entry["package"])}))
    return found


def judge(findings: Iterable[Finding], ignored: Sequence[Ignored], today: datetime.date) -> int:
    """Print what was found, and return how much of it nobody has excused."""
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
            _say(f"left until {valid[0].until}: {line}: {valid[0].reason}")
            continue
        left += 1
        late = f"; was left until {excuses[0].until}: {excuses[0].reason}" if excuses else ""
        _say(f"{line}{late}")
    for excuse in ignored:
        if excuse not in used:
            _say(f"no longer found, take it off the list: {excuse.package} {excuse.id}")
    return left


def _say(text: str, stream: TextIO | None = None) -> None:
    """Print foreign text on one line, with nothing in it that a terminal would obey."""
    stream = stream or sys.stdout
    shown = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
    encoding = stream.encoding or "ascii"
    print(shown.encode(encoding, "backslashreplace").decode(encoding), file=stream)


def main(words: Sequence[str] | None = None) -> int:
    """Audits the lock files; return the exit status."""
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
            with _reading(str(lock), "--lock"):
                found = pins(lock.read_text(encoding="utf-8"), lock)
            if not found:
                raise AuditError(f"{lock} pins nothing (--lock)")
            wanted |= found
        ignored = read_ignored(arguments.ignored)
        if arguments.database is not None:
            findings = look_up(arguments.database, wanted)
        else:
            findings = ask_pip_audit(arguments.pip_audit, wanted)
    except AuditError as error:
        reason = str(error)
        if len(reason) > _MOST_SHOWN:  # the option stands last
            reason = f"{reason[: _MOST_SHOWN // 2]} … {reason[-_MOST_SHOWN // 2 :]}"
        _say(f"audit: NOT DONE, nothing is known of any package: {reason}", sys.stderr)
        return 0 if arguments.unreached_ok else COULD_NOT
    left = judge(findings, ignored, datetime.date.today())
    print(f"audit: {len(wanted)} packages, {left} finding{'' if left == 1 else 's'} to mend")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
