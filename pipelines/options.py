"""Options of a command, declared once: as the fields of the dataclass that they fill in.

A field made with `option` has its help text, type, default, bounds and reader in one place.
`add_options` makes options of argparse from such fields, `given_values` reads back the fields that
were given on the command line, `check_bounds` checks values, and `option_of` names the option of a
field in messages.
"""

import argparse
import dataclasses
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

from pipelines.number_options import grouped

_KEY = "option"


@dataclasses.dataclass(frozen=True)
class _Option:
    """What a field's metadata holds."""

    flags: tuple[str, ...]  # none: "--" and the name of the field
    help: str | None = None  # None: no option of its own, the flags name others
    least: float | None = None
    most: float | None = None
    read: Callable[[Any], Any] | None = None
    on_cpu: Any = None
    words: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def option(
    text: str,
    *flags: str,
    default: Any = dataclasses.MISSING,
    default_factory: Any = dataclasses.MISSING,
    least: float | None = None,
    most: float | None = None,
    read: Callable[[Any], Any] | None = None,
    on_cpu: Any = None,
    **words: Any,
) -> Any:
    """Return a field of a dataclass that is also an option of a command.

    Args:
        text: The help text. The default is added to it, unless it names one itself.
        flags: Names of the option. Without any, ``--`` and the name of the field.
        default: As of `dataclasses.field`.
        default_factory: As of `dataclasses.field`.
        least: The least value, for `check_bounds`.
        most: The largest value.
        read: Makes the value of the field from what argparse gives; it raises ValueError.
        on_cpu: Another default, on machines without an accelerator.
        words: Further arguments of ``add_argument``. The type of a number, the choices of a
            ``Literal`` and whether it is a switch come from the type of the field.
    """
    declared = _Option(flags, text, least, most, read, on_cpu, words)
    if default_factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=default_factory, metadata={_KEY: declared})
    return dataclasses.field(default=default, metadata={_KEY: declared})


def set_by(*flags: str, default: Any = dataclasses.MISSING) -> Any:
    """Return a field that has no option of its own; ``flags`` are what messages name for it."""
    return dataclasses.field(default=default, metadata={_KEY: _Option(flags)})


def option_of(config: type, name: str) -> str:
    """Return the option that sets a field, for messages; empty if there is none.

    >>> @dataclasses.dataclass
    ... class Run:
    ...     max_steps: int = option("steps to do", default=1, least=1)
    >>> option_of(Run, "max_steps")
    '--max-steps'
    """
    field = _fields(config).get(name)
    return ", ".join(_flags(field)) if field is not None and _KEY in field.metadata else ""


def on_cpu(config: type) -> dict[str, Any]:
    """Return the other defaults of machines without an accelerator, by name of the field."""
    return {
        name: field.metadata[_KEY].on_cpu
        for name, field in _options(config).items()
        if field.metadata[_KEY].on_cpu is not None
    }


def add_options(parser: argparse._ActionsContainer, config: type, *names: str) -> None:
    """Add the options of a dataclass to a parser: of the fields named, or of all.

    An option that is not given leaves no attribute behind, so that the dataclass decides.
    """
    options = _options(config)
    for name in names or options:
        field = options[name]
        words = dict(field.metadata[_KEY].words)
        flags = _flags(field)
        if field.metadata[_KEY].read is None:
            words = _of_type(field.type) | words
        if field.default is field.default_factory is dataclasses.MISSING and flags[0][:1] == "-":
            words.setdefault("required", True)
        shown = _shown_default(field)
        words["help"] = f"{field.metadata[_KEY].help}{f' ({shown})' if shown else ''}"
        parser.add_argument(*flags, default=argparse.SUPPRESS, **words)


def given_values(arguments: argparse.Namespace, config: type, *names: str) -> dict[str, Any]:
    """Return the values of the fields whose options were given; see `add_options`.

    Raises:
        ValueError: A value cannot be read, or is empty.
        OSError: A file that it names cannot be read.
    """
    options, values = _options(config), {}
    for name in names or options:
        declared: _Option = options[name].metadata[_KEY]
        dest = _flags(options[name])[0].lstrip("-").replace("-", "_")
        if hasattr(arguments, dest):
            value = getattr(arguments, dest)
            if value == "":
                flag = _flags(options[name])[0]
                metavar = declared.words.get("metavar", flag)
                raise ValueError(
                    f"{flag if flag[0] == '-' else f'the argument {metavar}'} is empty"
                )
            values[name] = value if declared.read is None else _read(declared, value, options[name])
    return values


def _read(declared: _Option, value: Any, field: "dataclasses.Field[Any]") -> Any:
    """Return what a reader makes of a value. Its error names the option, if it does not itself."""
    assert declared.read is not None
    try:
        return declared.read(value)
    except (ValueError, OSError) as error:
        flag = _flags(field)[0]
        if flag in str(error):
            raise
        if not isinstance(error, OSError):
            raise ValueError(f"{error} ({flag})") from None
        named = error.filename and error.strerror
        what = f"{error.filename}: {error.strerror}" if named else str(error)
        raise OSError(f"{what} ({flag})") from None


def refuse_empty(arguments: argparse.Namespace) -> None:
    """Raise ValueError, naming the option, for one that was given without a value.

    >>> refuse_empty(argparse.Namespace(keep_best="", task=["own"]))
    Traceback (most recent call last):
        ...
    ValueError: --keep-best is empty
    """
    for name, value in vars(arguments).items():
        if value == "" or (isinstance(value, list) and "" in value):
            raise ValueError(f"--{name.replace('_', '-')} is empty")


def comma_separated(flag: str) -> Callable[[str | Sequence[str]], tuple[str, ...]]:
    """Return a reader of lists such as ``a,b``, given once or several times; each name is once.

    The reader raises ValueError, naming ``flag``, for an empty name.

    >>> comma_separated("--task")(["glue_cola,glue_rte", "glue_cola"])
    ('glue_cola', 'glue_rte')
    """

    def read(asked: str | Sequence[str]) -> tuple[str, ...]:
        lists = [asked] if isinstance(asked, str) else asked
        names = [name.strip() for each in lists for name in each.split(",")]
        if not all(names):
            raise ValueError(f"{flag} has an empty name: write {flag} NAME,NAME")
        return tuple(dict.fromkeys(names))

    return read


def check_bounds(config: Any) -> None:
    """Raise ValueError, naming the option, for a field that is out of its bounds or NaN."""
    for name, field in _options(type(config)).items():
        declared, value = field.metadata[_KEY], getattr(config, name)
        least, most = declared.least, declared.most
        if value is None or (least is None and most is None):
            continue
        if not (least is None or value >= least) or not (most is None or value <= most):
            bounds = f"at least {grouped(least)}" if most is None else f"at most {grouped(most)}"
            if least is not None and most is not None:
                bounds = f"between {grouped(least)} and {grouped(most)}"
            raise ValueError(
                f"{name} must be {bounds}, got {value} ({option_of(type(config), name)})"
            )


def _fields(config: type) -> dict[str, "dataclasses.Field[Any]"]:
    return {field.name: field for field in dataclasses.fields(config)}


def _options(config: type) -> dict[str, "dataclasses.Field[Any]"]:
    """Return the fields that have an option of their own, in order."""
    return {
        name: field
        for name, field in _fields(config).items()
        if _KEY in field.metadata and field.metadata[_KEY].help is not None
    }


def _flags(field: "dataclasses.Field[Any]") -> Sequence[str]:
    return field.metadata[_KEY].flags or (f"--{field.name.replace('_', '-')}",)


def _of_type(kind: Any) -> dict[str, Any]:
    """Return the arguments of ``add_argument`` that follow from a type.

    >>> _of_type(int | None), _of_type(bool), _of_type(Literal["a", "b"])
    ({'type': <class 'int'>}, {'action': 'store_true'}, {'choices': ['a', 'b']})
    """
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(each for each in get_args(kind) if each is not type(None))
    if kind is bool:
        return {"action": "store_true"}
    if get_origin(kind) is Literal:
        return {"choices": list(get_args(kind))}
    return {"type": kind} if kind in (int, float) else {}


def _shown_default(field: "dataclasses.Field[Any]") -> str:
    declared, default = field.metadata[_KEY], field.default
    if "default" in declared.help or default in (None, "") or isinstance(default, bool):
        return ""
    if default is dataclasses.MISSING or isinstance(default, tuple):
        return ""
    shown = f"default: {default if isinstance(default, str | int) else f'{default:g}'}"
    return shown if declared.on_cpu is None else f"{shown}; on a CPU {declared.on_cpu}"
