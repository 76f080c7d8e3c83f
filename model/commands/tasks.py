"""``c4 tasks``: the paper's tasks, what they read as, and their data made ready for training."""

import argparse
import pathlib
from collections.abc import Iterator, Sequence

from model.tasks import TASKS, Task, mixture, task
from model.tasks.mixtures import C4, mixture_tasks
from model.tasks.prepared import OWN, prepare
from model.tasks.registry import FORMS
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

__all__ = ["add_arguments", "run"]

_MIXTURES = ("all", "glue", "super_glue")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``c4 tasks``."""
    parser.epilog = (
        "  c4 tasks list\n"
        "  c4 tasks show super_glue_wsc     format, an example, metrics, where its data is\n"
        "  c4 tasks show all                how often the mixture draws each task\n"
        "  c4 tasks prepare glue_cola --from CoLA.zip --to data\n"
        "  c4 tasks prepare glue squad --from tfds --to data\n"
        "  c4 tasks prepare own --from train=MINE.tsv --from validation=DEV.tsv --to data"
    )
    parser.add_argument("action", choices=("list", "show", "prepare"), help="what to do")
    parser.add_argument(
        "name", nargs="*", help="tasks, or all, glue or super_glue; own for your own pairs"
    )
    parser.add_argument(
        "--form",
        choices=FORMS,
        help="with show: the released code's form (default), or the paper's where it differs",
    )
    parser.add_argument(
        "--from",
        dest="sources",
        metavar="DIR|tfds|hf|SPLIT=FILE",
        action="append",
        help="with prepare: a folder or archive of the published files, or of Hugging Face "
        "datasets; tfds or tfds:DATA_DIR for TensorFlow Datasets; hf for the Hugging Face hub; "
        "or one file for each split (repeat). Your own pairs are TSV, CSV or JSONL with inputs "
        "and targets",
    )
    parser.add_argument("--to", metavar="DIR", help="with prepare: folder to write DIR/NAME in")
    parser.add_argument(
        "--limit", metavar="N", type=int, help="with prepare: at most N examples of each split"
    )


def run(arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    """List, show or prepare tasks."""
    del rest
    only = {"form": "show", "sources": "prepare", "to": "prepare", "limit": "prepare"}
    for option, action in only.items():
        if getattr(arguments, option) is not None and arguments.action != action:
            written = "--from" if option == "sources" else f"--{option}"
            raise ValueError(f"{written} belongs to c4 tasks {action}")
    if arguments.action == "list":
        if arguments.name:
            raise ValueError(f"c4 tasks list takes no name; c4 tasks show {arguments.name[0]}?")
        _print_list()
        return 0
    if not arguments.name:
        raise ValueError(f"c4 tasks {arguments.action} needs a name: c4 tasks list shows them")
    if arguments.action == "show":
        for index, name in enumerate(arguments.name):
            if index:
                print()
            if name in _MIXTURES:
                _print_rates(name)
            else:
                _print_task(task(name, arguments.form or "code"))
        return 0
    if not arguments.sources or not arguments.to:
        raise ValueError("c4 tasks prepare needs --from and --to")
    if arguments.limit is not None and arguments.limit < 1:
        raise ValueError(f"--limit must be positive, got {arguments.limit}")
    for name in _names(arguments.name):
        rows = _rows(name, arguments.sources)
        made = prepare(name, rows, arguments.to, " ".join(arguments.sources), arguments.limit)
        splits = ", ".join(f"{split} {count:,}" for split, count in made.splits.items())
        print(f"{pathlib.Path(arguments.to, name)}: {splits}", flush=True)
    return 0


def _names(words: Sequence[str]) -> list[str]:
    """Return the tasks that names of tasks and mixtures stand for, each once."""
    found = [name for word in words for name in mixture_tasks(word) if name != C4]
    for name in found:
        if name not in TASKS and name != OWN:
            raise ValueError(f"no task {name!r}: c4 tasks list shows the tasks")
    return list(dict.fromkeys(found))


def _rows(name: str, sources: Sequence[str]) -> Iterator[tuple[str, Raw]]:
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
    print(f"{name}: {len(mixed.tasks)} tasks, drawn by their examples; {limit}")
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
