"""A user's own pairs as a prepared task; without pairs to validate on, a tenth is held out."""

import hashlib
import os
import pathlib
from collections.abc import Iterator

from model.tasks.prepared import OWN, Prepared, prepare
from model.tasks.sources.pairs import read_pairs
from model.tasks.values import Raw

_HELD_OUT = 10  # one of so many


def is_pairs_file(name: str) -> bool:
    """Return whether what ``--task`` gives is a file, not the name of a task.

    >>> is_pairs_file("topics.tsv"), is_pairs_file("glue_sst2")
    (True, False)
    """
    return os.sep in name or "." in name


def is_held_out(inputs: str) -> bool:
    """Return whether a pair is held out: by its inputs alone, so that equal ones stay together."""
    digest = hashlib.sha256(inputs.encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % _HELD_OUT == 0


def prepare_own(
    train: str, validation: str | None, folder: str | os.PathLike[str]
) -> tuple[Prepared, str]:
    """Write a user's pairs to ``folder``/own, and return them with a line about them.

    Args:
      train: a file as `read_pairs` takes it.
      validation: another one; None: a tenth of the first is held out.
      folder: a folder without such a task.

    Raises ValueError for files that cannot be read, or with too few pairs.
    """
    prepared = prepare(OWN, _rows(train, validation), folder, train)
    missing = [split for split in ("train", "validation") if not prepared.splits.get(split)]
    if missing and validation is None:
        raise ValueError(
            f"{train}: too few pairs to hold out a tenth of them: give others to validate on "
            "(--validation)"
        )
    if missing:
        raise ValueError(f"{validation if missing == ['validation'] else train}: no pairs in it")
    counts = f"{prepared.splits['train']:,} to train on, {prepared.splits['validation']:,} to"
    if validation is None:
        return prepared, f"{train}: {counts} validate on, a tenth by hash (--validation)"
    return prepared, f"{train}: {counts} validate on from {validation}"


def _rows(train: str, validation: str | None) -> Iterator[tuple[str, Raw]]:
    for path, split in ((train, "train"), (validation, "validation")):
        if path is None:
            continue
        if not pathlib.Path(path).exists():
            option = "--task" if split == "train" else "--validation"
            raise ValueError(f"{path}: no such file ({option})")
        for raw in read_pairs(path):
            held_out = validation is None and is_held_out(raw["inputs"])
            yield ("validation" if held_out else split), raw
