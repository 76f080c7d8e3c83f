"""Why a build failed, in one line, from whatever a runner raises."""

import re

from pipelines import corpus_folder
from pipelines.engines.local import WorkerDiedError


class BuildError(OSError):
    """The build failed. Cleaned files are kept, and the same command resumes the build."""


_RAISED = re.compile(r"(?P<type>[A-Za-z_][\w.]*?(?:Error|Exception|Interrupt|Exit)): (?P<what>.*)")


#: Packages whose exceptions wrap what a worker raised, or report that it died.
_OF_ENGINES = ("java.", "org.apache.", "io.grpc.", "grpc.")
#: Exceptions whose message says it all.
_WELL_SAID = (
    *("OSError", "ValueError", "FileNotFoundError", "PermissionError", "FlinkError"),
    *("DamagedFileError", "OtherVersionError", "OtherBuildError"),
)
#: Beginnings of messages about a dead worker, to which the files in progress are added.
_DEATHS = ("a worker process died", "a Python worker died")


def cause(error: Exception, output: str) -> str:
    """Return one line about what a runner raised, often the text of a worker's traceback."""
    if isinstance(error, WorkerDiedError):
        return _with_advice(str(error) + _under_way(output))
    lines = [
        match
        for line in str(error).splitlines()
        if (match := _RAISED.fullmatch(line.strip())) and not match["type"].startswith(_OF_ENGINES)
    ]
    if not lines and (known := _meaning(str(error))):
        kind, what = "", known
    elif lines:
        innermost = lines[-1]
        while nested := _RAISED.fullmatch(innermost["what"]):  # a runner wraps what a worker raised
            innermost = nested
        kind, what = innermost["type"].rsplit(".", 1)[-1], innermost["what"]
    else:
        kind, what = type(error).__name__, " ".join(str(error).split())[:500]
    what = re.sub(r" \[while running (?:'[^']*'\]|.*)", "", what)
    if kind in ("RuntimeError", "BuildError") and "Channel closed" in what:
        what = "a worker process died (killed, or out of memory)"
        kind = ""
    elif kind in _WELL_SAID or what.startswith("[Errno "):
        what = re.sub(r"^\[Errno \d+\] ", "", what)
        kind = ""
    if not kind and what.startswith(_DEATHS):
        what += _under_way(output)
    return _with_advice(f"{kind}: {what}" if kind else what)


def _with_advice(what: str) -> str:
    return (
        f"{what}; cleaned files are kept: run the same command again to resume "
        "(C4_TRACEBACK=1 shows the traceback)"
    )


def _under_way(output: str) -> str:
    """Return words for the files in progress when a worker died: one may be the cause."""
    try:
        files = corpus_folder.interrupted_inputs(output)
    except OSError:
        return ""
    if not files:
        return ""
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    return f" while it cleaned {', '.join(files[:3])}{more} (c4 explain FILE reads one alone)"


def _meaning(failure: str) -> str | None:
    """Return the meaning of a known failure of the Java side, or None."""
    if "\tat " not in failure:
        return None
    from pipelines.engines import flink

    return flink.meaning(failure)
