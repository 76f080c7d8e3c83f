"""The tables behind ``c4 plan``: prices, machines and assumptions, and known crawls."""

import dataclasses
import datetime
import difflib
import errno
import importlib.resources
import os
import reprlib
import stat
import tomllib
from collections.abc import Mapping
from typing import Any

from pipelines import storage
from pipelines.plan import Engine
from pipelines.text_files import decode_text

__all__ = ["Crawl", "Machine", "Price", "Tables", "known_crawl", "read_tables"]

_MOST_TABLE_BYTES = 1 << 20
_MOST = 10**9  # dollars, vCPUs, GB
PRICES = (
    "vcpu_hour",
    "memory_gb_hour",
    "disk_gb_hour",
    "shuffle_gb",
    "storage_gb_month",
    "class_a_1000",
    "class_b_1000",
)


@dataclasses.dataclass(frozen=True)
class Price:
    """One price in US dollars, with the day and the place it was read."""

    usd: float
    what: str
    date: str
    source: str

    def __post_init__(self) -> None:
        if type(self.usd) not in (int, float) or not 0 <= self.usd < _MOST:  # nor NaN
            raise ValueError(
                f"usd must be a number from 0 to below {_MOST:.0e}, got {reprlib.repr(self.usd)}"
            )
        for name in ("what", "date", "source"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise ValueError(f"{name} must say something, got {reprlib.repr(value)}")


_PRICE_ENTRIES = tuple(field.name for field in dataclasses.fields(Price))


@dataclasses.dataclass(frozen=True)
class Machine:
    """A kind of machine."""

    vcpus: int
    memory_gb: float

    def __post_init__(self) -> None:
        numbers = type(self.vcpus) is int and type(self.memory_gb) in (int, float)
        if not numbers or not 1 <= self.vcpus < _MOST or not 0 < self.memory_gb < _MOST:
            got = f"[{reprlib.repr(self.vcpus)}, {reprlib.repr(self.memory_gb)}]"
            raise ValueError(
                f"a machine is [vCPUs, GB of memory], numbers below {_MOST:.0e}, got {got}"
            )


@dataclasses.dataclass(frozen=True)
class Crawl:
    """The WET files of one crawl."""

    files: int
    stored_bytes: float
    pages: int


@dataclasses.dataclass(frozen=True)
class Tables:
    """Prices by name (see ``PRICES``), machines by name, and what an engine adds."""

    prices: Mapping[str, Price]
    machines: Mapping[str, Machine]
    engine: Engine

    def machine(self, name: str) -> Machine:
        """A machine by name. Raises ValueError naming near ones."""
        if name not in self.machines:
            near = difflib.get_close_matches(name, self.machines, n=3) or sorted(self.machines)
            raise ValueError(
                f"no machine {name!r} in the table, but {', '.join(near)}; add it under "
                "[machines] of a copy (--machine, --prices FILE)"
            )
        return self.machines[name]


def known_crawl(name: str) -> Crawl:
    """A crawl of the table. Raises ValueError with the way out for one that is not there.

    >>> known_crawl("CC-MAIN-2019-18").files
    56000
    """
    table = tomllib.loads(_packaged("crawls.toml"))
    if name not in table:
        raise ValueError(
            f"no crawl {name!r} in the table, which has {', '.join(sorted(table))}; give the "
            "number of its WET files, as its announcement at commoncrawl.org has it (--files N)"
        )
    entry = table[name]
    return Crawl(entry["files"], entry["tebibytes"] * 2.0**40, entry["pages"])


def read_tables(path: str | None = None) -> Tables:
    """The packaged tables, with what a file of the user's puts in their place.

    Raises:
        ValueError: It cannot be read, it is no TOML, or something in it has another name or form;
            one line.

    """
    found = tomllib.loads(_packaged("prices.toml"))
    if path is None:
        return _checked(found)
    if not path:
        raise ValueError("no price table: give a TOML file (--prices)")
    try:
        _overlay(found, tomllib.loads(decode_text(_read(path))))
        return _checked(found)
    except RecursionError:
        raise ValueError(f"{path}: tables or lists are nested too deep (--prices)") from None
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error} (--prices)") from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error} (--prices)") from None


def _read(path: str) -> bytes:
    """The bytes of a table. Raises ValueError where the file cannot be one, without reading it."""
    if storage.is_local(path):
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(mode):  # a device may have no end, a pipe no beginning
            raise ValueError("not a regular file")
    with storage.open_raw(path) as file:
        content = file.read(_MOST_TABLE_BYTES + 1)
    if len(content) > _MOST_TABLE_BYTES:
        raise ValueError("larger than 1 MB: it is no table of prices")
    return content


def _packaged(name: str) -> str:
    return importlib.resources.files("pipelines").joinpath(name).read_text(encoding="utf-8")


def _overlay(found: dict[str, Any], theirs: dict[str, Any]) -> None:
    for section, entries in theirs.items():
        if section not in found:
            raise ValueError(f"unknown section [{section}]; there are {', '.join(sorted(found))}")
        if not isinstance(entries, dict):
            raise ValueError(f"[{section}] must be a table, got {reprlib.repr(entries)}")
        for name, entry in entries.items():
            if section != "machines" and name not in found[section]:
                near = difflib.get_close_matches(name, found[section], n=1)
                hint = (
                    f"did you mean {near[0]}?" if near else f"there are {', '.join(found[section])}"
                )
                raise ValueError(f"unknown entry {name} in [{section}]; {hint}")
            if section == "prices":
                if not isinstance(entry, dict):
                    got = reprlib.repr(entry)
                    raise ValueError(f"[prices.{name}] must be a table, got {got}")
                if unknown := [key for key in entry if key not in _PRICE_ENTRIES]:
                    raise ValueError(
                        f"[prices.{name}]: unknown entry {unknown[0]}; there are "
                        f"{', '.join(_PRICE_ENTRIES)}"
                    )
                if isinstance(entry.get("date"), datetime.date):  # TOML has dates of its own
                    entry["date"] = entry["date"].isoformat()
                entry = {**found[section][name], **entry}
            found[section][name] = entry


def _checked(found: dict[str, Any]) -> Tables:
    prices = {}
    for name in PRICES:
        try:
            prices[name] = Price(**found["prices"][name])
        except ValueError as error:
            raise ValueError(f"[prices.{name}]: {error}") from None
    machines = {}
    for name, entry in found["machines"].items():
        if not isinstance(entry, list) or len(entry) != 2:
            got = reprlib.repr(entry)
            raise ValueError(f"[machines] {name} must be [vCPUs, GB of memory], got {got}")
        try:
            machines[name] = Machine(*entry)
        except ValueError as error:
            raise ValueError(f"[machines] {name}: {error}") from None
    for name, value in found["engine"].items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"[engine] {name} must be a number, got {reprlib.repr(value)}")
    try:
        engine = Engine(**found["engine"])
    except ValueError as error:
        raise ValueError(f"[engine] {error}") from None
    return Tables(prices, machines, engine)
