"""Read and write the tokenizer's files of a model's folder, without the tokenizers library.

``tokenizer.json`` can be read without SentencePiece and protobuf: it has the pieces with their
scores, the table of the normaliser, and the sentinels as special tokens. Transformers 5 saves only
this file, so it is read as well: pieces, scores and table are those of a SentencePiece model.
"""

import base64
import dataclasses
import json
import os
import pathlib
import re
import struct
from collections.abc import Iterable, Mapping
from typing import Any

from model.data.sentencepiece_model import (
    CONTROL,
    AddedToken,
    Notes,
    SentencePieceModel,
    folding_charsmap,
    make_model,
    normalizer_of,
    read_model,
    with_notes,
    without_notes,
)
from model.data.vocabulary import EXTRA_IDS, Vocabulary, VocabularyError
from model.small_files import read_json_object, read_small_file, write_json

SPIECE = "spiece.model"
_WHOLE, _SETTINGS, _SPECIAL = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
_ADDED = "added_tokens.json"
_SENTINEL = re.compile(r"<extra_id_(0|[1-9]\d*)>")
_CLASSES = frozenset(
    {
        "T5Tokenizer", "T5TokenizerFast", "MT5Tokenizer", "MT5TokenizerFast",
        "PreTrainedTokenizerFast", "TokenizersBackend",
    }
)  # fmt: skip
_NAMED = {"pad_token": 0, "eos_token": 1, "unk_token": 2}


# In


@dataclasses.dataclass(frozen=True)
class _Pieces:
    """A model's pieces, and the tokens that a folder has beside them."""

    content: bytes  #: of a SentencePiece model
    model: SentencePieceModel
    beside: tuple[AddedToken, ...]  #: sentinels and added tokens, pieces among them too


def require_vocabulary(folder: str | os.PathLike[str]) -> bytes:
    """Return what `read_vocabulary` does. Raises ValueError for a folder without a tokenizer."""
    content = read_vocabulary(folder)
    if content is None:
        raise ValueError(f"{folder} has no tokenizer: add its {SPIECE} or {_WHOLE}")
    return content


def read_vocabulary(folder: str | os.PathLike[str]) -> bytes | None:
    """Return a folder's vocabulary as a SentencePiece model with notes, or None if it has none.

    Number and ids of sentinels and added tokens are those that Transformers gives them: of
    ``tokenizer.json`` where there is one, else of ``spiece.model`` with what
    ``tokenizer_config.json`` and ``added_tokens.json`` add.

    Raises VocabularyError, naming file and property, for a tokenizer that gives some text other
    ids than :class:`model.data.vocabulary.Vocabulary` could.
    """
    root = pathlib.Path(folder)
    if not (root / SPIECE).exists() and not (root / _WHOLE).exists():
        return None
    try:
        settings, special, added = (
            read_json_object(root / name) if (root / name).exists() else {}
            for name in (_SETTINGS, _SPECIAL, _ADDED)
        )
        kind = settings.get("tokenizer_class")
        if kind is not None and kind not in _CLASSES:
            raise VocabularyError(
                f"{root / _SETTINGS}: tokenizer_class is {kind!r}, not T5Tokenizer"
            )
        spiece = read_small_file(root / SPIECE) if (root / SPIECE).exists() else None
        if (root / _WHOLE).exists():
            found = _whole(root / _WHOLE, read_json_object(root / _WHOLE), spiece)
        else:
            assert spiece is not None
            found = _from_spiece(root, spiece, settings, special, added)
        _check_names(root, found.model, {**settings, **special})
        return with_notes(found.content, _notes(root, found))
    except (KeyError, TypeError, AttributeError, IndexError, struct.error) as error:
        raise VocabularyError(f"{root}: its tokenizer's files are damaged: {error!r}") from None


def _whole(path: pathlib.Path, raw: Mapping[str, Any], spiece: bytes | None) -> _Pieces:
    """Read a ``tokenizer.json``; beside a SentencePiece model, it must be of the same pieces."""
    model, added = raw["model"], raw.get("added_tokens") or []
    for name, value, needed in (
        ("model.type", model.get("type"), "Unigram"),
        ("model.byte_fallback", model.get("byte_fallback") or False, False),
        ("model.unk_id", model.get("unk_id"), 2),
    ):
        if value != needed:
            raise VocabularyError(f"{path}: {name} is {value!r}, and T5's is {needed!r}")
    _check_pre_tokenizer(path, raw.get("pre_tokenizer"))
    charsmap = _charsmap(path, raw.get("normalizer"))
    vocab = [(str(text), float(score)) for text, score in model["vocab"]]
    tokens = {int(token["id"]): _token(path, token["id"], token) for token in added}
    if spiece is None:
        count = next(
            (at for at, (text, _) in enumerate(vocab) if _SENTINEL.fullmatch(text)), len(vocab)
        )
        # Added tokens may have ids of their own in the vocabulary's list, above the pieces.
        while count > 3 and count - 1 in tokens and tokens[count - 1].content != "</s>":
            count -= 1
        pieces = vocab[:count]
        if len({text for text, _ in pieces}) < len(pieces) or not all(text for text, _ in pieces):
            raise VocabularyError(f"{path}: model.vocab has a piece twice, or an empty one")
        marks = [index for index, token in tokens.items() if token.special and 2 < index < count]
        content = make_model(pieces, marks, charsmap or folding_charsmap())
    else:
        content = without_notes(spiece)
        own = read_model(content)
        count = len(own.pieces)
        names, others = ([_spelt(text) for text, _ in each] for each in (own.pieces, vocab[:count]))
        if names != others or (charsmap or b"") != own.charsmap:
            raise VocabularyError(
                f"{path} and {SPIECE} beside it are of different vocabularies: delete the one that "
                "is not the model's"
            )
    for index, (text, _) in enumerate(vocab[count:], count):
        tokens.setdefault(index, AddedToken(text, index, special=True))
    return _Pieces(content, read_model(content), tuple(tokens.values()))


def _check_pre_tokenizer(path: pathlib.Path, raw: Any) -> None:
    parts = raw["pretokenizers"] if raw and raw["type"] == "Sequence" else [raw]
    kinds = [part["type"] if part else None for part in parts]
    if kinds not in (["WhitespaceSplit", "Metaspace"], ["Metaspace"]):
        raise VocabularyError(
            f"{path}: pre_tokenizer is {', '.join(map(str, kinds))}, and T5's is WhitespaceSplit, "
            "Metaspace"
        )
    metaspace = parts[-1]
    scheme = metaspace.get("prepend_scheme")
    always = scheme == "always" if scheme else metaspace.get("add_prefix_space") is True
    if metaspace["replacement"] != "▁" or not always or metaspace.get("split") is False:
        raise VocabularyError(
            f"{path}: pre_tokenizer Metaspace is {json.dumps(metaspace, ensure_ascii=False)}, and "
            "T5's puts ▁ before each word"
        )


def _charsmap(path: pathlib.Path, raw: Any) -> bytes | None:
    """Return the table of a normalizer, None for one that changes nothing."""
    parts = raw["normalizers"] if raw and raw["type"] == "Sequence" else [raw] if raw else []
    # What SentencePiece does to blanks, as converters of its models spell it.
    blanks = ({"Regex": " {2,}"}, ("▁", " "))
    rest = [
        part
        for part in parts
        if not (part["type"] == "Strip" and part.get("strip_right"))
        and not (
            part["type"] == "Replace"
            and part["pattern"] == blanks[0]
            and part["content"] in blanks[1]
        )
    ]
    if not rest:
        return None
    if len(rest) > 1 or rest[0]["type"] != "Precompiled":
        raise VocabularyError(
            f"{path}: normalizer is {', '.join(str(part['type']) for part in rest)}, and T5's is "
            "Precompiled: the table of a SentencePiece model"
        )
    return base64.b64decode(rest[0]["precompiled_charsmap"] or "") or None


def _spelt(piece: str) -> str:
    """Return a sentinel without the mark of a word, which some models give it; else the piece."""
    return piece.removeprefix("▁") if "<extra_id_" in piece else piece


def _own_sentinels(model: SentencePieceModel) -> set[int]:
    return {at for at, (text, _) in enumerate(model.pieces) if _SENTINEL.fullmatch(_spelt(text))}


def _token(path: pathlib.Path, index: Any, flags: Mapping[str, Any]) -> AddedToken:
    names = ("special", "normalized", "lstrip", "rstrip")
    switches = {name: bool(flags.get(name)) for name in names}
    token = AddedToken(content=str(flags["content"]), id=int(index), **switches)
    if flags.get("single_word"):
        raise VocabularyError(f"{path}: added token {token.content!r} is single_word")
    if not token.content:
        raise VocabularyError(f"{path}: added token {token.id} has no content")
    return token


def _from_spiece(
    root: pathlib.Path,
    spiece: bytes,
    settings: Mapping[str, Any],
    special: Mapping[str, Any],
    added: Mapping[str, Any],
) -> _Pieces:
    """Give tokens beside a SentencePiece model the ids that T5Tokenizer gives them."""
    content = without_notes(spiece)
    model = read_model(content)
    own = len(_own_sentinels(model))
    listed = [
        text
        for name in ("additional_special_tokens", "extra_special_tokens")
        for text in map(_spelling, _several({**special, **settings}.get(name)))
    ]
    names = [text for text in listed if _SENTINEL.fullmatch(text)]
    count = settings.get("extra_ids")
    if count is None:
        count = 0 if own else len(set(names)) or EXTRA_IDS
    if type(count) is not int or count < 0:
        raise VocabularyError(f"{root / _SETTINGS}: extra_ids must be a number, got {count!r}")
    if own and count:
        raise VocabularyError(
            f"{root / _SETTINGS}: extra_ids is {count}, and {SPIECE} has {own} sentinels of its own"
        )
    if names and count and len(set(names)) != count:
        raise VocabularyError(
            f"{root / _SETTINGS}: extra_ids is {count}, and additional_special_tokens lists "
            f"{len(set(names))} sentinels"
        )
    first = len(model.pieces)
    tokens = {
        first + count - 1 - k: AddedToken(f"<extra_id_{k}>", first + count - 1 - k, special=True)
        for k in range(count)
    }
    for index, flags in (settings.get("added_tokens_decoder") or {}).items():
        _settle(root / _SETTINGS, tokens, _token(root / _SETTINGS, index, flags))
    for text, index in added.items():
        if text not in {token.content for token in tokens.values()}:
            _settle(root / _ADDED, tokens, AddedToken(text, int(index), special=text in listed))
    spelt = {text for text, _ in model.pieces} | {token.content for token in tokens.values()}
    spelt |= set(map(_spelt, spelt))
    for text in dict.fromkeys(listed):
        if text not in spelt:  # T5Tokenizer gives it the next id
            index = max([first - 1, *tokens]) + 1
            tokens[index] = AddedToken(text, index, special=True)
    return _Pieces(content, model, tuple(tokens.values()))


def _settle(path: pathlib.Path, tokens: dict[int, AddedToken], token: AddedToken) -> None:
    there = tokens.get(token.id)
    if there is not None and there.content != token.content:
        raise VocabularyError(
            f"{path}: id {token.id} is {token.content!r}, and {there.content!r} by extra_ids"
        )
    tokens[token.id] = token


def _several(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):  # name to token, as Transformers 5 may write
        return list(value.values())
    return value or ()


def _spelling(token: Any) -> str:
    return str(token["content"] if isinstance(token, Mapping) else token)


def _check_names(
    root: pathlib.Path, model: SentencePieceModel, settings: Mapping[str, Any]
) -> None:
    for name, index in _NAMED.items():
        if settings.get(name) is None:
            continue
        spelt = _spelling(settings[name])
        if spelt != model.pieces[index][0]:
            raise VocabularyError(
                f"{root}: {name} is {spelt!r}, and piece {index} is {model.pieces[index][0]!r}"
            )


def _notes(root: pathlib.Path, found: _Pieces) -> Notes:
    """Return the notes about sentinels and added tokens.

    Raises VocabularyError if a sentinel or an added token has an unsupported id.
    """
    first, own = len(found.model.pieces), _own_sentinels(found.model)
    sentinels: dict[int, int] = {}
    others: list[AddedToken] = []
    for token in sorted(found.beside, key=lambda token: token.id):
        match = _SENTINEL.fullmatch(token.content)
        if token.id in own or token.id in _NAMED.values():
            continue
        if match is not None:
            sentinels[int(match[1])] = token.id
        elif token.id >= first or not token.special:
            others.append(token)
    count = len(sentinels)
    for number, index in sorted(sentinels.items()):
        if number >= count or index != first + count - 1 - number or own:
            raise VocabularyError(
                f"{root}: <extra_id_{number}> has the id {index}; {count} sentinels behind {first} "
                "pieces must be numbered downwards, with <extra_id_0> last"
            )
    beyond = [token for token in others if token.id >= first]
    for index, token in enumerate(beyond, first + count):
        if token.id != index:
            raise VocabularyError(
                f"{root}: added token {token.content!r} has the id {token.id}, and the first id "
                f"that is free is {index}"
            )
    normalize = normalizer_of(found.content).normalize
    for token in others:
        if token.normalized and not normalize(token.content).strip():
            raise VocabularyError(
                f"{root}: added token {token.content!r} is normalized, to nothing but blanks"
            )
    usual = bool(own) or count == EXTRA_IDS
    return Notes(None if usual else count, tuple(others))


# Out


def write(folder: str | os.PathLike[str], vocabulary: Vocabulary) -> None:
    """Write a T5 tokenizer into a folder: ``tokenizer.json``, its settings and the model itself.

    Ids are those of ``vocabulary``. Raises VocabularyError for a model that T5's tokenizer would
    give other ids.
    """
    root = pathlib.Path(folder)
    if vocabulary.obstacle is not None:
        raise VocabularyError(
            f"{vocabulary.path}: {vocabulary.obstacle}, and T5's tokenizer would give other ids"
        )
    model = read_model(vocabulary.content)
    (root / SPIECE).write_bytes(without_notes(vocabulary.content))
    sentinels = [f"<extra_id_{index}>" for index in range(vocabulary.extra_ids)]
    own = len(model.pieces) > vocabulary.pieces
    names = {
        "eos_token": model.pieces[vocabulary.eos_id][0],
        "unk_token": model.pieces[vocabulary.unk_id][0],
        "pad_token": model.pieces[vocabulary.pad_id][0],
    }
    marks = [*sentinels, *(token.content for token in vocabulary.added if token.special)]
    whole = _tokenizer(model, vocabulary, sentinels)
    write_json(root / _WHOLE, whole)
    # Added tokens as Transformers 4 reads them.
    decoder = {
        str(token["id"]): {name: value for name, value in token.items() if name != "id"}
        for token in whole["added_tokens"]
    }
    write_json(
        root / _SETTINGS,
        {
            "tokenizer_class": "T5Tokenizer",
            "extra_ids": 0 if own else vocabulary.extra_ids,
            **names,
            "additional_special_tokens": marks,
            **({"added_tokens_decoder": decoder} if vocabulary.added else {}),
            "clean_up_tokenization_spaces": False,
            "model_max_length": 512,
        },
    )
    write_json(root / _SPECIAL, {**names, "additional_special_tokens": marks})
    if above := {t.content: t.id for t in vocabulary.added if t.id >= vocabulary.size}:
        write_json(root / _ADDED, above)


def _tokenizer(
    model: SentencePieceModel, vocabulary: Vocabulary, sentinels: list[str]
) -> dict[str, Any]:
    pieces: list[list[Any]] = [list(piece) for piece in model.pieces[: vocabulary.pieces]]
    pieces += [[name, 0.0] for name in reversed(sentinels)]
    eos = model.pieces[vocabulary.eos_id][0]
    special = {vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id}
    special |= {index for index in model.of_type(CONTROL) if index < vocabulary.pieces}
    special |= set(range(vocabulary.pieces, vocabulary.size))
    added = {index: AddedToken(pieces[index][0], index, special=True) for index in special}
    added |= {token.id: token for token in vocabulary.added}
    # SentencePiece adds a blank before the text and collapses others: WhitespaceSplit removes all
    # of them, and Metaspace adds one before each word.
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    end = {"SpecialToken": {"id": eos, "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": token.id,
                "content": token.content,
                "single_word": False,
                "lstrip": token.lstrip,
                "rstrip": token.rstrip,
                "normalized": token.normalized,
                "special": token.special,
            }
            for _, token in sorted(added.items())
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
