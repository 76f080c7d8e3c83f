"""Files for the servers of GLUE and SuperGLUE, which score test sets.

The layouts are those of gluebenchmark.com/faq (``NAME.tsv`` with ``index`` and ``prediction``) and
super.gluebenchmark.com/faq (``NAME.jsonl``, with the label's own string where the data have one).
"""

import collections
import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from model.evaluation.scores import TaskScores
from model.small_files import packaged_toml, write_text
from model.tasks.prepared import Prepared
from model.tasks.registry import is_invalid
from model.tasks.values import Raw
from pipelines import storage


@dataclasses.dataclass(frozen=True)
class Written:
    """A file of a submission.

    Attributes:
        path: the file.
        examples: its predictions.
        replaced: invalid predictions, each replaced by ``majority``.
        majority: the most frequent label.
    """

    path: str
    examples: int
    replaced: int
    majority: Any


_DESCRIBED = packaged_toml(__name__, "submissions.toml")


def submission_name(task: str, split: str) -> str | None:
    """Return the file that a benchmark's server expects; None for other tasks and splits."""
    files: Mapping[str, str] = _DESCRIBED.get(task, {"files": {}})["files"]
    return files.get(split)


def _shown(task: str, value: Any) -> Any:
    """Return what a file holds for a value that `Task.parse` returns."""
    if task == "glue_stsb":
        return f"{min(max(value, 0), 5):.3f}"
    words = _DESCRIBED[task].get("words")
    return value if words is None else words[int(value)]


def write_submission(found: TaskScores, folder: str | os.PathLike[str], majority: Any) -> Written:
    """Write a test set's predictions to the file that the benchmark's server expects.

    An invalid prediction is replaced by ``majority``, which `majority_label` computes.

    Raises ValueError for a task or split without such a file, and if examples have no ``idx``.
    """
    file = submission_name(found.name, found.split)
    if file is None:
        raise ValueError(
            f"{found.name}: the servers of GLUE and SuperGLUE have no file for {found.split}"
        )
    values, replaced = [], 0
    for raw, prediction in zip(found.raws, found.predictions, strict=True):
        value = found.task.parse(prediction, raw)
        if is_invalid(value):
            value, replaced = majority, replaced + 1
        if "idx" not in raw:
            raise ValueError(f"{found.name}: an example has no idx: prepare the task again")
        values.append((raw["idx"], _shown(found.name, value)))
    path = storage.join(os.fspath(folder), file)
    if file.endswith(".tsv"):
        lines: Iterable[str] = ["index\tprediction", *(f"{idx}\t{value}" for idx, value in values)]
    else:
        rows = _nested(values) if found.name == "super_glue_multirc" else _flat(values)
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    write_text(path, "".join(f"{line}\n" for line in lines))
    return Written(path, len(values), replaced, _shown(found.name, majority))


def majority_label(prepared: Prepared, found: TaskScores) -> Any:
    """Return a task's most frequent label, as `Task.parse` returns labels.

    It is that of the training data if they are prepared, else of the valid predictions; 0 without
    either.
    """
    labels: collections.Counter[Any] = collections.Counter()
    if "train" in prepared.splits:
        golds = map(prepared.task.gold, prepared.raws("train"))
        labels.update(gold for gold in golds if isinstance(gold, int | float))
    if not labels:
        parsed = map(found.task.parse, found.predictions, found.raws)
        labels.update(value for value in parsed if not is_invalid(value))
    return labels.most_common(1)[0][0] if labels else 0


def _flat(values: Iterable[tuple[Any, Any]]) -> list[dict[str, Any]]:
    """Return a row for each example, of ReCoRD for each query."""
    rows: dict[Any, dict[str, Any]] = {}
    for idx, value in values:
        if isinstance(idx, Mapping):
            idx = idx["query"]
        rows.setdefault(idx, {"idx": idx, "label": value})
    return list(rows.values())


def _nested(values: Iterable[tuple[Raw, Any]]) -> list[dict[str, Any]]:
    """Return MultiRC's rows: a paragraph's questions, and each one's answers."""
    paragraphs: dict[int, dict[int, list[dict[str, int]]]] = {}
    for idx, value in values:
        answers = paragraphs.setdefault(idx["paragraph"], {}).setdefault(idx["question"], [])
        answers.append({"idx": idx["answer"], "label": value})
    return [
        {
            "idx": paragraph,
            "passage": {
                "questions": [
                    {"idx": question, "answers": answers} for question, answers in asked.items()
                ]
            },
        }
        for paragraph, asked in paragraphs.items()
    ]
