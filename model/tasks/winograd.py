"""Winograd schemas as text: WSC, DPR and WNLI all ask which noun phrase a pronoun stands for."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from model.tasks.values import Pair, Raw, field, text

_PREFIX = "wsc: "
_PRONOUNS = frozenset(["he", "she", "they", "it", "her", "his", "their", "them", "him"])
_ARTICLES = ("a", "an", "the")
_DETERMINERS = frozenset((
    "a", "an", "few", "her", "his", "each", "every", "many", "much", "my", "our", "some", "that",
    "the", "their", "these", "this", "those", "which", "whose", "your",
))  # fmt: skip
_END = (".", ",", "!", "?")

# Two texts of the validation set whose index is wrong, by their beginnings: the index that is meant
# cannot be derived. The first also has a comma attached and a blank at its end.
_PONY = (
    "The boy continued to whip the pony , and eventually the pony threw him over. "
    'John laughed out quite loud. "Good for '
)
_PEBBLE = (
    "When they had eventually calmed down a bit , and had gotten home, Mr. Farley put the magic "
    "pebble in an iron safe . Some day they might want to use "
)
_PEBBLE_END = ", but really for now, what more could they wish for?"
_MISPLACED = {
    _PONY + 'him," he said. ': _PONY + 'X ," he said.',
    _PEBBLE + "it " + _PEBBLE_END: _PEBBLE + "X " + _PEBBLE_END,
}


def wsc(raw: Raw) -> list[Pair]:
    """Return the pair of a WSC example: the pronoun in stars, and the phrase it may stand for.

    Raises ValueError if the word at ``span2_index`` is not the pronoun.

    >>> wsc({"text": "Mitchell asked Tom if he could lend some money.", "span1_text": "Tom",
    ...      "span2_text": "he", "span2_index": 4})
    [('wsc: Mitchell asked Tom if *he* could lend some money.', 'Tom')]
    """
    whole, pronoun = text(raw, "text"), text(raw, "span2_text")
    blank = _MISPLACED.get(whole)
    if blank is None:
        words, index = whole.split(" "), field(raw, "span2_index")
        if not 0 < index < len(words) or words[index] != pronoun:
            raise ValueError(
                f"span2_index {index} is not the place of {pronoun!r} in {whole!r}: "
                "repair the example or leave it out"
            )
        blank = " ".join([" ".join(words[:index]), "X", " ".join(words[index + 1 :])])
    # Every single X of the text is marked, as the reference does.
    return [(_PREFIX + blank.replace(" X ", f" *{pronoun}* "), text(raw, "span1_text"))]


def dpr(raw: Raw) -> list[Pair]:
    """Return the pair of an example of definite pronoun resolution.

    >>> dpr({"sentence": "Bob asked Tom if he can lend some money.", "pronoun": "he",
    ...      "candidates": ["Bob", "Tom"], "label": 1})
    [('wsc: Bob asked Tom if *he* can lend some money.', 'Tom')]
    """
    pronoun = re.escape(text(raw, "pronoun"))
    marked = re.sub(rf" ({pronoun})([ .,])", r" *\1*\2", text(raw, "sentence"), count=1)
    candidates, label = field(raw, "candidates"), raw.get("label", -1)
    if not isinstance(label, int) or not -1 <= label < len(candidates):
        raise ValueError(f"label {label!r} is no index of the {len(candidates)} candidates")
    return [(_PREFIX + marked, candidates[label])]


def same_referent(prediction: str, referent: str, empty: int = -1) -> int:
    """Return 1 if a prediction names the referent, 0 if not, and ``empty`` if it names nothing.

    >>> same_referent("the fuzzy bunny", "Bunny"), same_referent("Bob", "Bob's hat")
    (1, 0)
    """
    predicted, wanted = _content(prediction), _content(referent)
    if not predicted and empty < 0:
        return empty
    if ("'" in predicted) != ("'" in wanted):
        return 0
    found, needed = set(predicted.split(" ")), set(wanted.split(" "))
    return int(found <= needed or needed <= found)


def _content(phrase: str) -> str:
    words = phrase.strip().lower().split(" ")
    return " ".join(word for word in words if word not in _DETERMINERS)


class _Match(NamedTuple):
    score: int
    place: int  # of the pronoun among the premise's words
    candidate: str


def wnli(raw: Raw) -> list[Pair]:
    """Return the pair of a WNLI example, read as a Winograd schema. For evaluation only.

    The pronoun of the premise whose surrounding words are found best in the hypothesis is marked;
    the target is what stands in its place there.

    Raises ValueError if the premise has no pronoun, or the hypothesis nothing in its place.

    >>> wnli({"sentence1": "The fish ate the worm. It was tasty.",
    ...       "sentence2": "The worm was tasty."})
    [('wsc: The fish ate the worm. *It* was tasty.', 'The worm')]
    """
    premise, hypothesis = text(raw, "sentence1"), text(raw, "sentence2")
    words, wanted = _words(premise), _words(hypothesis)
    matches = [
        _match(words, wanted, index) for index, word in enumerate(words) if word in _PRONOUNS
    ]
    if not matches:
        raise ValueError(f"no pronoun in {premise!r}")
    best = max(matches, key=lambda match: match.score)
    return [(_PREFIX + _highlighted(premise, best.place), _referent(best.candidate, hypothesis))]


def _words(sentence: str) -> list[str]:
    """Split at single spaces, in lower case, without the last punctuation mark of each word."""
    words = [re.sub(r"[.,?!]$", "", word) for word in sentence.strip().lower().split(" ")]
    return [word for word in words if word]


def _found_from_start(words: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Return how many words, from the first on, occur in the hypothesis as one string."""
    whole = " ".join(hypothesis)
    for count in range(1, len(words) + 1):
        if " ".join(words[:count]) not in whole:
            return count - 1
    return len(words)


def _match(premise: Sequence[str], hypothesis: Sequence[str], index: int) -> _Match:
    before, after = premise[:index], premise[index + 1 :]
    found_before = _found_from_start(before[::-1], hypothesis[::-1])
    found_after = _found_from_start(after, hypothesis)
    score = found_before + found_after
    candidate = ""
    if score:
        left = [re.escape(word) for word in before[len(before) - found_before :]]
        right = [re.escape(word) for word in after[:found_after]]
        # Between both runs; else what the hypothesis begins or ends with.
        for parts in ([*left, "(.+)", *right], ["^(.+)", *right], [*left, "(.+)$"]):
            if found := re.search(" ".join(parts), " ".join(hypothesis)):
                candidate = found[1]
                break
    return _Match(score, index, candidate)


def _highlighted(sentence: str, index: int) -> str:
    words = sentence.split(" ")
    word = words[index]
    words[index] = f"*{word[:-1]}* {word[-1]}" if word.endswith(_END) else f"*{word}*"
    return " ".join(words)


def _referent(candidate: str, hypothesis: str) -> str:
    """Return the candidate as the hypothesis writes it, from its last article on."""
    words = candidate.split(" ")
    words = words[max([words.index(word) for word in _ARTICLES if word in words] or [0]) :]
    pattern = " ".join(re.escape(word) + r"[.,?!]?" for word in words)
    found = re.search(pattern, hypothesis, re.IGNORECASE)
    if not found:
        raise ValueError(f"cannot find {candidate!r} in {hypothesis!r}")
    phrase = found[0].removesuffix(found[0][-1]) if found[0].endswith(_END) else found[0]
    if phrase.endswith("'"):
        return phrase[:-1]
    return phrase.removesuffix("'s")
