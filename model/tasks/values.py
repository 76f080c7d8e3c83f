"""Reads the fields of raw examples, whichever library they come from."""

from collections.abc import Mapping, Sequence
from typing import Any

#: An example in the fields of TensorFlow Datasets.
Raw = Mapping[str, Any]
#: Inputs and targets.
Pair = tuple[str, str]


def plain(value: Any) -> Any:
    r"""Return a value of JSON's types for one that holds bytes or NumPy arrays and scalars.

    >>> plain({"text": b"caf\xc3\xa9", "spans": (1, 2)})
    {'text': 'café', 'spans': [1, 2]}
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value


def field(raw: Raw, name: str) -> Any:
    """Return a field; a name with a slash is a field within a field.

    Raises ValueError if the example has no such field.

    >>> field({"idx": {"question": 3}}, "idx/question")
    3
    """
    found: Any = raw
    for part in name.split("/"):
        if not (type(found) is dict or isinstance(found, Mapping)) or part not in found:
            has = ", ".join(sorted(raw)) or "none"
            raise ValueError(f"an example has no field {name!r}; its fields: {has}")
        found = found[part]
    return found


def text(raw: Raw, name: str) -> str:
    """Return a field that holds text. Raises ValueError if it holds anything else."""
    found = field(raw, name)
    if not isinstance(found, str):
        raise ValueError(f"field {name!r} must be text, got {type(found).__name__}")
    return found


def label_index(raw: Raw, labels: Sequence[str]) -> int:
    """Return the index of an example's label, or -1 if it has none, as in test sets.

    Raises ValueError for a label outside ``labels``.
    """
    label = raw.get("label", -1)
    if label is None:
        return -1
    if isinstance(label, str) and label in labels:
        return labels.index(label)
    if isinstance(label, int) and -1 <= label < len(labels):
        return int(label)
    raise ValueError(f"label {label!r} is none of {', '.join(labels)}")
