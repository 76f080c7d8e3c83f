"""Scores without a model: counted by hand, and left out where they mean nothing."""

import pytest

from model.tasks.prepared import prepare
from model.tuning.baselines import bag_of_words_score, majority_score
from model.tuning.task_scores import EvaluatedTask

pytest.importorskip("sklearn", reason="the extra tasks is not installed")


def own_task(folder, train, validation):
    rows = [("train", dict(zip(("inputs", "targets"), pair, strict=True))) for pair in train]
    rows += [
        ("validation", dict(zip(("inputs", "targets"), pair, strict=True))) for pair in validation
    ]
    return EvaluatedTask(prepare("own", rows, folder, "rows"), None)


TRAIN = [("red wine", "drink"), ("cold beer", "drink"), ("old beer", "drink"), ("red car", "ride")]


def test_the_majority_is_that_of_the_training_data(tmp_path):
    task = own_task(tmp_path, TRAIN, [("a car", "ride"), ("wine", "drink"), ("bus", "ride")])
    assert majority_score(task, None) == pytest.approx(100 / 3)
    assert majority_score(task, 1) == 0


def test_words_decide(tmp_path):
    task = own_task(tmp_path, TRAIN, [("car", "ride"), ("beer", "drink"), ("wine", "ride")])
    assert bag_of_words_score(task, None) == pytest.approx(200 / 3)


@pytest.mark.parametrize(
    "train",
    [
        [("red", "same"), ("blue", "same")],
        [(f"word{number}", f"answer {number}") for number in range(60)],
        [("!", "a"), ("?", "b")],
    ],
    ids=["one label", "free text", "no words"],
)
def test_there_is_no_score_of_words_where_they_tell_nothing(tmp_path, train):
    task = own_task(tmp_path, train, [("red", "same")])
    assert bag_of_words_score(task, None) is None
    assert majority_score(task, None) is not None
