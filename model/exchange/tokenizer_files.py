"""The tokenizer's files of a model's folder, made from a SentencePiece model without its help.

``tokenizer.json`` is the form that needs neither SentencePiece nor protobuf to read: the pieces
with their scores, the normaliser's table, and the sentinels as special tokens.
"""

import base64
import json
import os
import pathlib
import shutil
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from model.data.vocabulary import Vocabulary, VocabularyError
from model.small_files import read_small_file

__all__ = ["SPIECE", "SentencePieceModel", "read_model", "write"]

SPIECE = "spiece.model"

# sentencepiece_model.proto: numbers of fields and values of enumerations.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE, _SCORE, _TYPE = 1, 2, 3
_USER_DEFINED = 4
_MODEL_TYPE, _UNIGRAM, _BYTE_FALLBACK = 3, 1, 35
_CHARSMAP = 2


class SentencePieceModel(NamedTuple):
    """What of a SentencePiece model a tokenizer is made of."""

    pieces: list[tuple[str, float]]  #: with their log-probabilities
    user_defined: list[int]  #: ids of pieces that are found before all others
    charsmap: bytes  #: the normaliser's compiled table, b"" for none
    unigram: bool
    byte_fallback: bool


def read_model(content: bytes) -> SentencePieceModel:
    """Reads a model that SentencePiece has been able to load."""
    pieces: list[tuple[str, float]] = []
    user_defined: list[int] = []
    charsmap = b""
    unigram, byte_fallback = True, False  # the format's defaults
    for field, value in _fields(content):
        if field == _PIECES:
            text, score = "", 0.0
            for name, part in _fields(value):
                if name == _PIECE:
                    text = part.decode()
                elif name == _SCORE:
                    (score,) = struct.unpack("<f", part)
                elif name == _TYPE and part == _USER_DEFINED:
                    user_defined.append(len(pieces))
            pieces.append((text, score))
        elif field == _TRAINER:
            trainer = dict(_fields(value))
            unigram = trainer.get(_MODEL_TYPE, _UNIGRAM) == _UNIGRAM
            byte_fallback = bool(trainer.get(_BYTE_FALLBACK, False))
        elif field == _NORMALIZER:
            charsmap = dict(_fields(value)).get(_CHARSMAP, b"")
    return SentencePieceModel(pieces, user_defined, charsmap, unigram, byte_fallback)


def _fields(content: bytes) -> Iterator[tuple[int, Any]]:
    """Fields of a protobuf message: numbers as int, everything else as bytes."""
    place = 0
    while place < len(content):
        key, place = _varint(content, place)
        kind = key & 7
        if kind == 0:
            number, place = _varint(content, place)
            yield key >> 3, number
            continue
        if kind == 2:
            size, place = _varint(content, place)
        else:
            size = {1: 8, 5: 4}[kind]
        yield key >> 3, content[place : place + size]
        place += size


def _varint(content: bytes, place: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = content[place]
        number |= (byte & 0x7F) << shift
        place += 1
        shift += 7
        if byte < 0x80:
            return number, place


def write(folder: str | os.PathLike[str], vocabulary: Vocabulary) -> None:
    """Writes a T5 tokenizer into a folder: ``tokenizer.json``, its settings and the model itself.

    Ids are those of ``vocabulary``. Raises VocabularyError for a model that is not of the unigram
    kind.
    """
    root = pathlib.Path(folder)
    model = read_model(read_small_file(vocabulary.path))
    if not model.unigram:
        raise VocabularyError(
            f"{vocabulary.path}: T5's tokenizer is made from a unigram model, this one is of "
            "another kind (c4 vocab trains unigram models)"
        )
    shutil.copyfile(vocabulary.path, root / SPIECE)
    sentinels = [f"<extra_id_{index}>" for index in range(vocabulary.extra_ids)]
    own = len(model.pieces) > vocabulary.pieces
    names = {
        "eos_token": model.pieces[vocabulary.eos_id][0],
        "unk_token": model.pieces[vocabulary.unk_id][0],
        "pad_token": model.pieces[vocabulary.pad_id][0],
    }
    _write_json(root / "tokenizer.json", _tokenizer(model, vocabulary, sentinels))
    _write_json(
        root / "tokenizer_config.json",
        {
            "tokenizer_class": "T5Tokenizer",
            "extra_ids": 0 if own else vocabulary.extra_ids,
            **names,
            "additional_special_tokens": sentinels,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 512,
        },
    )
    _write_json(root / "special_tokens_map.json", {**names, "additional_special_tokens": sentinels})


def _tokenizer(
    model: SentencePieceModel, vocabulary: Vocabulary, sentinels: list[str]
) -> dict[str, Any]:
    pieces = [list(piece) for piece in model.pieces[: vocabulary.pieces]]
    pieces += [[name, 0.0] for name in reversed(sentinels)]
    eos = model.pieces[vocabulary.eos_id][0]
    special = [vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id]
    special += range(vocabulary.pieces, vocabulary.size)
    added = sorted({*special, *model.user_defined})
    # SentencePiece puts a blank before the text and folds others: WhitespaceSplit takes all of
    # them away, Metaspace puts one before each word.
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    end = {"SpecialToken": {"id": eos, "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": index,
                "content": pieces[index][0],
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": index in special,
            }
            for index in added
        ],
        "normalizer": {
            "type": "Precompiled",
            "precompiled_charsmap": base64.b64encode(model.charsmap).decode(),
        }
        if model.charsmap
        else None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [first, end],
            "pair": [first, end, second, end],
            "special_tokens": {eos: {"id": eos, "ids": [vocabulary.eos_id], "tokens": [eos]}},
        },
        "decoder": metaspace,
        "model": {
            "type": "Unigram",
            "unk_id": vocabulary.unk_id,
            "vocab": pieces,
            "byte_fallback": model.byte_fallback,
        },
    }


def _write_json(path: pathlib.Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
