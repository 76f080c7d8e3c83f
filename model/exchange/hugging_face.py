"""T5 in Hugging Face's layout, in and out: config.json, safetensors and the tokenizer's files.

No PyTorch: names, shapes and transposes are data (:func:`tensor_places`), and tensors pass one at
a time, so that importing or exporting needs memory for the parameters once and little more.
"""

import dataclasses
import functools
import json
import os
import pathlib
import re
import shutil
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from model.data.vocabulary import Vocabulary
from model.exchange import safetensors_files, tokenizer_files
from model.exchange.safetensors_files import StoredTensor
from model.small_files import read_small_file
from model.t5.config import ModelConfig

__all__ = [
    "CONFIG",
    "ExchangeError",
    "ImportedModel",
    "TensorPlace",
    "config_from_hf",
    "config_to_hf",
    "export_model",
    "import_model",
    "tensor_places",
]

CONFIG = "config.json"

Params = dict[str, Any]


class ExchangeError(ValueError):
    """A model that the other side has no place for."""


# Names, as in the published checkpoints.

#: Of each stack: our sublayer, its number in a block, its name there.
_SUBLAYERS: Mapping[str, tuple[tuple[str, int, str], ...]] = MappingProxyType(
    {
        "encoder": (("self_attention", 0, "SelfAttention"), ("feed_forward", 1, "DenseReluDense")),
        "decoder": (
            ("self_attention", 0, "SelfAttention"),
            ("cross_attention", 1, "EncDecAttention"),
            ("feed_forward", 2, "DenseReluDense"),
        ),
    }
)
_ATTENTION = {"query": "q", "key": "k", "value": "v", "output": "o"}
#: Of each sublayer: our kernel, its name there. Theirs are [outputs, inputs].
_KERNELS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "self_attention": _ATTENTION,
        "cross_attention": _ATTENTION,
        "feed_forward": {"wi": "wi", "wi_0": "wi_0", "wi_1": "wi_1", "wo": "wo"},
    }
)
_EMBEDDING = "shared.weight"
_LOGITS = "lm_head.weight"
#: Files may repeat the embedding under these names, or have it under one of them alone.
_EMBEDDING_ALIASES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
#: Trained by nobody: the first released decoders had this table, and no step that read it.
_UNUSED = re.compile(
    r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight"
)


class TensorPlace(NamedTuple):
    """One tensor of theirs and where it is in ours."""

    name: str  #: in their files
    path: tuple[str, ...]  #: of keys in our tree of parameters
    layer: int | None  #: index into the first axis of our array, which holds all layers
    transposed: bool


def tensor_places(config: ModelConfig) -> Iterator[TensorPlace]:
    """Each tensor of a published model and its place in the tree of ``T5(config).init``.

    >>> from model.t5.config import model_config
    >>> list(tensor_places(model_config("small")))[1].name
    'encoder.block.0.layer.0.SelfAttention.q.weight'
    """
    yield TensorPlace(_EMBEDDING, ("embedding",), None, False)
    for stack, layers in (("encoder", config.num_layers), ("decoder", config.decoder_layers)):
        for layer in range(layers):
            for sublayer, number, theirs in _SUBLAYERS[stack]:
                prefix = f"{stack}.block.{layer}.layer.{number}"
                path = (stack, "layers", sublayer)
                for kernel, name in _KERNELS[sublayer].items():
                    if sublayer != "feed_forward" or kernel in _feed_forward_kernels(config):
                        yield TensorPlace(
                            f"{prefix}.{theirs}.{name}.weight", (*path, kernel), layer, True
                        )
                yield TensorPlace(f"{prefix}.layer_norm.weight", (*path, "norm"), layer, False)
        # One table a stack, kept with its first block.
        bias = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        yield TensorPlace(bias, (stack, "relative_bias"), None, True)
        yield TensorPlace(f"{stack}.final_layer_norm.weight", (stack, "final_norm"), None, False)
    if not config.tied_logits:
        yield TensorPlace(_LOGITS, ("logits",), None, True)


def _feed_forward_kernels(config: ModelConfig) -> tuple[str, ...]:
    return ("wi_0", "wi_1", "wo") if config.feed_forward == "gated-gelu" else ("wi", "wo")


# config.json

#: Our field to theirs, with the value that a file means by leaving it out (T5Config there).
_FIELDS: Mapping[str, tuple[str, Any]] = MappingProxyType(
    {
        "vocab_size": ("vocab_size", 32128),
        "d_model": ("d_model", 512),
        "d_kv": ("d_kv", 64),
        "d_ff": ("d_ff", 2048),
        "num_layers": ("num_layers", 6),
        "num_heads": ("num_heads", 8),
        "relative_buckets": ("relative_attention_num_buckets", 32),
        "relative_max_distance": ("relative_attention_max_distance", 128),
        "dropout_rate": ("dropout_rate", 0.1),
        "norm_epsilon": ("layer_norm_epsilon", 1e-6),
    }
)
#: What a file means by saying nothing of tied logits, by the kind of model it says it is.
_TIED_UNSAID = {"t5": True, "mt5": False}
_ARCHITECTURES = frozenset(
    {
        "T5ForConditionalGeneration",
        "T5WithLMHeadModel",  # its name until 2020
        "T5Model",
        "MT5ForConditionalGeneration",
        "MT5Model",
    }
)
#: "gelu" is the tanh form in all of these: what "gated-gelu" has always meant there.
_FEED_FORWARD: Mapping[str, Literal["relu", "gated-gelu"]] = MappingProxyType(
    {"relu": "relu", "gated-gelu": "gated-gelu", "gated-gelu_new": "gated-gelu"}
)


def config_from_hf(raw: Mapping[str, Any]) -> ModelConfig:
    """Our configuration of a model from its raw ``config.json``.

    Tied logits are scaled and untied ones are not. Transformers 5 writes ``tie_word_embeddings``
    as true whatever the model, and beside it ``scale_decoder_outputs``, which then decides.
    Raises ExchangeError, or ValueError from ModelConfig, for what is no T5 of the paper's layout.

    >>> config_from_hf({"model_type": "t5", "tie_word_embeddings": False}).tied_logits
    False
    """
    kind = raw.get("model_type", "t5")
    architectures = raw.get("architectures") or ["T5ForConditionalGeneration"]
    if not isinstance(kind, str) or kind not in _TIED_UNSAID:
        raise ExchangeError(
            f"model_type must be {' or '.join(_TIED_UNSAID)}, got {kind!r}, whose layout differs"
        )
    if not isinstance(architectures, list) or not any(
        isinstance(name, str) and name in _ARCHITECTURES for name in architectures
    ):
        raise ExchangeError(
            f"architectures must name one of {', '.join(sorted(_ARCHITECTURES))}; got "
            f"{architectures}, which lacks a part of the model or has more"
        )
    if raw.get("is_encoder_decoder", True) is not True:
        raise ExchangeError(
            f"is_encoder_decoder must be true, got {raw['is_encoder_decoder']!r}: it is one stack"
        )
    if raw.get("quantization_config"):
        raise ExchangeError(
            "quantization_config says that the weights are quantised: give the model before that"
        )
    projection = raw.get("feed_forward_proj", "relu")
    if not isinstance(projection, str) or projection not in _FEED_FORWARD:
        raise ExchangeError(
            f"feed_forward_proj must be one of {', '.join(_FEED_FORWARD)}; got {projection!r}"
        )
    for name in ("tie_word_embeddings", "scale_decoder_outputs"):
        if raw.get(name) is not None and not isinstance(raw[name], bool):
            raise ExchangeError(f"{name} must be true or false, got {raw[name]!r}")
    scaled = raw.get("tie_word_embeddings", _TIED_UNSAID[kind]) is not False
    scaled = raw.get("scale_decoder_outputs", scaled) is not False
    fields: dict[str, Any] = {
        ours: default if raw.get(theirs) is None else raw[theirs]
        for ours, (theirs, default) in _FIELDS.items()
    }
    layers = raw.get("num_decoder_layers")
    if layers is not None and layers != fields["num_layers"]:
        fields["num_decoder_layers"] = layers
    try:
        return ModelConfig(**fields, feed_forward=_FEED_FORWARD[projection], tied_logits=scaled)
    except TypeError as error:  # a string where a number belongs
        raise ExchangeError(f"a value of the wrong type: {error}") from None


def config_to_hf(
    config: ModelConfig, dtype: Literal["float32", "bfloat16"] = "float32"
) -> dict[str, Any]:
    """The ``config.json`` of a model. Raises ExchangeError for one that theirs cannot be."""
    if config.architecture != "encoder-decoder":
        raise ExchangeError(
            f"a {config.architecture} cannot be exported: T5ForConditionalGeneration is an encoder "
            "and a decoder with parameters of their own"
        )
    gated = config.feed_forward == "gated-gelu"
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "is_encoder_decoder": True,
        **{theirs: getattr(config, ours) for ours, (theirs, _) in _FIELDS.items()},
        "num_decoder_layers": config.decoder_layers,
        "feed_forward_proj": config.feed_forward,
        "dense_act_fn": "gelu_new" if gated else "relu",
        "is_gated_act": gated,
        "tie_word_embeddings": config.tied_logits,
        "initializer_factor": 1.0,
        "classifier_dropout": 0.0,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
        "use_cache": True,
        "dtype": dtype,
    }


# In


@dataclasses.dataclass(frozen=True)
class ImportedModel:
    """What :func:`import_model` gives."""

    config: ModelConfig
    params: Params  #: nested, of float32 NumPy arrays
    vocabulary: pathlib.Path | None  #: the folder's SentencePiece model, if it has one


def import_model(folder: str | os.PathLike[str]) -> ImportedModel:
    """Reads a folder of ``config.json`` and safetensors.

    bfloat16 and float16 become float32, exactly. Memory is that of the parameters, once: files
    are mapped and their tensors copied one by one.
    Raises ValueError, with one line, for what is missing, unknown, damaged or no T5.
    """
    root = pathlib.Path(folder)
    if not root.is_dir():
        raise ExchangeError(f"{root}: no such folder")
    config, raw = _read_config(root)
    tensors = safetensors_files.read(root)
    if not config.tied_logits and _LOGITS not in tensors and raw.get("tie_word_embeddings"):
        # Transformers 5 leaves out logits equal to the embedding, however they are scaled.
        stored = tensors.get(_EMBEDDING)
        if stored is not None:
            tensors[_LOGITS] = stored
    _settle_embedding(root, config, tensors)
    if config.num_layers + config.decoder_layers > len(tensors):  # before all their names are made
        raise ExchangeError(
            f"{root}: {CONFIG} says {config.num_layers} + {config.decoder_layers} layers, and its "
            f"files hold {len(tensors)} tensors"
        )
    places = list(tensor_places(config))
    _check_names(root, [place.name for place in places], tensors)
    shapes = _param_shapes(config)
    params: Params = {}
    for place in places:
        whole, shape = _shapes(shapes, place)
        stored = tensors[place.name]
        theirs = shape[::-1] if place.transposed else shape
        if stored.shape != theirs:
            raise ExchangeError(
                f"{stored.path}: {place.name} has the shape {list(stored.shape)}, {CONFIG} makes "
                f"it {list(theirs)}"
            )
        target = _leaf(params, place.path, whole)
        source = stored.array()
        target[... if place.layer is None else place.layer] = (
            source.T if place.transposed else source
        )
    vocabulary = root / tokenizer_files.SPIECE
    return ImportedModel(config, params, vocabulary if vocabulary.exists() else None)


def _read_config(root: pathlib.Path) -> tuple[ModelConfig, dict[str, Any]]:
    path = root / CONFIG
    if not path.exists():
        raise ExchangeError(f"{root} has no {CONFIG}: it is no model in Hugging Face's layout")
    content = read_small_file(path)
    try:
        raw = json.loads(content)
    except (ValueError, RecursionError):
        raw = None
    if not isinstance(raw, dict):
        raise ExchangeError(f"{path}: damaged: no JSON object")
    try:
        return config_from_hf(raw), raw
    except ValueError as error:
        raise ExchangeError(f"{path}: {error}") from None


def _settle_embedding(
    root: pathlib.Path, config: ModelConfig, tensors: dict[str, StoredTensor]
) -> None:
    """Leaves the embedding under one name; repeated, it must be the same everywhere."""
    aliases = [*_EMBEDDING_ALIASES, _LOGITS] if config.tied_logits else list(_EMBEDDING_ALIASES)
    for alias in aliases:
        repeated = tensors.pop(alias, None)
        if repeated is None:
            continue
        first = tensors.setdefault(_EMBEDDING, repeated)
        if first is not repeated and not _equal(first, repeated):
            ways = {
                _LOGITS: f'; if it is to be read, {CONFIG} must say "tie_word_embeddings": false'
            }
            raise ExchangeError(
                f"{root}: {alias} differs from {_EMBEDDING}, and {CONFIG} makes them one"
                f"{ways.get(alias, '')}"
            )


def _equal(first: StoredTensor, second: StoredTensor) -> bool:
    if first.shape != second.shape:
        return False
    one, other = np.atleast_1d(first.array()), np.atleast_1d(second.array())
    return all(
        np.array_equal(one[start : start + 4096], other[start : start + 4096])
        for start in range(0, len(one), 4096)
    )


def _check_names(
    root: pathlib.Path, wanted: list[str], tensors: Mapping[str, StoredTensor]
) -> None:
    missing = [name for name in wanted if name not in tensors]
    if missing:
        raise ExchangeError(
            f"{root}: its files lack {_some(missing)}, which {CONFIG} says the model has"
        )
    known = set(wanted)
    unknown = [name for name in tensors if name not in known and not _UNUSED.fullmatch(name)]
    if unknown:
        raise ExchangeError(
            f"{root}: its files hold {_some(unknown)}, which the model of {CONFIG} has no place for"
        )


def _some(names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:3])
    return f"{shown} and {len(names) - 3} more tensors" if len(names) > 3 else shown


@functools.lru_cache(maxsize=8)  # tracing a model takes a good part of a second
def _param_shapes(config: ModelConfig) -> Params:
    from model.t5.network import T5

    return T5(config).param_shapes()


def _shapes(shapes: Params, place: TensorPlace) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of the whole array that a tensor goes into, and of its own part of that, as we keep it."""
    leaf: Any = shapes
    for key in place.path:
        leaf = leaf[key]
    whole = tuple(leaf.shape)
    return whole, whole if place.layer is None else whole[1:]


def _leaf(params: Params, path: tuple[str, ...], shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    for key in path[:-1]:
        params = params.setdefault(key, {})
    if path[-1] not in params:
        params[path[-1]] = np.empty(shape, np.float32)
    array: npt.NDArray[np.float32] = params[path[-1]]
    return array


# Out


def export_model(
    folder: str | os.PathLike[str],
    config: ModelConfig,
    params: Mapping[str, Any],
    vocabulary: str | os.PathLike[str] | None = None,
    *,
    dtype: Literal["float32", "bfloat16"] = "float32",
    max_file_bytes: int = 5_000_000_000,
) -> None:
    """Writes a folder that Transformers loads, whole or not at all.

    Args:
      folder: which does not exist yet; its parents are made.
      config: an encoder-decoder; other architectures have no place there (ExchangeError).
      params: as ``T5.init`` makes them, NumPy or JAX arrays; read one tensor at a time.
      vocabulary: a SentencePiece model, from which the tokenizer's files are made.
      dtype: of the tensors written; bfloat16 halves the files and rounds.
      max_file_bytes: of tensors in one file; larger models go into several.

    Raises ValueError where the folder exists, the parameters are not the configuration's or the
    vocabulary has more ids than the embedding has rows.
    """
    final = pathlib.Path(folder).absolute()
    content = config_to_hf(config, dtype)
    if final.exists():
        raise ExchangeError(f"{final} exists already: give another folder or delete it")
    places = {place.name: place for place in tensor_places(config)}
    expected = _param_shapes(config)
    arrays: dict[tuple[str, ...], Any] = {}
    shapes = {}
    for name, place in places.items():
        whole, shape = _shapes(expected, place)
        arrays[place.path] = _checked_leaf(params, place.path, whole)
        shapes[name] = shape[::-1] if place.transposed else shape
    if strangers := sorted("/".join(path) for path in _paths(params) if path not in arrays):
        raise ExchangeError(
            f"the parameters hold {_some(strangers)}, which {content['architectures'][0]} has no "
            "place for"
        )
    opened = None if vocabulary is None else Vocabulary(vocabulary)
    if opened is not None and opened.size > config.vocab_size:
        raise ExchangeError(
            f"{opened.path}: {opened.size} ids, the model has {config.vocab_size}: it is another "
            "model's vocabulary"
        )

    def tensor(name: str) -> npt.NDArray[Any]:
        place = places[name]
        array = arrays[place.path]
        array = np.asarray(array if place.layer is None else array[place.layer])
        return array.T if place.transposed else array

    final.parent.mkdir(parents=True, exist_ok=True)
    scratch = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    try:
        scratch.mkdir()
        _write_json(scratch / CONFIG, content)
        _write_json(
            scratch / "generation_config.json",
            {name: content[name] for name in _GENERATION},
        )
        if opened is not None:
            tokenizer_files.write(scratch, opened)
        safetensors_files.write(
            scratch, shapes, tensor, dtype=dtype, max_file_bytes=max_file_bytes
        )  # fmt: skip
        scratch.rename(final)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


_GENERATION = ("decoder_start_token_id", "eos_token_id", "pad_token_id")


def _checked_leaf(params: Mapping[str, Any], path: tuple[str, ...], shape: tuple[int, ...]) -> Any:
    leaf: Any = params
    for key in path:
        if not isinstance(leaf, Mapping) or key not in leaf:
            raise ExchangeError(f"the parameters lack {'/'.join(path)}, which the model has")
        leaf = leaf[key]
    if tuple(leaf.shape) != shape:
        raise ExchangeError(
            f"{'/'.join(path)} has the shape {list(leaf.shape)}, the model's is {list(shape)}"
        )
    return leaf


def _paths(tree: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if not isinstance(tree, Mapping):
        yield above
        return
    for key, value in tree.items():
        yield from _paths(value, (*above, key))


def _write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
