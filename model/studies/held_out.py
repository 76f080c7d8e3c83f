"""Bits per byte on held-out text: one number for models of any vocabulary.

Pages are split into words at white space and cut into windows of at most 512 bytes. A model's score
is what it costs to predict text, in bits, for each byte of it in UTF-8 (with one for the space
before each word)::

    bits per byte  =  -sum of log2 p(target token | what came before)  /  bytes predicted

What is predicted depends on how the model was trained:

- A model of the objective ``causal_lm`` predicts each window from its beginning to its end, and
  the end id: the chain rule of a language model.
- All others fill in masked words. In each window 15 % of the words are masked in runs of 2 words on
  average (the rule of random spans, paper section 3.3.4, on words instead of tokens). Which ones
  depends on the window's text alone: not on the model, the vocabulary or other pages. The inputs
  are the other words with a sentinel for each run; the targets are the runs, each after its
  sentinel, and the end id, as in the paper's span corruption. Sentinels and the end id count in the
  sum. A model without an encoder reads the inputs and an end id, and then predicts the targets.

Either way all models predict the same bytes from the same context, so models with different
vocabularies can be compared; the two kinds of models cannot.

``python -m model.studies.held_out --texts FILE RUN...`` measures runs in a process of its own.
"""

import argparse
import hashlib
import itertools
import json
import math
import pathlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from model.data.batches import HostBatch, pack_joined, pack_pairs
from model.data.objectives import random_spans_noise
from model.data.sequences import Sequences

if TYPE_CHECKING:
    from model.data.vocabulary import Vocabulary
    from model.t5.config import ModelConfig


WINDOW_BYTES = 512
DENSITY, MEAN_SPAN = 0.15, 2.0
#: Of a longer word, such as a line of a language without spaces, parts of so many characters.
_WORD_CHARACTERS = 24
_ROWS = 32


class Window(NamedTuple):
    """A piece of text with runs of masked words.

    Attributes:
        runs: kept and masked text in turn, beginning with kept text.
    """

    runs: tuple[str, ...]

    def bytes(self, whole: bool) -> int:
        """Return the bytes of the masked words or of all, one more for the space before each."""
        return sum(
            len(text.encode()) + 1 for text in self.runs[0 if whole else 1 :: 1 if whole else 2]
        )


class Bits(NamedTuple):
    """What it costs a model to predict bytes."""

    bits: float
    bytes: int
    tokens: int


def windows(text: str) -> Iterator[Window]:
    """Yield the windows of a page. A window of one word has nothing to be predicted from."""
    words: list[str] = []
    size = 0
    for word in [*_words(text), None]:
        added = 0 if word is None else len(word.encode()) + 1
        if word is None or size + added > WINDOW_BYTES:
            if len(words) > 1:
                yield _masked(words)
            words, size = [], 0
        if word is not None:
            words.append(word)
            size += added


def _words(text: str) -> Iterator[str]:
    for word in text.split():
        for start in range(0, len(word), _WORD_CHARACTERS):
            yield word[start : start + _WORD_CHARACTERS]


def _masked(words: Sequence[str]) -> Window:
    digest = hashlib.sha256(" ".join(words).encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    mask = random_spans_noise(np.array([len(words)]), DENSITY, MEAN_SPAN, rng)
    bounds = [0, *(np.flatnonzero(np.diff(mask)) + 1).tolist(), len(words)]
    return Window(tuple(" ".join(words[start:stop]) for start, stop in itertools.pairwise(bounds)))


def measure(path: str, found: Sequence[Window], *, whole: bool = False) -> Bits:
    """Measure the model of a run's newest checkpoint.

    ``whole`` predicts whole windows, for a language model that was trained to.

    Raises ValueError if there is no text, if the folder has no vocabulary, and as
    `model.training.model_folders.load_params` does.
    """
    import jax

    from model.data.vocabulary import Vocabulary
    from model.t5.network import T5
    from model.training.model_folders import load_params, read_model
    from model.training.train_step import make_eval_step

    if not found:
        raise ValueError("there is no held-out text to measure on")
    config, kept = read_model(path)
    if kept is None:
        raise ValueError(f"{path} has no vocabulary: measure a run's folder")
    rows = _rows(found, Vocabulary(kept), config, whole)
    step = jax.jit(make_eval_step(T5(config)))
    params = load_params(path).params
    nats, tokens = 0.0, 0
    for start in range(0, len(rows["decoder_segments"]), _ROWS):
        sums = jax.device_get(step(params, _padded(rows, start)))
        nats += float(sums.loss)
        tokens += int(sums.tokens)
    return Bits(nats / math.log(2), sum(window.bytes(whole) for window in found), tokens)


def _rows(
    found: Sequence[Window], vocabulary: "Vocabulary", config: "ModelConfig", whole: bool
) -> HostBatch:
    """Return all windows as packed rows, as long as the longest window needs."""
    if whole:
        texts = [" ".join(window.runs) for window in found]
        sides: tuple[list[list[int]], list[list[int]]] = (
            [[] for _ in texts],
            [ids.tolist() for ids in vocabulary.encode_batch(texts)],
        )
    else:
        sides = _filled_in(found, vocabulary)
    eos = [vocabulary.eos_id]
    ended = ([[*ids, *eos] if not whole else ids for ids in sides[0]],
             [[*ids, *eos] for ids in sides[1]])  # fmt: skip
    inputs, targets = (Sequences.of([np.array(ids, np.int32) for ids in side]) for side in ended)
    if config.has_encoder:
        return pack_pairs(inputs, targets, *(_length(each.lengths) for each in (inputs, targets)))
    return pack_joined(
        inputs,
        targets,
        _length(inputs.lengths + targets.lengths),
        prefix=config.architecture == "prefix-language-model",
        loss_on_inputs=False,
    )


def _filled_in(
    found: Sequence[Window], vocabulary: "Vocabulary"
) -> tuple[list[list[int]], list[list[int]]]:
    """Return the ids of inputs and targets, without end ids."""
    ids = iter(vocabulary.encode_batch([text for window in found for text in window.runs]))
    inputs, targets = [], []
    for window in found:
        both: tuple[list[int], list[int]] = ([], [])
        for place in range(len(window.runs)):
            run, masked = next(ids).tolist(), place % 2
            if masked:
                sentinel = vocabulary.sentinel(place // 2)
                both[0].append(sentinel)
                both[1].append(sentinel)
            both[masked].extend(run)
        inputs.append(both[0])
        targets.append(both[1])
    return inputs, targets


def _length(lengths: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> int:
    return -(-int(lengths.max()) // 32) * 32


def _padded(rows: HostBatch, start: int) -> HostBatch:
    """Return a batch of rows, the last one filled up with rows of padding."""
    part = {name: array[start : start + _ROWS] for name, array in rows.items()}
    lacking = _ROWS - len(part["decoder_segments"])
    return {name: np.pad(array, ((0, lacking), (0, 0))) for name, array in part.items()}


def write_texts(path: pathlib.Path, texts: Iterable[str], most_bytes: int) -> int:
    """Write texts as JSON lines until ``most_bytes``, and return how many bytes they have."""
    size = 0
    with path.open("w", encoding="utf-8") as file:
        for text in texts:
            if size >= most_bytes:
                break
            size += len(text.encode())
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    return size


def read_texts(path: pathlib.Path) -> list[Window]:
    """Read what `write_texts` wrote, as windows."""
    with path.open(encoding="utf-8") as file:
        return [window for line in file for window in windows(json.loads(line)["text"])]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure runs; print a line of JSON for each."""
    parser = argparse.ArgumentParser(description="Bits per byte of runs on held-out text.")
    parser.add_argument("--texts", action="append", required=True, help="of write_texts")
    parser.add_argument("--whole", action="store_true", help="predict whole windows")
    parser.add_argument("runs", nargs="+", metavar="RUN")
    arguments = parser.parse_args(argv)
    found = {path: read_texts(pathlib.Path(path)) for path in arguments.texts}
    for run in arguments.runs:
        measured = {
            path: measure(run, each, whole=arguments.whole)._asdict()
            for path, each in found.items()
        }
        print(json.dumps({"run": run, "texts": measured}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
