"""Reports of a run to tools that draw curves: TensorBoard, and Weights & Biases."""

import os
import pathlib
import sys
import time
import types
from collections.abc import Callable, Mapping
from typing import Any

from model.small_files import naming, read_small_file, write_text
from model.training.metrics import Row


def require_installed(report_to: tuple[str, ...]) -> None:
    """Raise ValueError if a package that a report needs is missing."""
    if "wandb" in report_to:
        _wandb()


def _wandb() -> Any:
    try:
        import wandb
    except ImportError as error:
        raise ValueError(
            "--report-to wandb needs the package wandb: pip install 'colossal-c4[wandb]' (in a "
            f"clone: pip install -e '.[wandb]'); {error}"
        ) from None
    if not hasattr(wandb, "init"):  # a folder of that name, as its own runs leave
        raise ValueError(
            "--report-to wandb needs the package wandb: pip install 'colossal-c4[wandb]'"
        )
    return wandb


class TensorBoard:
    """Rows as scalars of TensorBoard, by its own writer; TensorFlow is not imported."""

    def __init__(self, folder: str | os.PathLike[str], done: int) -> None:
        """Continue after step ``done``: TensorBoard hides later steps of older files."""
        # Its writer opens files with TensorFlow where that is installed, and with its own stand-in
        # where a module of this name exists (tensorboard/compat/__init__.py).
        name = "tensorboard.compat.notf"
        sys.modules.setdefault(name, types.ModuleType(name))
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event = Event
        self._folder = pathlib.Path(folder)
        if self._folder.exists() and not self._folder.is_dir():
            raise ValueError(f"{self._folder} is not a folder: move it away")
        begin = SessionLog(status=SessionLog.START)
        with naming(self._folder):
            self._writer = EventFileWriter(os.fspath(folder))
            self._writer.add_event(Event(wall_time=time.time(), step=done + 1, session_log=begin))

    def write(self, row: Row) -> None:
        """Write each number of a row under ``train/`` or ``validation/``."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [
            Summary.Value(tag=_tag(name), simple_value=value)
            for name, value in row.items()
            if name != "step"
        ]
        event = self._event(wall_time=time.time(), step=row["step"], summary=Summary(value=values))
        with naming(self._folder):
            self._writer.add_event(event)

    def flush(self) -> None:
        """Write what is waiting."""
        with naming(self._folder):
            self._writer.flush()

    def close(self, status: int) -> None:
        """Flush and close; ``status`` is the exit status of the run."""
        del status
        with naming(self._folder):
            self._writer.close()


def _tag(name: str) -> str:
    if "/" in name:
        return name
    group, _, rest = name.partition("_")
    return f"validation/{rest}" if group == "validation" else f"train/{name}"


class Wandb:
    """Rows as a run of Weights & Biases, with the steps and names of TensorBoard.

    wandb's own variables hold: WANDB_MODE=offline, WANDB_PROJECT, WANDB_NAME, WANDB_ENTITY. Once
    the run has begun, a failure of wandb is said once, and the training goes on without it.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        id_file: pathlib.Path,
        settings: Mapping[str, Any],
        say: Callable[[str], None],
    ) -> None:
        """Begin a run, or resume the one whose id is in the file.

        Args:
          folder: of the training run; wandb keeps its files in ``folder/wandb``.
          id_file: where the id is kept.
          settings: shown as wandb's config.
          say: takes a line.

        Raises ValueError if wandb is missing or cannot begin, as without a login.
        """
        wandb = _wandb()
        self._say, self._failed = say, False
        kept = read_small_file(id_file).decode().strip() if id_file.exists() else None
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "colossal"),
                name=os.environ.get("WANDB_NAME", folder.name),
                id=os.environ.get("WANDB_RUN_ID", kept),
                resume="allow",
                dir=os.fspath(folder),
                config=dict(settings),
            )
            self._next = int(self._run.step)
        except Exception as error:
            what = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(
                f"wandb could not begin a run ({what}): run `wandb login`, set "
                "WANDB_MODE=offline, or leave out --report-to wandb"
            ) from error
        if self._run.id != kept:
            write_text(id_file, f"{self._run.id}\n")

    def write(self, row: Row) -> None:
        """Log each number of a row under ``train/`` or ``validation/``."""
        step = row["step"]
        if step < self._next:  # a run that goes on from a checkpoint: wandb has these steps
            return
        values = {_tag(name): value for name, value in row.items() if name != "step"}
        self._try(lambda: self._run.log(values, step=step))

    def flush(self) -> None:
        """Do nothing: wandb sends in the background."""

    def close(self, status: int) -> None:
        """Finish the run, marked as failed if ``status`` is not 0."""
        self._try(lambda: self._run.finish(exit_code=status))

    def _try(self, call: Callable[[], Any]) -> None:
        if self._failed:
            return
        try:
            call()
        except Exception as error:
            self._failed = True
            what = " ".join(str(error).split()) or type(error).__name__
            self._say(f"note: wandb has failed ({what}): training goes on without it")
