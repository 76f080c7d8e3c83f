"""Measure near deduplication: CPU per page beside rensa and datasketch, recall on planted pairs.

    python -m benchmarks.near_dedup [--wet GLOB] [--pages 2000] [--pairs 2000]

All three start from the same texts and give each page 160 hashes of its word 5-shingles, the
number that a threshold of 0.8 takes; the peers get the shingles as a list of strings. CPU time is
of all threads, the best of the repeats, in turns. The peers are not dependencies: one that is not
installed is left out with a line (`pip install rensa datasketch`, in an environment of its own).

Planted pairs are real pages and copies with single words replaced, at random places, up to the
last change that leaves the similarity at the threshold. Bars: not slower than the fastest peer, and
a recall of 0.95; otherwise the program fails.
"""

import functools
import importlib.util
import random
import sys
from collections.abc import Callable, Sequence

from benchmarks import measure as measuring
from benchmarks.sentences import read_texts
from c4_filters import near

BAR_RECALL = 0.95
BAR_RATIO = 1.0  # of the fastest peer's CPU
_THRESHOLD = 0.8
_REPEATS = 3
_FEWEST_WORDS = 50


def token_lists(texts: Sequence[str]) -> list[list[str]]:
    """Return the shingles of each text as strings."""
    return [[" ".join(shingle) for shingle in near.shingles(text)] for text in texts]


def ours(texts: Sequence[str]) -> None:
    near.band_hashes(texts, near.bands_for(_THRESHOLD))


def peers(hashes: int) -> dict[str, Callable[[Sequence[str]], None]]:
    """Return the peers that are installed, by name."""

    def with_rensa(texts: Sequence[str]) -> None:
        import rensa

        rensa.RMinHash.digest_matrix_from_token_sets(token_lists(texts), hashes, 42)

    def with_datasketch(texts: Sequence[str]) -> None:
        import datasketch

        for tokens in token_lists(texts):
            datasketch.MinHash(hashes).update_batch([token.encode() for token in tokens])

    found = {"rensa": with_rensa, "datasketch": with_datasketch}
    for name in [name for name in found if importlib.util.find_spec(name) is None]:
        print(f"{name} is not installed: left out")
        del found[name]
    return found


def planted_copy(text: str, threshold: float, rng: random.Random) -> str:
    """Return a text with single words replaced, its similarity as little above as can be."""
    words, original = text.split(), near.shingles(text)
    for number in range(len(words)):
        at = rng.randrange(len(words))
        before, words[at] = words[at], f"planted{number}"
        if near.similarity(original, near.shingles(" ".join(words))) < threshold:
            words[at] = before
            break
    return " ".join(words)


def recall(texts: Sequence[str], threshold: float, pairs: int, seed: int = 1) -> float:
    """Return the share of planted pairs at a threshold that are found."""
    rng = random.Random(seed)
    long = [text for text in texts if len(text.split()) >= _FEWEST_WORDS]
    chosen = [long[at % len(long)] for at in range(pairs)]
    copies = [planted_copy(text, threshold, rng) for text in chosen]
    bands = near.bands_for(threshold)
    first, second = (near.band_hashes(each, bands) for each in (chosen, copies))
    return float((first == second).any(axis=1).mean())


def measure(texts: Sequence[str]) -> bool:
    """Print the CPU of each, and return whether the bar holds."""
    bands = near.bands_for(_THRESHOLD)
    works = {"ours": ours, **peers(bands.numbers * bands.rows)}
    words = sum(len(text.split()) for text in texts) / len(texts)
    print(
        f"{len(texts)} pages of {words:.0f} words; {bands.numbers} numbers of {bands.rows} hashes"
    )
    taken = measuring.in_turn(
        {name: functools.partial(work, texts) for name, work in works.items()}, _REPEATS
    )
    best = {name: min(seconds) / len(texts) * 1e6 for name, seconds in taken.items()}
    for name, us in best.items():
        print(f"{name:<10} {us:8.1f} us of CPU a page, {us / best['ours']:.2f} times ours")
    fastest = min((us for name, us in best.items() if name != "ours"), default=float("inf"))
    return best["ours"] <= BAR_RATIO * fastest


def main() -> int:
    parser = measuring.parser(__doc__, wet=True)
    parser.add_argument("--pages", type=int, default=2000, metavar="N")
    parser.add_argument("--pairs", type=int, default=2000, metavar="N")
    arguments = parser.parse_args()
    paths = measuring.wet_files(parser, arguments.wet)
    texts = list(read_texts(paths))[: arguments.pages]
    passed = measure(texts)
    for threshold in (0.7, _THRESHOLD, 0.9):
        found = recall(texts, threshold, arguments.pairs // 2)
        print(f"recall at {threshold}: {found:.3f} of {arguments.pairs // 2} planted pairs")
        passed = passed and found >= BAR_RECALL
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
