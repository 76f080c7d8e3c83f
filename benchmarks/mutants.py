"""Measure the tests by mutation: changes one place of the code at a time and runs the tests.

    pip install -e '.[dev,mutation]'
    python -m benchmarks.mutants c4_filters --mutants 400 --seed 8

A mutant is killed when a test fails or runs out of time. The score is the share of killed mutants
among those drawn that are not listed as equivalent in `equivalent_mutants.toml`. Bar: 90 %; the
program prints the survivors with their diffs and fails below the bar.

Mutants are drawn from every change that cosmic-ray's operators can make, and from two operators of
our own: removing a statement, and removing one item of a call, a list or a condition. Changes that
do not compile, and changes in annotations and in `__all__`, are not drawn.

The tests run in a copy of the repository, one mutant at a time, each in a fork of a process that
has imported the slow libraries. First a run without a mutant records which lines each test runs;
then each mutant gets the tests of its module, `tests/c4_filters/test_urls.py` and the doctests for
`c4_filters/urls.py`: those that run its line, the fastest first, and then the rest. For the kept
files these are all tests that run the file. Slow tests are left out. Hypothesis draws the same
examples every time, so results repeat.

`--record FILE` keeps the results: run again with it to continue an interrupted run, or to run only
the survivors after adding tests.
"""

import argparse
import contextlib
import dataclasses
import difflib
import functools
import gc
import hashlib
import importlib
import json
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
import time
import tomllib
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import coverage
import hypothesis
import parso
import pytest
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.ast.ast_query import ASTQuery
from cosmic_ray.mutating import MutationVisitor
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator, operator_names

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
_OPTIONS = ("-q", "--assert=plain", "--tb=line", "-p", "no:cacheprovider", "-m", "not slow")
_LONG = 3.0  # seconds; longer tests are left out where they do not run the mutant's line
_MOST_MEMORY = 4 << 30  # bytes that a mutant may allocate more than the unchanged code at its start


class Target(NamedTuple):
    """Code to mutate, and the tests that answer for it."""

    sources: tuple[str, ...]  # globs
    tests: tuple[str, ...]  # files and folders for pytest
    shared: bool  # whether tests of one module answer for another, too


_KEPT = ("cleaned", "container", "fingerprints", "removals")
TARGETS = {
    "c4_filters": Target(("c4_filters/*.py",), ("tests/c4_filters", "c4_filters"), shared=False),
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
        shared=True,
    ),
}


# ----------------------------------------------------------------------------------- operators


class RemoveStatement(Operator):  # type: ignore[misc]
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

    @classmethod
    def examples(cls) -> tuple[()]:
        """Return no examples; cosmic-ray asks for them."""
        return ()


class RemoveItem(Operator):  # type: ignore[misc]
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

    @classmethod
    def examples(cls) -> tuple[()]:
        """Return no examples; cosmic-ray asks for them."""
        return ()


@functools.cache
def _operators() -> dict[str, Operator]:
    found = {"ours/RemoveStatement": RemoveStatement(), "ours/RemoveItem": RemoveItem()}
    for name in operator_names():
        operator = get_operator(name)
        if not operator.arguments():  # the others need to be told what to replace
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
    if not _EQUIVALENT.exists():
        return {}
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


# -------------------------------------------------------------------------------------- pytest


class _Plugin:
    """What every run of the tests shares: the same examples each time, no shrinking of failures."""

    def pytest_configure(self) -> None:
        hypothesis.settings.register_profile(
            "mutants",
            deadline=None,
            suppress_health_check=list(hypothesis.HealthCheck),
            derandomize=True,
            database=None,
            phases=[hypothesis.Phase.explicit, hypothesis.Phase.reuse, hypothesis.Phase.generate],
        )
        hypothesis.settings.load_profile("mutants")


class _Baseline(_Plugin):
    """Record how long each test takes and which lines it runs."""

    def __init__(self, sources: Sequence[str]) -> None:
        self.coverage = coverage.Coverage(data_file=None, include=list(sources), config_file=False)
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.coverage.switch_context(item.nodeid)
        try:
            return (yield)
        finally:
            self.coverage.switch_context("")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0) + report.duration
        if report.failed:
            self.failed.append(report.nodeid)


class _Selected(_Plugin):
    """Run the given tests in the given order, each for a limited time."""

    def __init__(self, tests: Mapping[str, float], killer: pathlib.Path) -> None:
        self.seconds = tests
        self.order = {name: at for at, name in enumerate(tests)}
        self.killer = killer

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted(
            (item for item in items if item.nodeid in self.order),
            key=lambda item: self.order[item.nodeid],
        )

    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        self.killer.write_text(item.nodeid)
        # The kernel ends the process when the test has used up its CPU time.
        signal.setitimer(signal.ITIMER_PROF, 10 + 8 * self.seconds[item.nodeid])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            os._exit(int(pytest.ExitCode.TESTS_FAILED))  # pytest's own end takes half a second


_TIMED_OUT = 1000
_NO_ANSWER = (pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.NO_TESTS_COLLECTED)


def _fork(task: Callable[[], int], output: pathlib.Path, wall_seconds: float) -> int:
    """Run a task in a fork and returns its status, or _TIMED_OUT."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setpgid(0, 0)
            with open(output, "wb") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            signal.signal(signal.SIGPROF, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_PROF, 120)  # imports and collection
            status = task()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    with contextlib.suppress(OSError):
        os.setpgid(child, child)
    deadline = time.monotonic() + wall_seconds
    status = None
    wait = 0.005
    while status is None:
        done, raw = os.waitpid(child, os.WNOHANG)
        if done:
            status = os.waitstatus_to_exitcode(raw)
        elif time.monotonic() > deadline:
            status = _TIMED_OUT
        else:
            time.sleep(wait)
            wait = min(0.1, wait * 1.5)
    with contextlib.suppress(OSError):  # commands that a test started, too
        os.killpg(child, signal.SIGKILL)
    if status == _TIMED_OUT:
        os.waitpid(child, 0)
    return _TIMED_OUT if status == -signal.SIGPROF else status


# ----------------------------------------------------------------------------------- the runs


class Laboratory:
    """A copy of the repository, where one file at a time is mutated."""

    def __init__(self, folder: pathlib.Path, target: Target) -> None:
        self.folder = folder
        self.tree = folder / "tree"
        self.target = target
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=_ROOT, check=True, capture_output=True).stdout
        for name in filter(None, names.decode().split("\0")):
            if (_ROOT / name).is_file():
                (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(_ROOT / name, self.tree / name)
        shared = _ROOT.parent / "shared"
        if shared.exists():
            (folder / "shared").symlink_to(shared)
        self.seconds: dict[str, float] = {}
        self.lines: dict[str, dict[int, list[str]]] = {}

    def _enter(self) -> None:
        """Make this forked process run in the copy."""
        os.chdir(self.tree)
        sys.path[:] = [str(self.tree), *(path for path in sys.path if path not in ("", str(_ROOT)))]
        os.environ["PYTHONPATH"] = str(self.tree)
        for name in list(sys.modules):
            if name.split(".")[0] in _OURS:
                del sys.modules[name]
        importlib.invalidate_caches()

    def _digest(self) -> str:
        """Name the code and the tests."""
        folders = [f"{test}/**/*.py" for test in self.target.tests]
        contents = [
            path.read_bytes()
            for name in (*self.target.sources, *self.target.tests, *folders)
            for path in sorted(self.tree.glob(name))
            if path.is_file()
        ]
        return hashlib.sha256(b"\0".join(contents)).hexdigest()

    def measure(self, kept: pathlib.Path | None) -> None:
        """Run all tests on the unchanged code; they must pass. The result is read from ``kept``
        where that is of this very code, else written to it.
        """
        result = self.folder / "baseline.json"
        sources = [str(self.tree / name) for name in source_files(self.target)]

        def task() -> int:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self._enter()
            plugin = _Baseline(sources)
            plugin.coverage.start()
            status = pytest.main(
                ["-q", "--assert=plain", "-p", "no:cacheprovider", *self.target.tests], [plugin]
            )
            plugin.coverage.stop()
            data = plugin.coverage.get_data()
            lines = {
                str(pathlib.Path(file).relative_to(self.tree)): data.contexts_by_lineno(file)
                for file in data.measured_files()
            }
            result.write_text(json.dumps([self._digest(), plugin.seconds, lines]))
            return int(status)

        if kept is not None and kept.exists():
            result.write_bytes(kept.read_bytes())
        if not result.exists() or json.loads(result.read_text())[0] != self._digest():
            output = self.folder / "baseline.txt"
            status = _fork(task, output, 3600)
            if status:
                raise SystemExit(
                    f"the tests fail without a mutant, status {status}:\n"
                    f"{output.read_text()[-4000:]}"
                )
            if kept is not None:
                kept.write_bytes(result.read_bytes())
        _, seconds, lines = json.loads(result.read_text())
        self.seconds = seconds
        self.lines = {
            file: {int(line): contexts for line, contexts in by_line.items()}
            for file, by_line in lines.items()
        }

    def _tests_for(self, mutant: Mutant) -> tuple[list[str], list[str]]:
        """Return the tests that run the mutant's line, and others of its file, fastest first.

        Tests that do not run the line matter where a test uses what an earlier one has left in a
        cache, or starts a process.
        """
        path = pathlib.Path(mutant.file)
        own = (f"tests/{path.parent}/test_{path.name}::", f"{mutant.file}::")
        names = [name for name in self.seconds if name.startswith(own)]
        by_line = self.lines.get(mutant.file, {})
        if self.target.shared:
            reaching = {name for names in by_line.values() for name in names} - {""}
            names += reaching.difference(names)
        names.sort(key=lambda name: (not name.startswith(own), self.seconds[name]))
        # A statement of several lines counts as its first.
        line = max((line for line in by_line if line <= mutant.line), default=0)
        running = {*by_line.get(mutant.line, ()), *by_line.get(line, ())}
        if "" in running:  # runs on import
            return names, []
        return (
            [name for name in names if name in running],
            [name for name in names if name not in running and self.seconds[name] < _LONG],
        )

    def run(self, mutant: Mutant) -> tuple[str, str]:
        """Run the tests on a mutant.

        Returns:
            ``("killed" | "timeout" | "survived", the test that decided)``.
        """
        path = self.tree / mutant.file
        original = path.read_bytes()
        killer = self.folder / "killer.txt"
        path.write_text(mutant.text, encoding="utf-8")
        try:
            for names in self._tests_for(mutant):
                if not names:
                    continue
                tests = {name: self.seconds[name] for name in names}
                killer.write_text("import")
                status = _fork(
                    functools.partial(self._test, tests, killer),
                    self.folder / "output.txt",
                    300 + 20 * sum(tests.values()),
                )
                if status == _TIMED_OUT:
                    return "timeout", killer.read_text()
                output = (self.folder / "output.txt").read_text(errors="replace")
                if status in _NO_ANSWER or (
                    # Right where the mutant keeps a conftest.py from being imported.
                    status == pytest.ExitCode.USAGE_ERROR and "while loading conftest" not in output
                ):
                    raise RuntimeError(
                        f"pytest itself failed for {mutant.file}:{mutant.line}:\n{output[-4000:]}"
                    )
                if status:
                    by = killer.read_text()
                    if by == "import":
                        errors = [line for line in output.splitlines() if line.startswith("E ")]
                        by = f"import: {(errors or [output[-200:]])[-1][1:].strip()}"
                    return "killed", by
        finally:
            path.write_bytes(original)
        return "survived", ""

    def _test(self, tests: Mapping[str, float], killer: pathlib.Path) -> int:
        _limit_memory()
        self._enter()
        files = dict.fromkeys(name.partition("::")[0] for name in tests)
        plugin = _Selected(tests, killer)
        return int(pytest.main([*_OPTIONS, "-x", *files], [plugin]))


def _limit_memory() -> None:
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _MOST_MEMORY, used + _MOST_MEMORY))


def source_files(target: Target) -> list[str]:
    """Return the files that a target's globs match, sorted."""
    return sorted(
        str(path.relative_to(_ROOT)) for glob in target.sources for path in _ROOT.glob(glob)
    )


# -------------------------------------------------------------------------------- command line


def _describe(mutant: Mutant) -> str:
    original = (_ROOT / mutant.file).read_text(encoding="utf-8")
    diff = difflib.unified_diff(
        original.splitlines(), mutant.text.splitlines(), n=1, lineterm="", fromfile="", tofile=""
    )
    body = "\n".join(list(diff)[2:])
    return f"{mutant.file}:{mutant.line} in {mutant.within or 'module'}, {mutant.operator}\n{body}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    known: dict[str, dict[str, Any]] = {}
    if options.record and options.record.exists():
        for line in options.record.read_text().splitlines():
            entry = json.loads(line)
            known[entry["key"]] = entry
    for name in _SLOW_IMPORTS:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # pytest collects twice, and need not look at what is imported here
    results: list[tuple[Mutant, str, str]] = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        laboratory = Laboratory(pathlib.Path(folder).resolve(), target)
        started = time.monotonic()
        record = options.record
        laboratory.measure(record.with_suffix(".baseline") if record else None)
        print(
            f"{len(laboratory.seconds)} tests pass in {time.monotonic() - started:.0f} s without a "
            "mutant",
            flush=True,
        )
        for number, mutant in enumerate(mutants, 1):
            listed = (mutant.file, mutant.within, mutant.before, mutant.after)
            began = time.monotonic()
            if listed in equivalents:
                status, by = "equivalent", equivalents[listed]
            elif known.get(mutant.key, {}).get("status") in ("killed", "timeout"):
                status, by = known[mutant.key]["status"], known[mutant.key]["by"]
            else:
                status, by = laboratory.run(mutant)
                if options.record:
                    entry = dataclasses.asdict(mutant) | {"key": mutant.key}
                    del entry["text"]
                    entry |= {"status": status, "by": by}
                    with options.record.open("a") as file:
                        file.write(json.dumps(entry) + "\n")
            results.append((mutant, status, by))
            print(
                f"{number:4} {time.monotonic() - began:5.1f} s {status:10} "
                f"{mutant.file}:{mutant.line} {mutant.operator.split('/')[1]}  {by}",
                flush=True,
            )
    return _report(results, seed)


def _report(results: Sequence[tuple[Mutant, str, str]], seed: int) -> int:
    counts = {
        wanted: sum(status == wanted for _, status, _ in results)
        for wanted in ("killed", "timeout", "survived", "equivalent")
    }
    print("\nSurvivors:\n")
    for mutant, status, _ in results:
        if status == "survived":
            print(_describe(mutant), end="\n\n")
    files = sorted({mutant.file for mutant, _, _ in results})
    for file in files:
        own = [status for mutant, status, _ in results if mutant.file == file]
        judged = len(own) - own.count("equivalent")
        print(f"{file:32} {judged - own.count('survived'):4} of {judged:4} killed")
    judged = len(results) - counts["equivalent"]
    score = (counts["killed"] + counts["timeout"]) / max(judged, 1)
    print(
        f"score {score:.1%}: {counts['killed']} killed by a test, {counts['timeout']} by time, "
        f"{counts['survived']} survived, {counts['equivalent']} equivalent; "
        f"{len(results)} mutants, seed {seed}"
    )
    return 0 if score >= _BAR else 1


if __name__ == "__main__":
    sys.exit(main())
