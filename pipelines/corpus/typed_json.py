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

import dataclasses
import functools
import reprlib
import types
import typing
from collections.abc import Callable
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
    return _decoder(kind)(value, where)


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
def _decoder(kind: Any) -> Callable[[Any, str], Any]:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return lambda value, where: value
    if dataclasses.is_dataclass(kind):
        return functools.partial(_dataclass, kind)
    if origin in (tuple, list):
        return functools.partial(_sequence, origin, _decoder(arguments[0]))
    if origin is dict:
        return functools.partial(_dict, _decoder(arguments[1]))
    if origin in (typing.Union, types.UnionType):
        return functools.partial(_union, [_decoder(each) for each in arguments])
    # Not isinstance: True is not a number. A whole number is written for a float such as 1.0 too.
    return functools.partial(_plain, (float, int) if kind is float else (kind,))


def _dataclass(kind: Any, value: Any, where: str) -> Any:
    _plain((dict,), value, where)
    found = {}
    for name, its_kind, needed in _fields(kind):
        if name in value:
            found[name] = _decoder(its_kind)(value[name], f"{where}.{name}" if where else name)
        elif needed:
            raise ValueError(f"{where or 'it'} lacks {name!r}")
    return kind(**found)


def _sequence(kind: Any, each: Callable[[Any, str], Any], value: Any, where: str) -> Any:
    _plain((list,), value, where)
    return kind(each(item, where) for item in value)


def _dict(each: Callable[[Any, str], Any], value: Any, where: str) -> Any:
    _plain((dict,), value, where)
    return {name: each(item, f"{where}.{name}") for name, item in value.items()}


def _union(kinds: list[Callable[[Any, str], Any]], value: Any, where: str) -> Any:
    for number, each in enumerate(kinds):
        try:
            return each(value, where)
        except ValueError:
            if number == len(kinds) - 1:
                raise
    raise AssertionError("a union of nothing")


def _plain(kinds: tuple[type, ...], value: Any, where: str) -> Any:
    if type(value) not in kinds:
        name = "object" if kinds[0] is dict else kinds[0].__name__
        raise ValueError(f"{where or 'it'} must be of type {name}, got {reprlib.repr(value)}")
    return value
