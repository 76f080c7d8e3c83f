"""Text to ids and back: a SentencePiece model, with sentinels above its pieces. No JAX here."""

import functools
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import sentencepiece

from model.data.sentencepiece_model import (
    AddedToken,
    normalizer_of,
    obstacle,
    read_model,
    read_notes,
)
from model.small_files import read_small_file

#: Sentinels above the pieces (paper section 3.1.3's vocabulary has 100 of them).
EXTRA_IDS = 100
_PAD, _EOS, _UNK = 0, 1, 2  # ids of the paper's vocabulary
_SIZE_MULTIPLE = 128  # of the embedding's rows: 32,100 become 32,128, as in the released models


class VocabularyError(ValueError):
    """A file that is no vocabulary of ours, or ids that are none of it."""


class Vocabulary:
    """A SentencePiece model file and the sentinels above its own pieces.

    Ids: 0 padding, 1 end of sequence, 2 unknown, then the model's other pieces, then ``extra_ids``
    sentinels in falling order, ``<extra_id_0>`` last, then tokens that somebody has added. How
    many sentinels there are, and which tokens were added, may be noted in the file
    (:mod:`model.data.sentencepiece_model`). A file that has the sentinels among its own pieces,
    as mT5's has, gets none on top, and ``extra_ids`` is then their number.

    Args:
      path: of the file.
      extra_ids: number of sentinels; None for what the file notes, or 100.

    ``path`` is a file on this machine. Pickling carries the path: the other process reads the
    file again, and refuses one that has changed meanwhile. Raises OSError where there is no such
    file, VocabularyError (a ValueError) for one that is no SentencePiece model or numbers its
    special pieces otherwise.
    """

    pad_id = _PAD
    eos_id = _EOS
    unk_id = _UNK

    def __init__(self, path: str | os.PathLike[str], extra_ids: int | None = None) -> None:
        if extra_ids is not None and extra_ids < 0:
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
        try:
            notes = read_notes(content)
        except ValueError as error:
            raise VocabularyError(f"{self.path}: {error}") from None
        own = _sentinels_among(self._processor, pieces)
        asked = next((n for n in (extra_ids, notes.extra_ids) if n is not None), EXTRA_IDS)
        self.extra_ids = own or asked
        #: The model's own pieces that are no sentinels: ids below this mean text.
        self.pieces = pieces - own
        self._asked_extra_ids = extra_ids
        self.content = content  #: The file, notes included.
        #: Tokens beside pieces and sentinels, by their ids.
        self.added = tuple(sorted(notes.added, key=lambda token: token.id))
        self._added_by_id = {token.id: token.content for token in self.added}
        marks = [*self.added, *(self._sentinel_token(k) for k in range(self.extra_ids))]
        self._of_text = _Splitter(content, [token for token in self.added if not token.special])
        self._of_prompts = _Splitter(content, marks)

    @property
    def size(self) -> int:
        """Number of pieces and sentinels; 32,100 for the paper's vocabulary."""
        return self.pieces + self.extra_ids

    @property
    def id_count(self) -> int:
        """Number of all ids: those of ``size``, and of added tokens above them."""
        return max([self.size, *(token.id + 1 for token in self.added)])

    @property
    def padded_size(self) -> int:
        """All ids rounded up to a multiple of 128, the rows of the embedding; 32,128."""
        return -(-self.id_count // _SIZE_MULTIPLE) * _SIZE_MULTIPLE

    @functools.cached_property
    def obstacle(self) -> str | None:
        """The property of the file that keeps it from being exported with the same ids, or None."""
        return obstacle(self.content, range(self.pieces, self.size))

    def same_as(self, other: "Vocabulary") -> bool:
        """Return whether another vocabulary gives every text the same ids."""
        return (
            read_model(self.content) == read_model(other.content)
            and self.extra_ids == other.extra_ids
            and self.added == other.added
        )

    def _sentinel_token(self, index: int) -> AddedToken:
        return AddedToken(f"<extra_id_{index}>", self.sentinel(index), special=True)

    def sentinel(self, index: int) -> int:
        """Return the id of ``<extra_id_{index}>``. Raises VocabularyError if there is none."""
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
        return self._encode_split(text, self._of_prompts)

    def _encode_split(self, text: str, splitter: "_Splitter") -> list[int]:
        """Return ids of a text in which tokens stand for themselves."""
        ids: list[int] = []
        for part, token in splitter.parts(text):
            ids += self._processor.encode(part) if part else []
            if token is not None:
                ids.append(token)
        return ids

    def encode_batch(self, texts: Sequence[str] | Sequence[bytes]) -> list[npt.NDArray[np.int32]]:
        """Ids of many texts, on one thread: one read-only int32 array each, without an end id.

        Texts may be UTF-8 bytes, which spares decoding what a TFRecord holds. This is the fastest
        call of SentencePiece 0.2.3: 1.4 times the tokens a second of encoding to lists one by one.
        Where there are added tokens that text may show, texts are split at them first.
        """
        if self._of_text:
            try:
                split = [
                    text.decode(errors="replace") if isinstance(text, bytes) else text
                    for text in texts
                ]
                return [
                    np.array(self._encode_split(text, self._of_text), np.int32) for text in split
                ]
            except (TypeError, UnicodeEncodeError):
                raise VocabularyError(_unencodable(texts)) from None
        try:
            batch = cast(list[str], list(texts))
            arrays: list[npt.NDArray[np.int32]] = self._processor.encode(
                batch, num_threads=1, return_type="numpy"
            )
        except TypeError:
            raise VocabularyError(_unencodable(texts)) from None
        return arrays

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids; sentinels as ``<extra_id_0>``, padding and end of sequence as "".

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
        if value in self._added_by_id:
            return self._added_by_id[value]
        return str(self._processor.id_to_piece(value if value < self.pieces else _UNK))

    def __reduce__(self) -> tuple[object, ...]:
        return _reopened, (os.path.abspath(self.path), self._asked_extra_ids, self.sha256)

    def __repr__(self) -> str:
        return f"Vocabulary({self.path!r}, {self.pieces} pieces, {self.extra_ids} sentinels)"


class _Splitter:
    """Finds added tokens in a text: first the plain ones, then, in what is left and normalized,
    those that are of the normalized text; the leftmost first, and of those the longest.

    These are the rules of the library tokenizers (added_vocabulary.rs).
    """

    def __init__(self, content: bytes, tokens: Sequence[AddedToken]) -> None:
        self._plain = {token.content: token.id for token in tokens if not token.normalized}
        self._normalize = None
        self._normalized: dict[str, int] = {}
        if any(token.normalized for token in tokens):
            self._normalize = normalizer_of(content).normalize
            self._normalized = {
                self._normalize(token.content): token.id for token in tokens if token.normalized
            }
        self._plain_pattern = _any_of(self._plain)
        self._normalized_pattern = _any_of(self._normalized)

    def __bool__(self) -> bool:
        return bool(self._plain or self._normalized)

    def parts(self, text: str) -> Iterator[tuple[str, int | None]]:
        """Yield texts and the id of the token after each; the last has none."""
        for part, token in _split(text, self._plain_pattern, self._plain):
            if self._normalize is None:
                yield part, token
                continue
            for inner, found in _split(
                self._normalize(part), self._normalized_pattern, self._normalized
            ):
                yield inner, found if found is not None else token


def _any_of(contents: Iterable[str]) -> re.Pattern[str] | None:
    longest_first = sorted(contents, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


def _split(
    text: str, pattern: re.Pattern[str] | None, ids: Mapping[str, int]
) -> Iterator[tuple[str, int | None]]:
    end = 0
    for match in pattern.finditer(text) if pattern is not None else ():
        yield text[end : match.start()], ids[match[0]]
        end = match.end()
    yield text[end:], None


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
def _reopened(path: str, extra_ids: int | None, sha256: str) -> Vocabulary:
    """Once a process, however often it is unpickled."""
    vocabulary = Vocabulary(path, extra_ids)
    if vocabulary.sha256 != sha256:
        raise VocabularyError(f"{path}: the file has changed since it was opened first")
    return vocabulary
