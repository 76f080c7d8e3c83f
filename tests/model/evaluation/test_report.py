"""Reports, the paper's scores, and the files of the benchmarks' servers."""

import json
import math
import pathlib

import pytest

from model.evaluation.evaluate import EvaluateConfig, evaluate, task_names, write_submissions
from model.evaluation.published import (
    COLUMNS,
    MAIN,
    averages,
    published,
    published_row,
)
from model.evaluation.report import Report, columns_of, example_lines
from model.evaluation.scores import evaluate_task, score_predictions
from model.evaluation.submissions import majority_label, submission_name
from model.tasks import TASKS, task
from model.tasks.prepared import Prepared, prepare
from tests.model.tasks.extra import needs_extra


def config(tmp_path, **options):
    options = {"source": "run", "tasks": ("glue_cola",), "data": str(tmp_path)} | options
    return EvaluateConfig(**options)


def prepare_samples(folder, names=tuple(TASKS), splits=None):
    for name in names:
        entry = TASKS[name]
        prepare(name, [(split, entry.sample) for split in splits or entry.splits], folder, "x")


def saying(word):
    return lambda name: (lambda inputs: [word] * len(inputs), 7)


# The paper's scores


def test_the_paper_s_averages_follow_from_its_columns():
    rows = published()
    assert len(rows) == 57 + 8
    for row in rows.values():
        assert set(row.values) <= set(COLUMNS)
        if row.table != 14 and row.name != "baseline_std":  # of rounded columns; 14 includes WNLI
            for name, value in averages(row.values).items():
                assert value == pytest.approx(row.values[name], abs=0.011), (row.name, name)
    for name in ("baseline", "span_3", "t5_base", "test_11b"):
        assert set(MAIN) <= set(rows[name].values)
    assert set(rows["t5_base"].values) == set(MAIN)
    assert published_row("span_3").values["squad_em"] == 81.84
    assert published_row("span_3").table == 7
    with pytest.raises(ValueError, match="the paper has no row 'span_4'; its rows: baseline, "):
        published_row("span_4")


def test_every_column_is_a_metric_of_its_task():
    for column in COLUMNS.values():
        if column.task:
            assert column.metric in TASKS[column.task].metric_names
            assert column.split in TASKS[column.task].evaluated
        else:
            assert column.name in ("glue_avg", "superglue_avg")
    measured = {(c.task, c.metric) for c in COLUMNS.values() if c.task}
    for name, entry in TASKS.items():
        if name not in ("glue_wnli", "dpr"):
            assert {(name, metric) for metric in entry.metric_names} <= measured


def test_an_average_needs_all_of_its_columns():
    values = dict(published_row("baseline").values)
    del values["mnli_mm_acc"]
    assert set(averages(values)) == {"superglue_avg"}


# Reports


@pytest.mark.slow
@needs_extra
def test_the_long_table_has_ours_beside_the_paper_s(tmp_path):
    prepare_samples(tmp_path, ("glue_mnli", "super_glue_boolq", "glue_wnli", "squad"))
    report = evaluate(
        config(tmp_path, tasks=("glue_mnli", "super_glue_boolq", "glue_wnli", "squad", "glue_rte")),
        lambda name: (lambda inputs: ["neutral" if name == "glue_mnli" else "no"] * len(inputs), 3),
    )
    lines = list(report.lines())
    assert lines[0].split() == ["ours", "95%", "interval", "baseline", "its", "std", "examples"]
    rows = {line[:20].strip(): line.split() for line in lines}
    assert rows["MNLI-m accuracy"][2:] == ["100.00", "100.00", "to", "100.00", "84.24", "0.29", "1"]
    assert rows["BoolQ accuracy"][2:] == ["0.00", "0.00", "to", "0.00", "76.62", "0.36", "1"]
    assert "GLUE average" not in rows
    assert any(line.startswith("WNLI (validation) accuracy") for line in lines)
    main = lines.index("")
    assert lines[main + 1].split() == list(MAIN.values())
    assert lines[main + 2].split() == ["ours", "-", "-", "0.00", "-", "-", "-", "-"]
    assert lines[main + 3].split()[:3] == ["baseline", "83.28", "19.24"]
    assert "super_glue_boolq: 1 of 1 predictions are outside the labels and count as wrong" in lines
    assert lines[-1] == (
        f"glue_rte: not evaluated: no data in {tmp_path}: c4 tasks prepare glue_rte"
    )


@needs_extra
def test_averages_appear_when_all_tasks_were_evaluated(tmp_path):
    prepare_samples(tmp_path, [name for name in TASKS if name.startswith("glue_")])
    report = evaluate(config(tmp_path, tasks=task_names("glue")), saying("no"))
    assert report.columns["glue_avg"] != report.columns["glue_avg"]  # STS-B of one example
    assert "undefined" in "\n".join(report.lines())
    assert list(report.missing) == []
    json.dumps(report.json(), allow_nan=False)
    assert report.json()["columns"]["glue_avg"] is None


@needs_extra
def test_json_holds_all_that_the_table_does(tmp_path):
    prepare_samples(tmp_path, ("glue_sst2",))
    report = evaluate(config(tmp_path, tasks=("glue_sst2",), against="t5_base"), saying("positive"))
    found = report.json()
    assert found["tasks"]["glue_sst2"]["validation"] == {
        "scores": {"accuracy": 100.0},
        "column": 100.0,
        "intervals": {"accuracy": [100.0, 100.0], "column": [100.0, 100.0]},
        "examples": 1,
        "invalid": 0,
    }
    assert found["steps"] == {"glue_sst2": 7}
    note = (
        "glue_sst2 is published with validation 872, not 1: its score is not comparable with the "
    )
    assert found["notes"] == [f"{note}paper's"]
    assert f"{note}paper's" in report.lines()
    assert found["paper"]["row"] == "t5_base"
    assert found["columns"] == {"sst2_acc": 100.0}
    silent = Report("m", "validation", report.scores, resamples=0)
    assert silent.json()["tasks"]["glue_sst2"]["validation"]["intervals"] == {}


@needs_extra
def test_wrong_examples_are_shown_first(tmp_path):
    entry = task("glue_sst2")
    rows = [
        ({**entry.sample, "label": label}, (f"input {n}", entry.labels[label]))
        for n, label in enumerate((1, 0, 1))
    ]
    found = score_predictions(entry, "validation", rows, ["positive", "positive", "nice"])
    assert list(example_lines(found, 2)) == [
        "glue_sst2 validation 1: wrong",
        "  inputs      input 1",
        "  target      negative",
        "  prediction  positive",
        "glue_sst2 validation 2: outside the labels",
        "  inputs      input 2",
        "  target      positive",
        "  prediction  nice",
    ]
    assert sum(line.startswith("glue") for line in example_lines(found, 9)) == 3


def test_what_cannot_be_evaluated_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nothing to evaluate: .* no data of glue_cola: c4"):
        evaluate(config(tmp_path), saying(""))
    absent = tmp_path / "absent"
    with pytest.raises(ValueError, match="nothing to evaluate") as raised:
        evaluate(config(absent, tasks=task_names("glue")), saying(""))
    assert str(raised.value).count(str(absent)) == 2  # what is not there, and what to write
    assert f"{absent} (no such folder) has no data of glue_cola, glue_sst2" in str(raised.value)
    with pytest.raises(ValueError, match=r"nothing to evaluate: no validation set \(--split\)"):
        evaluate(config(tmp_path, tasks=("glue_ax",)), saying(""))
    with pytest.raises(ValueError, match=r"no task 'cola', perhaps 'glue_cola': .* \(--task\)"):
        task_names("glue,cola")
    with pytest.raises(ValueError, match="the paper has no row"):
        config(tmp_path, against="ours")
    with pytest.raises(ValueError, match=r"limit must be at least 1, got 0 \(--limit\)"):
        config(tmp_path, limit=0)
    assert task_names("squad,squad,own") == ("squad", "own")
    assert len(task_names("all")) == len(TASKS)
    assert len(task_names("glue")) == 10


# Submissions


GLUE = (
    "CoLA.tsv", "SST-2.tsv", "MRPC.tsv", "STS-B.tsv", "MNLI-m.tsv", "MNLI-mm.tsv", "QNLI.tsv",
    "QQP.tsv", "RTE.tsv", "WNLI.tsv", "AX.tsv",
)  # fmt: skip
SUPER_GLUE = (
    "BoolQ.jsonl", "CB.jsonl", "COPA.jsonl", "MultiRC.jsonl", "ReCoRD.jsonl", "RTE.jsonl",
    "WiC.jsonl", "WSC.jsonl", "AX-b.jsonl", "AX-g.jsonl",
)  # fmt: skip


def written(tmp_path, group, word):
    asked = config(tmp_path / "data", tasks=task_names(group), split="test")
    report = evaluate(asked, saying(word))
    assert report.missing == {}
    return list(write_submissions(asked, report, str(tmp_path / group)))


def contents(made):
    return {pathlib.Path(one.path).name: pathlib.Path(one.path).read_text() for one in made}


def test_files_of_the_servers_are_of_test_sets_alone():
    assert submission_name("glue_mnli", "test_mismatched") == "MNLI-mm.tsv"
    for name, split in (("glue_mnli", "test"), ("glue_mnli", "words"), ("squad", "test")):
        assert submission_name(name, split) is None


@needs_extra
def test_the_files_of_the_servers(tmp_path):
    prepare_samples(tmp_path / "data")
    made = written(tmp_path, "glue", "entailment")
    assert set(content := contents(made)) == set(GLUE)
    assert content["RTE.tsv"] == content["MNLI-mm.tsv"] == "index\tprediction\n0\tentailment\n"
    assert content["CoLA.tsv"] == "index\tprediction\n0\t1\n"  # not a label: the majority of train
    assert content["STS-B.tsv"] == "index\tprediction\n0\t3.800\n"
    replaced = {pathlib.Path(one.path).name: one.replaced for one in made}
    assert (replaced["CoLA.tsv"], replaced["AX.tsv"]) == (1, 0)

    made = written(tmp_path, "super_glue", "True")
    rows = {name: json.loads(text) for name, text in contents(made).items()}
    assert set(rows) == set(SUPER_GLUE)
    assert rows["BoolQ.jsonl"] == {"idx": 0, "label": "true"}
    assert rows["WiC.jsonl"] == {"idx": 0, "label": "true"}
    assert rows["CB.jsonl"] == {"idx": 0, "label": "contradiction"}
    assert rows["COPA.jsonl"] == {"idx": 0, "label": 0}
    assert rows["WSC.jsonl"] == {"idx": 0, "label": "False"}  # "True" names another referent
    assert rows["ReCoRD.jsonl"] == {"idx": 0, "label": "True"}
    assert rows["RTE.jsonl"] == {"idx": 0, "label": "not_entailment"}
    answers = [{"idx": 0, "label": 1}]
    passage = {"questions": [{"idx": 0, "answers": answers}]}
    assert rows["MultiRC.jsonl"] == {"idx": 0, "passage": passage}


@needs_extra
def test_multirc_is_nested_and_record_has_one_row_a_query(tmp_path):
    multirc, record = TASKS["super_glue_multirc"].sample, TASKS["super_glue_record"].sample
    places = [(0, 0, 0), (0, 0, 1), (0, 1, 2), (3, 2, 3)]
    prepare(
        "super_glue_multirc",
        [
            ("test", {**multirc, "answer": str(a), "idx": {"paragraph": p, "question": q,
                                                           "answer": a}})
            for p, q, a in places
        ],
        tmp_path / "data",
        "x",
    )  # fmt: skip
    queries = [0, 0, 5]
    prepare(
        "super_glue_record",
        [("test", {**record, "answers": [], "idx": {"passage": 0, "query": q}}) for q in queries],
        tmp_path / "data",
        "x",
    )
    asked = config(
        tmp_path / "data", tasks=("super_glue_multirc", "super_glue_record"), split="test"
    )
    words = {"1": "True", "3": "junk"}

    def predict(inputs):
        return [words.get(text.split("answer: ")[-1].split()[0], "False") for text in inputs]

    made = list(write_submissions(asked, evaluate(asked, lambda name: (predict, 1)), tmp_path))
    of_multirc, of_record = map(str.splitlines, contents(made).values())
    first, second = map(json.loads, of_multirc)
    assert (first["idx"], second["idx"]) == (0, 3)
    assert first["passage"]["questions"] == [
        {"idx": 0, "answers": [{"idx": 0, "label": 0}, {"idx": 1, "label": 1}]},
        {"idx": 1, "answers": [{"idx": 2, "label": 0}]},
    ]
    assert second["passage"]["questions"][0]["answers"] == [{"idx": 3, "label": 0}]
    assert made[0].replaced == 1
    rows = [json.loads(line) for line in of_record]
    assert rows == [{"idx": 0, "label": "False"}, {"idx": 5, "label": "False"}]


@needs_extra
def test_the_majority_is_that_of_the_training_data(tmp_path):
    sample = TASKS["glue_cola"].sample
    rows = [("train", {**sample, "label": label}) for label in (0, 0, 1)]
    rows += [("test", {**sample, "label": -1, "sentence": f"{n}"}) for n in range(3)]
    prepared = prepare("glue_cola", rows, tmp_path, "x")
    found = evaluate_task(prepared, "test", lambda inputs: ["acceptable", "acceptable", "junk"])
    assert majority_label(prepared, found) == 0
    (path,) = (tmp_path / "glue_cola").glob("train.jsonl")
    path.unlink()
    description = tmp_path / "glue_cola" / "task.json"
    kept = json.loads(description.read_text())
    del kept["splits"]["train"]
    description.write_text(json.dumps(kept))
    assert majority_label(Prepared(tmp_path, "glue_cola"), found) == 1


@needs_extra
def test_validation_sets_are_not_submitted(tmp_path):
    prepare_samples(tmp_path, ("glue_sst2",))
    asked = config(tmp_path, tasks=("glue_sst2",))
    report = evaluate(asked, saying("positive"))
    with pytest.raises(ValueError, match="--submission needs the test sets"):
        list(write_submissions(asked, report, str(tmp_path / "upload")))
    assert not math.isnan(columns_of(report.scores)["sst2_acc"])
