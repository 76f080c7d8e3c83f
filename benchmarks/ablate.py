r"""Shows that `c4 ablate` finds a planted difference, and that it finds none where there is none.

    python -m benchmarks.ablate --corpus DIR --out DIR

Corpus A is the given one. In corpus B a fifth of the lines have their words shuffled (or, with
`--plant lines`, stand on other pages). Trains 16 runs on A and 10 on B, by the shipped command,
paired by their seeds. Then:

- planted: of the 10 pairs, how many have the right sign (A better), and what the verdict is of
  each 5 pairs in a row, as `c4 ablate` would give it with its default of 5 seeds;
- A against A: of 200 random splits of A's 16 runs into 8 pairs, how many raise an alarm.

Fails unless all 10 signs are right, no verdict is wrong ("cannot tell" is none) and at most 16
splits raise an alarm. The same command resumes.
"""

import argparse
import collections
import pathlib
import random
import time
from collections.abc import Iterator, Sequence

from model.studies.ablate import AblateConfig, Work, bits_per_byte
from model.studies.held_out_pages import write_corpus
from model.studies.statistics import compare_paired
from pipelines.corpus.formats.pages import Page
from pipelines.corpus.reading import open_corpus

RUNS, PAIRS, IN_A_ROW = 16, 10, 5
SPLITS, MOST_ALARMS = 200, 16


def shuffled_words(pages: Sequence[Page], rng: random.Random) -> Iterator[Page]:
    for page in pages:
        lines = page.text.split("\n")
        for place, line in enumerate(lines):
            if rng.random() < 0.2:
                words = line.split(" ")
                rng.shuffle(words)
                lines[place] = " ".join(words)
        yield page._replace(text="\n".join(lines))


def shuffled_lines(pages: Sequence[Page], rng: random.Random) -> Iterator[Page]:
    texts = [page.text.split("\n") for page in pages]
    places = [(n, m) for n, lines in enumerate(texts) for m in range(len(lines))]
    places = [place for place in places if rng.random() < 0.2]
    taken = [texts[n][m] for n, m in places]
    rng.shuffle(taken)
    for (n, m), line in zip(places, taken, strict=True):
        texts[n][m] = line
    for page, lines in zip(pages, texts, strict=True):
        yield page._replace(text="\n".join(lines))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--plant", choices=("words", "lines"), default="words")
    parser.add_argument("--vocab")
    parser.add_argument("--steps", type=int, default=AblateConfig.steps)
    arguments = parser.parse_args(argv)
    started = time.monotonic()
    planted = arguments.out / arguments.plant
    if not (planted / "manifest.json").is_file():
        pages = list(open_corpus(arguments.corpus).pages())
        spoil = shuffled_words if arguments.plant == "words" else shuffled_lines
        write_corpus(spoil(pages, random.Random(0)), planted)
    config = AblateConfig(
        a=arguments.corpus,
        b=str(planted),
        out=str(arguments.out / f"comparison-{arguments.plant}"),
        vocabulary=arguments.vocab,
        steps=arguments.steps,
    )
    work = Work(
        config, lambda line: print(f"{time.monotonic() - started:6.0f} s  {line}", flush=True)
    )
    work.begin()
    training, texts = work.split(work.corpora())
    vocabulary = work.vocabulary(training)
    runs = [("a", seed) for seed in range(RUNS)] + [("b", seed) for seed in range(PAIRS)]
    for arm, seed in sorted(runs, key=lambda run: run[1]):
        work.train(arm, seed, training[arm], vocabulary)
    bits = work.measure(texts, runs)
    a, b = (
        [bits_per_byte(bits[f"{arm}-seed-{seed}"]) for each, seed in runs if each == arm]
        for arm in "ab"
    )
    passed = report(a, b, config.level)
    print(f"{time.monotonic() - started:.0f} s")
    return 0 if passed else 1


def report(a: Sequence[float], b: Sequence[float], level: float) -> bool:
    """Print what the runs show, and return whether it is what it has to be."""
    differences = [right - left for left, right in zip(a, b, strict=False)]
    print("B - A, bits per byte:", *(f"{each:+.4f}" for each in differences))
    signs = sum(each > 0 for each in differences)
    print(f"right sign: {signs} of {len(differences)}")
    verdicts = [
        compare_paired(
            a[start : start + IN_A_ROW], b[start : start + IN_A_ROW], level=level,
            higher_is_better=False,
        ).verdict
        for start in range(len(b) - IN_A_ROW + 1)
    ]  # fmt: skip
    found = collections.Counter(verdicts)
    print(
        f"verdicts, each of {IN_A_ROW} pairs:",
        ", ".join(f"{verdict}: {count}" for verdict, count in found.most_common()),
    )
    alarms = false_alarms(a, level)
    print(f"A against A: {alarms} alarms in {SPLITS} splits of {len(a)} runs")
    return signs == len(differences) and not found["B is better"] and alarms <= MOST_ALARMS


def false_alarms(values: Sequence[float], level: float) -> int:
    """Return how many random splits of runs of the same corpus find a difference."""
    rng = random.Random(0)
    half = len(values) // 2
    alarms = 0
    for _ in range(SPLITS):
        mixed = rng.sample(values, 2 * half)
        found = compare_paired(mixed[:half], mixed[half:], level=level, higher_is_better=False)
        alarms += found.verdict != "cannot tell"
    return alarms


if __name__ == "__main__":
    raise SystemExit(main())
