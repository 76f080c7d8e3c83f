"""Import less in a process that only builds on this machine.

Where they are installed, ``import apache_beam`` imports the clients of Google and Amazon, and Arrow
imports pandas: half of the CPU time of the import. Our own file layer needs none of them.
"""

import importlib.abc
import sys
from collections.abc import Sequence

__all__ = ["leave_out_unused"]

# Beam and Arrow do without each of them, as on a machine where it is not installed.
_UNUSED = ("apache_beam.io.aws", "apache_beam.io.gcp", "google.cloud", "pandas")


class _LeaveOut(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: object = None) -> None:
        del path, target
        if any(name == unused or name.startswith(f"{unused}.") for unused in _UNUSED):
            raise ModuleNotFoundError(f"a build on this machine does not use {name}", name=name)


def leave_out_unused() -> None:
    """Let this process import Beam without those modules, for good."""
    sys.meta_path.insert(0, _LeaveOut())
