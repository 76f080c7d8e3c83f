"""How far a build is, read from its folder: while it runs, on any runner, and after it died."""

import contextlib
import dataclasses
import datetime
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

from pipelines import builders, progress, storage, worker_notes
from pipelines.corpus import layout
from pipelines.corpus.errors import CorpusError
from pipelines.corpus.manifest import CORPORA, read_manifest
from pipelines.input_list import read_input_list

_COMMAND = "c4 "  # before the name of the command, in the place of a runner

State = Literal["waiting", "running", "interrupted", "died", "done"]


@dataclasses.dataclass(frozen=True)
class FailedFile:
    """An input of which nothing could be read."""

    path: str
    error: str


@dataclasses.dataclass(frozen=True)
class Stage:
    """The latest stage that has begun."""

    name: str  # clean, dedup, merge, write; done
    done: int = 0  # bytes of the stage clean, else files, pieces, shards
    total: int = 0  # 0: unknown


@dataclasses.dataclass(frozen=True)
class Status:
    """How far a build is.

    Counts of files are those of the kept folder, at the time of the call.
    """

    folder: str
    #: ``waiting``: a job that is written down but not started, or an unused `BuildCorpus`;
    #: ``interrupted``: by Ctrl-C or SIGTERM;
    #: ``died``: it ended otherwise, or shows no sign of life, and the corpus is not finished.
    state: State
    stage: Stage
    files_total: int
    files_cleaned: int
    files_failed: int
    files_left: int
    files_in_progress: int  # of those left; 0 unless the build runs
    bytes_total: int  # of the inputs, as stored
    bytes_read: int  # of the files cleaned or failed, and of those in progress
    pages_read: int  # by the workers of this run, or of a finished corpus
    pages_per_s: float | None  # None: unknown
    seconds_left: float | None  # of this stage; None: unknown
    failed: tuple[FailedFile, ...] = ()
    runner: str = ""
    host: str = ""  # of the launcher
    pid: int = 0
    started: str = ""  # ISO 8601, UTC

    @property
    def is_derived(self) -> bool:
        """Whether it is made of other corpora, by c4 mix, c4 head or c4 split."""
        return self.runner.startswith(_COMMAND)


def status(folder: str) -> Status:
    """Return how far the build in a folder is. Write nothing.

    Args:
        folder: Of the corpus, local or remote.

    Raises:
        CorpusError: No build has begun there, or its manifest is damaged.
        OSError: The folder cannot be read.
    """
    output = layout.absolute(folder)
    claim = builders.last_claim(output)
    if storage.exists(storage.join(output, layout.MANIFEST)):
        return _finished(output, claim)
    if claim is None or claim.kind == builders.TRAINING:
        raise CorpusError(f"{output}: no build of a corpus has begun here")
    try:
        files = read_input_list(output)
    except FileNotFoundError:
        files = []
    except ValueError as error:
        raise CorpusError(str(error)) from None
    state: State = "died" if claim.state == "ended" else claim.state
    return _unfinished(output, claim, state, files)


def _finished(output: str, claim: builders.LastClaim | None) -> Status:
    made = read_manifest(output)
    failed = tuple(FailedFile(file.path, file.error) for file in made.unreadable_inputs)
    total = sum(file.bytes for file in made.inputs)
    total += sum(file.bytes for file in made.unreadable_inputs)
    shards = len(made.shards)
    who = _who(claim)
    if made.settings.source == CORPORA:  # its claim may not have come along
        who["runner"] = f"{_COMMAND}{made.recipe['name']}"
    return Status(
        folder=output,
        state="done",
        stage=Stage("done", shards, shards),
        files_total=len(made.inputs) + len(failed),
        files_cleaned=len(made.inputs),
        files_failed=len(failed),
        files_left=0,
        files_in_progress=0,
        bytes_total=total,
        bytes_read=total,
        pages_read=made.counts.pages_read,
        pages_per_s=None,
        seconds_left=0.0,
        failed=failed,
        **who,
    )


def _unfinished(
    output: str, claim: builders.LastClaim, state: State, files: Sequence[storage.FileInfo]
) -> Status:
    paths = {layout.file_name(file.path): file.path for file in files}
    sizes = {layout.file_name(file.path): file.size for file in files}
    notes = worker_notes.read_notes(output, claim.run_id)  # before the folder, which is newer
    kept = storage.listdir(storage.join(output, "cleaned"))
    cleaned = {name.removesuffix(".arrow") for name in kept if name.endswith(".arrow")} & set(sizes)
    errors = {
        name: why for note in notes for name, why in note.failed.items()
        if name in sizes and name not in cleaned
    }  # fmt: skip
    over = cleaned | errors.keys()
    marks = {name.removesuffix(layout.STARTED) for name in kept if name.endswith(layout.STARTED)}
    in_progress = (marks & sizes.keys()) - over
    bytes_read = sum(sizes[name] for name in over)
    bytes_read += worker_notes.bytes_within(notes, sizes, over)
    bytes_total = sum(sizes.values())
    began = _unix_time(claim.started)
    stage = Stage(*progress.CorpusFolder(output, sizes, began).read(ended=True)[:3])
    if stage.name == "clean":
        stage = Stage("clean", bytes_read, bytes_total)
    if claim.runner.startswith(_COMMAND):
        stage = dataclasses.replace(stage, total=0)  # names of shards count those of a split
    running = state == "running"
    rate = _rate((note.bytes_before + note.bytes, note) for note in notes)
    return Status(
        folder=output,
        state=state,
        stage=stage,
        files_total=len(files),
        files_cleaned=len(cleaned),
        files_failed=len(errors),
        files_left=len(files) - len(over),
        files_in_progress=len(in_progress) if running else 0,
        bytes_total=bytes_total,
        bytes_read=bytes_read,
        pages_read=sum(note.pages for note in notes),
        pages_per_s=_rate((note.pages, note) for note in notes),
        seconds_left=_seconds_left(output, stage, rate, began) if running else None,
        failed=tuple(FailedFile(paths[name], why) for name, why in sorted(errors.items())),
        **_who(claim),
    )


def _unix_time(started: str) -> float:
    """Return when a build began; 0 if its claim is damaged."""
    with contextlib.suppress(ValueError, OverflowError):
        return datetime.datetime.fromisoformat(started).timestamp()
    return 0.0


def _who(claim: builders.LastClaim | None) -> dict[str, Any]:
    if claim is None:
        return {}
    return {name: getattr(claim, name) for name in ("runner", "host", "pid", "started")}


def _rate(amounts: Iterable[tuple[int, worker_notes.WorkerNote]]) -> float | None:
    """Return what all workers do per second, each by its own clock; None before they have notes."""
    rates = [amount / (note.at - note.began) for amount, note in amounts if note.at > note.began]
    return sum(rates) if rates else None


def _seconds_left(output: str, stage: Stage, rate: float | None, began: float) -> float | None:
    """Return the time that the rest of a stage takes at the rate so far."""
    left = stage.total - stage.done
    if left <= 0:
        return 0.0 if stage.total else None
    if stage.name == "clean" and rate:
        return left / rate
    if not stage.done:
        return None
    folder = {"clean": "cleaned", "dedup": "removals", "merge": layout.MERGED, "write": ""}
    place = storage.join(output, folder[stage.name]) if folder[stage.name] else output
    times = sorted(when for when in storage.times(place).values() if began <= when < time.time())
    if len(times) < 2:
        return None
    return left * (times[-1] - times[0]) / stage.done


def prometheus(found: Status) -> str:
    """Return a status in Prometheus' text format (exposition format 0.0.4)."""
    lines: list[str] = []

    def add(name: str, what: str, values: Mapping[str, float | None]) -> None:
        known = {labels: value for labels, value in values.items() if value is not None}
        if known:
            lines.extend([f"# HELP c4_build_{name} {what}", f"# TYPE c4_build_{name} gauge"])
            folder = f"folder={_quoted(found.folder)}"
            for labels, value in known.items():
                label = ",".join(filter(None, [folder, labels]))
                lines.append(f"c4_build_{name}{{{label}}} {value:.17g}")

    states: tuple[State, ...] = get_args(State)
    add("state", "1 for the state of the build.",
        {f"state={_quoted(state)}": float(found.state == state) for state in states})  # fmt: skip
    add("files", "Input files.", {
        'state="cleaned"': found.files_cleaned,
        'state="failed"': found.files_failed,
        'state="left"': found.files_left,
    })  # fmt: skip
    add("files_in_progress", "Input files that workers read now.", {"": found.files_in_progress})
    add("input_bytes", "Bytes of the input files, as stored.", {"": found.bytes_total})
    add("read_bytes", "Bytes of the input files that were read.", {"": found.bytes_read})
    add("pages", "Pages read.", {"": found.pages_read})
    add("pages_per_second", "Pages read per second.", {"": found.pages_per_s})
    stage = f"stage={_quoted(found.stage.name)}"
    add("stage_done", "Units of the stage that are done.", {stage: found.stage.done})
    add("stage_units", "Units of the stage.", {stage: found.stage.total})
    add("stage_seconds_left", "Estimated time to the end of the stage.",
        {stage: found.seconds_left})  # fmt: skip
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    r"""Return a label's value: backslash, quotation mark and line feed are escaped.

    >>> print(_quoted('a"b'))
    "a\"b"
    """
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped.encode("utf-8", "replace").decode()}"'


def as_json(found: Status) -> str:
    """Return a status as one JSON object, its stage inside it."""
    return json.dumps(dataclasses.asdict(found), indent=1)
