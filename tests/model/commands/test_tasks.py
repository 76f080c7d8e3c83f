"""``c4 tasks``: list, show and prepare."""

import json

import pytest

from model.tasks import TASKS
from model.tasks.prepared import Prepared
from testing.helpers import run_c4


def tasks(*words):
    return run_c4("tasks", *words)


def test_list_has_a_row_for_each_task():
    done = tasks("list")
    assert done.status == 0
    rows = [line.split() for line in done.out.splitlines()]
    assert [row[0] for row in rows[1 : len(TASKS) + 1]] == list(TASKS)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("form", ["code", "paper"])
def test_show_prints_format_example_metrics_and_source(name, form):
    done = tasks("show", name, "--form", form)
    assert done.status == 0
    entry = TASKS[name]
    shown = done.out
    assert name in shown
    assert entry.source.url in shown
    assert entry.source.tfds in shown
    assert "-> " in shown
    assert all(metric in shown for metric in entry.metric_names)
    assert f"c4 tasks prepare {name} --from DIR --to data" in shown


def test_show_prints_the_rates_of_a_mixture():
    done = tasks("show", "all", "glue_cola")
    assert done.status == 0
    assert "23 tasks, drawn by their examples; each task counts for at most 524,288" in done.out
    assert "  c4                  0.145468\n" in done.out
    assert "cola sentence: " in done.out


def test_prepare_writes_what_training_reads(tmp_path):
    (tmp_path / "train.tsv").write_text("gj04\t1\t\tIt rained.\ncj99\t0\t*\tRained it.\n")
    done = tasks("prepare", "glue_cola", "--from", str(tmp_path), "--to", str(tmp_path / "data"))
    assert (done.status, done.out) == (
        0,
        f"{tmp_path}/data/glue_cola: train 2\nnote: glue_cola is published with train 8,551, not "
        "2: look for missing or other files (--from)\n",
    )
    assert list(Prepared(tmp_path / "data", "glue_cola").pairs("train")) == [
        ("cola sentence: It rained.", "acceptable"),
        ("cola sentence: Rained it.", "unacceptable"),
    ]


def test_several_tasks_are_looked_for_before_one_is_written_and_skipped_if_there(tmp_path):
    published, to = tmp_path / "published", tmp_path / "data"
    (published / "CoLA").mkdir(parents=True)
    (published / "CoLA" / "train.tsv").write_text("gj04\t1\t\tIt rained.\n")
    words = ("prepare", "glue_cola", "super_glue_boolq", "--from", published, "--to", to)
    for _ in range(2):
        refused = tasks(*words)
        assert refused.status == 1
        assert refused.err == (
            f"c4: error: super_glue_boolq: {published}: none of the task's files is there: "
            "train.jsonl, val.jsonl, dev.jsonl, test.jsonl\n"
        )
        assert not to.exists()
    assert tasks("prepare", "glue_cola", "--from", published, "--to", to).status == 0
    (published / "BoolQ").mkdir()
    row = {"question": "q", "passage": "p", "label": True, "idx": 0}
    (published / "BoolQ" / "train.jsonl").write_text(f"{json.dumps(row)}\n")
    done = tasks(*words)
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert lines[:2] == [
        f"{to}/glue_cola: prepared from {published} before: skipped",
        f"{to}/super_glue_boolq: train 1",
    ]
    other = tasks(*words, "--limit", "1")  # not what is there
    assert f"{to}/glue_cola exists already" in other.err


def test_prepare_takes_a_file_for_each_split(tmp_path):
    row = {"question": "q", "passage": "p", "label": True, "idx": 0}
    path = tmp_path / "boolq.jsonl"
    path.write_text(f"{json.dumps(row)}\n" * 3)
    done = tasks(
        "prepare", "super_glue_boolq", "--to", str(tmp_path), "--limit", "2",
        "--from", f"train={path}", "--from", f"validation={path}",
    )  # fmt: skip
    assert done.status == 0
    assert done.out.endswith("super_glue_boolq: train 2, validation 2\n")


def test_prepare_takes_pairs_of_ones_own(tmp_path):
    path = tmp_path / "mine.tsv"
    path.write_text("inputs\ttargets\na\tb\n")
    done = tasks("prepare", "own", "--from", f"train={path}", "--to", str(tmp_path))
    assert done.status == 0
    assert list(Prepared(tmp_path, "own").pairs("train")) == [("a", "b")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["list", "glue_cola"], "c4 tasks list takes no name"),
        (["list", "--limit", "3"], "--limit belongs to c4 tasks prepare"),
        (["show"], "c4 tasks show needs a name"),
        (["show", "cola"], "no task 'cola', perhaps 'glue_cola': c4 tasks list shows the tasks"),
        (["show", "squad", "--from", "x"], "--from belongs to c4 tasks prepare"),
        (["prepare", "squad"], "needs --from and --to"),
        (["prepare", "cola", "--from", "x", "--to", "y"], "no task 'cola', perhaps 'glue_cola'"),
        (
            ["prepare", "squad", "--from", "x", "--to", "y", "--limit", "0"],
            "limit must be at least 1, got 0 (--limit)",
        ),
        (["prepare", "squad", "--from", "x", "--from", "z", "--to", "y"], "--from is given once"),
        (["prepare", "squad", "--from", "test=x", "--to", "y"], "squad has no split 'test'"),
        (["prepare", "squad", "--from", "train=x", "--from", "z", "--to", "y"], "one folder"),
        (["prepare", "own", "--from", "x", "--to", "y"], "--from train=FILE"),
        (["prepare", "squad", "--from", "absent", "--to", "y"], "absent: No such file"),
        (["prepare", "glue_ax", "--from", "train=x", "--to", "y"], "has no split 'train': test"),
    ],
)
def test_wrong_usage_is_told_in_a_line(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = tasks(*words)
    assert done.status == 1
    assert message in done.err
    assert done.err.count("\n") == 1
    assert list(tmp_path.iterdir()) in ([], [tmp_path / "y"])
