"""Raw examples from the files that tasks are published in.

layouts.toml says which files hold which split, and how a file reads as examples in the fields of
TensorFlow Datasets.
"""

import collections
import hashlib
import itertools
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import IO, Any, NamedTuple

from model.small_files import packaged_toml
from model.tasks.registry import Task
from model.tasks.sources.files import Files
from model.tasks.sources.lines import json_document, json_lines, text_lines
from model.tasks.values import Raw

_Rows = Callable[[IO[bytes], str], Iterator[Raw]]


class _Layout(NamedTuple):
    """Files of a task, see layouts.toml."""

    splits: Mapping[str, Sequence[Sequence[str]]]
    rows: _Rows
    folder: str


def read_published(
    task: Task, path: str | os.PathLike[str], split: str | None = None
) -> Iterator[tuple[str, Raw]]:
    """Yield (split, raw example) from a folder, archive or file in a published layout.

    With ``split``, ``path`` is one file that holds that split. Raises ValueError if the files are
    not there or not in that layout, naming file and line.
    """
    with Files(path) as files:
        if task.name == "cnn_dailymail":
            yield from _stories(files, path)
        elif task.name in _STEMS:
            yield from _parallel(files, path, task)
        else:
            found = _LAYOUTS[task.name]
            chosen = _chosen(files.names, found, path) if split is None else {split: files.names}
            ids = _mrpc_validation_ids(files) if task.name == "glue_mrpc" else set()
            for name, names in chosen.items():
                index = itertools.count()
                for file in names:
                    with files.open(file) as stream:
                        for raw in found.rows(stream, file):
                            example = dict(raw)
                            if example.get("label") in task.labels:
                                example["label"] = task.labels.index(example["label"])
                            held_out = (*example.pop("ids", ()),) in ids
                            if "idx" in task.sample:
                                example.setdefault("idx", next(index))
                            yield "validation" if held_out else name, example


def expected_files(task: Task) -> str:
    """Return, for people, the files that a folder of the task must hold."""
    if task.name == "cnn_dailymail":
        return "all_train.txt, all_val.txt, all_test.txt and the stories, *.story or their archives"
    if task.name in _STEMS:
        wanted = _STEMS[task.name]
        shown = [f"{split}: {' + '.join(stems)}" for split, stems in wanted.items()]
        return f"{'; '.join(shown)} (two files each, as NAME.en or -src.en.sgm)"
    splits = _LAYOUTS[task.name].splits
    return "; ".join(
        f"{split}: {' or '.join(' + '.join(names) for names in alternatives)}"
        for split, alternatives in splits.items()
    )


def _chosen(
    names: Sequence[str], layout: _Layout, path: str | os.PathLike[str]
) -> dict[str, list[str]]:
    if layout.folder:
        own = re.compile(rf"(^|/){re.escape(layout.folder)}(\.zip)?/", re.IGNORECASE)
        names = [name for name in names if own.search(name)] or names
    by_base: dict[str, list[str]] = collections.defaultdict(list)
    for name in names:
        by_base[name.rpartition("/")[2].lower()].append(name)
    chosen = {}
    for split, alternatives in layout.splits.items():
        for wanted in alternatives:
            found = [by_base[name.lower()] for name in wanted if name.lower() in by_base]
            if found:
                chosen[split] = [_shallowest(same, path) for same in found]
                break
    if not chosen:
        wanted = [name for group in layout.splits.values() for names in group for name in names]
        raise ValueError(f"{path}: none of the task's files is there: {', '.join(wanted)}")
    return chosen


def _shallowest(names: Sequence[str], path: str | os.PathLike[str]) -> str:
    ordered = sorted(names, key=lambda name: name.count("/"))
    if len(ordered) > 1 and ordered[0].count("/") == ordered[1].count("/"):
        raise ValueError(
            f"{path}: both {ordered[0]} and {ordered[1]} may be meant: give the folder of one"
        )
    return ordered[0]


class _Bare(NamedTuple):
    """A table without a header: the places of fields and label, and what parts a line."""

    fields: Mapping[str, int]
    label: int
    columns: int
    blank: bool = False  # one blank instead of tabs


def _table(
    stream: IO[bytes],
    name: str,
    fields: Mapping[str, str],
    label: str = "label",
    bare: Mapping[str, Any] | None = None,
    fractional: bool = False,
    ids: Sequence[str] = (),
) -> Iterator[Raw]:
    """Yield the rows of a TSV without quoting. Rows that lack columns are left out, as in TFDS.

    Args:
        stream: the file.
        name: the file's name.
        fields: the column of each field.
        label: the column of the label; without that column, examples have none.
        bare: a `_Bare`, for a file without a header.
        fractional: whether labels are scores.
        ids: further columns, which tell apart the files' examples.
    """
    lines = text_lines(stream, name)
    first = next(lines, "")
    header = first.split("\t")
    if all(column in header for column in fields.values()):
        places: Mapping[str, int] = {
            field: header.index(column) for field, column in fields.items()
        }
        label_place = header.index(label) if label in header else None
        id_places = [header.index(column) for column in ids if column in header]
        blank = False
    elif bare is not None:
        places, label_place, columns, blank = _Bare(**bare)
        id_places = []
        if len(_cells(first, blank)) != columns:
            raise ValueError(f"{name}: not a file of this task: its first line is {first[:80]!r}")
        lines = itertools.chain([first], lines)
    else:
        raise ValueError(f"{name}: no column {', '.join(fields.values())} in the first line")
    for index, line in enumerate(lines):
        cells = _cells(line, blank)
        needed = [*places.values(), *([] if label_place is None else [label_place])]
        if len(cells) <= max(needed) or (label_place is not None and not cells[label_place]):
            continue
        raw: dict[str, Any] = {field: cells[place] for field, place in places.items()}
        raw["label"] = -1
        if label_place is not None:
            raw["label"] = _label(cells[label_place], fractional, f"{name}: row {index + 1:,}")
        if id_places:
            raw["ids"] = tuple(cells[place] for place in id_places)
        yield raw | {"idx": index}


def _cells(line: str, blank: bool) -> list[str]:
    return line.split(" ", 1) if blank else line.split("\t")


def _label(cell: str, fractional: bool, place: str) -> Any:
    try:
        return float(cell) if fractional else int(cell)
    except ValueError:
        if re.fullmatch("[a-z_]+", cell):
            return cell  # a label word; what it may be is checked later
        raise ValueError(f"{place}: {cell!r} is no label") from None


def _json_rows(
    convert: Callable[..., Iterable[Raw]], stream: IO[bytes], name: str, **options: Any
) -> Iterator[Raw]:
    number = 0
    try:
        for number, row in enumerate(json_lines(stream, name), 1):  # noqa: B007
            yield from convert(row, **options)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"{name}: line {number:,} is no example: {error!r}") from error


def _flag(row: Mapping[str, Any]) -> Any:
    label = row.get("label", row.get("answer", -1))
    return int(label) if isinstance(label, bool) else label


def _plain_row(
    row: dict[str, Any], fields: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[Raw]:
    there = [*fields, *(name for name in optional if name in row)]
    index = {"idx": row["idx"]} if "idx" in row else {}
    yield {field: row[field] for field in there} | {"label": _flag(row)} | index


def _multirc_row(row: dict[str, Any]) -> Iterator[Raw]:
    passage = row["passage"]
    for question in passage["questions"]:
        for answer in question["answers"]:
            label = answer.get("label")
            yield {
                "paragraph": passage["text"],
                "question": question["question"],
                "answer": answer["text"],
                "label": -1 if label is None else int(bool(label)),
                "idx": {
                    "paragraph": row["idx"],
                    "question": question["idx"],
                    "answer": answer["idx"],
                },
            }


def _record_row(row: dict[str, Any]) -> Iterator[Raw]:
    passage = row["passage"]
    text = passage["text"]
    entities = {text[entity["start"] : entity["end"] + 1] for entity in passage["entities"]}
    for query in row["qas"]:
        yield {
            "passage": text,
            "query": query["query"],
            "entities": sorted(entities),
            "answers": sorted({answer["text"] for answer in query.get("answers", ())}),
            "idx": {"passage": row["idx"], "query": query["idx"]},
        }


def _record_rows(stream: IO[bytes], name: str) -> Iterator[Raw]:
    """Yield ReCoRD's examples, of SuperGLUE's JSONL or the original's one document."""
    if name.endswith(".jsonl"):
        yield from _json_rows(_record_row, stream, name)
        return
    count = itertools.count()
    try:
        for index, row in enumerate(json_document(stream, name)["data"]):
            queries = [{**query, "idx": next(count)} for query in row["qas"]]
            yield from _record_row({**row, "idx": index, "qas": queries})
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{name}: not in ReCoRD's layout: {error!r}") from error


def _wsc_row(row: dict[str, Any]) -> Iterator[Raw]:
    spans = row["target"]
    raw = {"text": row["text"], "label": _flag(row), "idx": row["idx"]}
    for span in ("span1", "span2"):
        index, phrase = spans[f"{span}_index"], spans[f"{span}_text"]
        raw |= {f"{span}_index": index, f"{span}_text": _repaired(phrase, index, row["text"])}
    yield raw


def _repaired(phrase: str, index: int, text: str) -> str:
    """Return a span as its text writes it, where case, period or a line break differ."""
    if phrase in text or not phrase:
        return phrase
    first = text.split()[index][0]
    phrase = (phrase[0].lower() if first.islower() else phrase[0].upper()) + phrase[1:]
    repaired = phrase.rstrip(".").replace("\n", " ")
    return repaired if repaired in text else phrase


def _squad_rows(stream: IO[bytes], name: str) -> Iterator[Raw]:
    found: dict[str, dict[str, Any]] = {}
    try:
        for article in json_document(stream, name)["data"]:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    raw = found.setdefault(
                        question["id"],
                        {
                            "id": question["id"],
                            "title": article.get("title", ""),
                            "context": paragraph["context"],
                            "question": question["question"],
                            "answers": {"text": [], "answer_start": []},
                        },
                    )
                    for answer in question["answers"]:
                        for key in ("text", "answer_start"):
                            raw["answers"][key].append(answer[key])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{name}: not in SQuAD's layout: {error!r}") from error
    yield from found.values()


def _dpr_rows(stream: IO[bytes], name: str) -> Iterator[Raw]:
    """Yield examples of five lines: sentence, pronoun, candidates, the right one, a blank."""
    lines = (line.strip() for line in text_lines(stream, name))
    for number in itertools.count(1, 5):
        sentence, pronoun, pair, right = (*itertools.islice(lines, 4), "", "", "", "")[:4]
        next(lines, None)
        if not sentence:
            return
        candidates = [candidate.strip() for candidate in pair.split(",")]
        if right not in candidates:
            raise ValueError(f"{name}: line {number + 3:,}: {right!r} is none of {pair!r}")
        yield {
            "sentence": sentence,
            "pronoun": pronoun,
            "candidates": candidates,
            "label": candidates.index(right),
        }


def _mrpc_validation_ids(files: Files) -> set[tuple[str, ...]]:
    """Return the pairs of ids that GLUE holds out of the original training file, if listed."""
    bases = {name.rpartition("/")[2]: name for name in files.names}
    listed = bases.get("dev_ids.tsv") or bases.get("mrpc_dev_ids.tsv")
    if listed is None or "msr_paraphrase_train.txt" not in bases:
        return set()
    with files.open(listed) as stream:
        return {tuple(line.split("\t")[:2]) for line in text_lines(stream, listed)}


_END_OF_SENTENCE = (".", "!", "?", "'", "`", '"', "\u2019", "\u201d", ")")
_URL_LISTS = {"train": "all_train.txt", "validation": "all_val.txt", "test": "all_test.txt"}


def _stories(files: Files, path: str | os.PathLike[str]) -> Iterator[tuple[str, Raw]]:
    """Yield CNN/Daily Mail stories; lists of URLs say which split a story is in."""
    splits = {}
    for split, base in _URL_LISTS.items():
        for name in files.names:
            if name.rpartition("/")[2] == base:
                with files.open(name) as stream:
                    for url in text_lines(stream, name):
                        digest = hashlib.sha1(url.strip().encode(), usedforsecurity=False)
                        splits[digest.hexdigest()] = split
    if not splits:
        raise ValueError(
            f"{path}: no all_train.txt, all_val.txt or all_test.txt, which say what is in which "
            "split: https://github.com/abisee/cnn-dailymail/tree/master/url_lists"
        )
    for name in files.names:
        story = pathlib.PurePosixPath(name)
        if story.suffix != ".story" or story.stem not in splits:
            continue
        with files.open(name) as stream:
            article, highlights = _story(text_lines(stream, name))
        if article and highlights:
            publisher = "dm" if re.search("daily_?mail|(^|/)dm", name) else "cnn"
            raw = {"article": article, "highlights": highlights, "publisher": publisher}
            yield splits[story.stem], raw | {"id": story.stem}


def _story(lines: Iterable[str]) -> tuple[str, str]:
    article: list[str] = []
    highlights: list[str] = []
    highlight = False
    for line in lines:
        line = line.strip()
        if not line:
            continue
        if line.startswith("@highlight"):
            highlight = True
            continue
        if "@highlight" not in line and not line.endswith(_END_OF_SENTENCE):
            line += "."  # captions have none, and would run on
        (highlights if highlight else article).append(line)
    return " ".join(article), "\n".join(highlights)


_OWN_STEMS = {"train": ("train",), "validation": ("valid", "validation", "dev"), "test": ("test",)}
_SEGMENT = re.compile(r'<seg id="\d+">(.*)</seg>')


def _parallel(files: Files, path: str | os.PathLike[str], task: Task) -> Iterator[tuple[str, Raw]]:
    language = next(name for name in task.sample if name != "en")
    sides: dict[str, dict[str, str]] = collections.defaultdict(dict)
    for name in sorted(files.names, reverse=True):  # the first of equals is kept: -deen, not -ende
        base = name.rpartition("/")[2].removesuffix(".sgm")
        stem, _, side = base.rpartition(".")
        if side in ("en", language):
            sides[re.sub(rf"-(en{language}|{language}en)-(src|ref)$", "", stem)][side] = name
    chosen: dict[str, list[str]] = {}
    for split, stems in _STEMS[task.name].items():
        chosen[split] = [stem for stem in stems if len(sides.get(stem, ())) == 2]
        chosen[split] += [stem for stem in _OWN_STEMS[split] if len(sides.get(stem, ())) == 2]
    if not any(chosen.values()):
        raise ValueError(f"{path}: none of the task's files is there: {expected_files(task)}")
    for split, stems in chosen.items():
        for stem in stems:
            names = sides[stem]["en"], sides[stem][language]
            with files.open(names[0]) as english, files.open(names[1]) as other:
                lines = _sentences(english, names[0]), _sentences(other, names[1])
                for source, target in itertools.zip_longest(*lines):
                    if source is None or target is None:
                        raise ValueError(f"{names[0]} and {names[1]} have not as many sentences")
                    if source and target:
                        yield split, {"en": source, language: target}


def _sentences(stream: IO[bytes], name: str) -> Iterator[str]:
    lines = text_lines(stream, name, newline="\n")  # a carriage return may be inside a sentence
    if not name.endswith(".sgm"):
        yield from (line.removesuffix("\r") for line in lines)
        return
    for line in lines:
        if found := _SEGMENT.match(line.strip()):
            yield found[1]


_ROWS: Mapping[str, Callable[..., Iterator[Raw]]] = {
    "table": _table,
    "objects": partial(_json_rows, _plain_row),
    "multirc": partial(_json_rows, _multirc_row),
    "record": _record_rows,
    "wsc": partial(_json_rows, _wsc_row),
    "squad": _squad_rows,
    "dpr": _dpr_rows,
}
#: The usual files of GLUE's tasks, and of SuperGLUE's.
_GLUE_SPLITS = {"train": [["train.tsv"]], "validation": [["dev.tsv"]], "test": [["test.tsv"]]}
_SUPER_GLUE_SPLITS = {
    "train": [["train.jsonl"]],
    "validation": [["val.jsonl"], ["dev.jsonl"]],
    "test": [["test.jsonl"]],
}


def _layout(
    rows: str,
    splits: Mapping[str, Sequence[Sequence[str]]] | None = None,
    folder: str = "",
    **options: Any,
) -> _Layout:
    usual = _GLUE_SPLITS if rows == "table" else _SUPER_GLUE_SPLITS
    return _Layout(splits or usual, partial(_ROWS[rows], **options), folder)


_DESCRIBED = packaged_toml(__name__, "layouts.toml")
_STEMS = {name: values["stems"] for name, values in _DESCRIBED.items() if "stems" in values}
_LAYOUTS = {name: _layout(**values) for name, values in _DESCRIBED.items() if "rows" in values}
