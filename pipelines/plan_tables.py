"""The tables behind ``c4 plan``: prices, machines and assumptions, and known crawls."""

import dataclasses
import datetime
import difflib
import importlib.resources
import reprlib
import tomllib
from collections.abc import Mapping
from typing import Any, NamedTuple

from pipelines import storage
from pipelines.plan import Engine
from pipelines.text_files import decode_text

_MOST_TABLE_BYTES = 1 << 20
_MOST = 10**12  # dollars, vCPUs, GB, seconds: beyond, sums would be no numbers
_AT_LEAST_ONE = ("bytes_per_s", "longest_task")


class Price(NamedTuple):
    """One price in US dollars, with the day and the place it was read."""

    usd: float
    what: str
    date: str
    source: str


class Machine(NamedTuple):
    """A kind of machine."""

    vcpus: int
    memory_gb: float


class Crawl(NamedTuple):
    """The WET files of one crawl."""

    files: int
    stored_bytes: float
    pages: int


@dataclasses.dataclass(frozen=True)
class Tables:
    """Prices by name, machines by name, and what an engine adds: ``prices.toml``."""

    prices: Mapping[str, Price]
    machines: Mapping[str, Machine]
    engine: Engine

    def machine(self, name: str) -> Machine:
        """Return a machine by name. Raises ValueError naming near ones."""
        if name not in self.machines:
            near = difflib.get_close_matches(name, self.machines, n=3) or sorted(self.machines)
            raise ValueError(
                f"no machine {name!r} in the table, but {', '.join(near)}; add it under "
                "[machines] of a copy (--machine, --prices FILE)"
            )
        return self.machines[name]


def known_crawl(name: str) -> Crawl:
    """Return a crawl of the table. Raises ValueError, with the way out, if it is not there.

    >>> known_crawl("CC-MAIN-2019-18").files
    56000
    """
    table = _packaged("crawls.toml")
    if name not in table:
        raise ValueError(
            f"no crawl {name!r} in the table, which has {', '.join(sorted(table))}; give the "
            "number of its WET files, as its announcement at commoncrawl.org has it (--files N)"
        )
    entry = table[name]
    return Crawl(entry["files"], entry["tebibytes"] * 2.0**40, entry["pages"])


def read_tables(path: str | None = None) -> Tables:
    """Read the packaged tables, overlaid with a file of the user's.

    Raises ValueError, with one line, if the file cannot be read, is not TOML, or has an entry of an
    unknown name or the wrong form.
    """
    found = _packaged("prices.toml")
    if path is not None:
        found = _overlaid(found, path)
    prices = {name: Price(**entry) for name, entry in found["prices"].items()}
    machines = {name: Machine(*entry) for name, entry in found["machines"].items()}
    return Tables(prices, machines, Engine(**found["engine"]))


def _overlaid(found: dict[str, Any], path: str) -> dict[str, Any]:
    if not path:
        raise ValueError("no price table: give a TOML file (--prices)")
    try:
        with storage.open_raw(path) as file:
            content = file.read(_MOST_TABLE_BYTES + 1)
        if len(content) > _MOST_TABLE_BYTES:
            raise ValueError("larger than 1 MB: not a table of prices")
        merged: dict[str, Any] = _merged("", found, tomllib.loads(decode_text(content)))
    except RecursionError:
        raise ValueError(f"{path}: tables or lists are nested too deep (--prices)") from None
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error} (--prices)") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error} (--prices)") from None
    return merged


def _packaged(name: str) -> dict[str, Any]:
    return tomllib.loads(importlib.resources.files("pipelines").joinpath(name).read_text("utf-8"))


def _merged(where: str, ours: Any, theirs: Any) -> Any:
    """Return our value, replaced by theirs. Raises ValueError if theirs has another form."""
    if isinstance(ours, dict):
        if not isinstance(theirs, dict):
            raise ValueError(f"[{where}] must be a table, got {reprlib.repr(theirs)}")
        merged = dict(ours)
        for name, value in theirs.items():
            if where == "machines":
                _require_machine(name, value)
                merged[name] = value
                continue
            if name not in ours:
                near = difflib.get_close_matches(name, ours, n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(ours)}"
                place = f" in [{where}]" if where else ", outside of the tables"
                raise ValueError(f"unknown entry {name}{place}; {hint}")
            merged[name] = _merged(f"{where}.{name}".lstrip("."), ours[name], value)
        return merged
    if isinstance(ours, str):
        if isinstance(theirs, datetime.date):  # TOML has dates of its own
            theirs = theirs.isoformat()
        if not isinstance(theirs, str) or not theirs:
            raise ValueError(f"{where} must be text, got {reprlib.repr(theirs)}")
        return theirs
    return _number(where, theirs, 1 if where.endswith(_AT_LEAST_ONE) else 0)


def _require_machine(name: str, entry: Any) -> None:
    if not isinstance(entry, list) or len(entry) != 2 or type(entry[0]) is not int:
        got = reprlib.repr(entry)
        raise ValueError(f"machines.{name} must be [vCPUs, GB of memory], got {got}")
    _number(f"machines.{name}: vCPUs", entry[0], 1)
    _number(f"machines.{name}: GB", entry[1], 0)


def _number(what: str, value: Any, least: float) -> float:
    if type(value) not in (int, float) or not least <= value <= _MOST:  # nor NaN
        got = reprlib.repr(value)
        raise ValueError(f"{what} must be a number from {least} to {_MOST:.0e}, got {got}")
    return float(value)
