"""Show the files between the parser and the use of every option.

::

    python -m scripts.walks            # the longest walk of every option, the longest first

An option is used in the file that declares it as a field of a configuration, in files that take
this configuration and read the field, and in files whose functions take a parameter of its name.
From the file of its command it passes from file to file: to functions and classes that take a
parameter of its name, or a whole configuration that has the field. The walk to the farthest use is
shown. Exits with 1 if one is longer
than `BAR`.
"""

import argparse
import ast
import importlib
import pathlib
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping

from pipelines import c4_main

BAR = 6
ROOT = pathlib.Path(__file__).resolve().parents[1]


class _File:
    """The names in a file that tell whether an option passes through it."""

    def __init__(self, path: pathlib.Path) -> None:
        self.imports: dict[str, set[str]] = defaultdict(set)  # module to names taken from it
        self.takes: dict[str, set[str]] = {}  # function or class to its parameters and their types
        self.reads: set[tuple[str, str]] = set()  # name of an object, and of its attribute
        self.fields: set[tuple[str, str]] = set()  # class, and a class that it has a field of
        self.declares: dict[str, tuple[str, str]] = {}  # option to class and field
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                self.imports[node.module] |= {alias.name for alias in node.names}
            elif isinstance(node, ast.Attribute):
                self.reads.add((_name(node.value), node.attr))
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                self.takes[node.name] = _taken(node)
                for part in node.body if isinstance(node, ast.ClassDef) else ():
                    if isinstance(part, ast.AnnAssign):
                        self._read_field(node.name, part)

    def _read_field(self, owner: str, field: ast.AnnAssign) -> None:
        name, value = _name(field.target), field.value
        self.fields |= {(owner, _name(part)) for part in ast.walk(field.annotation)}
        if isinstance(value, ast.Call) and _name(value) == "option":
            flags = [ast.literal_eval(flag) for flag in value.args[1:]]
            self.declares[(flags or [f"--{name.replace('_', '-')}"])[0]] = owner, name


def _name(node: ast.AST) -> str:
    """Return the last name of an expression: ``c`` of ``a.b.c`` and of ``a.b.c()``."""
    if isinstance(node, ast.Call):
        return _name(node.func)
    if isinstance(node, ast.Constant):  # an annotation in quotes
        return str(node.value)
    return str(vars(node).get("attr") or vars(node).get("id") or "")


def _taken(definition: ast.AST) -> set[str]:
    """Return the names and types of the parameters of a function, or of a class's methods."""
    taken = set()
    for node in ast.walk(definition):
        if isinstance(node, ast.arg | ast.AnnAssign):
            taken.add(node.arg if isinstance(node, ast.arg) else _name(node.target))
            taken |= {_name(part) for part in ast.walk(node.annotation or ast.Pass())}
    return taken


def _holders(declaring: str, files: Mapping[str, _File]) -> set[str]:
    """Return the class of a field, and those that have an object of it among their own fields."""
    fields = {pair for file in files.values() for pair in file.fields}
    found = {declaring}
    while more := {owner for owner, kind in fields if kind in found} - found:
        found |= more
    return found


def _farthest(command: str, files: Mapping[str, _File], flag: str, field: str) -> list[str]:
    """Return the way to the use of an option that is the most steps away from the command."""
    declared = next((file.declares[flag] for file in files.values() if flag in file.declares), None)
    holders = set()
    if declared is not None:
        field, holders = declared[1], _holders(declared[0], files)

    def uses(file: _File) -> bool:
        taken = set().union(*file.takes.values())
        configured = holders & taken or ("arguments", field) in file.reads
        return (
            flag in file.declares
            or field in taken
            or bool(configured and any(field == name for _, name in file.reads))
        )

    def reaches(file: _File, other: str) -> bool:
        package, _, module = other.rpartition(".")
        taken = set(file.imports.get(other, ()))
        if module in file.imports.get(package, ()):
            taken |= {name for held, name in file.reads if held == module}
        return any({field, *holders} & {*files[other].takes.get(name, ()), name} for name in taken)

    ways, following = {command: [command]}, [command]
    for current in following:
        for other in sorted(files.keys() - ways.keys()):
            if reaches(files[current], other):
                ways[other] = [*ways[current], other]
                following.append(other)
    return max((way for name, way in ways.items() if name == command or uses(files[name])), key=len)


def _options(module: str) -> Iterator[tuple[str, str]]:
    """Yield the first flag of each option of a command, and its name among parsed arguments."""
    parser = argparse.ArgumentParser(add_help=False)
    importlib.import_module(module).add_arguments(parser)
    for action in parser._actions:
        yield (action.option_strings or [action.dest])[0], action.dest


def walks() -> list[tuple[str, list[str]]]:
    """Return each option with the files of its walk, the longest first."""
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): _File(path)
        for folder in ("c4_filters", "pipelines", "model")
        for path in sorted((ROOT / folder).rglob("*.py"))
    }
    found = []
    for command, entry in c4_main._COMMANDS.items():
        ours = {
            name: file
            for name, file in files.items()
            if name.startswith(entry.module.split(".")[0])
            and (".commands." not in name or name == entry.module)
        }
        for flag, field in _options(entry.module):
            found.append((f"{command} {flag}", _farthest(entry.module, ours, flag, field)))
    return sorted(found, key=lambda walk: (-len(walk[1]), walk[0]))


def main() -> int:
    """Print every walk; return 1 if one is longer than `BAR`."""
    found = walks()
    for option, files in found:
        print(f"{len(files):>3}  {option}: {' > '.join(files)}")
    return 1 if len(found[0][1]) > BAR else 0


if __name__ == "__main__":
    sys.exit(main())
