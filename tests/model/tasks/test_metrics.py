"""Scores against twins written out by hand, and where they are undefined."""

import math
import random
import re
import statistics
import string
import warnings

import numpy as np
import pytest

from model.tasks import TASKS, own_task, task
from tests.model.tasks.extra import needs_extra

pytestmark = needs_extra
SCORED = [name for name, entry in TASKS.items() if entry.metrics]


def labelled(name, labels):
    entry = task(name)
    return [{**entry.sample, "label": label} for label in labels]


def words(name, indices):
    entry = task(name)
    return [entry.labels[index] if index >= 0 else "junk" for index in indices]


def draws(labels, seed, count=60):
    rng = random.Random(seed)
    gold = [rng.randrange(labels) for _ in range(count)]
    return gold, [guess if rng.random() < 0.6 else rng.randrange(-1, labels) for guess in gold]


def f1_of(gold, guesses, label):
    right = sum(g == p == label for g, p in zip(gold, guesses, strict=True))
    return 200 * right / (gold.count(label) + guesses.count(label)) if right else 0.0


@pytest.mark.parametrize("name", SCORED)
def test_perfect_predictions_score_100(name):
    entry = task(name)
    raws = [entry.sample] * 3
    if entry.labels:
        raws = labelled(name, [index % len(entry.labels) for index in range(12)])
    elif name == "glue_stsb":
        raws = [{**entry.sample, "label": label} for label in (1.0, 2.2, 3.9)]
    elif name in ("glue_wnli", "super_glue_wsc"):
        raws = [{**entry.sample, "label": 1}] * 3
    elif name.startswith("wmt"):  # BLEU needs four words
        raws = [{key: f"one two three four {value}" for key, value in entry.sample.items()}] * 3
    predictions = [entry.examples(raw)[0][1] for raw in raws]
    scores = entry.score(raws, predictions)

    assert tuple(scores) == entry.metric_names
    for score in scores.values():
        assert score == pytest.approx(100)
    assert entry.column(scores) == pytest.approx(100)
    assert entry.invalid(raws, predictions) == 0


@pytest.mark.parametrize("name", SCORED)
def test_junk_is_scored_without_a_crash_or_a_warning(name):
    entry = task(name)
    raw = {**entry.sample, "label": 1} if "label" in entry.sample else entry.sample
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for junk in ("", "\x00", "nan", "-inf", "ünï", " ", "a " * 50):
            for count in (1, 3):
                scores = entry.score([raw] * count, [junk] * count)
                assert tuple(scores) == entry.metric_names
                assert all(math.isnan(s) or -100 <= s <= 100 for s in scores.values())


@pytest.mark.parametrize("seed", range(5))
def test_accuracy_counts_invalid_as_wrong(seed):
    gold, guesses = draws(3, seed)
    mnli = task("glue_mnli")
    raws, predictions = labelled("glue_mnli", gold), words("glue_mnli", guesses)
    right = sum(g == p for g, p in zip(gold, guesses, strict=True))

    assert mnli.score(raws, predictions) == {"accuracy": pytest.approx(100 * right / len(gold))}
    assert mnli.invalid(raws, predictions) == guesses.count(-1) > 0


@pytest.mark.parametrize("seed", range(5))
def test_f1_takes_an_invalid_prediction_for_the_wrong_label(seed):
    gold, guesses = draws(2, seed)
    flipped = [p if p >= 0 else 1 - g for g, p in zip(gold, guesses, strict=True)]
    for name in ("glue_mrpc", "glue_qqp"):
        scores = task(name).score(labelled(name, gold), words(name, guesses))
        assert scores["f1"] == pytest.approx(f1_of(gold, flipped, 1))


@pytest.mark.parametrize("seed", range(5))
def test_matthews_has_invalid_predictions_as_a_third_class(seed):
    gold, guesses = draws(2, seed)
    # The multi-class definition: covariance of indicator vectors, over both standard deviations.
    indicator = [[[float(v == k) for k in (-1, 0, 1)] for v in vs] for vs in (gold, guesses)]
    x, y = (np.array(v) - np.mean(v, axis=0) for v in indicator)
    expected = 100 * (x * y).sum() / math.sqrt((x * x).sum() * (y * y).sum())
    scores = task("glue_cola").score(labelled("glue_cola", gold), words("glue_cola", guesses))
    assert scores == {"matthews_corrcoef": pytest.approx(expected)}


@pytest.mark.parametrize("labels", [(0, 1, 2), (0, 1)])
def test_cb_averages_the_f1_of_all_three_labels(labels):
    gold, guesses = draws(len(labels), 3)
    scores = task("super_glue_cb").score(
        labelled("super_glue_cb", gold), words("super_glue_cb", guesses)
    )
    expected = statistics.mean(f1_of(gold, guesses, label) for label in range(3))
    assert scores["mean_3class_f1"] == pytest.approx(expected)


def test_f1_without_positives_is_0():
    raws = labelled("glue_mrpc", [0, 0])
    assert task("glue_mrpc").score(raws, ["not_equivalent"] * 2) == {"f1": 0, "accuracy": 100}


def test_multirc_groups_by_question():
    multirc = task("super_glue_multirc")
    rows = [(0, 1, "True"), (0, 0, "False"), (1, 1, "True"), (1, 1, "False"), (2, 0, "junk")]
    raws = [
        {**multirc.sample, "label": label, "idx": {"paragraph": 0, "question": q, "answer": n}}
        for n, (q, label, _) in enumerate(rows)
    ]
    scores = multirc.score(raws, [row[2] for row in rows])
    # Pooled: two true positives, one false negative, one false positive (the junk).
    assert scores == {"f1": pytest.approx(200 * 2 / 6), "exact_match": pytest.approx(100 / 3)}


def test_correlations_use_the_rounded_gold_and_take_junk_for_minus_one():
    stsb = task("glue_stsb")
    gold, guesses = [0.1, 2.5, 3.75, 5.0], ["0.5", "x", "4.0", "nan"]
    scores = stsb.score([{**stsb.sample, "label": label} for label in gold], guesses)
    x, y = [0.0, 2.4, 3.8, 5.0], [0.5, -1.0, 4.0, -1.0]
    assert scores["pearson_corrcoef"] == pytest.approx(100 * np.corrcoef(x, y)[0, 1])
    ranks = [3, 1.5, 4, 1.5]
    assert scores["spearman_corrcoef"] == pytest.approx(
        100 * np.corrcoef([1, 2, 3, 4], ranks)[0, 1]
    )
    assert stsb.invalid([{}] * 4, guesses) == 2


def test_a_correlation_of_equal_predictions_is_nan():
    stsb = task("glue_stsb")
    raws = [{**stsb.sample, "label": label} for label in (1.0, 2.0, 3.0)]
    assert all(math.isnan(score) for score in stsb.score(raws, ["x"] * 3).values())


def bag_f1(wanted, found):
    wanted, found = wanted.split(), found.split()
    common = sum(min(wanted.count(word), found.count(word)) for word in set(wanted))
    return 200 * common / (len(wanted) + len(found)) if common else 0.0


def normal(answer):
    kept = "".join(c for c in answer.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def test_squad_takes_the_best_gold_answer_as_the_targets_are_spaced():
    squad = task("squad")
    raws = [
        {**squad.sample, "answers": {"text": texts}}
        for texts in (["U.S."], ["the big dog", "a dog"], ["1,000"], ["x"])
    ]
    predictions = ["U.S.", "dog", " 1 , 000 ", "y"]
    assert squad.score(raws, predictions) == {"em": 50, "f1": 50}
    raws, predictions = raws[1:2], ["my big dog"]
    expected = max(bag_f1(normal(gold), normal(predictions[0])) for gold in ("the big dog", "dog"))
    assert squad.score(raws, predictions) == {"em": 0, "f1": pytest.approx(expected)}


def test_record_scores_each_query_once_from_predictions_of_examples_or_pairs():
    record = task("super_glue_record")
    raws = [
        {**record.sample, "answers": ["Ann", "Ann Lee"], "idx": {"passage": 0, "query": 0}},
        {**record.sample, "answers": ["Bob"], "idx": {"passage": 0, "query": 1}},
    ]
    by_example = record.score(raws, ["ann", "Tom"])
    assert by_example == {"em": 50, "f1": 50}
    assert record.score(raws, ["ann", "ann", "Tom"]) == by_example
    assert record.score([raws[0], *raws], ["ann", "junk", "Tom"]) == by_example
    paper = task("super_glue_record", form="paper")
    assert paper.score([raws[0], *raws], ["ann", "ann", "Tom"])["em"] == pytest.approx(200 / 3)
    without = [{k: v for k, v in raw.items() if k != "idx"} for raw in raws]
    assert record.score(without, ["ann", "Tom"]) == by_example


def test_rouge_is_reproducible_and_leaves_the_generator_alone():
    news = task("cnn_dailymail")
    rng = random.Random(0)
    raws = [
        {
            **news.sample,
            "highlights": " ".join(rng.choices(["a", "b", "c", "d", "e", "f", "."], k=20)),
        }
        for _ in range(12)
    ]
    predictions = [" ".join(rng.sample(raw["highlights"].split(), 15)) for raw in raws]
    np.random.seed(5)
    expected = np.random.random(3)
    np.random.seed(5)
    first = news.score(raws, predictions)
    assert np.array_equal(np.random.random(3), expected)
    assert first == news.score(raws, predictions)
    overlaps = [
        bag_f1(raw["highlights"].replace(".", ""), found.replace(".", ""))
        for raw, found in zip(raws, predictions, strict=True)
    ]
    # The median of a bootstrap is near the mean.
    assert first["rouge1"] == pytest.approx(statistics.mean(overlaps), abs=1)


def test_bleu_is_on_the_corpus_and_case_sensitive():
    wmt = task("wmt_ende")
    raws = [{"en": "x", "de": "Das ist ein kleiner Test ."}, {"en": "x", "de": "Noch ein Satz ."}]
    exact = [raw["de"] for raw in raws]
    assert wmt.score(raws, exact)["bleu"] == pytest.approx(100)
    assert wmt.score(raws, [text.lower() for text in exact])["bleu"] < 80
    # Precisions 10/10, 7/8, 5/6, 3/4 of one text without its last word; the brevity penalty.
    shorter = ["Das ist ein kleiner Test .", "Noch ein Satz"]
    precisions = [9 / 9, 7 / 7, 5 / 5, 3 / 3]
    expected = 100 * math.exp(1 - 10 / 9) * math.prod(precisions) ** 0.25
    assert wmt.score(raws, shorter)["bleu"] == pytest.approx(expected)


def test_column_is_the_number_of_the_papers_tables():
    assert task("glue_mrpc").column({"f1": 90, "accuracy": 80}) == 85
    assert task("squad").column({"em": 70, "f1": 80}) == 70
    assert task("cnn_dailymail").column({"rouge1": 1, "rouge2": 2, "rougeLsum": 3}) == 2


def test_diagnostics_have_no_score():
    for name in ("glue_ax", "super_glue_axb", "super_glue_axg"):
        assert task(name).score([task(name).sample], ["entailment"]) == {}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("glue_cola", {"label": -1}),
        ("super_glue_wsc", {"label": -1}),
        ("glue_stsb", {"label": -1}),
        ("super_glue_record", {"answers": [], "idx": {"passage": 1, "query": 1}}),
        ("squad", {"answers": {"text": []}}),
    ],
)
def test_what_has_no_gold_label_is_not_scored(name, changes):
    entry = task(name)
    with pytest.raises(ValueError, match=f"{name}: 1 of 2 examples have no gold label"):
        entry.score([entry.sample, {**entry.sample, **changes}], ["x", "y"])


def test_predictions_must_fit_the_examples():
    cola = task("glue_cola")
    with pytest.raises(ValueError, match="glue_cola: 2 predictions for 1 examples"):
        cola.score([cola.sample], ["acceptable"] * 2)
    with pytest.raises(ValueError, match="glue_cola: no examples to score"):
        cola.score([], [])


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.metrics", None)
    with pytest.raises(
        ValueError, match="scoring needs scikit-learn, which comes with the extra tasks"
    ):
        own_task().score([{"inputs": "a", "targets": "b"}], ["b"])
