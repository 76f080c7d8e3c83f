"""JSON values to dataclasses and back, with every type checked.

>>> import dataclasses
>>> @dataclasses.dataclass(frozen=True)
... class Point:
...     x: int
...     name: str = ""
>>> decode(Point, {"x": 1, "ignored": True})
Point(x=1, name='')
>>> decode(Point, {"x": "1"})
Traceback (most recent call last):
    ...
ValueError: x must be of type int, got '1'
>>> encode(Point(1, "a"))
{'x': 1, 'name': 'a'}
"""

import contextlib
import dataclasses
import functools
import reprlib
import typing
from typing import Any


def decode(kind: Any, value: Any, where: str = "") -> Any:
    """Return a JSON value as a value of a type; keys that a dataclass lacks are ignored.

    Args:
        kind: A dataclass, ``int``, ``float``, ``str``, ``tuple[X, ...]``, ``list[X]``,
            ``dict[str, X]``, a union of these or None, or Any.
        value: From ``json.loads``.
        where: What the value is, for messages.

    Raises:
        ValueError: The value, or one in it, is of another type or missing; the message names it.
    """
    origin, arguments = _taken_apart(kind)
    if kind is Any:
        return value
    if origin is None:
        # Not isinstance: True is not a number. A whole number is written for a float such as 1.0.
        return _required(value, (float, int) if kind is float else (kind,), where)
    if origin is dataclasses.dataclass:
        _required(value, (dict,), where)
        found = {}
        for name, its_kind, needed in _fields(kind):
            if name in value:
                found[name] = decode(its_kind, value[name], f"{where}.{name}" if where else name)
            elif needed:
                raise ValueError(f"{where or 'it'} lacks {name!r}")
        return kind(**found)
    if origin in (tuple, list):
        items = _required(value, (list,), where)
        return origin([decode(arguments[0], item, where) for item in items])
    if origin is dict:
        items = _required(value, (dict,), where).items()
        return {name: decode(arguments[1], each, f"{where}.{name}") for name, each in items}
    for one in arguments[:-1]:  # of a union
        with contextlib.suppress(ValueError):
            return decode(one, value, where)
    return decode(arguments[-1], value, where)


def encode(value: Any) -> Any:
    """Return a dataclass as JSON values; tuples become lists, other values stay."""
    if dataclasses.is_dataclass(value):
        kind: Any = type(value)
        return {name: encode(getattr(value, name)) for name, _, _ in _fields(kind)}
    if isinstance(value, tuple):
        return [encode(each) for each in value]
    if isinstance(value, dict):
        return {name: encode(each) for name, each in value.items()}
    return value


@functools.cache
def _fields(kind: type) -> list[tuple[str, Any, bool]]:
    """Return name, type and whether a value must be given, of each field."""
    hints = typing.get_type_hints(kind)
    return [
        (
            field.name,
            hints[field.name],
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING,
        )
        for field in dataclasses.fields(kind)
    ]


@functools.cache
def _taken_apart(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return what a type is made with, and of which types."""
    if dataclasses.is_dataclass(kind):
        return dataclasses.dataclass, ()
    return typing.get_origin(kind), typing.get_args(kind)


def _required(value: Any, kinds: tuple[type, ...], where: str) -> Any:
    if type(value) not in kinds:
        name = "object" if kinds[0] is dict else kinds[0].__name__
        raise ValueError(f"{where or 'it'} must be of type {name}, got {reprlib.repr(value)}")
    return value
