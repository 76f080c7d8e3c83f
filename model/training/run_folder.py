"""A run's folder: it records the settings, so that only the same run resumes in it.

::

    RUN/run.json           settings and versions
        model.json         the model; vocabulary.model beside it
        checkpoints/       whole states, by step
        metrics.jsonl      a line for every step
        tensorboard/
        compiled/          programs, so that the next start need not compile them
        wandb-id.txt       of the run at Weights & Biases, with --report-to wandb
        loss.png           when the run ends

In an object store there is more: see `model.training.remote_run`.
"""

import contextlib
import importlib.metadata
import json
import os
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from flax.traverse_util import flatten_dict

from model.small_files import locked_file, write_json
from model.t5.config import ModelConfig
from model.training import compile_cache
from model.training.checkpoint_layout import (
    FORMAT,
    RUN_FILE,
    VOCABULARY_FILE,
    of_this_version,
    write_model_file,
)
from model.training.metrics import read_rows
from model.training.remote_run import STEPS, RemoteRun
from model.training.train_config import run_option_of
from pipelines import storage

_LOCK_FILE = ".lock"
_CLAIMS = "builders"  # who trains into a folder of an object store
#: What a start reads from an object store.
_FETCHED = (RUN_FILE, "metrics.jsonl", "wandb-id.txt")
_PACKAGES = ("colossal-c4", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class RunFolder:
    """A run's folder, new or begun before."""

    def __init__(
        self, path: str | os.PathLike[str], option_names: Mapping[str, str] | None = None
    ) -> None:
        """Raise ValueError for a folder that holds something else, or is not a folder.

        Args:
          option_names: options of ``c4 pretrain`` to those of the command that runs, for messages.
          path: a folder, of this machine or of an object store (``gs://…``, ``s3://…``). ``path``
            is then the folder of this machine that the run works in, and ``remote`` the one in the
            store.
        """
        self._option_names = option_names or {}
        name = os.fspath(path)
        self.remote = None if storage.is_local(name) else RemoteRun(name)
        local = pathlib.Path(storage.local_path(name)) if self.remote is None else self.remote.path
        self.path = local.absolute()
        #: As messages name it.
        self.where = str(self.path) if self.remote is None else self.remote.url
        self.checkpoints = self.path / STEPS
        self.metrics = self.path / "metrics.jsonl"
        self.tensorboard = self.path / "tensorboard"
        self.wandb_id = self.path / "wandb-id.txt"
        self.plot = self.path / "loss.png"
        self.profile = self.path / "profile"
        self._run_file = self.path / RUN_FILE
        if self.remote is not None:
            self.remote.fetch(_FETCHED)
        if os.path.lexists(self.path) and not self.path.is_dir():
            link = self.path.is_symlink()  # to nowhere, to itself or to a file
            what = (
                f"a link to {os.readlink(self.path)}, which is not a folder"
                if link
                else "not a folder"
            )
            raise ValueError(f"{self.path} is {what}; give a new folder or that of a run (--out)")
        if not self._run_file.exists() and self.path.is_dir():
            # A start that is killed before anything else is here leaves claims and hidden files.
            names = {*storage.listdir(self.where), *storage.folders(self.where)} - {_CLAIMS}
            found = min((name for name in names if not name.startswith(".")), default=None)
            if found is not None:
                raise ValueError(
                    f"{self.where} is not the folder of a run: it holds {found} but no "
                    f"{RUN_FILE}; give a new folder (--out)"
                )

    def begun_with(self) -> dict[str, Any] | None:
        """Return settings of the run that this folder is of; None as long as it has no step.

        Raises ValueError for a ``run.json`` that is damaged or of another version.
        """
        settings = self._settings()
        return settings if self.has_steps() else None

    def has_steps(self) -> bool:
        """Return whether a step was finished: there is a checkpoint of it, or a line of metrics."""
        if self.has_checkpoint():
            return True
        return self.metrics.is_file() and bool(read_rows(self.metrics))

    def has_checkpoint(self) -> bool:
        """Return whether there is a checkpoint to resume from."""
        if self.remote is not None and self.remote.steps():
            return True
        steps = self.checkpoints
        return steps.is_dir() and any(path.name.isdigit() for path in steps.iterdir())

    def defaults(self) -> str | None:
        """Return which defaults the run was begun with; None as long as it has no step."""
        if not self.has_steps() or (content := self._content()) is None:
            return None
        found = content.get("defaults", "paper")
        return found if isinstance(found, str) else "paper"

    def _content(self) -> dict[str, Any] | None:
        if not self._run_file.exists():
            return None
        with of_this_version(self._run_file, "run") as content:
            if not isinstance(content["settings"], dict):
                raise ValueError("its settings are not a JSON object")
            return content

    def _settings(self) -> dict[str, Any] | None:
        content = self._content()
        return None if content is None else content["settings"]

    def check(self, settings: Mapping[str, Any]) -> None:
        """Check that settings are those of the run that this folder is of.

        Raises ValueError for the first difference, with the option that sets it.
        """
        begun = self.begun_with()
        if begun is None:
            return
        found, wanted = (  # names joined by dots
            flatten_dict(each, sep=".")  # type: ignore[no-untyped-call]
            for each in (begun, json.loads(json.dumps(settings)))
        )
        # Another checkpoint to start from brings another model: name what was typed.
        for name in ("init_from", *found, *(name for name in wanted if name not in found)):
            if found.get(name) != wanted.get(name):
                options = run_option_of(name).split(", ")
                option = ", ".join(dict.fromkeys(self._option_names.get(o, o) for o in options))
                field = name.rpartition(".")[2]
                raise ValueError(
                    f"{self.where} was begun with {field} {_shown(found, name)}, now it is "
                    f"{_shown(wanted, name)}: give it as it was, or another --out"
                    f"{f' ({option})' if option else ''}"
                )

    def changed_versions(self) -> list[str]:
        """Return packages that have another version than when the run was begun, one line each."""
        before = (self._content() or {}).get("versions")
        if not isinstance(before, dict):
            return []
        return [
            f"{name} {before[name]} when begun, now {version}"
            for name, version in _versions().items()
            if name in before and before[name] != version
        ]

    def begin(
        self,
        settings: Mapping[str, Any],
        config: ModelConfig,
        vocabulary: str | None,
        defaults: str = "paper",
    ) -> bool:
        """Write the records of a new run and repair their copies, in one process of the run.

        Call this with the folder locked. Returns whether the settings of a start without a step
        were replaced. Raises ValueError as :meth:`check` does.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self.check(settings)  # again: the folder was not locked before
        before = self._settings()
        replaced = before is not None and before != json.loads(json.dumps(settings))
        # Before all else: with it here, a start that is killed is gone on from by the next.
        if before is None or replaced:
            command = sys.argv[:1] and " ".join([os.path.basename(sys.argv[0]), *sys.argv[1:]])
            content = {
                "format": FORMAT, "command": command, "settings": settings, "defaults": defaults,
                "versions": _versions(),
            }  # fmt: skip
            write_json(self._run_file, content)
        storage.sweep_temporaries(str(self.path))
        # At each start: whatever became of them, the checkpoints are of these.
        if vocabulary is not None:
            storage.copy_files([(vocabulary, str(self.path / VOCABULARY_FILE))])
        write_model_file(self.path, config)
        if self.remote is not None:
            self.remote.keep_steps(self.remote.steps())
            self.remote.copy_changed(first=RUN_FILE)
        return replaced

    def fetch(self) -> None:
        """Copy what a start reads from an object store, and the compiled programs."""
        if self.remote is not None:
            self.remote.fetch(_FETCHED, [compile_cache.FOLDER])

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes of this machine from training into the same folder.

        Raises ValueError when one does already. The lock goes with its process, however it ends.
        In an object store, processes of other machines are kept away, too.
        """
        if self.remote is not None:
            with self.remote.claimed():
                self.fetch()  # again: the folder was not locked before
                yield
            return
        self.path.mkdir(parents=True, exist_ok=True)
        taken = "another process is training into it; wait for it, or give another --out"
        with locked_file(self.path / _LOCK_FILE, f"{self.path}: {taken}"):
            yield


def _versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _shown(settings: Mapping[str, Any], name: str) -> str:
    return repr(settings[name]) if name in settings else "not set"
