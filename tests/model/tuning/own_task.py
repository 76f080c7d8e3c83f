"""A task that a small model learns: the verb of a sentence decides its label."""

import pathlib
import random

_WHO = ("the fox", "a grey cat", "my neighbour", "the old miller", "her brother", "nobody here")
_BOAT, _LETTER = ("sees", "sells", "carries"), ("forgets", "mends", "finds")
_WHAT = ("three apples", "a wooden boat", "the broken clock", "some warm bread", "a letter")


def sentences(count, seed=0):
    """Pairs of a sentence and "a boat" or "a letter"."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        verb = draw.choice(_BOAT + _LETTER)
        text = f"{draw.choice(_WHO)} {verb} {draw.choice(_WHAT)}"
        found.append((text, "a boat" if verb in _BOAT else "a letter"))
    return found


def write_pairs(path: pathlib.Path, count: int) -> pathlib.Path:
    """Write a TSV of them."""
    lines = ["inputs\ttargets", *("\t".join(pair) for pair in sentences(count))]
    path.write_text("\n".join(lines) + "\n")
    return path
