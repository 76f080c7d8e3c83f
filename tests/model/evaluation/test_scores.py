"""Scores of a task from predictions."""

import math

import pytest

from model.evaluation.scores import evaluate_task
from model.tasks import TASKS
from model.tasks.prepared import Prepared, prepare
from tests.model.tasks.extra import needs_extra

pytestmark = needs_extra
RECORD = TASKS["super_glue_record"].sample


def gold(prepared, split):
    """Predicts the target of each input."""
    return lambda inputs: [dict(prepared.pairs(split))[text] for text in inputs]


def made(tmp_path, name, rows, split="validation"):
    return prepare(name, [(split, row) for row in rows], tmp_path, "test")


def cola(tmp_path, labels, split="validation"):
    sample = TASKS["glue_cola"].sample
    rows = [
        {**sample, "sentence": f"S{n}.", "label": label, "idx": n} for n, label in enumerate(labels)
    ]
    return made(tmp_path, "glue_cola", rows, split)


@pytest.mark.slow
def test_gold_predictions_score_100_on_every_task_with_a_validation_split(tmp_path):
    for name, entry in TASKS.items():
        prepared = prepare(name, [(split, entry.sample) for split in entry.splits], tmp_path, "x")
        assert prepared.validation_splits == entry.evaluated
        for split in entry.evaluated:
            found = evaluate_task(prepared, split, gold(prepared, split))
            assert (found.name, found.split, found.invalid) == (name, split, 0)
            assert found.predictions == found.targets[: len(found.predictions)]
            assert list(found.raws) == [entry.sample]
            assert set(found.scores) == set(entry.metric_names)
            for metric in {"accuracy", "em", "rouge1"} & set(found.scores):
                assert found.scores[metric] == pytest.approx(100), (name, metric)


def test_invalid_predictions_are_counted_and_wrong(tmp_path):
    prepared = cola(tmp_path, [0, 1, 1, 0])
    words = {"cola sentence: S1.": "acceptable", "cola sentence: S2.": "maybe"}
    found = evaluate_task(
        prepared, "validation", lambda inputs: [words.get(text, "unacceptable") for text in inputs]
    )
    assert found.predictions == ["unacceptable", "acceptable", "maybe", "unacceptable"]
    assert found.invalid == 1
    assert found.scores == {"matthews_corrcoef": pytest.approx(found.column)}
    assert found.scores == found.task.score(found.raws, found.predictions)
    assert 0 < found.column < 100


def test_each_input_is_predicted_once_and_a_limit_counts_raw_examples(tmp_path):
    rows = [{**RECORD, "answers": ["Bob Ray", "Ann Lee"], "idx": {"passage": n, "query": n}}
            for n in (0, 0, 1)]  # fmt: skip
    made(tmp_path, "super_glue_record", rows)
    asked = []

    def predict(inputs):
        asked.append(list(inputs))
        return ["Bob Ray"] * len(inputs)

    found = evaluate_task(Prepared(tmp_path, "super_glue_record"), "validation", predict)
    assert asked == [[TASKS["super_glue_record"].examples(RECORD)[0][0]]]
    assert len(found.predictions) == 3
    # The paper's form scores one row for each gold answer.
    paper = Prepared(tmp_path, "super_glue_record", "paper")
    assert len(evaluate_task(paper, "validation", predict, limit=2).predictions) == 4


def test_test_splits_have_predictions_and_no_scores(tmp_path):
    prepared = cola(tmp_path, [-1, -1], "test")
    found = evaluate_task(prepared, "test", lambda inputs: ["acceptable"] * len(inputs))
    assert found.scores == {}
    assert math.isnan(found.column)
    assert found.predictions == ["acceptable"] * 2
    assert prepared.validation_splits == ()


def test_training_data_is_scored_whole(tmp_path):
    sample = TASKS["super_glue_wsc"].sample
    prepared = made(tmp_path, "super_glue_wsc", [sample, {**sample, "label": 0}], "train")
    found = evaluate_task(prepared, "train", lambda inputs: ["Tom"] * len(inputs))
    assert found.scores == {"accuracy": 50.0}


def test_faults_are_named(tmp_path):
    prepared = cola(tmp_path, [0, -1])
    with pytest.raises(ValueError, match="0 predictions for 2 inputs"):
        evaluate_task(prepared, "validation", lambda inputs: [])
    with pytest.raises(ValueError, match="1 of 2 examples have no gold label"):
        evaluate_task(prepared, "validation", lambda inputs: [""] * len(inputs))
    with pytest.raises(ValueError, match="no split 'test'"):
        evaluate_task(prepared, "test", lambda inputs: [])
