"""Public names of a package that are imported when they are first used.

A package's ``__init__`` runs before any of its modules. If it imported what it makes public, every
command and every worker would load all of it.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def lazy_names(
    package: str, names: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return ``__getattr__``, ``__dir__`` and ``__all__`` for a package.

    Args:
        package: Its ``__name__``.
        names: Module of the package -> what it makes public, as ``name`` or
            ``its_name:public_name``.
    """
    places = {
        name.rpartition(":")[2]: (f"{package}.{module}", name.partition(":")[0])
        for module, of_module in names.items()
        for name in of_module
    }

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, its_name = places[name]
        return getattr(importlib.import_module(module), its_name)

    return get, lambda: sorted({*vars(importlib.import_module(package)), *places}), list(places)
