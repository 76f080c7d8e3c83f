"""The tables behind ``c4 plan``: prices, machines and assumptions, and known crawls."""

import dataclasses
import difflib
import importlib.resources
import math
import tomllib
from collections.abc import Mapping
from typing import Any

from pipelines import storage
from pipelines.plan import Engine

__all__ = ["Crawl", "Machine", "Price", "Tables", "known_crawl", "read_tables"]

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
        if not (isinstance(self.usd, int | float) and math.isfinite(self.usd) and self.usd >= 0):
            raise ValueError(f"usd must be a number of 0 or more, got {self.usd!r}")
        for name in ("what", "date", "source"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise ValueError(f"{name} must say something, got {getattr(self, name)!r}")


@dataclasses.dataclass(frozen=True)
class Machine:
    """A kind of machine."""

    vcpus: int
    memory_gb: float

    def __post_init__(self) -> None:
        numbers = isinstance(self.vcpus, int) and isinstance(self.memory_gb, int | float)
        if not numbers or self.vcpus < 1 or not 0 < self.memory_gb < math.inf:
            raise ValueError(
                f"a machine is [vCPUs, GB of memory], got [{self.vcpus!r}, {self.memory_gb!r}]"
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
        OSError: The file cannot be read.
        ValueError: It is no TOML, or something in it has another name or form; one line.

    """
    found = tomllib.loads(_packaged("prices.toml"))
    if path is not None:
        try:
            theirs = tomllib.loads(storage.read_bytes(path).decode())
            _overlay(found, theirs)
            return _checked(found)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {error} (--prices)") from None
    return _checked(found)


def _packaged(name: str) -> str:
    return importlib.resources.files("pipelines").joinpath(name).read_text(encoding="utf-8")


def _overlay(found: dict[str, Any], theirs: dict[str, Any]) -> None:
    for section, entries in theirs.items():
        if section not in found:
            raise ValueError(f"unknown section [{section}]; there are {', '.join(sorted(found))}")
        if not isinstance(entries, dict):
            raise ValueError(f"[{section}] must be a table, got {entries!r}")
        for name, entry in entries.items():
            if section != "machines" and name not in found[section]:
                near = difflib.get_close_matches(name, found[section], n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise ValueError(f"unknown entry {name} in [{section}]{hint}")
            if section == "prices":
                if not isinstance(entry, dict):
                    raise ValueError(f"[prices.{name}] must be a table, got {entry!r}")
                entry = {**found[section][name], **entry}
            found[section][name] = entry


def _checked(found: dict[str, Any]) -> Tables:
    prices = {}
    for name in PRICES:
        try:
            prices[name] = Price(**found["prices"][name])
        except (TypeError, ValueError) as error:
            raise ValueError(f"[prices.{name}]: {_plain(error)}") from None
    machines = {}
    for name, entry in found["machines"].items():
        if not isinstance(entry, list) or len(entry) != 2:
            raise ValueError(f"[machines] {name} must be [vCPUs, GB of memory], got {entry!r}")
        try:
            machines[name] = Machine(*entry)
        except ValueError as error:
            raise ValueError(f"[machines] {name}: {error}") from None
    for name, value in found["engine"].items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"[engine] {name} must be a number, got {value!r}")
    try:
        engine = Engine(**found["engine"])
    except ValueError as error:
        raise ValueError(f"[engine] {error}") from None
    return Tables(prices, machines, engine)


def _plain(error: Exception) -> str:
    """A constructor's complaint without the constructor's name."""
    return str(error).removeprefix("Price.__init__() ")
