"""The folder of a study or a comparison: begun with settings, which must stay as they are."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from model.small_files import locked_file, read_json_object, write_json


@contextlib.contextmanager
def locked(folder: pathlib.Path, record: str) -> Iterator[None]:
    """Make a folder if there is none, and keep other processes of this machine out of it.

    Raises ValueError where one works already, and for a folder that holds something but no
    ``record``, which the first start writes. Hidden files are what a killed start leaves.
    """
    if not (folder / record).is_file():
        _require_empty(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with locked_file(
        folder / ".lock",
        f"{folder}: another process works in it; wait for it, or give another folder (--out)",
    ):
        yield


def _require_empty(folder: pathlib.Path) -> None:
    names = os.listdir(folder) if folder.is_dir() else []
    if not all(name.startswith(".") for name in names):
        raise ValueError(f"{folder} holds something else: give a new folder (--out)")


def begin_folder(record: pathlib.Path, settings: Mapping[str, Any], *, write: bool = True) -> None:
    """Begin a folder by writing its settings, or check that it was begun with the same.

    Args:
        record: the file of the settings, in the folder.
        settings: what results depend on.
        write: whether a new folder is begun; if not, it is checked only.

    Raises ValueError for a folder of other settings, and for one that holds something else.
    """
    folder, wanted = record.parent, json.loads(json.dumps(settings))
    if record.is_file():
        found = read_json_object(record)
        for name, value in wanted.items():
            if found.get(name) != value:
                raise ValueError(
                    f"{folder} was begun with {name} {found.get(name)!r}, now it is {value!r}: "
                    "give it as it was, or another --out"
                )
    else:
        _require_empty(folder)
        if write:
            write_json(record, wanted)
