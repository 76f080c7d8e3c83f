"""What a task's data give away without a trained model: scores to hold a fine-tuning's beside."""

import collections
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from model.tasks.prepared import OWN
from model.tasks.values import Pair
from model.tuning.task_scores import EvaluatedTask

#: Pairs that a baseline learns from, evenly spaced in the training data.
_MAJORITY_PAIRS, _WORDS_PAIRS = 50_000, 20_000
_MOST_LABELS = 50  # of own pairs: with more different targets they are free text


def majority_score(task: EvaluatedTask, limit: int | None) -> float | None:
    """Return the score of always predicting the most frequent target of the training data.

    ``limit`` is the number of raw examples of each validation split, None for all. Returns None
    for a task whose targets are free text.
    """
    if not _has_labels(task):
        return None
    counts = collections.Counter(target for _, target in _pairs(task, _MAJORITY_PAIRS))
    target = counts.most_common(1)[0][0]
    return _score(task, lambda inputs: [target] * len(inputs), limit)


def bag_of_words_score(task: EvaluatedTask, limit: int | None) -> float | None:
    """Return the score of a logistic regression on the inputs' words, weighted by tf-idf.

    As `majority_score`; None also where the training data has one target alone, too many
    different ones, or no words.
    """
    if not _has_labels(task):
        return None
    pairs = _pairs(task, _WORDS_PAIRS)
    inputs, targets = zip(*pairs, strict=True)
    if not 2 <= len(set(targets)) <= _MOST_LABELS:
        return None
    # In the extra ``tasks``, which the scores need, too.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    words: Any = TfidfVectorizer()
    regression: Any = LogisticRegression(C=10, max_iter=1000)
    try:
        features = words.fit_transform(inputs)
    except ValueError:  # an empty vocabulary
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        regression.fit(features, targets)
    return _score(task, lambda texts: regression.predict(words.transform(texts)).tolist(), limit)


def _has_labels(task: EvaluatedTask) -> bool:
    return bool(task.prepared.task.labels) or task.name == OWN


def _pairs(task: EvaluatedTask, most: int) -> list[Pair]:
    pairs = task.prepared.pairs("train")
    return [pairs[place] for place in range(0, len(pairs), -(-len(pairs) // most))]


def _score(
    task: EvaluatedTask, predict: Callable[[Sequence[str]], Sequence[str]], limit: int | None
) -> float:
    found = task.evaluate(predict, limit)
    return task.compared({split: each.scores for split, each in found.items()})
