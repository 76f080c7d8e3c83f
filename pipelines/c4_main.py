"""``c4``: one console command; each subcommand lives in a module imported only when asked for."""

import os
import signal
import sys

# Until `Interruption` handles it, Ctrl-C ends the program as any other: Python's own handler would
# print a traceback of these imports. A job in the background goes on ignoring it.
if (
    os.path.basename("".join(sys.argv[:1])) in ("c4", "c4_main.py")
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import contextlib
import difflib
import gc
import importlib
import io
import shlex
import sys
import textwrap
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

from pipelines import number_options
from pipelines.corpus.errors import one_line
from pipelines.engines.lean_imports import leave_out_threads
from pipelines.interruption import Interruption, limit_exit
from pipelines.printing import print_note
from pipelines.version import VERSION


class _Command(NamedTuple):
    module: str  # has add_arguments(parser) and run(arguments) -> exit status
    summary: str
    passes_on: bool = False  # options it does not know go to Beam: `arguments.rest`
    forks: bool = False  # workers from its own process, in which no library may start threads
    extra: str | None = None  # of the package, without which its module cannot be imported
    interrupted: str = "interrupted"  # the line on an interrupt: what is kept, how to resume


_AGAIN = "interrupted; run the same command again"
_FROM_START = f"{_AGAIN}: it begins from the start"
_NOT_SAVED = "interrupted before the first step: nothing was saved"
_RUNS_KEPT = f"{_AGAIN} to resume: finished runs are kept"


def _of_model(name: str, summary: str, interrupted: str = "interrupted") -> _Command:
    """Return a command that needs the extra for training."""
    return _Command(f"model.commands.{name}", summary, extra="train", interrupted=interrupted)


_COMMANDS = {
    "build": _Command(
        "pipelines.commands.build",
        "builds a corpus from WET files",
        passes_on=True,
        forks=True,
        interrupted=f"{_AGAIN} to resume: cleaned files are kept",
    ),
    "verify": _Command(
        "pipelines.commands.verify", "checks a finished corpus, byte for byte, without its inputs"
    ),
    "status": _Command("pipelines.commands.status", "shows how far a build is"),
    "fetch": _Command(
        "pipelines.commands.fetch",
        "fetches WET files of Common Crawl",
        interrupted=f"{_AGAIN} to continue",
    ),
    "report": _Command(
        "pipelines.commands.report",
        "writes a page that shows a corpus, or two beside each other",
        extra="report",
    ),
    "worker-pool": _Command(
        "pipelines.engines.worker_pool", "starts Python workers on a host of a Flink cluster"
    ),
    "plan": _Command("pipelines.commands.plan", "estimates what a build would take and cost"),
    "split": _Command(
        "pipelines.commands.split",
        "writes a corpus for each language of a corpus",
        interrupted=f"{_AGAIN}: finished languages are kept",
    ),
    "explain": _Command(
        "pipelines.commands.explain", "shows why pages of a file or corpus were kept or dropped"
    ),
    "why": _Command(
        "pipelines.commands.why",
        "says where a page or a sentence came from, and why it is in or out",
    ),
    "diff": _Command(
        "pipelines.commands.diff", "lists the pages that differ between two corpora, and why"
    ),
    "import": _Command(
        "pipelines.commands.import_pages",
        "makes a corpus of Wikipedia, books, JSON lines or data sets",
        passes_on=True,
        forks=True,
        interrupted=f"{_AGAIN} to resume: finished files are kept",
    ),
    "mix": _of_model("mix", "mixes corpora by weight, in pages or tokens", _FROM_START),
    "head": _of_model(
        "head", "takes the first tokens of a corpus, to train on little data repeated", _FROM_START
    ),
    "vocab": _of_model("vocab", "trains a SentencePiece vocabulary on corpora"),
    "pretrain": _of_model("pretrain", "trains T5 on a corpus", _NOT_SAVED),
    "finetune": _of_model("finetune", "trains a model further on tasks", _NOT_SAVED),
    "tasks": _Command("model.commands.tasks", "lists the paper's tasks and prepares their data"),
    "predict": _of_model(
        "predict",
        "predicts a text for each line with a trained model",
        "interrupted: predictions written so far are good",
    ),
    "evaluate": _of_model("evaluate", "scores a trained model on tasks, beside the paper's scores"),
    "study": _of_model("study", "lists, runs and tabulates the paper's experiments", _RUNS_KEPT),
    "ablate": _of_model(
        "ablate", "compares two corpora, or two recipes, by the models that they make", _RUNS_KEPT
    ),
    "import-hf": _of_model("import_hf", "makes a checkpoint from a T5 in Hugging Face's layout"),
    "export-hf": _of_model("export_hf", "writes a checkpoint in Hugging Face's layout"),
}

_OURS = ("c4_filters", "model", "pipelines")
_STDOUT = "standard output"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return the exit status.

    It is 0 for done, 1 for failed, 2 for wrong usage, 130 for interrupted. Without ``argv`` the
    command is the process's own, ``sys.argv``: then the process may end here, interrupted.
    """
    started = time.monotonic()
    words = list(sys.argv[1:] if argv is None else argv)
    _protect_streams()
    if argv is None:
        sys.unraisablehook = _print_unraisable
        _open_own_streams()
    asked = next((word for word in words if not word.startswith("-")), "")
    line = f"c4: {_COMMANDS[asked].interrupted if asked in _COMMANDS else 'interrupted'}"
    own_process = argv is None
    with Interruption(line, own_process=own_process) as interruption:
        status = 1  # of what is raised
        try:
            known = argparse.Namespace(started=started, interruption=interruption)
            try:
                status = _run(words, asked, known)
            except SystemExit:  # of --help
                sys.stdout.flush()
                raise
            sys.stdout.flush()  # now, so that an error can be reported in one line
        except KeyboardInterrupt:
            status = interruption.tell()
        except (ValueError, OSError, OverflowError) as error:
            of_stdout = getattr(error, "filename", None) == _STDOUT
            if of_stdout:
                _drop_stdout()
            if of_stdout and isinstance(error, BrokenPipeError):  # `c4 explain FILE | head`
                status = 0
                return status
            if os.environ.get("C4_TRACEBACK"):
                raise
            print_note(f"c4: error: {_line_of(error)}")  # names of files may hold anything
            status = 1
        except Exception as error:
            # NumPy's C code loses the cause of an import that fails.
            of_import = isinstance(error, ImportError) and interruption.asked()
            if of_import or _caused_by_interrupt(error):
                return interruption.tell()
            raise
        finally:
            if own_process:
                gc.freeze()  # else Python's last collection walks all of Beam: 0.2 s
                if interruption.patience_s is not None:
                    limit_exit(status)
        return status


class _Paragraphs(argparse.HelpFormatter):
    """Wraps each paragraph of a text by itself; leaves indented ones, which are examples.

    A text that begins with a line break is as indented as the code that it stands in.
    """

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("\n"):
            text = textwrap.dedent(text).strip("\n")
        return "\n\n".join(
            paragraph
            if paragraph.startswith(" ")
            else super(_Paragraphs, self)._fill_text(paragraph, width, indent)
            for paragraph in text.split("\n\n")
        )


class _Parser(argparse.ArgumentParser):
    """Tells wrong usage in one line, with the option that a mistyped one may stand for."""

    words: Sequence[str] = ()

    def error(self, message: str) -> NoReturn:
        """Exit with status 2. A missing option may be among those mistyped."""
        flags = [word.partition("=")[0] for word in self.words if word.startswith("--")]
        for flag in flags if "required" in message else ():
            near = self._near(flag)
            message += f" (for {flag}, did you mean {near}?)" if near else ""
        what = "commands" if self.prog == "c4" else "options"
        print_note(f"c4: error: {message} ({self.prog} --help lists the {what})")
        self.exit(2)

    def refuse(self, rest: Sequence[str]) -> NoReturn:
        """Exit with status 2, naming the first option that is not known, else the first word."""
        word = next((word for word in rest if word.startswith("-")), rest[0])
        near = self._near(word.partition("=")[0])
        self.error(f"unknown argument {word!r}{f', did you mean {near}?' if near else ''}")

    def _near(self, flag: str) -> str | None:
        known = self._option_string_actions
        near = [] if flag in known else difflib.get_close_matches(flag, known, n=1)
        return near[0] if near else None


def _run(words: Sequence[str], asked: str, known: argparse.Namespace) -> int:
    """Run the subcommand ``asked``; ``known`` is what it gets besides its options."""
    parser = _Parser(
        prog="c4",
        description="Builds a C4-style corpus from Common Crawl WET files and trains T5 on it.",
        epilog="c4 COMMAND --help describes a command.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"c4 {VERSION}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    modules, parsers = {}, {}
    for name, command in _COMMANDS.items():
        parsers[name] = sub = commands.add_parser(
            name,
            help=command.summary,
            description=command.summary[0].upper() + command.summary[1:] + ".",
            allow_abbrev=False,
            formatter_class=_Paragraphs,
        )
        number_options.register(sub)
        if name == asked:  # the others need not be imported
            if command.forks and known.interruption.own_process:
                leave_out_threads()
            try:
                modules[name] = importlib.import_module(command.module)
            except ModuleNotFoundError as error:
                return _refuse_missing(name, error)
            modules[name].add_arguments(sub)
            sub.set_defaults(parser=sub)
            sub.words = words
    if asked and asked not in _COMMANDS:
        near = difflib.get_close_matches(asked, _COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(_COMMANDS)}"
        parser.error(f"unknown command {asked!r}; {hint}")
    arguments, rest = parser.parse_known_args(words, known)
    arguments.rest = rest
    if rest and not _COMMANDS[arguments.command].passes_on:
        parsers[arguments.command].refuse(rest)
    try:
        status: int = modules[arguments.command].run(arguments)
    except ModuleNotFoundError as error:  # of a command that imports its extra when it runs
        if _COMMANDS[arguments.command].extra is None:
            raise
        return _refuse_missing(arguments.command, error)
    return status


def _refuse_missing(name: str, error: ModuleNotFoundError) -> int:
    """Say how to install the package that a command lacks, and return the exit status.

    Raises the error again if it is a module of our own.
    """
    if (error.name or "").split(".")[0] in _OURS:
        raise error
    extra = _COMMANDS[name].extra
    comes, brackets = "it comes with c4", ""
    if extra is not None:
        comes, brackets = f"it comes with the extra {extra}", f"[{extra}]"
    print_note(
        f"c4: error: c4 {name} needs {error.name}, which is not installed: "
        f"{comes} (in a clone: {shlex.join(['pip', 'install', '-e', f'.{brackets}'])})"
    )
    return 1


def _protect_streams() -> None:
    """Keep a closed or non-UTF-8 terminal from crashing the command."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


class _Stdout(io.FileIO):
    """Names itself in its errors."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise OSError(error.errno, error.strerror, _STDOUT) from error


class _Stderr(io.FileIO):
    """Drops notes that cannot be written: that nobody reads them must not end a build."""

    def write(self, data: Any, /) -> int:
        with contextlib.suppress(OSError):
            return super().write(data) or len(data)
        return len(data)


def _open_own_streams() -> None:
    """Open the standard streams again, so that they fail as a command needs it."""
    for name, kind in (("stdout", _Stdout), ("stderr", _Stderr)):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__"):  # not what stands for a closed one
            raw = kind(stream.fileno(), "w", closefd=False)
            own = io.TextIOWrapper(
                raw if stream.write_through else io.BufferedWriter(raw),
                stream.encoding, stream.errors,
                line_buffering=stream.line_buffering, write_through=stream.write_through,
            )  # fmt: skip
            setattr(sys, name, own)


def _drop_stdout() -> None:
    """Discard what standard output still holds, which Python would flush at its end."""
    with contextlib.suppress(OSError):  # no file beneath it
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _print_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """Print an exception that cannot be caught, unless it follows an error reported in one line."""
    of_interrupt = issubclass(unraisable.exc_type, KeyboardInterrupt)
    # In threads of TensorStore: an array could not be written, and the others are not awaited.
    of_failure = str(unraisable.exc_value) == "Event loop is closed"
    if os.environ.get("C4_TRACEBACK") or not (of_interrupt or of_failure):
        sys.__unraisablehook__(unraisable)


def _caused_by_interrupt(error: BaseException | None) -> bool:
    """Return whether an interrupt caused an error, as during an import of C code."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _line_of(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return one_line(error)


if __name__ == "__main__":
    sys.exit(main())
