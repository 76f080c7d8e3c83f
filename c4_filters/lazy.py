"""Public names of a package that are imported when they are first used.

A package's ``__init__`` runs before any of its modules. If it imported what it makes public, every
command and every worker would load all of it.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(
    package: str, places: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` for a package.

    Args:
        package: Its ``__name__``.
        places: Public name -> the module that has it, or ``module:other_name``.
    """

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, other_name = places[name].partition(":")
        return getattr(importlib.import_module(module), other_name or name)

    return get, lambda: sorted({*vars(importlib.import_module(package)), *places})
