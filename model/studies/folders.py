"""The folder of a study or a comparison: begun with settings, which must stay as they are."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from model.small_files import naming, read_json_object

__all__ = ["begin_folder", "write_json"]


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
    elif folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} holds something else: give a new folder (--out)")
    elif write:
        write_json(record, wanted)


def write_json(path: pathlib.Path, content: Any) -> None:
    """Write a JSON file whole or not at all, its folder with it."""
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        scratch.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
        scratch.replace(path)
