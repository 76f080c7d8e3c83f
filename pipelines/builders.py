"""The lock of a folder: one build or training run at a time, on every runner and file system.

It needs no ``flock``, only a file that is created if it is absent, and a listing. The folder
``OUT/builders/`` holds numbered files:

====================  ============================================================================
``00007.json``        claim 7: who builds here. Created once, never rewritten
``00007.beat``        its heartbeat: random bytes that change while the build runs
``00007.ended``       claim 7 has ended: the folder is free. ``interrupted``, or empty
``00007.X.progress``  how far worker X of claim 7 is (see `pipelines.worker_notes`)
``written.json``      what builds of this folder have written (see `pipelines.corpus_folder`)
====================  ============================================================================

The highest number owns the folder. To take the folder, a build creates the next number; if several
builds try, one succeeds. The last claims are kept after they end, so that no number is used twice,
even by a build that read an old listing.

On the same machine, boot and PID namespace, a claim is in force while its process runs. Elsewhere
the heartbeat decides: a claimant watches it by its own clock, and takes the folder if it does not
change. If the first build was only suspended and resumes, it finds a higher number: every step that
writes for a build calls `Claim.require` first.
"""

import contextlib
import dataclasses
import datetime
import os
import pathlib
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

from pipelines import storage
from pipelines.corpus import json_files, layout
from pipelines.printing import print_note

#: The mark in our folders and claims.
MADE_BY = "colossal-c4"

WAITING = "waiting"  # the launcher waits for the end of the build
DETACHED = "detached"  # the job runs on after the launcher ends
TEMPLATE = "template"  # the job is only written, for someone to start later
TRAINING = "training"  # a training run, in its own folder (model.training.remote_run)
TRANSFORM = "transform"  # BuildCorpus in a pipeline of somebody else, who may run it or not

#: Kinds of claims that end with the process that made them.
_OF_A_PROCESS = (WAITING, TRAINING)
_BEAT_S = 10.0
_LOOK_S = 1.0
#: How long a heartbeat may stay unchanged. Network file systems cache reads for up to a minute;
#: detached jobs take minutes to start workers, and beat only between elements.
_PATIENCE_S = 90.0
_PATIENCE_DETACHED_S = 15 * 60.0
_RECHECK_S = 2.0
_CLAIMS_KEPT = 16
_OWN = re.compile(r"(\d{5,})\.(json|beat|ended|[0-9a-f]{32}\.progress)")
_PROGRESS = re.compile(r"\.?\d{5,}\.[0-9a-f]{32}\.progress")
_WRITTEN = "written.json"
_INTERRUPTED = b"interrupted"  # by Ctrl-C or SIGTERM

_lock = threading.Lock()
_held: set[str] = set()  # run ids of this process
_checked: dict[str, float] = {}  # run id -> when it was last found to own its folder
_beats: dict[str, tuple[float, bytes]] = {}  # run id -> when to beat next, what was last seen


@dataclasses.dataclass(frozen=True)
class Claim:
    """The claim of a build on its folder. The job graph carries it to every worker."""

    output: str
    number: int
    run_id: str
    kind: str = WAITING
    build_id: str = ""  # digest of settings and inputs

    def require(self, now: bool = False) -> None:
        """Raise OSError, in one line, if another build has taken the folder.

        The file system is asked at most every two seconds, or each time with ``now``, which is
        for steps that publish something.
        """
        with _lock:
            checked = _checked.get(self.run_id, float("-inf"))
        if not now and time.monotonic() - checked < _RECHECK_S:
            return
        highest = max(_numbers(self.output), default=0)
        if highest != self.number or _read(self.output, highest).get("run") != self.run_id:
            work = _work(self.kind)
            what = f"the files of this {work} in {self.output} are gone"
            if highest:
                owner = _who(_read(self.output, highest))
                what = f"another {work} has taken the folder {self.output} ({owner})"
            raise OSError(f"{what}: this {work} stops and publishes nothing more")
        with _lock:
            _checked[self.run_id] = time.monotonic()

    def beat(self) -> None:
        """Show that the build runs, at most every ten seconds.

        The workers of a detached job share one heartbeat: a worker that finds it changed does not
        write it.
        """
        with _lock:
            due, seen = _beats.get(self.run_id, (float("-inf"), b""))
            if time.monotonic() < due:
                return
            _beats[self.run_id] = (time.monotonic() + _BEAT_S, seen)
        path = _path(self.output, self.number, "beat")
        with contextlib.suppress(Exception):  # the next one may succeed
            found = storage.read_if_exists(path)
            if found in (seen, b""):
                found = uuid.uuid4().hex.encode()
                storage.write_bytes(path, found)
            with _lock:
                _beats[self.run_id] = (time.monotonic() + _BEAT_S, found)

    def show(self) -> None:
        """Beat if the job has no launcher that does so."""
        if self.kind not in _OF_A_PROCESS:
            self.beat()

    def end(self, how: bytes = b"") -> None:
        """Free the folder. Safe to call more than once: the first call says how it ended."""
        storage.create_if_absent(_path(self.output, self.number, "ended"), how)


@contextlib.contextmanager
def hold(
    output: str,
    *,
    kind: str = WAITING,
    runner: str = "",
    build_id: str = "",
    note: Callable[[str], None] = print_note,
) -> Iterator[Claim]:
    """Hold a folder for one build while the block runs.

    The claim of a detached job stays in force after the block, unless the block fails; `Claim.end`
    ends it.

    Args:
        output: The corpus folder.
        kind: WAITING, DETACHED, TEMPLATE, TRANSFORM or TRAINING.
        runner: Name of the runner, for messages.
        build_id: Digest of settings and inputs.
        note: Prints a line, if this function has to wait for the heartbeat of another build.

    Raises:
        OSError: Another build is running in the folder. Nothing was written.
    """
    run_id = uuid.uuid4().hex
    with _lock:
        _held.add(run_id)  # before others can read the claim, and ask whether it is held
    try:
        claim = _take(output, kind, runner, build_id, run_id, note)
    except BaseException:
        with _lock:
            _held.discard(run_id)
        raise
    stop = threading.Event()

    def beat() -> None:
        claim.beat()
        while not stop.wait(_BEAT_S / 4):
            claim.beat()

    beating = threading.Thread(target=beat, name="heartbeat", daemon=True)
    beats = kind in (*_OF_A_PROCESS, DETACHED)
    if beats:
        beating.start()
    stays, how = False, b""
    try:
        yield claim
        stays = kind not in _OF_A_PROCESS
    except KeyboardInterrupt:
        how = _INTERRUPTED
        raise
    finally:
        stop.set()
        if beats:
            beating.join(timeout=5)
        with _lock:
            _held.discard(claim.run_id)
        if not stays:
            # If the file cannot be written, the claim ends with this process.
            with contextlib.suppress(Exception):
                claim.end(how)


def require_not_running(output: str) -> None:
    """Raise OSError if a build is known to run in the folder, without waiting to find out."""
    number = max(_numbers(output), default=0)
    if number and not _has_ended(output, number):
        owner = _read(output, number)
        if _is_running(owner):
            raise _busy(output, owner)


class LastClaim(NamedTuple):
    """The last claim on a folder."""

    run_id: str
    kind: str
    runner: str
    host: str
    pid: int
    started: str  # ISO 8601, UTC; empty if the claim is damaged
    state: Literal["waiting", "running", "interrupted", "died", "ended"]


def last_claim(output: str) -> LastClaim | None:
    """Return the last claim on a folder, and whether it is in force; None if there is none.

    Where the process of the claim cannot be looked at, its heartbeat decides, by the times of the
    file system.
    """
    number = max(_numbers(output), default=0)
    if not number:
        return None
    owner = _read(output, number)
    kind, pid = str(owner.get("kind", "")), owner.get("pid")
    return LastClaim(
        run_id=str(owner.get("run", "")),
        kind=kind,
        runner=str(owner.get("runner", "")),
        host=str(owner.get("host", "")),
        pid=pid if type(pid) is int else 0,
        started=str(owner.get("started", "")),
        state=_state(output, number, owner, kind),
    )


def _state(
    output: str, number: int, owner: dict[str, Any], kind: str
) -> Literal["waiting", "running", "interrupted", "died", "ended"]:
    if _has_ended(output, number):
        how = storage.read_if_exists(_path(output, number, "ended"))
        return "interrupted" if how == _INTERRUPTED else "ended"
    running = _is_running(owner)
    if kind in _OF_A_PROCESS and running is not None:
        return "running" if running else "died"
    beat = _path(output, number, "beat")
    if kind in (TEMPLATE, TRANSFORM) and not storage.exists(beat):
        return "waiting"
    patience = _PATIENCE_S if kind in _OF_A_PROCESS else _PATIENCE_DETACHED_S
    fresh = storage.changed_since(storage.join(output, layout.BUILDERS), time.time() - patience)
    return "running" if storage.last_part(beat) in fresh else "died"


def progress_path(output: str, number: int, worker: str) -> str:
    """Return the path of a worker's note. ``worker``: 32 hex digits."""
    return _path(output, number, f"{worker}.progress")


def progress_paths(output: str) -> list[str]:
    """Return the paths of all workers' notes in a folder."""
    folder = storage.join(output, layout.BUILDERS)
    return [
        storage.join(folder, name) for name in storage.listdir(folder) if _PROGRESS.fullmatch(name)
    ]


def remove_progress(output: str) -> None:
    """Remove all workers' notes, and what killed builders and workers left unfinished.

    The folder must be claimed: only its builder writes the list of what was written.
    """
    folder = storage.join(output, layout.BUILDERS)
    storage.remove(
        storage.join(folder, name)
        for name in storage.sizes(folder)
        if _PROGRESS.match(name) or name.startswith(f".{_WRITTEN}.")
    )


def claimed_by_us(output: str) -> bool:
    """Return whether a claim of a build in the folder's ``builders/`` carries our mark."""
    claims = (_read(output, number) for number in _numbers(output))
    return any(c.get("made_by") == MADE_BY and c.get("kind") != TRAINING for c in claims)


def is_own_file(name: str) -> bool:
    """Return whether a file of ``builders/`` is ours, by its name.

    >>> is_own_file("00001.json"), is_own_file("foremen.json")
    (True, False)
    """
    return name == _WRITTEN or _OWN.fullmatch(name) is not None


def _take(
    output: str, kind: str, runner: str, build_id: str, run_id: str, note: Callable[[str], None]
) -> Claim:
    content = {
        "made_by": MADE_BY,
        "run": run_id,
        "build": build_id,
        "kind": kind,
        "runner": runner,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "pid": os.getpid(),
        "process_started": _process_start(os.getpid()),
        **_this_machine(),
    }
    number = 0
    while True:
        number = max([number, *_numbers(output)])
        if number:
            _require_ended(output, number, note)
        number += 1
        path = _path(output, number, "json")
        if (
            not storage.create_if_absent(path, json_files.encode(content))
            # An object store's client may have tried again after an answer that was lost.
            and _read(output, number).get("run") != run_id
        ):
            continue  # another build was faster
        numbers = _numbers(output)
        if max(numbers, default=0) > number:
            continue  # the listing was old: this number is not the highest
        old = [found for found in numbers if found <= number - _CLAIMS_KEPT]
        storage.remove(
            _path(output, found, suffix) for found in old for suffix in ("json", "beat", "ended")
        )
        return Claim(output, number, run_id, kind, build_id)


def _require_ended(output: str, number: int, note: Callable[[str], None]) -> None:
    """Return when claim ``number`` is no longer in force; raise OSError if it is."""
    if _has_ended(output, number):
        return
    owner = _read(output, number)
    running = _is_running(owner)
    if running:
        raise _busy(output, owner)
    kind = owner.get("kind")
    if running is False and (kind in _OF_A_PROCESS or (kind == TRANSFORM and _is_ours(owner))):
        return  # a process that applies the transform again has given its first pipeline up
    beat = _path(output, number, "beat")
    first = storage.read_if_exists(beat)
    if kind in (TEMPLATE, TRANSFORM) and not first:
        return  # no one has started the job
    patience = _PATIENCE_S if kind in _OF_A_PROCESS else _PATIENCE_DETACHED_S
    note(
        f"c4: note: another {_work(kind)} began in {output} ({_who(owner)}) and has not ended: "
        f"waiting up to {patience:.0f} s for its heartbeat; if that {_work(kind)} has failed, "
        f"delete {_path(output, number, 'json')} to continue at once"
    )
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        time.sleep(min(_LOOK_S, patience / 4))
        if _has_ended(output, number) or number not in _numbers(output):
            return
        if storage.read_if_exists(beat) != first:
            raise _busy(output, owner)


def _busy(output: str, owner: dict[str, Any]) -> OSError:
    option = "--out" if owner.get("kind") == TRAINING else "--output"
    return OSError(
        f"another {_work(owner.get('kind'))} is running in {output} ({_who(owner)}): wait for it "
        f"or stop it, or give another {option}"
    )


def _work(kind: Any) -> str:
    return "training run" if kind == TRAINING else "build"


def _who(owner: dict[str, Any]) -> str:
    job = "" if owner.get("kind") in _OF_A_PROCESS else f", {owner.get('runner')} job"
    return f"host {owner.get('host')}, pid {owner.get('pid')}{job}, started {owner.get('started')}"


def _is_running(owner: dict[str, Any]) -> bool | None:
    """Return whether the process that made a claim runs; None if that is unknown."""
    here = _this_machine()
    if not here["boot"] or any(owner.get(name) != value for name, value in here.items()):
        return None
    pid = owner.get("pid")
    if type(pid) is not int or not 1 <= pid < 1 << 31:
        return None
    if _is_ours(owner):
        with _lock:
            return owner.get("run") in _held
    started = _process_start(pid)
    if started:
        return started == owner.get("process_started")
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return None  # a process of another user, hidden from this one
    return False if pathlib.Path(f"/proc/{pid}/stat").exists() else None


def _is_ours(owner: dict[str, Any]) -> bool:
    """Return whether this process made a claim of this machine."""
    pid = os.getpid()
    return owner.get("pid") == pid and owner.get("process_started") == _process_start(pid)


def _process_start(pid: int) -> str:
    """Return when a process started, in ticks since boot; empty if it has ended or is hidden."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return ""
    fields = stat.rpartition(b")")[2].split()
    return "" if fields[0] in (b"Z", b"X") else fields[19].decode()


def _this_machine() -> dict[str, str]:
    """Return the facts that must agree for a process id to mean the same process."""
    boot = namespace = ""
    with contextlib.suppress(OSError):  # Linux only
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        namespace = str(os.stat("/proc/self/ns/pid").st_ino)
    return {"host": socket.gethostname(), "boot": boot, "pid_namespace": namespace}


def _numbers(output: str) -> list[int]:
    found = map(_OWN.fullmatch, storage.listdir(storage.join(output, layout.BUILDERS)))
    return sorted(int(name[1]) for name in found if name and name[2] == "json")


def _has_ended(output: str, number: int) -> bool:
    return storage.exists(_path(output, number, "ended"))


def _read(output: str, number: int) -> dict[str, Any]:
    """Return the content of a claim; empty if it is gone or damaged."""
    return json_files.read_object(_path(output, number, "json")) or {}


def _path(output: str, number: int, suffix: str) -> str:
    return storage.join(output, layout.BUILDERS, f"{number:05}.{suffix}")


def written_path(output: str) -> str:
    """Return the path of the record of what builds of a folder have written."""
    return storage.join(output, layout.BUILDERS, _WRITTEN)
