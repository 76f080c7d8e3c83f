"""T5 in Hugging Face's layout, in and out: config.json, safetensors and the tokenizer's files.

No PyTorch: names, shapes and transposes are data (:func:`tensor_places`), and tensors pass one at
a time, so that importing or exporting needs memory for the parameters once and little more.
"""

import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from flax.traverse_util import flatten_dict, unflatten_dict

from model.data.vocabulary import Vocabulary
from model.exchange import safetensors_files, tokenizer_files
from model.exchange.safetensors_files import StoredTensor
from model.small_files import new_folder, read_json_object, require_absent, write_json
from model.t5.config import ModelConfig, is_whole

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"

Params = dict[str, Any]


class ExchangeError(ValueError):
    """A model that the other layout cannot express."""


# Names, as in the published checkpoints.

#: Our sublayer, its name there, in the order of a block.
_SUBLAYERS: Mapping[str, str] = {
    "self_attention": "SelfAttention",
    "cross_attention": "EncDecAttention",
    "feed_forward": "DenseReluDense",
}
#: Our kernel, its name there. Theirs are [outputs, inputs].
_ATTENTION = {"query": "q", "key": "k", "value": "v", "output": "o"}
_FEED_FORWARD_KERNELS = {"relu": ("wi", "wo"), "gated-gelu": ("wi_0", "wi_1", "wo")}
_EMBEDDING = "shared.weight"
_LOGITS = "lm_head.weight"
#: Files may repeat the embedding under these names, or have it under one of them alone.
_EMBEDDING_ALIASES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
#: Not trained: the first released decoders had this table, but no step that read it.
_UNUSED = re.compile(
    r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight"
)


class TensorPlace(NamedTuple):
    """One tensor of theirs and where it is in ours."""

    name: str  #: in their files
    path: tuple[str, ...]  #: of keys in our tree of parameters
    layer: int | None  #: index into the first axis of our array, which holds all layers
    transposed: bool

    def shape(self, whole: tuple[int, ...]) -> tuple[int, ...]:
        """Return the tensor's shape in their files, from that of our array."""
        part = whole if self.layer is None else whole[1:]
        return part[::-1] if self.transposed else part

    def part(self, whole: Any) -> npt.NDArray[Any]:
        """Return the part of our array that is the tensor, as their files have it: a view."""
        part = np.asarray(whole if self.layer is None else whole[self.layer])
        return part.T if self.transposed else part


def tensor_places(config: ModelConfig) -> Iterator[TensorPlace]:
    """Each tensor of a published model and its place in the tree of ``T5(config).init``.

    >>> from model.t5.config import model_config
    >>> list(tensor_places(model_config("small")))[1].name
    'encoder.block.0.layer.0.SelfAttention.q.weight'
    """
    yield TensorPlace(_EMBEDDING, ("embedding",), None, False)
    inner = {name: name for name in _FEED_FORWARD_KERNELS[config.feed_forward]}
    for stack, layers in (("encoder", config.num_layers), ("decoder", config.decoder_layers)):
        sublayers = [n for n in _SUBLAYERS if stack == "decoder" or n != "cross_attention"]
        for layer in range(layers):
            for number, sublayer in enumerate(sublayers):
                prefix = f"{stack}.block.{layer}.layer.{number}"
                path = (stack, "layers", sublayer)
                kernels = inner if sublayer == "feed_forward" else _ATTENTION
                for kernel, theirs in kernels.items():
                    name = f"{prefix}.{_SUBLAYERS[sublayer]}.{theirs}.weight"
                    yield TensorPlace(name, (*path, kernel), layer, True)
                yield TensorPlace(f"{prefix}.layer_norm.weight", (*path, "norm"), layer, False)
        # One table a stack, kept with its first block.
        bias = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        yield TensorPlace(bias, (stack, "relative_bias"), None, True)
        yield TensorPlace(f"{stack}.final_layer_norm.weight", (stack, "final_norm"), None, False)
    if not config.tied_logits:
        yield TensorPlace(_LOGITS, ("logits",), None, True)


# config.json

#: Our field to theirs, with the value that a file means by leaving it out (T5Config there).
_FIELDS: Mapping[str, tuple[str, Any]] = {
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
#: Kind of model to what its files mean by leaving a field out, where that is not T5's default.
_UNSAID: Mapping[str, Mapping[str, Any]] = {
    "t5": {"tie_word_embeddings": True},
    "mt5": {
        "tie_word_embeddings": False,
        "vocab_size": 250112,
        "d_ff": 1024,
        "num_layers": 8,
        "num_heads": 6,
        "feed_forward_proj": "gated-gelu",
    },
}
_ARCHITECTURES = frozenset(
    {
        "T5ForConditionalGeneration",
        "T5WithLMHeadModel",  # its name until 2020
        "T5Model",
        "MT5ForConditionalGeneration",
        "MT5Model",
    }
)
#: Activation and whether it is gated, to our feed-forward layer. The gelus are three names of the
#: tanh form; "gated-gelu" means that form as well, plain "gelu" the exact one, which is not ours.
_FEED_FORWARD: Mapping[tuple[str, bool], Literal["relu", "gated-gelu"]] = {
    ("relu", False): "relu",
    ("gelu_new", True): "gated-gelu",
    ("gelu_pytorch_tanh", True): "gated-gelu",
    ("gelu_python_tanh", True): "gated-gelu",
}
_PROJECTIONS = ("relu", "gated-gelu", "gated-gelu_new", "gated-gelu_pytorch_tanh")
#: Other names of fields, which Transformers reads as well (T5Config.attribute_map).
_ALIASES: Mapping[str, str] = {
    "hidden_size": "d_model",
    "head_dim": "d_kv",
    "num_attention_heads": "num_heads",
    "num_hidden_layers": "num_layers",
}
#: Fields that would make it another model, with the values that do not.
_MUST_BE: Mapping[str, tuple[Any, ...]] = {
    "is_encoder_decoder": (True,),
    "is_decoder": (False,),
    "tie_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "pruned_heads": (None, {}),
    "quantization_config": (None, {}),
    "auto_map": (None, {}),
}
_WHY = {
    "is_encoder_decoder": "it is one stack",
    "quantization_config": "its weights are quantised, give the model before that",
    "auto_map": "the folder brings code of its own",
}
#: Their id to our field, with what a file means by leaving it out.
_IDS: Mapping[str, tuple[str, int | None]] = {
    "pad_token_id": ("pad_id", 0),
    "decoder_start_token_id": ("start_id", None),  # the padding
    "eos_token_id": ("eos_ids", 1),
}
#: Settings that greedy decoding would have to follow and ours does not, by the values besides null
#: that change nothing.
_DECODING: tuple[tuple[tuple[Any, ...], tuple[str, ...]], ...] = (
    ((), ("exponential_decay_length_penalty", "forced_bos_token_id", "forced_eos_token_id")),
    ((1,), ("encoder_repetition_penalty", "num_beams", "repetition_penalty")),
    (
        (0, False),
        (
            "diversity_penalty", "do_sample", "encoder_no_repeat_ngram_size", "min_length",
            "min_new_tokens", "no_repeat_ngram_size",
        ),
    ),
    (
        ([], {}),
        (
            "bad_words_ids", "begin_suppress_tokens", "force_words_ids", "forced_decoder_ids",
            "sequence_bias", "suppress_tokens",
        ),
    ),
)  # fmt: skip


def config_from_hf(
    raw: Mapping[str, Any], generation: Mapping[str, Any] | None = None
) -> ModelConfig:
    """Return our configuration of a model from its raw ``config.json``.

    Tied logits are scaled and untied ones are not. Transformers 5 writes ``tie_word_embeddings``
    as true whatever the model, and beside it ``scale_decoder_outputs``, which then decides.
    Likewise ``dense_act_fn`` and ``is_gated_act`` decide where they differ from
    ``feed_forward_proj``, as in Transformers. Fields that no T5 of Transformers reads are left
    alone.

    Args:
      raw: the content of ``config.json``.
      generation: that of ``generation_config.json``, whose ids come first.

    Raises ExchangeError, or ValueError from ModelConfig, for a model of another layout.

    >>> config_from_hf({"model_type": "t5", "tie_word_embeddings": False}).tied_logits
    False
    """
    raw = ids = _without_aliases(raw)
    kind = raw.get("model_type", "t5")
    architectures = raw.get("architectures") or ["T5ForConditionalGeneration"]
    if not isinstance(kind, str) or kind not in _UNSAID:
        raise ExchangeError(
            f"model_type must be {' or '.join(_UNSAID)}, got {kind!r}, whose layout differs"
        )
    if not isinstance(architectures, list) or not any(
        isinstance(name, str) and name in _ARCHITECTURES for name in architectures
    ):
        raise ExchangeError(
            f"architectures must name one of {', '.join(sorted(_ARCHITECTURES))}; got "
            f"{architectures}, which lacks a part of the model or has more"
        )
    raw = {**_UNSAID[kind], **{name: value for name, value in raw.items() if value is not None}}
    if kind == "mt5" and _major_version(raw) >= 5:
        # Transformers 5 says tied of all mT5, and scales the logits of none.
        raw.setdefault("scale_decoder_outputs", False)
    for name, allowed in _MUST_BE.items():
        if name in raw and raw[name] not in allowed:
            why = f": {_WHY[name]}" if name in _WHY else ""
            raise ExchangeError(f"{name} must be {json.dumps(allowed[0])}, got {raw[name]!r}{why}")
    for name in ("tie_word_embeddings", "scale_decoder_outputs"):
        if not isinstance(raw.get(name, True), bool):
            raise ExchangeError(f"{name} must be true or false, got {raw[name]!r}")
    fields: dict[str, Any] = {
        ours: raw.get(theirs, default) for ours, (theirs, default) in _FIELDS.items()
    }
    scaled = raw.get("scale_decoder_outputs", raw["tie_word_embeddings"])
    layers = raw.get("num_decoder_layers")
    if layers is not None and layers != fields["num_layers"]:
        fields["num_decoder_layers"] = layers
    fields |= {"feed_forward": _feed_forward(raw), "tied_logits": scaled}
    try:
        ModelConfig(**fields)  # its own fields first: ids are of a vocabulary of this size
        return ModelConfig(**fields, **_special_ids(ids, generation or {}, fields["vocab_size"]))
    except TypeError as error:  # a string where a number belongs
        raise ExchangeError(f"a value of the wrong type: {error}") from None


def _major_version(raw: Mapping[str, Any]) -> int:
    """Return the major version of the Transformers that wrote a configuration; 0 if unsaid."""
    major = str(raw.get("transformers_version", "")).partition(".")[0]
    return int(major) if major.isdecimal() and len(major) < 4 else 0


def _without_aliases(raw: Mapping[str, Any]) -> dict[str, Any]:
    fields = dict(raw)
    for alias, name in _ALIASES.items():
        if fields.get(alias) is None:
            continue
        if fields.get(name) not in (None, fields[alias]):
            raise ExchangeError(
                f"{alias} is {fields[alias]!r} and {name} is {fields[name]!r}, two names of one "
                "value"
            )
        fields[name] = fields[alias]
    return fields


def _feed_forward(raw: Mapping[str, Any]) -> Literal["relu", "gated-gelu"]:
    projection = raw.get("feed_forward_proj", "relu")
    if not isinstance(projection, str) or projection not in _PROJECTIONS:
        raise ExchangeError(
            f"feed_forward_proj must be one of {', '.join(_PROJECTIONS)}; got {projection!r}"
        )
    plain = "gelu_new" if projection == "gated-gelu" else projection.removeprefix("gated-")
    activation = raw.get("dense_act_fn", plain)
    gated = raw.get("is_gated_act", projection.startswith("gated-"))
    if not isinstance(gated, bool):
        raise ExchangeError(f"is_gated_act must be true or false, got {gated!r}")
    if not isinstance(activation, str) or (activation, gated) not in _FEED_FORWARD:
        known = ", ".join(
            f"{name}{' gated' if is_gated else ''}" for name, is_gated in _FEED_FORWARD
        )
        raise ExchangeError(
            f"dense_act_fn must be one of {known}; got {activation!r}{' gated' if gated else ''} "
            "(dense_act_fn, is_gated_act, feed_forward_proj)"
        )
    return _FEED_FORWARD[activation, gated]


def _special_ids(
    raw: Mapping[str, Any], generation: Mapping[str, Any], vocab_size: int
) -> dict[str, Any]:
    """Return the ids of padding, start and end; those of generation_config.json come first."""
    start = "decoder_start_token_id"
    if None not in (raw.get(start), generation.get(start)) and raw[start] != generation[start]:
        raise ExchangeError(
            f"{start} is {raw[start]!r}, and generation_config.json has {generation[start]!r}"
        )
    found: dict[str, Any] = {}
    for theirs, (ours, default) in _IDS.items():
        source = generation if theirs in generation else raw
        value = source.get(theirs, default)
        if value is None and theirs == start:  # unsaid: T5 starts with padding
            value = found["pad_id"]
        several = theirs == "eos_token_id"
        if several and value is None:
            value = []
        values = value if isinstance(value, list) and several else [value]
        for each in values:
            if not (is_whole(each) and 0 <= each < vocab_size):
                raise ExchangeError(
                    f"{theirs} must be {'ids' if several else 'an id'} from 0 to "
                    f"{vocab_size - 1}, got {value!r}"
                )
        found[ours] = tuple(values) if several else value
    return found


def config_to_hf(
    config: ModelConfig, dtype: Literal["float32", "bfloat16"] = "float32"
) -> dict[str, Any]:
    """Return a model's ``config.json``. Raises ExchangeError if Transformers has no such model."""
    if config.architecture != "encoder-decoder":
        raise ExchangeError(
            f"a {config.architecture} cannot be exported: T5ForConditionalGeneration is an encoder "
            "and a decoder with parameters of their own"
        )
    if config.adapter is not None:
        raise ExchangeError(
            f"a model with adapter layers (adapter {config.adapter}) cannot be exported: "
            "T5ForConditionalGeneration has none; fine-tune without --adapter to export"
        )
    gated, ends = config.feed_forward == "gated-gelu", config.eos_ids
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
        "pad_token_id": config.pad_id,
        "eos_token_id": ends[0] if len(ends) == 1 else list(ends) or None,
        "decoder_start_token_id": config.start_id,
        "use_cache": True,
        "dtype": dtype,
    }


# In


@dataclasses.dataclass(frozen=True)
class ImportedModel:
    """What :func:`import_model` gives."""

    config: ModelConfig
    params: Params  #: nested, of float32 NumPy arrays
    #: Settings of generation_config.json that decoding here does not follow.
    unapplied: tuple[str, ...] = ()


def import_model(folder: str | os.PathLike[str]) -> ImportedModel:
    """Read a folder of ``config.json`` and safetensors.

    bfloat16 and float16 become float32, exactly. Memory is that of the parameters and of the
    largest tensor: tensors are read one by one.
    Raises ValueError, with one line, for what is missing, unknown, damaged or no T5.
    """
    root = pathlib.Path(folder)
    if not root.is_dir():
        raise ExchangeError(f"{root}: no such folder")
    config, raw, generation = _read_config(root)
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
    shapes = _shapes(config)
    for place in places:
        stored, theirs = tensors[place.name], place.shape(shapes[place.path])
        if stored.shape != theirs:
            raise ExchangeError(
                f"{stored.path}: {place.name} has the shape {list(stored.shape)}, {CONFIG} makes "
                f"it {list(theirs)}"
            )
    arrays = {path: np.empty(shape, np.float32) for path, shape in shapes.items()}
    for place in places:
        place.part(arrays[place.path])[...] = tensors[place.name].array()
    unapplied = (
        name
        for nothing, names in _DECODING
        for name in names
        if generation.get(name) not in (None, *nothing)
    )
    params = unflatten_dict(arrays)  # type: ignore[no-untyped-call]
    return ImportedModel(config, params, tuple(sorted(unapplied)))


def read_config(folder: str | os.PathLike[str]) -> ModelConfig:
    """Return the model of a folder of ``config.json``. Raises ValueError as `import_model`."""
    return _read_config(pathlib.Path(folder))[0]


def _read_config(root: pathlib.Path) -> tuple[ModelConfig, dict[str, Any], dict[str, Any]]:
    """Return our configuration, the content of config.json and of generation_config.json."""
    path = root / CONFIG
    if not path.exists():
        raise ExchangeError(f"{root} has no {CONFIG}: it is not a model in Hugging Face's layout")
    beside = root / GENERATION_CONFIG
    try:
        raw = read_json_object(path)
        generation = read_json_object(beside) if beside.exists() else {}
    except ValueError as error:
        raise ExchangeError(str(error)) from None
    try:
        return config_from_hf(raw, generation), raw, generation
    except ValueError as error:
        raise ExchangeError(f"{path}: {error}") from None


def _settle_embedding(
    root: pathlib.Path, config: ModelConfig, tensors: dict[str, StoredTensor]
) -> None:
    """Keep the embedding under one name; if it is repeated, all copies must be equal."""
    aliases = [*_EMBEDDING_ALIASES, _LOGITS] if config.tied_logits else list(_EMBEDDING_ALIASES)
    for alias in aliases:
        repeated = tensors.pop(alias, None)
        if repeated is None:
            continue
        first = tensors.setdefault(_EMBEDDING, repeated)
        if first is not repeated and not np.array_equal(first.array(), repeated.array()):
            way = f'; if it is to be read, {CONFIG} must say "tie_word_embeddings": false'
            raise ExchangeError(
                f"{root}: {alias} differs from {_EMBEDDING}, and {CONFIG} makes them one"
                f"{way if alias == _LOGITS else ''}"
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


def _shapes(config: ModelConfig) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Return the shape of each of our arrays, by its path of keys."""
    from model.t5.network import T5

    shapes = flatten_dict(T5(config).param_shapes())  # type: ignore[no-untyped-call]
    return {path: tuple(leaf.shape) for path, leaf in shapes.items()}


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
    """Write a folder that Transformers loads, whole or not at all.

    Args:
      folder: which does not exist yet, of this machine or of an object store.
      config: an encoder-decoder; other architectures have no place there (ExchangeError).
      params: as ``T5.init`` makes them, NumPy or JAX arrays; read one tensor at a time.
      vocabulary: a SentencePiece model, from which the tokenizer's files are made.
      dtype: of the tensors written; bfloat16 halves the files and rounds.
      max_file_bytes: of tensors in one file; larger models go into several.

    Raises ValueError where the folder exists, the parameters are not the configuration's or the
    vocabulary has more ids than the embedding has rows.
    """
    content = config_to_hf(config, dtype)
    require_absent(os.fspath(folder))
    places = {place.name: place for place in tensor_places(config)}
    arrays, wanted = flatten_dict(params), _shapes(config)  # type: ignore[no-untyped-call]
    for path in (place.path for place in places.values()):
        shape = wanted[path]
        if path not in arrays:
            raise ExchangeError(f"the parameters lack {'/'.join(path)}, which the model has")
        if tuple(arrays[path].shape) != shape:
            raise ExchangeError(
                f"{'/'.join(path)} has the shape {list(arrays[path].shape)}, the model's is "
                f"{list(shape)}"
            )
    if strangers := sorted("/".join(path) for path in arrays if path not in wanted):
        raise ExchangeError(
            f"the parameters hold {_some(strangers)}, which {content['architectures'][0]} has no "
            "place for"
        )
    opened = None if vocabulary is None else Vocabulary(vocabulary)
    if opened is not None and opened.id_count > config.vocab_size:
        raise ExchangeError(
            f"{opened.path}: {opened.id_count} ids, the model has {config.vocab_size}: it is "
            "another model's vocabulary"
        )

    shapes = {name: place.shape(wanted[place.path]) for name, place in places.items()}

    def tensor(name: str) -> npt.NDArray[Any]:
        return places[name].part(arrays[places[name].path])

    with new_folder(os.fspath(folder), last=CONFIG) as scratch:
        write_json(scratch / CONFIG, content)
        write_json(scratch / GENERATION_CONFIG, {name: content[name] for name in sorted(_IDS)})
        if opened is not None:
            tokenizer_files.write(scratch, opened)
        safetensors_files.write(scratch, shapes, tensor, dtype=dtype, max_file_bytes=max_file_bytes)
