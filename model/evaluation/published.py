"""The paper's scores, as the package ships them, and which score of which task each column is."""

import csv
import dataclasses
import functools
import importlib.resources
from collections.abc import Mapping
from types import MappingProxyType

#: Tables 1 to 13 in full (Table 16), and the rows of Tables 14 and 15.
_FILES = ("t5_table16.csv", "t5_tables_14_15.csv")
#: The baseline, the mean of ten runs, and their standard deviation (Table 1).
BASELINE, BASELINE_STD = "baseline", "baseline_std"


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of Table 16.

    Attributes:
        name: as in the files.
        title: as in the paper.
        task: the task, empty for an average.
        metric: the score, empty for an average.
        split: the validation set, where a task has several.
    """

    name: str
    title: str
    task: str = ""
    metric: str = ""
    split: str = "validation"


@dataclasses.dataclass(frozen=True)
class Published:
    """A row of the paper's tables: ``values`` by column; a row may lack some.

    ``table`` is the first table that has it.
    """

    name: str
    table: int
    values: Mapping[str, float]


_RTE, _ACCURACY = "RTE", "accuracy"
_GROUPS: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("glue_cola", "CoLA", (("cola_mcc", "matthews_corrcoef"),)),
    ("glue_sst2", "SST-2", (("sst2_acc", _ACCURACY),)),
    ("glue_mrpc", "MRPC", (("mrpc_f1", "f1"), ("mrpc_acc", _ACCURACY))),
    ("glue_stsb", "STS-B", (
        ("stsb_pearson", "pearson_corrcoef"), ("stsb_spearman", "spearman_corrcoef"),
    )),
    ("glue_qqp", "QQP", (("qqp_f1", "f1"), ("qqp_acc", _ACCURACY))),
    ("glue_mnli", "MNLI", (("mnli_m_acc", _ACCURACY), ("mnli_mm_acc", _ACCURACY))),
    ("glue_qnli", "QNLI", (("qnli_acc", _ACCURACY),)),
    ("glue_rte", _RTE, (("rte_acc", _ACCURACY),)),
    ("cnn_dailymail", "CNN/DM", (
        ("cnndm_rouge1", "rouge1"), ("cnndm_rouge2", "rouge2"), ("cnndm_rougeL", "rougeLsum"),
    )),
    ("squad", "SQuAD", (("squad_em", "em"), ("squad_f1", "f1"))),
    ("super_glue_boolq", "BoolQ", (("boolq_acc", _ACCURACY),)),
    ("super_glue_cb", "CB", (("cb_f1", "mean_3class_f1"), ("cb_acc", _ACCURACY))),
    ("super_glue_copa", "COPA", (("copa_acc", _ACCURACY),)),
    ("super_glue_multirc", "MultiRC", (("multirc_f1a", "f1"), ("multirc_em", "exact_match"))),
    ("super_glue_record", "ReCoRD", (("record_f1", "f1"), ("record_em", "em"))),
    ("super_glue_rte", _RTE, (("sg_rte_acc", _ACCURACY),)),
    ("super_glue_wic", "WiC", (("wic_acc", _ACCURACY),)),
    ("super_glue_wsc", "WSC", (("wsc_acc", _ACCURACY),)),
    ("wmt_ende", "EnDe", (("wmt_ende_bleu", "bleu"),)),
    ("wmt_enfr", "EnFr", (("wmt_enfr_bleu", "bleu"),)),
    ("wmt_enro", "EnRo", (("wmt_enro_bleu", "bleu"),)),
)  # fmt: skip
_SHORT = {
    "matthews_corrcoef": "Matthews", "accuracy": "accuracy", "f1": "F1", "em": "EM",
    "pearson_corrcoef": "Pearson", "spearman_corrcoef": "Spearman", "mean_3class_f1": "F1",
    "exact_match": "EM", "rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeLsum": "ROUGE-L",
    "bleu": "BLEU",
}  # fmt: skip
_SPLITS = {"mnli_m_acc": "validation_matched", "mnli_mm_acc": "validation_mismatched"}
_TITLES = {"mnli_m_acc": "MNLI-m accuracy", "mnli_mm_acc": "MNLI-mm accuracy"}


def _columns() -> dict[str, Column]:
    found = []
    for task, title, columns in _GROUPS:
        if task == "glue_cola":
            found.append(Column("glue_avg", "GLUE average"))
        if task == "super_glue_boolq":
            found.append(Column("superglue_avg", "SuperGLUE average"))
        for name, metric in columns:
            shown = _TITLES.get(name, f"{title} {_SHORT[metric]}")
            found.append(Column(name, shown, task, metric, _SPLITS.get(name, "validation")))
    return {column.name: column for column in found}


#: The 33 columns of Table 16 by name, in its order.
COLUMNS: Mapping[str, Column] = MappingProxyType(_columns())
#: The columns of the paper's other tables, with their titles there.
MAIN: Mapping[str, str] = MappingProxyType(
    {
        "glue_avg": "GLUE", "cnndm_rouge2": "CNNDM", "squad_em": "SQuAD",
        "superglue_avg": "SGLUE", "wmt_ende_bleu": "EnDe", "wmt_enfr_bleu": "EnFr",
        "wmt_enro_bleu": "EnRo",
    }
)  # fmt: skip
#: An average is the mean over eight tasks of the mean over each task's columns.
AVERAGES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        average: tuple(task for task, _, _ in _GROUPS if task.startswith(prefix))
        for average, prefix in (("glue_avg", "glue_"), ("superglue_avg", "super_glue_"))
    }
)


def averages(values: Mapping[str, float]) -> dict[str, float]:
    """Return the GLUE and SuperGLUE averages of columns; one that lacks a column is left out.

    >>> averages(published()["baseline"].values)["glue_avg"].__round__(2)
    83.28
    """
    found = {}
    for average, tasks in AVERAGES.items():
        columns = [[c.name for c in COLUMNS.values() if c.task == task] for task in tasks]
        if all(name in values for names in columns for name in names):
            means = [sum(values[name] for name in names) / len(names) for names in columns]
            found[average] = sum(means) / len(means)
    return found


@functools.cache
def published() -> Mapping[str, Published]:
    """Return the paper's rows by name."""
    found = {}
    for file in _FILES:
        text = importlib.resources.files(__package__).joinpath(file).read_text("utf-8")
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        for row in csv.DictReader(lines):
            values = {name: float(row[name]) for name in COLUMNS if row[name]}
            name = row["experiment"]
            found[name] = Published(name, int(row["first_table"]), MappingProxyType(values))
    return MappingProxyType(found)


def published_row(name: str) -> Published:
    """Return one of the paper's rows. Raises ValueError, listing them, if there is no such row."""
    rows = published()
    if name not in rows:
        raise ValueError(f"the paper has no row {name!r}; its rows: {', '.join(rows)}")
    return rows[name]
