"""Show the files between the parser and the use of every option.

::

    python -m scripts.walks            # the longest walk of every option, the longest first

An option passes through the file of its command, the file that declares it, the files that read it
from a configuration (``config.NAME``, ``options.NAME``), and the files that these import whose
functions take a parameter of that name. A walk is the way from the command to one of them over
imports; the farthest is shown. Exits with 1 if one is longer than `BAR`.
"""

import argparse
import ast
import importlib
import pathlib
import sys

from pipelines import c4_main

__all__ = ["BAR", "main", "walks"]

BAR = 6
ROOT = pathlib.Path(__file__).resolve().parents[1]
#: What configurations and parsed options are called.
_HOLDERS = {"arguments", "asked", "config", "_config", "data", "options", "step", "model"}


class _File:
    """The names in a file that tell whether an option passes through it."""

    def __init__(self, path: pathlib.Path) -> None:
        self.imports: set[str] = set()
        self.reads: set[str] = set()
        self.parameters: set[str] = set()
        self.declares: dict[str, str] = {}  # option to field
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                self.imports |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
            elif isinstance(node, ast.Attribute):
                holder = node.value
                name = holder.attr if isinstance(holder, ast.Attribute) else vars(holder).get("id")
                if name in _HOLDERS:
                    self.reads.add(node.attr)
            elif isinstance(node, ast.arg):
                self.parameters.add(node.arg)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Call):
                name = vars(node.target).get("id", "")
                if vars(node.value.func).get("id") == "option":
                    flags = [ast.literal_eval(flag) for flag in node.value.args[1:]]
                    self.declares[(flags or [f"--{name.replace('_', '-')}"])[0]] = name


def _farthest(command: str, file: _File, through: dict[str, _File]) -> list[str]:
    """Return the way to the file that is the most imports away from the command."""
    ways = {command: [command]}
    following = [(command, file)]
    for name, current in following:
        for other in sorted(current.imports & through.keys() - ways.keys()):
            ways[other] = [*ways[name], other]
            following.append((other, through[other]))
    return max(ways.values(), key=len)


def walks() -> list[tuple[str, list[str]]]:
    """Return each option with the files of its walk, the longest first."""
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): _File(path)
        for folder in ("c4_filters", "pipelines", "model")
        for path in sorted((ROOT / folder).rglob("*.py"))
    }
    found = []
    for command, entry in c4_main._COMMANDS.items():
        package = entry.module.split(".")[0]
        parser = argparse.ArgumentParser(add_help=False)
        importlib.import_module(entry.module).add_arguments(parser)
        for action in parser._actions:
            flag = action.option_strings[0] if action.option_strings else action.dest
            ours = {
                name: file
                for name, file in files.items()
                if name.startswith(package) and (".commands." not in name or name == entry.module)
            }
            field = next(
                (file.declares[flag] for file in ours.values() if flag in file.declares),
                action.dest,
            )
            through = {
                name: file
                for name, file in ours.items()
                if field in file.reads or field in file.parameters or flag in file.declares
            }
            found.append(
                (f"{command} {flag}", _farthest(entry.module, ours[entry.module], through))
            )
    return sorted(found, key=lambda walk: (-len(walk[1]), walk[0]))


def main() -> int:
    """Print every walk; return 1 if one is longer than `BAR`."""
    found = walks()
    for option, files in found:
        print(f"{len(files):>3}  {option}: {' > '.join(files)}")
    return 1 if len(found[0][1]) > BAR else 0


if __name__ == "__main__":
    sys.exit(main())
