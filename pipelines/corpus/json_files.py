"""JSON files of a corpus folder, which may be damaged when they are read."""

import json
from typing import Any

from pipelines import storage


def encode(value: object) -> bytes:
    r"""Return a value as the content of a JSON file: UTF-8, indented, with a line end.

    >>> encode({"ä": 1})
    b'{\n "\xc3\xa4": 1\n}\n'
    """
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def as_object(content: bytes) -> dict[str, Any] | None:
    """Return the JSON object that a file's content is; None if it is something else.

    >>> as_object(b'{"a": 1}'), as_object(b"[1]"), as_object(b"{")
    ({'a': 1}, None, None)
    """
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def read_object(path: str) -> dict[str, Any] | None:
    """Return the JSON object in a file; None if the file is missing or damaged.

    Raises:
        OSError: The file is there and cannot be read.
    """
    return as_object(storage.read_if_exists(path))
