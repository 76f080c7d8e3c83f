"""``c4``: one console command; each subcommand lives in a module imported only when asked for."""

import argparse
import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["main"]


class _Command(NamedTuple):
    module: str  # has add_arguments(parser) and run(arguments, rest) -> exit status
    summary: str
    passes_on: bool = False  # options it does not know go to Beam
    extra: str | None = None  # of the package, without which its module cannot be imported
    kept: str = ""  # what an interruption leaves to go on from


_COMMANDS = {
    "build": _Command(
        "pipelines.build_command",
        "WET files in, corpus out",
        passes_on=True,
        kept="run the same command again to go on: cleaned files are kept",
    ),
    "worker-pool": _Command(
        "pipelines.worker_pool", "starts Python workers on a host of a Flink cluster"
    ),
    "explain": _Command("pipelines.explain_command", "what each rule does to each page of a file"),
    "vocab": _Command(
        "model.commands.vocab", "corpora in, SentencePiece vocabulary out", extra="train"
    ),
    "pretrain": _Command(
        "model.commands.pretrain",
        "trains T5 on a corpus",
        extra="train",
        kept="run the same command again to go on from the newest checkpoint",
    ),
    "import-hf": _Command(
        "model.commands.import_hf",
        "a T5 in Hugging Face's layout in, a checkpoint out",
        extra="train",
    ),
    "export-hf": _Command(
        "model.commands.export_hf",
        "a checkpoint in, a T5 in Hugging Face's layout out",
        extra="train",
    ),
}

_OURS = ("c4_filters", "model", "pipelines")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand and returns the exit status: 0 done, 1 failed, 2 wrong usage."""
    started = time.monotonic()
    argv = list(sys.argv[1:] if argv is None else argv)
    _mend_streams()
    parser = argparse.ArgumentParser(
        prog="c4",
        description="Builds a C4-style corpus from Common Crawl WET files and trains T5 on it.",
        epilog="c4 COMMAND --help describes a command.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    asked = next((word for word in argv if not word.startswith("-")), None)
    modules = {}
    for name, command in _COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=command.summary,
            description=command.summary[0].upper() + command.summary[1:] + ".",
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == asked:  # the others need not be imported
            try:
                modules[name] = importlib.import_module(command.module)
            except ModuleNotFoundError as error:
                if command.extra is None or (error.name or "").split(".")[0] in _OURS:
                    raise
                print(
                    f"c4: error: c4 {name} needs {error.name}, which is not installed: "
                    f"pip install 'colossal-c4[{command.extra}]'",
                    file=sys.stderr,
                )
                return 1
            modules[name].add_arguments(sub)
    arguments, rest = parser.parse_known_args(argv, argparse.Namespace(started=started))
    if rest and not _COMMANDS[arguments.command].passes_on:
        parser.error(f"unknown argument {rest[0]!r}")
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)  # cleans up as Ctrl-C does
    try:
        status: int = modules[arguments.command].run(arguments, rest)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        kept = _COMMANDS[arguments.command].kept
        print(f"\nc4: interrupted{'; ' if kept else ''}{kept}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `c4 explain FILE | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, OverflowError) as error:
        if os.environ.get("C4_TRACEBACK"):
            raise
        print(f"c4: error: {_one_line(error)}", file=sys.stderr)
        return 1


def _mend_streams() -> None:
    """Lets no terminal fail a command: not one without our letters, not one that is closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
