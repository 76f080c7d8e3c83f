"""Import less in a process that only builds on this machine, and without threads.

Where they are installed, ``import apache_beam`` imports clients of Google, Amazon, Azure, Hadoop
and MongoDB, and Arrow imports pandas: most of the CPU time of the import. Our own file layer needs
none of them.
"""

import importlib.abc
import logging
import os
import sys
from collections.abc import Sequence

#: The environment of a process that forks: else NumPy and Arrow start threads when imported.
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}

# Beam and Arrow do without each of them, as on a machine where it is not installed.
_UNUSED = (
    "apache_beam.io.aws",
    "apache_beam.io.azure",
    "apache_beam.io.gcp",
    "apache_beam.io.hadoopfilesystem",
    "apitools",
    "bson",
    "google.cloud",
    "pandas",
    "pymongo",
)


class _LeaveOut(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: object = None) -> None:
        del path, target
        if any(name == unused or name.startswith(f"{unused}.") for unused in _UNUSED):
            raise ModuleNotFoundError(f"a build on this machine does not use {name}", name=name)


def leave_out_threads() -> None:
    """Let this process import NumPy and Arrow, which it has not yet, without their threads."""
    os.environ.update(ENVIRONMENT)


def leave_out_unused() -> None:
    """Let this process import Beam without those modules, for good."""
    # It warns that bson is missing.
    logging.getLogger("apache_beam.io.mongodbio").setLevel(logging.ERROR)
    sys.meta_path.insert(0, _LeaveOut())
