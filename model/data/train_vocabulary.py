"""Trains the vocabulary of the paper: a SentencePiece unigram model.

Section 3.1.3 of the paper, and the released file: 32,000 pieces; ids pad 0, eos 1, unk 2, no bos;
text normalised by NFKC, blanks folded; no byte fallback, so that rare characters are unknown.
"""

import contextlib
import ctypes
import dataclasses
import json
import math
import multiprocessing
import os
import pathlib
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import sentencepiece

from model.data.text_sample import LINE_CHARACTERS, Sample
from pipelines.options import check_bounds, option

#: SentencePiece's default. Sums of scores depend on how they are split among threads, in their
#: last bits, and the file with them: this number is never the machine's, so that the same sample
#: gives the same file on any.
_THREADS = 16
#: Pieces that training starts from, before it prunes them by a quarter again and again down to a
#: tenth more than asked for (SentencePiece's defaults; unigram_model_trainer.cc).
_SEED_PIECES = 1_000_000
_DESIRED = 1.1
_BYTES_PER_CHARACTER = 4  # at most, in UTF-8
_POLL_S = 0.2


class TrainingError(ValueError):
    """A sample that no such vocabulary can be trained on."""


_MOST_PIECES = 10_000_000  # far beyond any; the trainer would only end for want of memory
_LEAST_COVERAGE = 0.98  # SentencePiece's own
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclasses.dataclass(frozen=True)
class VocabularyOptions:
    """What a vocabulary is trained to be.

    Raises ValueError for sizes and coverages that no vocabulary has.
    """

    size: int = option(
        "pieces, including pad, eos and unk; sentinels come above them",
        default=32_000, metavar="SIZE", least=4, most=_MOST_PIECES,
    )  # fmt: skip
    character_coverage: float = option(  # SentencePiece's default
        "share of the characters of the sample that pieces must be able to spell; the rarest "
        "others are unknown",
        default=0.9995, metavar="SHARE", least=_LEAST_COVERAGE, most=1,
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_bounds(self)

    def trainer_arguments(self) -> dict[str, Any]:
        """Arguments of ``sentencepiece.SentencePieceTrainer.train``."""
        return {
            "model_type": "unigram",
            "vocab_size": self.size,
            "character_coverage": self.character_coverage,
            "pad_id": 0,
            "eos_id": 1,
            "unk_id": 2,
            "bos_id": -1,
            "normalization_rule_name": "nmt_nfkc",
            "byte_fallback": False,
            "seed_sentencepiece_size": _SEED_PIECES,
            "max_sentence_length": LINE_CHARACTERS * _BYTES_PER_CHARACTER,
            "num_threads": _THREADS,
        }


def train(
    samples: Sequence[Sample],
    options: VocabularyOptions,
    folder: pathlib.Path,
    progress: Callable[[str, float], object] = lambda stage, done: None,
) -> bytes:
    """Trains a model on the lines of all samples, and gives the file's content.

    It runs in a process of its own, which an interrupt can end. The same samples in the same order
    give the same bytes.

    Args:
        samples: from ``text_sample.draw``.
        options: what to train.
        folder: for a few files on the way.
        progress: is told from time to time the stage and how much of all work is done, 0 to 1.

    Raises TrainingError when the sample has too little text for the size, more characters than
    the size has room for, or more text than the memory.
    """
    log, result = folder / "log.txt", folder / "model"
    log.touch()
    process = multiprocessing.get_context("spawn").Process(
        target=_train,
        args=(list(samples), options.trainer_arguments(), log, result),
        daemon=True,
    )
    process.start()
    try:
        while process.is_alive():
            process.join(_POLL_S)
            progress(*_progress(log, options.size))
    finally:
        if process.is_alive():
            process.kill()
        process.join()
    if process.exitcode != 0 or not result.exists():
        raise TrainingError(_reason(log, process.exitcode, samples, options))
    return result.read_bytes()


def _train(
    samples: list[Sample], arguments: dict[str, Any], log: pathlib.Path, result: pathlib.Path
) -> None:
    if sys.platform == "linux":  # a parent that is killed takes this with it, whatever it is at
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # SentencePiece writes to the file descriptor; what Python has to say goes there as well.
    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 2)

    def lines() -> Iterator[str]:
        for sample in samples:
            yield from sample.lines()

    with open(result.with_suffix(".part"), "wb") as model:
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=lines(), model_writer=model, **arguments
            )
        except RuntimeError as error:
            with open(log, "a", encoding="utf-8") as file_:
                file_.write(f"\n{json.dumps({'error': str(error)})}\n")
            raise SystemExit(1) from None
    result.with_suffix(".part").rename(result)


#: What the trainer logs when a stage begins, and how much of the work is done by then, roughly:
#: as measured at 32,000 pieces from 20 million characters.
_STAGES = (
    ("Loaded all", "normalizing", 0.05),
    ("Extracting seed", "finding pieces", 0.1),
    ("EM training", "choosing pieces", 0.3),
)
_SIZE = re.compile(r"EM sub_iter=\d+ size=(\d+)")


def _progress(log: pathlib.Path, size: int) -> tuple[str, float]:
    """Return how far a training for ``size`` pieces has come, by what it has logged."""
    content = log.read_text(encoding="utf-8", errors="replace")
    begun = [("reading", 0.0), *((stage, done) for mark, stage, done in _STAGES if mark in content)]
    stage, done = begun[-1]
    if sizes := [int(found) for found in _SIZE.findall(content)]:
        first, last = max(sizes[0], 2), sizes[-1]
        steps = math.log(first / (_DESIRED * size)) if first > size * _DESIRED else 0.0
        part = math.log(first / last) / steps if steps > 0 and last else 1.0
        done += (1 - done) * min(1.0, part)
    return stage, done


_TOO_MANY = re.compile(r"Vocabulary size too high \(\d+\)\. Please set it to a value <= (\d+)")
_TOO_FEW = re.compile(r"Vocabulary size is smaller than required_chars\. \d+ vs (\d+)")


def _reason(
    log: pathlib.Path,
    exitcode: int | None,
    samples: Sequence[Sample],
    options: VocabularyOptions,
) -> str:
    content = log.read_text(encoding="utf-8", errors="replace")
    characters = sum(sample.characters for sample in samples)
    if found := _TOO_MANY.search(content):
        return (
            f"{characters:,} characters of text give at most {int(found[1]):,} pieces and "
            f"{options.size:,} are asked for: give more text, or --size {found[1]}"
        )
    if found := _TOO_FEW.search(content):
        return (
            f"the text has {int(found[1]):,} characters and other pieces that must be in the "
            f"vocabulary, and --size is {options.size:,}: give a larger --size or a smaller "
            "--character-coverage"
        )
    if exitcode is not None and exitcode < 0:
        return (
            f"training on {characters:,} characters was ended by signal {-exitcode}, which at "
            "most times means that memory ran out: give a smaller --sample-characters"
        )
    lines = [line for line in content.splitlines() if line.strip()]
    with contextlib.suppress(ValueError, IndexError, TypeError, KeyError):
        return f"SentencePiece failed: {json.loads(lines[-1])['error']}"
    return f"SentencePiece failed: {lines[-1] if lines else f'exit status {exitcode}'}"
