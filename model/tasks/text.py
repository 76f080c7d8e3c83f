"""Text pairs of single examples: one small pure function per family of tasks."""

import re
from collections.abc import Sequence

import numpy as np

from model.tasks.values import Pair, Raw, field, label_index, text

#: The target of an example without a label.
NO_LABEL = "<unk>"

# RE2's \s, which the reference uses: Python's also has the vertical tab and the no-break space.
_BLANKS = re.compile(r"[\t\n\f\r ]+")
_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")
_SYMBOL = re.compile(r"([^0-9A-Za-z_])")
_FIELD = re.compile(r"\{(\w+)\}")
_TAGS = re.compile("</?b>")
_AFTER_SENTENCE = re.compile(r"([.?!\"'])\n@highlight\n")


def filled(raw: Raw, template: str, target: str) -> list[Pair]:
    """Return the pair of an example whose target is text: templates name fields in braces.

    >>> filled({"en": "Hi.", "de": "Hallo."}, "translate English to German: {en}", "{de}")
    [('translate English to German: Hi.', 'Hallo.')]
    """
    return [(_filled(raw, template), _filled(raw, target))]


def labelled(raw: Raw, template: str, labels: Sequence[str], markup: bool = True) -> list[Pair]:
    """Return the pair of an example with a label.

    With ``markup`` off, the tags of MultiRC's paragraphs are removed.

    >>> labelled({"sentence": "It rains.", "label": 1}, "cola sentence: {sentence}",
    ...          ["unacceptable", "acceptable"])
    [('cola sentence: It rains.', 'acceptable')]
    """
    shown = _filled(raw, template)
    if not markup:
        shown = _TAGS.sub("", shown.replace("<br>", " "))
    label = label_index(raw, labels)
    return [(shown, NO_LABEL if label < 0 else labels[label])]


def _filled(raw: Raw, template: str) -> str:
    return _FIELD.sub(lambda found: _shown(raw, found[1]), template)


def _shown(raw: Raw, name: str) -> str:
    # WiC's part of speech is text in some copies of the data and a number in others.
    found = field(raw, name)
    return str(found) if name == "pos" else text(raw, name)


def label_of_text(prediction: str, labels: Sequence[str]) -> int:
    """Return the index of the label that a prediction spells exactly, or -1."""
    return labels.index(prediction) if prediction in labels else -1


def similarity(raw: Raw, lowest: float | None = None) -> list[Pair]:
    """Return the pair of an STS-B example: the score is rounded to a fifth, half to even.

    ``lowest`` raises lower scores to it: the paper's 21 classes begin at 1.

    >>> similarity({"sentence1": "A.", "sentence2": "B.", "label": 2.5})
    [('stsb sentence1: A. sentence2: B.', '2.4')]
    """
    shown = f"stsb sentence1: {text(raw, 'sentence1')} sentence2: {text(raw, 'sentence2')}"
    score = raw.get("label")
    number = np.float32(-1 if score is None else score)  # as the reference: float32 throughout
    if not np.isfinite(number):
        raise ValueError(f"label {score!r} is no finite number")
    if lowest is not None and number >= 0:
        number = max(number, np.float32(lowest))
    return [(shown, f"{np.round(number * np.float32(5)) / np.float32(5):.1f}")]


def number_of_text(prediction: str, allowed: Sequence[str] = ()) -> float:
    """Return the number that a prediction spells, or -1. With ``allowed``, exactly one of those."""
    if allowed and prediction not in allowed:
        return -1.0
    try:
        return float(prediction)
    except ValueError:
        return -1.0


def record(raw: Raw) -> list[Pair]:
    """Return the pairs of a ReCoRD example, one per gold answer."""
    passage = _AFTER_SENTENCE.sub(r"\1 ", text(raw, "passage")).replace("\n@highlight\n", ". ")
    entities = ", ".join(field(raw, "entities"))
    shown = f"record query: {text(raw, 'query')} entities: {entities} passage: {passage}"
    return [(shown, answer) for answer in list(raw.get("answers") or ()) or [NO_LABEL]]


def pad_punctuation(words: str) -> str:
    """Put a space on both sides of ASCII punctuation, and collapse blanks.

    >>> pad_punctuation("U.S.")
    'U . S . '
    """
    return _BLANKS.sub(" ", _PUNCTUATION.sub(r" \1 ", words))


def pad_every_symbol(words: str) -> str:
    """Do the same for everything but ASCII letters, digits and ``_``, as before April 2022."""
    return _BLANKS.sub(" ", _SYMBOL.sub(r" \1 ", words))


def squad_answers(raw: Raw, symbols: bool = False) -> list[str]:
    """Return the gold answers of a SQuAD example, spaced as targets are."""
    pad = pad_every_symbol if symbols else pad_punctuation
    return [pad(answer) for answer in field(raw, "answers/text")]


def squad(raw: Raw, symbols: bool = False) -> list[Pair]:
    """Return the pair of a SQuAD example; the target is the first answer."""
    pad = pad_every_symbol if symbols else pad_punctuation
    shown = f"question: {pad(text(raw, 'question'))} context: {pad(text(raw, 'context'))}"
    answers = squad_answers(raw, symbols) if "answers" in raw else []
    return [(_BLANKS.sub(" ", shown), answers[0] if answers else NO_LABEL)]


def summary(raw: Raw, paper: bool = False) -> list[Pair]:
    """Return the pair of a CNN/Daily Mail story. The paper's is lower-cased and has no newlines."""
    article, highlights = text(raw, "article"), text(raw, "highlights")
    if paper:
        article, highlights = article.lower(), highlights.lower().replace("\n", " ")
    return [(f"summarize: {article}", highlights)]
