"""Read, write and check SentencePiece's model files.

A file is a protobuf message (sentencepiece_model.proto) that this module reads and writes without
protobuf. If a vocabulary has more than its pieces and the usual 100 sentinels, notes in the same
file say so, in a field that the format reserves for extensions; SentencePiece ignores it.
"""

import collections
import dataclasses
import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import sentencepiece

# Numbers of fields and values of enumerations.
_PIECES, _TRAINER, _NORMALIZER, _DENORMALIZER = 1, 2, 3, 5
_NOTES = 1910  # "extensions 200 to max"
_PIECE, _SCORE, _TYPE = 1, 2, 3
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
_MODEL_TYPE, _VOCAB_SIZE, _WHITESPACE_AS_SUFFIX, _BYTE_FALLBACK = 3, 4, 24, 35
_MODEL_TYPES = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}
_IDS = {"unk": 40, "bos": 41, "eos": 42, "pad": 43}
_NAMES = {"unk": 45, "bos": 46, "eos": 47, "pad": 48}
_CHARSMAP, _DUMMY_PREFIX, _EXTRA_WHITESPACES, _ESCAPE_WHITESPACES = 2, 3, 4, 5

#: Unicode's white space, at which other tokenizers split, but for the two that no normalizer of
#: SentencePiece folds (a vertical tab is removed, U+0085 stays).
_WHITE_SPACE = "\t\n\f\r \xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)


class SentencePieceModel(NamedTuple):
    """The parts of a model that determine ids."""

    pieces: list[tuple[str, float]]  #: with their log-probabilities
    types: list[int]  #: of the pieces
    charsmap: bytes  #: the normaliser's compiled table, b"" for none
    model_type: str
    byte_fallback: bool
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool
    escape_whitespaces: bool
    treat_whitespace_as_suffix: bool
    denormalizer: bytes  #: the table that decoding applies to a text, b"" for none

    def of_type(self, wanted: int) -> list[int]:
        """Return the ids of all pieces of a type."""
        return [index for index, kind in enumerate(self.types) if kind == wanted]


def read_model(content: bytes) -> SentencePieceModel:
    """Read a model that SentencePiece can load."""
    pieces: list[tuple[str, float]] = []
    types: list[int] = []
    parts: dict[int, dict[int, Any]] = collections.defaultdict(dict)
    for field, value in _fields(content):
        if field == _PIECES:
            piece = {_PIECE: b"", _SCORE: bytes(4), _TYPE: NORMAL, **dict(_fields(value))}
            pieces.append((piece[_PIECE].decode(), *struct.unpack("<f", piece[_SCORE])))
            types.append(piece[_TYPE])
        elif field in (_TRAINER, _NORMALIZER, _DENORMALIZER):
            parts[field] = dict(_fields(value))
    trainer, normalizer = parts[_TRAINER], parts[_NORMALIZER]
    kind = trainer.get(_MODEL_TYPE, 1)
    return SentencePieceModel(
        pieces=pieces,
        types=types,
        charsmap=normalizer.get(_CHARSMAP, b""),
        model_type=_MODEL_TYPES.get(kind, str(kind)),
        byte_fallback=bool(trainer.get(_BYTE_FALLBACK, False)),
        add_dummy_prefix=bool(normalizer.get(_DUMMY_PREFIX, True)),
        remove_extra_whitespaces=bool(normalizer.get(_EXTRA_WHITESPACES, True)),
        escape_whitespaces=bool(normalizer.get(_ESCAPE_WHITESPACES, True)),
        treat_whitespace_as_suffix=bool(trainer.get(_WHITESPACE_AS_SUFFIX, False)),
        denormalizer=parts[_DENORMALIZER].get(_CHARSMAP, b""),
    )


def obstacle(content: bytes, sentinels: Iterable[int] = ()) -> str | None:
    """Return the property of a model for which T5's tokenizer would give other ids, or None.

    That tokenizer (of the libraries tokenizers and Transformers) splits at white space and then
    applies a unigram model; it cannot express anything else that a SentencePiece model does.

    Args:
      content: of a file that SentencePiece can load.
      sentinels: ids of pieces that are sentinels.
    """
    model = read_model(content)
    own = set(sentinels)
    if model.model_type != "unigram":
        return f"model_type is {model.model_type}"
    if model.byte_fallback or BYTE in model.types:
        return "byte_fallback is on"
    for name in ("add_dummy_prefix", "remove_extra_whitespaces", "escape_whitespaces"):
        if not getattr(model, name):
            return f"{name} is off"
    if model.treat_whitespace_as_suffix:
        return "treat_whitespace_as_suffix is on"
    if others := set(model.of_type(USER_DEFINED)) - own:
        return f"user_defined_symbols has {model.pieces[min(others)][0]!r}"
    if UNUSED in model.types:
        return f"piece {model.pieces[model.types.index(UNUSED)][0]!r} is of the type UNUSED"
    if model.denormalizer:
        return "denormalizer_spec has a table"
    normalize = normalizer_of(content).normalize
    for character in _WHITE_SPACE:
        if any(c.isspace() and c != " " for c in normalize(f"a{character}b")):
            return f"normalization_rule_name keeps white space ({character!r}) as it is"
    return None


def normalizer_of(content: bytes) -> "sentencepiece.SentencePieceNormalizer":
    """Return the normalizer of a model: its table only, without the handling of blanks."""
    return sentencepiece.SentencePieceNormalizer(
        model_proto=content,
        add_dummy_prefix=False,
        escape_whitespaces=False,
        remove_extra_whitespaces=False,
    )


def folding_charsmap() -> bytes:
    """Return the table of a normalizer that only turns white space into blanks."""
    folding = [(character, " ") for character in _WHITE_SPACE if character != " "]
    made = sentencepiece.SentencePieceNormalizer(norm_map=folding)
    found: bytes = dict(_fields(made.serialized_normalizer_spec()))[_CHARSMAP]
    return found


def make_model(
    pieces: Sequence[tuple[str, float]], special: Sequence[int], charsmap: bytes
) -> bytes:
    """Return the file of a unigram model with T5's settings.

    Args:
      pieces: with their log-probabilities; 0, 1 and 2 are padding, end and unknown.
      special: ids of other pieces to which no text is encoded.
      charsmap: the normaliser's compiled table.
    """
    control = {0, 1, *special}
    parts = []
    for index, (text, score) in enumerate(pieces):
        kind = UNKNOWN if index == 2 else CONTROL if index in control else NORMAL
        piece = _bytes(_PIECE, text.encode()) + _key(_SCORE, 5) + struct.pack("<f", score)
        parts.append(_bytes(_PIECES, piece + _number(_TYPE, kind)))
    trainer = _number(_MODEL_TYPE, 1) + _number(_VOCAB_SIZE, len(pieces))
    for name, index in (("unk", 2), ("bos", -1), ("eos", 1), ("pad", 0)):
        trainer += _number(_IDS[name], index % 2**64)
        if index >= 0:
            trainer += _bytes(_NAMES[name], pieces[index][0].encode())
    normalizer = _bytes(_CHARSMAP, charsmap)
    for flag in (_DUMMY_PREFIX, _EXTRA_WHITESPACES, _ESCAPE_WHITESPACES):
        normalizer += _number(flag, 1)
    return b"".join([*parts, _bytes(_TRAINER, trainer), _bytes(_NORMALIZER, normalizer)])


# Notes


@dataclasses.dataclass(frozen=True)
class AddedToken:
    """A token besides pieces and sentinels, which is matched in a text before all pieces."""

    content: str
    id: int
    special: bool  #: a control token: text that looks like it is not encoded to it
    #: Whether it is matched in the normalized text rather than in the original.
    normalized: bool = False
    lstrip: bool = False
    rstrip: bool = False


@dataclasses.dataclass(frozen=True)
class Notes:
    """The sentinels and added tokens of a vocabulary."""

    extra_ids: int | None = None  #: sentinels; None for the usual number
    added: tuple[AddedToken, ...] = ()


def read_notes(content: bytes) -> Notes:
    """Read the notes in a model's file. Raises ValueError for damaged notes."""
    value = dict(_fields(content)).get(_NOTES)
    if value is None:
        return Notes()
    try:
        raw = json.loads(value)
        return Notes(raw["extra_ids"], tuple(AddedToken(**token) for token in raw["added"]))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"its note on sentinels is damaged: {error}") from None


def with_notes(content: bytes, notes: Notes) -> bytes:
    """Return the file of the same model with these notes, or with none if they are empty."""
    plain = without_notes(content)
    if notes == Notes():
        return plain
    text = json.dumps(dataclasses.asdict(notes), ensure_ascii=False, sort_keys=True)
    return plain + _bytes(_NOTES, text.encode())


def without_notes(content: bytes) -> bytes:
    """Return the file as SentencePiece made it."""
    place = 0
    kept = []
    for field, _, end in _spans(content):
        if field != _NOTES:
            kept.append(content[place:end])
        place = end
    return b"".join(kept)


# Protobuf


def _fields(content: bytes) -> Iterator[tuple[int, Any]]:
    """Yield the fields of a message: numbers as int, everything else as bytes."""
    for field, value, _ in _spans(content):
        yield field, value


def _spans(content: bytes) -> Iterator[tuple[int, Any, int]]:
    """Yield each field's number, its value, and where it ends."""
    place = 0
    while place < len(content):
        key, place = _varint(content, place)
        kind = key & 7
        if kind == 0:
            number, place = _varint(content, place)
            yield key >> 3, number, place
            continue
        if kind == 2:
            size, place = _varint(content, place)
        else:
            size = {1: 8, 5: 4}[kind]
        place += size
        yield key >> 3, content[place - size : place], place


def _varint(content: bytes, place: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = content[place]
        number |= (byte & 0x7F) << shift
        place += 1
        shift += 7
        if byte < 0x80:
            return number, place


def _written(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _key(field: int, kind: int) -> bytes:
    return _written(field << 3 | kind)


def _number(field: int, value: int) -> bytes:
    return _key(field, 0) + _written(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _key(field, 2) + _written(len(value)) + value
