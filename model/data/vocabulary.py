"""Text to ids and back: a SentencePiece model, with sentinels above its pieces. No JAX here."""

import functools
import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import sentencepiece

from model.small_files import read_small_file

__all__ = ["EXTRA_IDS", "Vocabulary", "VocabularyError"]

#: Sentinels above the pieces (paper section 3.1.3's vocabulary has 100 of them).
EXTRA_IDS = 100
_PAD, _EOS, _UNK = 0, 1, 2  # ids of the paper's vocabulary
_SIZE_MULTIPLE = 128  # of the embedding's rows: 32,100 become 32,128, as in the released models
_SENTINEL = re.compile(r"<extra_id_(\d+)>")


class VocabularyError(ValueError):
    """A file that is no vocabulary of ours, or ids that are none of it."""


class Vocabulary:
    """A SentencePiece model file and the sentinels above its own pieces.

    Ids: 0 padding, 1 end of sequence, 2 unknown, then the model's other pieces, then ``extra_ids``
    sentinels in falling order: ``<extra_id_0>`` is the last id. A file that has the sentinels
    among its own pieces, as mT5's has, gets none on top, and ``extra_ids`` is then their number.

    ``path`` is a file on this machine. Pickling carries the path: the other process reads the
    file again, and refuses one that has changed meanwhile. Raises OSError where there is no such
    file, VocabularyError (a ValueError) for one that is no SentencePiece model or numbers its
    special pieces otherwise.
    """

    pad_id = _PAD
    eos_id = _EOS
    unk_id = _UNK

    def __init__(self, path: str | os.PathLike[str], extra_ids: int = EXTRA_IDS) -> None:
        if extra_ids < 0:
            raise VocabularyError(f"extra_ids must not be negative, got {extra_ids}")
        self.path = os.fspath(path)
        try:
            content = read_small_file(self.path)
        except ValueError as error:
            raise VocabularyError(str(error)) from None
        #: Of the file, in hexadecimal: what a run remembers its vocabulary by.
        self.sha256 = hashlib.sha256(content).hexdigest()
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(content)
            pieces = self._processor.get_piece_size()  # 0 for an empty file, which parses
        except RuntimeError:
            pieces = 0
        if not pieces:
            raise VocabularyError(
                f"{self.path}: not a SentencePiece model; c4 vocab makes one from a corpus"
            )
        found = (self._processor.pad_id(), self._processor.eos_id(), self._processor.unk_id())
        if found != (_PAD, _EOS, _UNK):
            raise VocabularyError(
                f"{self.path}: pad, eos and unk must have the ids 0, 1 and 2, got {found[0]}, "
                f"{found[1]} and {found[2]} (-1: none); c4 vocab makes such a file"
            )
        own = _sentinels_among(self._processor, pieces)
        self.extra_ids = own or extra_ids
        #: The model's own pieces that are no sentinels: ids below this mean text.
        self.pieces = pieces - own
        self._asked_extra_ids = extra_ids

    @property
    def size(self) -> int:
        """Number of ids: pieces and sentinels; 32,100 for the paper's vocabulary."""
        return self.pieces + self.extra_ids

    @property
    def padded_size(self) -> int:
        """The size rounded up to a multiple of 128, the rows of the embedding; 32,128."""
        return -(-self.size // _SIZE_MULTIPLE) * _SIZE_MULTIPLE

    def sentinel(self, index: int) -> int:
        """The id of ``<extra_id_{index}>``. Raises VocabularyError where there is none."""
        if not 0 <= index < self.extra_ids:
            raise VocabularyError(f"sentinels are numbered 0 to {self.extra_ids - 1}, got {index}")
        return self.size - 1 - index

    def encode(self, text: str, *, parse_sentinels: bool = False) -> list[int]:
        """Ids of one text, without an end-of-sequence id.

        "<extra_id_3>" is text like any other, since a web page that shows it must not bring a
        sentinel into training; ``parse_sentinels`` makes it the sentinel, for prompts that people
        write. What stands between sentinels is encoded by itself, as spans are in training.
        """
        if not parse_sentinels:
            ids: list[int] = self.encode_batch([text])[0].tolist()
            return ids
        ids = []
        end = 0
        for match in _SENTINEL.finditer(text):
            index = int(match[1])
            if index < self.extra_ids and match[1] == str(index):
                ids += self.encode(text[end : match.start()])
                ids.append(self.sentinel(index))
                end = match.end()
        return ids + self.encode(text[end:])

    def encode_batch(self, texts: Sequence[str] | Sequence[bytes]) -> list[npt.NDArray[np.int32]]:
        """Ids of many texts, on one thread: one read-only int32 array each, without an end id.

        Texts may be UTF-8 bytes, which spares decoding what a TFRecord holds. This is the fastest
        call of SentencePiece 0.2.3: 1.4 times the tokens a second of encoding to lists one by one.
        """
        try:
            batch = cast(list[str], list(texts))
            arrays: list[npt.NDArray[np.int32]] = self._processor.encode(
                batch, num_threads=1, return_type="numpy"
            )
        except TypeError:
            raise VocabularyError(_unencodable(texts)) from None
        return arrays

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; sentinels as ``<extra_id_0>``, padding and end of sequence as nothing.

        Ids above ``size``, which an embedding padded to ``padded_size`` lets a model predict, are
        unknown pieces (" ⁇ "). Raises VocabularyError for a negative id.
        """
        values = [int(value) for value in ids]
        if values and min(values) < 0:
            raise VocabularyError(f"ids must not be negative, got {min(values)}")
        if max(values, default=0) < self.pieces:
            text: str = self._processor.decode(values)
            return text
        # By their spelling: SentencePiece passes on, as they stand, pieces that it does not have.
        return str(self._processor.decode([self._piece(value) for value in values]))

    def _piece(self, value: int) -> str:
        if self.pieces <= value < self.size:
            return f"<extra_id_{self.size - 1 - value}>"
        return str(self._processor.id_to_piece(value if value < self.pieces else _UNK))

    def __reduce__(self) -> tuple[object, ...]:
        return _reopened, (os.path.abspath(self.path), self._asked_extra_ids, self.sha256)

    def __repr__(self) -> str:
        return f"Vocabulary({self.path!r}, {self.pieces} pieces, {self.extra_ids} sentinels)"


def _sentinels_among(processor: "sentencepiece.SentencePieceProcessor", pieces: int) -> int:
    """How many of the last pieces are the sentinels ..., 1, 0, with or without a leading blank."""
    count = 0
    while count < pieces and (
        processor.id_to_piece(pieces - 1 - count).removeprefix("▁") == f"<extra_id_{count}>"
    ):
        count += 1
    return count


def _unencodable(texts: Iterable[object]) -> str:
    for index, text in enumerate(texts):
        if not isinstance(text, str | bytes):
            return f"text {index} must be str or bytes, got {type(text).__name__}"
        if isinstance(text, str):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                return f"text {index} is not Unicode text: {error.reason} at {error.start}"
    return "texts must be a sequence of str, or of bytes"


@functools.lru_cache(maxsize=8)
def _reopened(path: str, extra_ids: int, sha256: str) -> Vocabulary:
    """Once a process, however often it is unpickled."""
    vocabulary = Vocabulary(path, extra_ids)
    if vocabulary.sha256 != sha256:
        raise VocabularyError(f"{path}: the file has changed since it was opened first")
    return vocabulary
