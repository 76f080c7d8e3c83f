"""``c4 tasks``: the paper's tasks, what they read as, and their data made ready for training."""

import argparse
import contextlib
import dataclasses
import pathlib
from collections.abc import Generator, Iterator, Sequence
from typing import Literal

from model.small_files import require_local
from model.tasks import TASKS, Task, mixture, task
from model.tasks.mixtures import C4, MIXTURES, mixture_tasks
from model.tasks.prepared import OWN, is_prepared, prepare
from model.tasks.registry import unknown_task
from model.tasks.sources.libraries import (
    holds_hugging_face,
    read_hugging_face,
    read_hugging_face_folder,
    read_tfds,
)
from model.tasks.sources.pairs import read_pairs
from model.tasks.sources.published import expected_files, read_published
from model.tasks.values import Raw
from model.text_table import text_table
from pipelines.options import add_options, check_bounds, given_values, option, option_of
from pipelines.printing import print_lines


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Asked:
    """What to do, and with which tasks."""

    action: Literal["list", "show", "prepare"] = option("what to do", "action")
    name: Sequence[str] = option(
        "tasks, or all, glue or super_glue; own for your own pairs", "name", nargs="*", default=()
    )
    form: Literal["code", "paper"] | None = option(
        "with show: the released code's form (default), or the paper's where it differs",
        default=None,
    )
    sources: Sequence[str] | None = option(
        "with prepare: a folder or archive of the published files, or of Hugging Face datasets; "
        "tfds or tfds:DATA_DIR for TensorFlow Datasets; hf for the Hugging Face hub; or one file "
        "for each split (repeat). Your own pairs are TSV, CSV or JSONL with inputs and targets",
        "--from", default=None, metavar="DIR|tfds|hf|SPLIT=FILE", action="append",
    )  # fmt: skip
    to: str | None = option(
        "with prepare: folder to write DIR/NAME in", default=None, metavar="DIR"
    )
    limit: int | None = option(
        "with prepare: at most N examples of each split", default=None, metavar="N", least=1
    )

    def __post_init__(self) -> None:
        only = {"form": "show", "sources": "prepare", "to": "prepare", "limit": "prepare"}
        for name, action in only.items():
            if getattr(self, name) is not None and self.action != action:
                raise ValueError(f"{option_of(_Asked, name)} belongs to c4 tasks {action}")
        check_bounds(self)
        if self.to is not None:
            require_local(self.to, "--to")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``c4 tasks``."""
    parser.epilog = (
        "  c4 tasks list\n"
        "  c4 tasks show super_glue_wsc    format, an example, metrics, where its data is\n"
        "  c4 tasks show all               how often the mixture draws each task\n"
        "  c4 tasks prepare glue_cola --from CoLA.zip --to data\n"
        "  c4 tasks prepare glue squad --from tfds --to data\n"
        "  c4 tasks prepare own --from train=MINE.tsv --from validation=DEV.tsv --to data"
    )
    add_options(parser, _Asked)


def run(arguments: argparse.Namespace) -> int:
    """List, show or prepare tasks."""
    asked = _Asked(**given_values(arguments, _Asked))
    if asked.action == "list":
        if asked.name:
            raise ValueError(f"c4 tasks list takes no name; c4 tasks show {asked.name[0]}?")
        _print_list()
        return 0
    if not asked.name:
        raise ValueError(f"c4 tasks {asked.action} needs a name: c4 tasks list shows them")
    if asked.action == "show":
        for index, name in enumerate(asked.name):
            if index:
                print()
            if name in MIXTURES:
                _print_rates(name)
            else:
                _print_task(task(name, asked.form or "code"))
        return 0
    if not asked.sources or not asked.to:
        raise ValueError("c4 tasks prepare needs --from and --to")
    _prepare(_names(asked.name), asked.sources, asked.to, asked.limit)
    return 0


def _prepare(names: Sequence[str], sources: Sequence[str], to: str, limit: int | None) -> None:
    """Prepare tasks; of several, look for the files of all first, and skip what is there."""
    source = " ".join(sources)
    if len(names) > 1:
        there = [name for name in names if is_prepared(name, to, source, limit)]
        for name in there:
            print_lines(
                f"{pathlib.Path(to, name)}: prepared from {source} before: skipped", flush=True
            )
        names = [name for name in names if name not in there]
        if not _is_library(sources[0]):
            for name in names:
                with _naming_task(name), contextlib.closing(_rows(name, sources)) as rows:
                    next(rows, None)
    for name in names:
        with _naming_task(name):
            made = prepare(name, _rows(name, sources), to, source, limit)
        splits = ", ".join(f"{split} {count:,}" for split, count in made.splits.items())
        print_lines(f"{pathlib.Path(to, name)}: {splits}", flush=True)
        if limit is None and (unlike := made.unlike_published(*made.splits)):
            print_lines(f"note: {unlike}: look for missing or other files (--from)", flush=True)


@contextlib.contextmanager
def _naming_task(name: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        if name in str(error):
            raise
        raise ValueError(f"{name}: {error}") from error


def _is_library(source: str) -> bool:
    """Return whether a source is a library that downloads, which looking would begin."""
    return source == "hf" or source.partition(":")[0] == "tfds"


def _names(words: Sequence[str]) -> list[str]:
    """Return the tasks that names of tasks and mixtures stand for, each once."""
    found = [name for word in words for name in mixture_tasks(word) if name != C4]
    for name in found:
        if name not in TASKS and name != OWN:
            raise ValueError(unknown_task(name, (*TASKS, OWN, *MIXTURES)))
    return list(dict.fromkeys(found))


def _rows(name: str, sources: Sequence[str]) -> Generator[tuple[str, Raw]]:
    given = [source.partition("=") for source in sources if _is_split(source)]
    if given and len(given) < len(sources):
        raise ValueError("--from is either one folder or a file for each split: SPLIT=FILE")
    if name == OWN:
        if not given:
            raise ValueError("your own pairs are given as --from train=FILE (--from)")
        for split, _, path in given:
            for raw in read_pairs(path):
                yield split, raw
        return
    wanted = task(name)
    if given:
        for split, _, path in given:
            if split not in wanted.splits:
                raise ValueError(
                    f"{name} has no split {split!r}: {', '.join(wanted.splits)} (--from)"
                )
            yield from read_published(wanted, path, split)
        return
    if len(sources) > 1:
        raise ValueError("--from is given once, or as SPLIT=FILE for each split")
    (source,) = sources
    kind, _, folder = source.partition(":")
    if kind == "tfds":
        yield from read_tfds(wanted, folder or None)
    elif kind == "hf" and not folder:
        yield from read_hugging_face(wanted)
    elif kind == "hf" or holds_hugging_face(source):
        yield from read_hugging_face_folder(wanted, folder or source)
    else:
        yield from read_published(wanted, source)


def _is_split(source: str) -> bool:
    name, separator, _ = source.partition("=")
    return bool(separator) and name.replace("_", "").isalpha()


def _print_list() -> None:
    rows: list[tuple[str, ...]] = [("name", "title", "train", "validation", "test", "metrics")]
    for entry in TASKS.values():
        sizes = [
            sum(size for split, size in entry.splits.items() if split.startswith(kind))
            for kind in ("train", "validation", "test")
        ]
        cells = [f"{size:,}" if size else "-" for size in sizes]
        rows.append((entry.name, entry.title, *cells, ", ".join(entry.metric_names) or "none"))
    print(*text_table(rows, right=range(2, 5)), sep="\n")
    print("\nmixtures: all, glue, super_glue (c4 tasks show all)")


def _print_rates(name: str) -> None:
    mixed = mixture(name)
    limit = f"each task counts for at most {mixed.limit:,} examples" if mixed.limit else "no limit"
    print_lines(f"{name}: {len(mixed.tasks)} tasks, drawn by their examples; {limit}")
    rows = [(f"  {task_name}", f"{rate:.6f}") for task_name, rate in mixed.rates().items()]
    print(*text_table(rows, right=[1]), sep="\n")


def _print_task(shown: Task) -> None:
    source = shown.source
    rows = [("task", f"{shown.name} ({shown.title})"), ("inputs", shown.template)]
    if shown.labels and "{" in shown.template and shown.template[:4] != "wsc:":
        rows.append(("targets", ", ".join(shown.labels)))
    for inputs, targets in shown.examples(shown.sample):
        rows += [("example", inputs), ("", f"-> {targets}")]
    rows.append(("metrics", ", ".join(shown.metric_names) or "none: a test set without labels"))
    rows += [(split, f"{size:,} examples") for split, size in shown.splits.items()]
    if shown.mixing_examples and shown.mixing_examples != shown.splits["train"]:
        rows.append(("mixtures", f"count {shown.mixing_examples:,} training examples"))
    rows += [("published", source.url), ("files", expected_files(shown))]
    rows += [("tfds", source.tfds), ("hf", " ".join(filter(None, source.hub)))]
    for place in ("DIR", "tfds", "hf"):
        label = "prepare" if place == "DIR" else ""
        rows.append((label, f"c4 tasks prepare {shown.name} --from {place} --to data"))
    print(*text_table(rows), sep="\n")
