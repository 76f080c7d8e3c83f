"""Measure the tests by mutation: change one place of the code at a time and run the tests.

    pip install -e '.[dev,mutation]'
    python -m benchmarks.mutants c4_filters --mutants 400 --seed 8

A mutant is killed when a test fails or runs out of time. The score is the share of killed mutants
among those drawn that are not listed as equivalent in `equivalent_mutants.toml`. Bar: 90 %; the
program prints the survivors with their diffs and fails below the bar.

Mutants are drawn from every change that cosmic-ray's operators can make, and from two operators of
our own: removing a statement, and removing one item of a call, a list or a condition. Changes that
do not compile, and changes in annotations and in `__all__`, are not drawn.

The tests run in a copy of the repository, one mutant at a time, each in a fork of a process that
has imported the slow libraries. A mutant gets the tests of its module, such as
`tests/c4_filters/test_urls.py` and the doctests for `c4_filters/urls.py`; for the kept files, the
tests of all of them. Slow tests are left out. Hypothesis draws the same examples every time, so
results repeat.

`--record FILE` keeps the results: run again with it to continue an interrupted run, or to run only
the survivors after adding tests.
"""

import collections
import contextlib
import dataclasses
import difflib
import functools
import hashlib
import importlib
import json
import multiprocessing
import os
import pathlib
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import tomllib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import hypothesis
import parso
import pytest
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.ast.ast_query import ASTQuery
from cosmic_ray.mutating import MutationVisitor
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator, operator_names

from benchmarks import measure

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_EQUIVALENT = _ROOT / "benchmarks" / "equivalent_mutants.toml"
_BAR = 0.9
# Imported before the fork, so that no mutant pays for it: 13 s for TensorFlow alone. Nothing here
# may import this project's packages.
_SLOW_IMPORTS = (
    *("ahocorasick_rs", "apache_beam", "langdetect", "langdetect_rs", "mmh3", "nltk", "numpy"),
    *("fastwarc", "punkt", "pyarrow.parquet", "regex", "tensorflow", "tensorflow_datasets"),
    *("tldextract", "apache_beam.options.pipeline_options", "tensorflow_datasets.text.c4_utils"),
)
_OURS = (
    *("benchmarks", "c4_filters", "dataflow_templates", "fuzz", "model", "pipelines"),
    *("testing", "tests"),
)
# A failure's report, with its diffs, may take longer than the test.
_OPTIONS = ("-qx", "--assert=plain", "--tb=line", "-p", "no:cacheprovider", "-m", "not slow")
_MOST_MEMORY = 4 << 30  # bytes that a mutant may allocate more than the unchanged code at its start


class Target(NamedTuple):
    """Code to mutate, and the tests that answer for it."""

    sources: tuple[str, ...]  # globs
    tests: tuple[str, ...] = ()  # files and folders for pytest; none: those of the module


_KEPT = ("cleaned", "container", "fingerprints", "removals")
TARGETS = {
    "c4_filters": Target(("c4_filters/*.py",)),
    "kept": Target(
        (*(f"pipelines/corpus/{name}.py" for name in _KEPT), "pipelines/stages/clean_files.py"),
        (
            *(f"tests/pipelines/corpus/test_{name}.py" for name in (*_KEPT, "stored_bytes")),
            "tests/pipelines/stages/test_clean_files.py",
            *(
                "tests/pipelines/stages/test_cleaned_columns.py",
                "tests/pipelines/stages/test_dropped_urls.py",
            ),
            *(f"pipelines/corpus/{name}.py" for name in _KEPT),
        ),
    ),
}


# ----------------------------------------------------------------------------------- operators


class _Own(Operator):  # type: ignore[misc]
    @classmethod
    def examples(cls) -> tuple[()]:
        """Return no examples; cosmic-ray asks for them."""
        return ()


class RemoveStatement(_Own):
    """Replace a simple statement inside a function by ``pass``."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        """Return where the operator applies."""
        if node.type != "simple_stmt" or parso.tree.search_ancestor(node, "funcdef") is None:
            return
        if node.children[0].type not in ("string", "import_name", "import_from", "keyword"):
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """Return the changed node."""
        replacement = parso.parse("pass\n").children[0]
        replacement.get_first_leaf().prefix = node.get_first_leaf().prefix
        return replacement


class RemoveItem(_Own):
    """Remove one of several items of a call, a list, a tuple, a set, a dict or a condition."""

    _LISTS = ("arglist", "testlist_comp", "testlist_star_expr", "dictorsetmaker")
    _CONDITIONS = ("and_test", "or_test")

    def _items(self, node: Any) -> list[tuple[int, int]]:
        """Where each item starts and ends among the node's children, its separator included."""
        kinds = (*self._LISTS, *self._CONDITIONS)
        if node.type not in kinds or any(
            child.type in ("comp_for", "sync_comp_for") for child in node.children
        ):
            return []
        separators = (",",) if node.type in self._LISTS else ("and", "or")
        items, start = [], 0
        for at, child in enumerate(node.children):
            if getattr(child, "value", None) in separators:
                items.append((start, at + 1))
                start = at + 1
        if start < len(node.children):
            items.append((max(start - 1, 0), len(node.children)))
        return items if len(items) > 1 else []

    def mutation_positions(self, node: Any) -> list[tuple[Any, Any]]:
        """Return where the operator applies."""
        return [
            (node.children[start].start_pos, node.children[end - 1].end_pos)
            for start, end in self._items(node)
        ]

    def mutate(self, node: Any, index: int) -> Any:
        """Return the changed node."""
        start, end = self._items(node)[index]
        if start == 0:  # keep the blanks and the line breaks in front of the first item
            node.children[end].get_first_leaf().prefix = node.get_first_leaf().prefix
        del node.children[start:end]
        return node


@functools.cache
def _operators() -> dict[str, Operator]:
    found = {"ours/RemoveStatement": RemoveStatement(), "ours/RemoveItem": RemoveItem()}
    for name in operator_names():
        operator = get_operator(name)
        if not operator.arguments():  # the others need arguments
            found[name] = operator()
    return found


# --------------------------------------------------------------------------------------- draws


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One change of one file."""

    file: str
    operator: str
    occurrence: int
    line: int
    within: str  # the function or class that holds it, "" for the module
    before: str  # the changed lines, stripped
    after: str
    text: str  # the whole file after the change

    @property
    def key(self) -> str:
        """Name this change of this very source."""
        return hashlib.sha256(f"{self.file}\0{self.text}".encode()).hexdigest()[:20]


class _Place(NamedTuple):
    file: str
    operator: str
    occurrence: int
    line: int
    within: str


def _without_effect(node: Any) -> bool:
    """Whether a node is in an annotation or in ``__all__``."""
    while node.parent is not None:
        parent = node.parent
        if parent.type == "expr_stmt" and parent.get_first_leaf().value == "__all__":
            return True
        if parent.type == "annassign" and node is parent.children[1]:
            return True
        if parent.type == "tfpdef" and node is not parent.children[0]:
            return True
        if parent.type == "funcdef" and node is parent.annotation:
            return True
        node = parent
    return False


def _places(files: Iterable[str]) -> Iterator[_Place]:
    """Yield every change that an operator can make and that may have an effect."""
    operators = _operators()
    for file in files:
        tree = get_ast((_ROOT / file).read_text(encoding="utf-8"))
        nodes = [(node, _without_effect(node)) for node in ast_nodes(tree)]
        for name, operator in operators.items():
            occurrence = 0
            for node, skipped in nodes:
                for start, _ in operator.mutation_positions(node):
                    if not skipped:
                        within = ASTQuery(node).get_definition_name() or ""
                        yield _Place(file, name, occurrence, start[0], within)
                    occurrence += 1


@functools.cache
def _parsed(file: str) -> tuple[str, bytes]:
    """Return a file's text and pickled tree: mutating changes a tree, and parsing is slow."""
    source = (_ROOT / file).read_text(encoding="utf-8")
    return source, pickle.dumps(get_ast(source))


def _mutant(place: _Place) -> Mutant | None:
    """Return the mutant at a place, or None when it changes nothing or does not compile.

    What only compiles with a warning, such as ``x is 1``, is left out, too: linters find it.
    """
    source, tree = _parsed(place.file)
    visitor = MutationVisitor(place.occurrence, _operators()[place.operator])
    text = visitor.walk(pickle.loads(tree)).get_code()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", SyntaxWarning)
            changed = compile(text, place.file, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return None
    if changed == compile(source, place.file, "exec", dont_inherit=True):
        return None
    diff = list(difflib.ndiff(source.splitlines(), text.splitlines()))
    before, after = (
        "\n".join(line[2:].strip() for line in diff if line.startswith(sign)) for sign in "-+"
    )
    return Mutant(*place, before, after, text)


def draw(files: Sequence[str], count: int, seed: int) -> tuple[list[Mutant], int]:
    """Draw mutants without replacement.

    Each place has its own random number, so that a change of one file leaves the order of the
    places in the others as it was.

    Returns:
        At most ``count`` mutants, and the number of places they were drawn from.
    """
    places = list(_places(files))
    places.sort(key=lambda place: random.Random(f"{seed} {place[:3]}").random())
    drawn: dict[str, Mutant] = {}
    for place in places:
        if len(drawn) == count:
            break
        mutant = _mutant(place)
        if mutant is not None:
            drawn.setdefault(mutant.key, mutant)
    return list(drawn.values()), len(places)


# --------------------------------------------------------------------------------- equivalents


def _read_equivalents() -> dict[tuple[str, str, str, str], str]:
    """Return the listed mutants, and why no test can tell each from the code."""
    with _EQUIVALENT.open("rb") as file:
        entries = tomllib.load(file)["mutant"]
    return {
        (entry["file"], entry["within"], entry["before"].strip(), entry["after"].strip()): entry[
            "reason"
        ]
        for entry in entries
    }


def _outdated(files: Sequence[str], listed: Iterable[tuple[str, str, str, str]]) -> Iterator[str]:
    """Yield the listed mutants of these files whose code is no longer there."""
    lines = {
        file: {line.strip() for line in (_ROOT / file).read_text(encoding="utf-8").splitlines()}
        for file in files
    }
    for file, _, before, _ in listed:
        if file in lines and not lines[file].issuperset(before.splitlines()):
            yield f"{file}: {before}"


# ---------------------------------------------------------------------------------------- runs


class _SameExamples:
    """Let Hypothesis draw the same examples in every run, and not shrink failures."""

    def pytest_configure(self) -> None:
        phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
        hypothesis.settings.register_profile(
            "mutants", deadline=None, derandomize=True, database=None, phases=phases,
            suppress_health_check=list(hypothesis.HealthCheck),
        )  # fmt: skip
        hypothesis.settings.load_profile("mutants")


class Laboratory:
    """A copy of the repository, where one file at a time is mutated."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.tree = folder / "tree"
        self.output = folder / "output.txt"
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=_ROOT, check=True, capture_output=True, text=True).stdout
        for name in filter(None, names.split("\0")):
            if (_ROOT / name).is_file():
                (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(_ROOT / name, self.tree / name)
        if (_ROOT.parent / "shared").exists():
            (folder / "shared").symlink_to(_ROOT.parent / "shared")
        self._seconds: dict[tuple[str, ...], float] = {}

    def run(self, mutant: Mutant, tests: tuple[str, ...]) -> str:
        """Run tests on a mutant, and return "killed", "timeout" or "survived".

        Raises RuntimeError if the tests fail without the mutant, or pytest itself fails.
        """
        if tests not in self._seconds:
            began = time.monotonic()
            if self._pytest(tests, 3600):
                raise RuntimeError(f"the tests fail without a mutant:\n{self._last_output()}")
            self._seconds[tests] = time.monotonic() - began
        path = self.tree / mutant.file
        original = path.read_bytes()
        path.write_text(mutant.text, encoding="utf-8")
        try:
            status = self._pytest(tests, 30 + 8 * self._seconds[tests])
        finally:
            path.write_bytes(original)
        if status is None:
            return "timeout"
        if status in (pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.NO_TESTS_COLLECTED):
            raise RuntimeError(f"pytest fails for {mutant.file}:{mutant.line}:\n"
                               f"{self._last_output()}")  # fmt: skip
        return "killed" if status else "survived"

    def _pytest(self, tests: Sequence[str], wall_seconds: float) -> int | None:
        """Return the exit status of pytest in a fork of this process; None: out of time."""
        fork = multiprocessing.get_context("fork").Process(target=self._test, args=(tests,))
        fork.start()
        fork.join(wall_seconds)
        status = fork.exitcode
        with contextlib.suppress(ProcessLookupError):  # commands that a test started, too
            os.killpg(fork.pid, signal.SIGKILL)
        fork.join()
        return status

    def _test(self, tests: Sequence[str]) -> None:
        """Run the tests in the copy, in a group of processes of its own, and exit."""
        os.setpgid(0, 0)
        with open(self.output, "wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        used = measure.memory("VmSize")
        resource.setrlimit(resource.RLIMIT_AS, (used + _MOST_MEMORY, used + _MOST_MEMORY))
        os.chdir(self.tree)
        sys.path[:] = [str(self.tree), *(path for path in sys.path if path not in ("", str(_ROOT)))]
        os.environ["PYTHONPATH"] = str(self.tree)
        for name in list(sys.modules):
            if name.split(".")[0] in _OURS:
                del sys.modules[name]
        importlib.invalidate_caches()
        status = pytest.main([*_OPTIONS, *tests], [_SameExamples()])
        sys.stdout.flush()
        os._exit(int(status))

    def _last_output(self) -> str:
        return self.output.read_text(errors="replace")[-4000:]


def source_files(target: Target) -> list[str]:
    """Return the files that a target's globs match, sorted."""
    return sorted(
        str(path.relative_to(_ROOT)) for glob in target.sources for path in _ROOT.glob(glob)
    )


def tests_for(mutant: Mutant, target: Target) -> tuple[str, ...]:
    """Return the tests that answer for a mutant: those of its module, or all of the target."""
    path = pathlib.Path(mutant.file)
    own = (f"tests/{path.parent}/test_{path.name}", mutant.file)
    return target.tests or tuple(name for name in own if (_ROOT / name).exists())


# -------------------------------------------------------------------------------- command line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = measure.parser(__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--mutants", type=int, default=400, metavar="N")
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, printed")
    parser.add_argument("--record", type=pathlib.Path, metavar="FILE", help="keeps the results")
    options = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    target = TARGETS[options.target]
    os.nice(19)
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    mutants, places = draw(source_files(target), options.mutants, seed)
    print(f"{len(mutants)} mutants of {places:,} places, seed {seed}", flush=True)
    equivalents = _read_equivalents()
    for entry in _outdated(source_files(target), equivalents):
        print(f"listed as equivalent, but no longer in the code: {entry}", flush=True)
    known: dict[str, str] = {}
    if options.record and options.record.exists():
        known = dict(map(json.loads, options.record.read_text().splitlines()))
    for name in _SLOW_IMPORTS:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    results: list[tuple[Mutant, str]] = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        laboratory = Laboratory(pathlib.Path(folder).resolve())
        for number, mutant in enumerate(mutants, 1):
            began = time.monotonic()
            status = known.get(mutant.key, "survived")
            if (mutant.file, mutant.within, mutant.before, mutant.after) in equivalents:
                status = "equivalent"
            elif status == "survived":
                status = laboratory.run(mutant, tests_for(mutant, target))
                if options.record:
                    with options.record.open("a") as file:
                        file.write(json.dumps([mutant.key, status]) + "\n")
            results.append((mutant, status))
            print(
                f"{number:4} {time.monotonic() - began:5.1f} s {status:10} "
                f"{mutant.file}:{mutant.line} {mutant.operator.split('/')[1]}",
                flush=True,
            )
    return _report(results, seed)


def _report(results: Sequence[tuple[Mutant, str]], seed: int) -> int:
    print("\nSurvivors:\n")
    for mutant, status in results:
        if status == "survived":
            print(f"{mutant.file}:{mutant.line} in {mutant.within or 'module'}, {mutant.operator}")
            print(textwrap.indent(mutant.before, "- "))
            print(textwrap.indent(mutant.after, "+ "), end="\n\n")
    for file in sorted({mutant.file for mutant, _ in results}):
        own = collections.Counter(status for mutant, status in results if mutant.file == file)
        judged = own.total() - own["equivalent"]
        print(f"{file:32} {judged - own['survived']:4} of {judged:4} killed")
    counts = collections.Counter(status for _, status in results)
    score = (counts["killed"] + counts["timeout"]) / max(len(results) - counts["equivalent"], 1)
    print(
        f"score {score:.1%}: {counts['killed']} killed by a test, {counts['timeout']} by time, "
        f"{counts['survived']} survived, {counts['equivalent']} equivalent; "
        f"{len(results)} mutants, seed {seed}"
    )
    return 0 if score >= _BAR else 1


if __name__ == "__main__":
    sys.exit(main())
