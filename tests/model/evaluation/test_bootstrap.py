"""Confidence intervals of scores."""

import math
import random

import numpy as np
import pytest

from model.evaluation.bootstrap import intervals, resampled_scores
from model.evaluation.scores import score_predictions
from model.tasks import TASKS, task
from tests.model.tasks.extra import needs_extra

pytestmark = needs_extra
SCORED = [name for name, entry in TASKS.items() if entry.metrics]
WORDS = ["the", "old", "bridge", "reopened", "on", "Monday", "and", "hundreds", "of", "people"]


def text(rng):
    return " ".join(rng.choice(WORDS) for _ in range(rng.randrange(4, 9)))


def raws_of(entry, rng, count):
    """Raw examples with random gold values, some of them in groups."""
    for n in range(count):
        raw = {**entry.sample, "idx": n}
        if entry.group_field:
            raw["idx"] = {"paragraph": 0, "passage": 0, "question": n // 3, "query": n // 3,
                          "answer": n}  # fmt: skip
        if entry.labels:
            raw["label"] = rng.randrange(len(entry.labels))
        elif "label" in entry.sample and entry.name != "dpr":
            raw["label"] = rng.choice([0.0, 1.2, 2.4, 5.0]) if "stsb" in entry.name else n % 2
        if "answers" in entry.sample:
            answers = [text(rng), text(rng)]
            raw["answers"] = answers if entry.name != "squad" else {"text": answers}
        for key in ("highlights", "de", "fr", "ro"):
            if key in entry.sample:
                raw[key] = text(rng)
        yield raw


def guess(entry, raw, rng):
    if rng.random() < 0.15:
        return "junk"
    if rng.random() < 0.5:
        return entry.examples(raw)[0][1]
    other = rng.choice(list(raws_of(entry, rng, 5)))
    return entry.examples(other)[-1][1]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["code", "paper"])
def test_resamples_score_as_the_resampled_examples_would(form, monkeypatch):
    rng = random.Random(0)
    for name in SCORED:
        entry = task(name, form)
        if form == "paper" and name in ("super_glue_wic",):  # its data lack the field
            continue
        raws = list(raws_of(entry, rng, 24))
        predictions = [guess(entry, raw, rng) for raw in raws]
        gold, parsed, groups = entry.compared(raws, predictions)
        seen = list(dict.fromkeys(groups))
        found = resampled_scores(entry, raws, predictions, 6, seed=3)
        draws = np.random.default_rng(3)
        for resample in range(6):
            chosen = []
            for copy, unit in enumerate(draws.integers(len(seen), size=len(seen))):
                chosen += [
                    (gold[n], parsed[n], (copy, groups[n]))
                    for n in range(len(groups))
                    if groups[n] == seen[unit]
                ]
            for metric in entry.metrics:
                if "rouge1" in metric.names:  # itself the median of a bootstrap
                    continue
                for key, value in metric(*zip(*chosen, strict=True)).items():
                    assert found[key][resample] == pytest.approx(value, nan_ok=True), (name, key)


def cola(right, wrong):
    entry = task("super_glue_boolq")
    rows = [({**entry.sample, "label": 1, "idx": n}, ("i", "True")) for n in range(right + wrong)]
    return score_predictions(entry, "validation", rows, ["True"] * right + ["maybe"] * wrong)


def test_an_interval_of_a_share_is_about_two_standard_errors_wide():
    found = intervals(cola(80, 20))
    assert set(found) == {"accuracy", "column"}
    assert found["accuracy"] == found["column"]
    half = 196 * math.sqrt(0.8 * 0.2 / 100)
    assert found["accuracy"].low == pytest.approx(80 - half, abs=1.5)
    assert found["accuracy"].high == pytest.approx(80 + half, abs=1.5)
    assert intervals(cola(80, 20)) == found  # of a fixed seed
    assert intervals(cola(80, 20), seed=1) != found


def test_a_summary_is_the_mean_of_the_examples():
    entry = task("cnn_dailymail")
    rng = random.Random(1)
    raws = list(raws_of(entry, rng, 30))
    rows = [(raw, ("i", raw["highlights"])) for raw in raws]
    found = score_predictions(entry, "validation", rows, [text(rng) for _ in raws])
    for name, interval in intervals(found, 200).items():
        value = found.scores.get(name, found.column)
        assert interval.low < value < interval.high


def test_many_units_are_resampled_in_parts(monkeypatch):
    whole = intervals(cola(30, 10), 50)
    monkeypatch.setattr("model.evaluation.bootstrap._AT_ONCE", 100)
    assert intervals(cola(30, 10), 50) == whole


def test_without_gold_there_is_none():
    entry = task("glue_ax")
    rows = [(entry.sample, ("i", "<unk>"))]
    assert intervals(score_predictions(entry, "test", rows, ["neutral"])) == {}
