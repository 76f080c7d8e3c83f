"""The tables behind ``c4 plan``: prices, machines and assumptions, and known crawls."""

import dataclasses
import datetime
import difflib
import importlib.resources
import reprlib
import tomllib
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from pipelines import storage
from pipelines.plan import Engine
from pipelines.text_files import decode_text

__all__ = ["Crawl", "Machine", "Price", "Tables", "known_crawl", "read_tables"]

_MOST_TABLE_BYTES = 1 << 20
_MOST = 10**9  # dollars, vCPUs, GB
_MOST_OF_ENGINE = 10**12  # seconds, bytes a second, GB: beyond, sums would be no numbers


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
    if path is None:
        return _checked(found)
    if not path:
        raise ValueError("no price table: give a TOML file (--prices)")
    try:
        with storage.open_raw(path) as file:
            content = file.read(_MOST_TABLE_BYTES + 1)
        if len(content) > _MOST_TABLE_BYTES:
            raise ValueError("larger than 1 MB: not a table of prices")
        _overlay(found, tomllib.loads(decode_text(content)))
        return _checked(found)
    except RecursionError:
        raise ValueError(f"{path}: tables or lists are nested too deep (--prices)") from None
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error} (--prices)") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error} (--prices)") from None


def _packaged(name: str) -> dict[str, Any]:
    return tomllib.loads(importlib.resources.files("pipelines").joinpath(name).read_text("utf-8"))


def _overlay(found: dict[str, Any], theirs: dict[str, Any]) -> None:
    for section, entries in theirs.items():
        _require_known("section", section, found, "the table")
        for name, entry in _table(section, entries).items():
            if section != "machines":
                _require_known("entry", name, found[section], f"[{section}]")
            if section == "prices":
                for key in _table(f"prices.{name}", entry):
                    _require_known("entry", key, Price._fields, f"[prices.{name}]")
                entry = found[section][name] | entry
            found[section][name] = entry


def _require_known(what: str, name: str, known: Collection[str], where: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        raise ValueError(f"unknown {what} {name} in {where}; {hint}")


def _table(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"[{name}] must be a table, got {reprlib.repr(value)}")
    return value


def _checked(found: dict[str, Any]) -> Tables:
    prices = {name: _price(f"[prices.{name}]", entry) for name, entry in found["prices"].items()}
    machines = {}
    for name, entry in found["machines"].items():
        if not isinstance(entry, list) or len(entry) != 2 or type(entry[0]) is not int:
            got = reprlib.repr(entry)
            raise ValueError(f"[machines] {name} must be [vCPUs, GB of memory], got {got}")
        _require_number(f"[machines] {name}: vCPUs", entry[0], 1, _MOST)
        _require_number(f"[machines] {name}: GB", entry[1], 1e-3, _MOST)
        machines[name] = Machine(*entry)
    for name, value in found["engine"].items():
        least = 1 if name in ("bytes_per_s", "longest_task") else 0
        _require_number(f"[engine] {name}", value, least, _MOST_OF_ENGINE)
    return Tables(prices, machines, Engine(**found["engine"]))


def _price(where: str, entry: dict[str, Any]) -> Price:
    _require_number(f"{where}: usd", entry["usd"], 0, _MOST)
    if isinstance(entry["date"], datetime.date):  # TOML has dates of its own
        entry["date"] = entry["date"].isoformat()
    for name in ("what", "date", "source"):
        if not isinstance(entry[name], str) or not entry[name]:
            raise ValueError(f"{where}: {name} must be text, got {reprlib.repr(entry[name])}")
    return Price(**entry)


def _require_number(what: str, value: Any, least: float, most: float) -> None:
    if type(value) not in (int, float) or not least <= value <= most:  # nor NaN
        got = reprlib.repr(value)
        raise ValueError(f"{what} must be a number from {least:g} to {most:.0e}, got {got}")
