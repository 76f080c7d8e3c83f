"""Write the sample task: whether a short restaurant review is good or bad.

Run ``python -m samples.make_task`` after a change; a test compares the committed files with it.
Sentences are made from the word lists below, so they carry no rights of others. No sentence of
the validation split is in the training split.
"""

import itertools
import pathlib
import random

FOLDER = pathlib.Path(__file__).parent / "tasks"
_TRAIN, _VALIDATION = 800, 200

_THINGS = (
    "bread", "soup", "coffee", "service", "terrace", "music", "salad", "kitchen", "dessert",
    "cheese", "waiter", "lunch", "garden", "fish", "pasta", "view",
)  # fmt: skip
_GOOD = (
    "fresh", "lovely", "excellent", "friendly", "warm", "perfect", "delicious", "charming",
    "generous", "wonderful",
)  # fmt: skip
_BAD = (
    "stale", "awful", "disappointing", "rude", "cold", "bland", "greasy", "dreary", "stingy",
    "terrible",
)  # fmt: skip
_FRAMES = (
    "The {0} was {2} and the {1} was {3}.",
    "We came for the {0}, which was {2}; the {1} was {3} too.",
    "On Sunday the {0} was {2}, and so was the {1}: simply {3}.",
    "My sister found the {0} {2} and the {1} {3}.",
)
_ENDINGS = {
    "good": ("We will be back.", "A happy evening.", ""),
    "bad": ("Never again.", "We left early.", ""),
}


def rows() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return (inputs, targets) of training and of validation."""
    draw = random.Random(0)
    made = {}
    for number in itertools.count():
        label = ("good", "bad")[number % 2]
        words = _GOOD if label == "good" else _BAD
        text = draw.choice(_FRAMES).format(*draw.sample(_THINGS, 2), *draw.sample(words, 2))
        made[f"review: {text} {draw.choice(_ENDINGS[label])}".strip()] = label
        if len(made) == _TRAIN + _VALIDATION:
            break
    pairs = list(made.items())
    return pairs[:_TRAIN], pairs[_TRAIN:]


def main() -> None:
    """Write both files."""
    FOLDER.mkdir(exist_ok=True)
    for name, pairs in zip(("train", "validation"), rows(), strict=True):
        lines = ["inputs\ttargets", *("\t".join(pair) for pair in pairs)]
        (FOLDER / f"reviews-{name}.tsv").write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
