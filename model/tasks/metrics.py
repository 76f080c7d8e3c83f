"""Scores on the paper's scale, 0 to 100, from the field's libraries where one has the metric."""

import collections
import contextlib
import importlib
import re
import string
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ROUGE = ("rouge1", "rouge2", "rougeLsum")


class Metric(NamedTuple):
    """The names of some scores, and the function that computes them.

    The function takes the gold values, the parsed predictions and the group of each example.
    """

    names: tuple[str, ...]
    compute: Callable[[Sequence[Any], Sequence[Any], Sequence[Any]], tuple[float, ...]]

    def __call__(
        self, gold: Sequence[Any], parsed: Sequence[Any], groups: Sequence[Any]
    ) -> dict[str, float]:
        """Return the scores by name."""
        numbers = self.compute(gold, parsed, groups)
        return {name: float(number) for name, number in zip(self.names, numbers, strict=True)}


def _library(name: str, package: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"scoring needs {package}, which comes with the extra tasks: pip install {package}"
        ) from error


@contextlib.contextmanager
def _undefined_is_no_warning() -> Iterator[None]:
    """Silence the libraries on scores that are undefined, as where all predictions are equal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _sklearn(name: str, gold: Sequence[Any], parsed: Sequence[Any], **options: Any) -> float:
    compute = getattr(_library("sklearn.metrics", "scikit-learn"), name)
    with _undefined_is_no_warning():
        return 100 * float(compute(gold, parsed, **options))


def _accuracy(gold: Sequence[Any], parsed: Sequence[Any], _: object) -> tuple[float]:
    return (_sklearn("accuracy_score", gold, parsed),)


def _matthews(gold: Sequence[int], parsed: Sequence[int], _: object) -> tuple[float]:
    """Compute Matthews' correlation; invalid predictions are a third class."""
    return (_sklearn("matthews_corrcoef", gold, parsed),)


def _f1(gold: Sequence[int], parsed: Sequence[int], _: object) -> tuple[float]:
    """Compute the F1 of label 1; an invalid prediction counts as the wrong label."""
    valid = [
        guess if guess in (0, 1) else 1 - label for label, guess in zip(gold, parsed, strict=True)
    ]
    return (_sklearn("f1_score", gold, valid, zero_division=0),)


def _mean_f1(gold: Sequence[int], parsed: Sequence[int], _: object) -> tuple[float]:
    """Compute the mean of three labels' F1, which is 0 for a label that does not occur."""
    options = {"labels": range(3), "average": "macro", "zero_division": 0}
    return (_sklearn("f1_score", gold, parsed, **options),)


def _group_match(gold: Sequence[int], parsed: Sequence[int], groups: Sequence[Any]) -> tuple[float]:
    """Compute the share of groups in which every prediction is right."""
    right: dict[Any, bool] = {}
    for group, label, guess in zip(groups, gold, parsed, strict=True):
        right[group] = right.get(group, True) and label == guess
    return (100 * sum(right.values()) / len(right),)


def _correlations(gold: Sequence[float], parsed: Sequence[float], _: object) -> tuple[float, float]:
    """Compute Pearson's and Spearman's correlation; NaN if one side is constant."""
    stats = _library("scipy.stats", "scipy")
    if len(gold) < 2:
        return float("nan"), float("nan")
    finite = [guess if np.isfinite(guess) else -1.0 for guess in parsed]
    with _undefined_is_no_warning():
        pearson, spearman = stats.pearsonr(gold, finite), stats.spearmanr(gold, finite)
        return 100 * float(pearson[0]), 100 * float(spearman[0])


def _normalized(answer: str) -> str:
    answer = answer.lower().translate(_NO_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", answer).split())


def _overlap(wanted: str, found: str) -> float:
    wanted_words, found_words = wanted.split(), found.split()
    common = sum((collections.Counter(wanted_words) & collections.Counter(found_words)).values())
    if not common:
        return 0.0
    precision, recall = common / len(found_words), common / len(wanted_words)
    return 2 * precision * recall / (precision + recall)


def _squad(gold: Sequence[Sequence[str]], parsed: Sequence[str], _: object) -> tuple[float, float]:
    """Compute exact match and word F1, each the best over the gold answers of a question."""
    exact = overlap = 0.0
    for answers, prediction in zip(gold, parsed, strict=True):
        found, wanted = _normalized(prediction), [_normalized(answer) for answer in answers]
        exact += found in wanted
        overlap += max(_overlap(answer, found) for answer in wanted)
    return 100 * exact / len(gold), 100 * overlap / len(gold)


def rouge_of_examples(gold: Sequence[str], parsed: Sequence[str]) -> list[tuple[float, ...]]:
    """Return ROUGE-1, 2 and Lsum of each example, F1 from 0 to 1 without stemming."""
    return [tuple(score[name].fmeasure for name in _ROUGE) for score in _rouge_scores(gold, parsed)]


def _rouge_scores(gold: Sequence[str], parsed: Sequence[str]) -> Iterator[Any]:
    scorer = _library("rouge_score.rouge_scorer", "rouge-score").RougeScorer(_ROUGE)
    for wanted, found in zip(gold, parsed, strict=True):
        # ROUGE-Lsum takes a line for a sentence.
        wanted, found = (summary.replace(" . ", " .\n") for summary in (wanted, found))
        yield scorer.score(target=wanted, prediction=found)


def _rouge(gold: Sequence[str], parsed: Sequence[str], _: object) -> tuple[float, ...]:
    """Compute ROUGE F1 without stemming: the median of a bootstrap of fixed seed."""
    aggregator = _library("rouge_score.scoring", "rouge-score").BootstrapAggregator()
    for score in _rouge_scores(gold, parsed):
        aggregator.add_scores(score)
    state = np.random.get_state()
    np.random.seed(0)
    try:
        result = aggregator.aggregate()
    finally:
        np.random.set_state(state)
    return tuple(100 * result[name].mid.fmeasure for name in _ROUGE)


def _sacrebleu() -> Any:
    # Case-sensitive. force: hypotheses that look tokenized are no reason to print a warning.
    library = _library("sacrebleu", "sacrebleu")
    return library.metrics.BLEU(smooth_method="exp", tokenize="intl", force=True)


def _bleu(gold: Sequence[str], parsed: Sequence[str], _: object) -> tuple[float]:
    """Compute SacreBLEU: case-sensitive, ``intl`` tokens, exponential smoothing."""
    return (_sacrebleu().corpus_score(list(parsed), [list(gold)]).score,)


def bleu_counts(gold: Sequence[str], parsed: Sequence[str]) -> list[list[int]]:
    """Return what BLEU sums over examples: n-grams that match, n-grams, and both lengths."""
    scorer = _sacrebleu()
    scores = [
        scorer.corpus_score([found], [[wanted]]) for wanted, found in zip(gold, parsed, strict=True)
    ]
    return [[*score.counts, *score.totals, score.sys_len, score.ref_len] for score in scores]


def bleu_of_counts(sums: Sequence[float]) -> float:
    """Return BLEU of the sums of `bleu_counts`."""
    whole = [round(value) for value in sums]
    found: float = (
        _sacrebleu()
        .compute_bleu(whole[:4], whole[4:8], whole[8], whole[9], smooth_method="exp")
        .score
    )
    return found


ACCURACY = Metric(("accuracy",), _accuracy)
MATTHEWS = Metric(("matthews_corrcoef",), _matthews)
F1 = Metric(("f1",), _f1)
MEAN_F1 = Metric(("mean_3class_f1",), _mean_f1)
GROUP_MATCH = Metric(("exact_match",), _group_match)
CORRELATIONS = Metric(("pearson_corrcoef", "spearman_corrcoef"), _correlations)
SQUAD = Metric(("em", "f1"), _squad)
ROUGE = Metric(_ROUGE, _rouge)
BLEU = Metric(("bleu",), _bleu)
