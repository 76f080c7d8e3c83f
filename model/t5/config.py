"""What a model is: sizes and architectures of the paper, checked when made."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, Literal

from pipelines.options import option, set_by

Architecture = Literal[
    "encoder-decoder", "shared-encoder-decoder", "language-model", "prefix-language-model"
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """One T5 model.

    The fields of the network come first; the last group changes how it is computed, never what.
    Raises ValueError for a value that no model can have.

    >>> ModelConfig(d_model=512, d_ff=2048, d_kv=64, num_heads=8, num_layers=6).inner_dim
    512
    """

    d_model: int
    d_ff: int
    d_kv: int  #: of one head; heads * d_kv need not be d_model (3B, 11B, v1.1 small)
    num_heads: int
    num_layers: int = set_by("--size", "--architecture", "--set num_layers")  #: of each stack
    #: 32,000 pieces and 100 sentinels, padded to a multiple of 128
    vocab_size: int = set_by("--vocab", default=32128)
    architecture: Architecture = set_by("--architecture", default="encoder-decoder")
    feed_forward: Literal["relu", "gated-gelu"] = "relu"
    tied_logits: bool = True  #: logits from the embedding, scaled by d_model ** -0.5
    num_decoder_layers: int | None = None  #: where it differs from num_layers
    #: Width of the adapter layer after each feed-forward layer; None for no adapter layers.
    adapter: int | None = set_by("--adapter", default=None)
    relative_buckets: int = 32
    relative_max_distance: int = 128
    norm_epsilon: float = 1e-6
    #: What decoding puts behind the end of a sequence.
    pad_id: int = set_by("--init-from", default=0)
    #: What the decoder reads first.
    start_id: int = set_by("--init-from", default=0)
    #: Each of them ends a sequence; none: decoding never stops.
    eos_ids: tuple[int, ...] = set_by("--init-from", default=(1,))

    dropout_rate: float = option(
        "dropout rate (default: that of the size)", "--dropout", default=0.1, metavar="RATE"
    )
    #: One mask for all positions of a sequence, as Mesh TensorFlow and T5X draw it; False draws
    #: one for each position, as Hugging Face does.
    dropout_broadcast: bool = True
    #: Parameters are float32.
    dtype: Literal["float32", "bfloat16"] = option(
        "type of activations (default: bfloat16 on TPUs and GPUs, float32 on CPUs)",
        default="float32",
    )
    #: What the backward pass computes again instead of keeping: nothing, all but the results of
    #: matrix products with weights, or each block from its input.
    remat: Literal["none", "dots", "full"] = option(
        "what the backward pass recomputes to save memory", default="none"
    )
    #: "fused" where the backend has a kernel that takes the relative bias, else "plain".
    attention: Literal["auto", "plain", "fused"] = option(
        "attention kernel (default: auto, fused where the device has one)", default="auto"
    )

    def __post_init__(self) -> None:
        for name in (
            "d_model", "d_ff", "d_kv", "num_heads", "num_layers", "vocab_size",
            "relative_buckets", "relative_max_distance",
        ):  # fmt: skip
            _check_positive(name, getattr(self, name))
        for name in ("num_decoder_layers", "adapter"):
            if getattr(self, name) is not None:
                _check_positive(name, getattr(self, name))
        if self.num_decoder_layers is not None:
            if not self.has_encoder:
                raise ValueError(
                    f"num_decoder_layers is for models with an encoder, and {self.architecture} "
                    "has none: give num_layers"
                )
            if self.shares_stacks and self.num_decoder_layers != self.num_layers:
                raise ValueError(
                    f"{self.architecture} has one set of layers, got num_layers "
                    f"{self.num_layers} and num_decoder_layers {self.num_decoder_layers}"
                )
        if self.relative_buckets < 4 or self.relative_buckets % 4:
            # Half of them look left, and half of those are exact.
            raise ValueError(
                f"relative_buckets must be a positive multiple of 4, got {self.relative_buckets}"
            )
        if self.relative_max_distance <= self.relative_buckets // 2:
            raise ValueError(
                "relative_max_distance must be beyond the exact buckets, got "
                f"{self.relative_max_distance} with {self.relative_buckets} buckets"
            )
        if not (is_number(self.dropout_rate) and 0 <= self.dropout_rate < 1):
            raise ValueError(
                f"dropout_rate must be in [0, 1), got {self.dropout_rate!r} (--dropout)"
            )
        if not (is_number(self.norm_epsilon) and 0 < self.norm_epsilon < 1):
            raise ValueError(f"norm_epsilon must be in (0, 1), got {self.norm_epsilon!r}")
        object.__setattr__(self, "eos_ids", tuple(self.eos_ids))  # a list where JSON held it
        for name, ids in (
            ("pad_id", (self.pad_id,)), ("start_id", (self.start_id,)), ("eos_ids", self.eos_ids),
        ):  # fmt: skip
            for value in ids:
                if not (is_whole(value) and 0 <= value < self.vocab_size):
                    raise ValueError(
                        f"{name} must be ids from 0 to {self.vocab_size - 1}, got {value!r}"
                    )
        for name in ("tied_logits", "dropout_broadcast"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r}")
        for field in dataclasses.fields(self):
            choices = getattr(field.type, "__args__", ())
            if choices and all(isinstance(choice, str) for choice in choices):
                value = getattr(self, field.name)
                if value not in choices:
                    raise ValueError(
                        f"{field.name} must be one of {', '.join(choices)}; got {value!r}"
                    )

    @property
    def inner_dim(self) -> int:
        """Width of all heads together."""
        return self.num_heads * self.d_kv

    @property
    def has_encoder(self) -> bool:
        """Whether inputs and targets go through stacks of their own."""
        return self.architecture in ("encoder-decoder", "shared-encoder-decoder")

    @property
    def shares_stacks(self) -> bool:
        """Whether encoder and decoder are one set of parameters, cross-attention aside."""
        return self.architecture == "shared-encoder-decoder"

    @property
    def decoder_layers(self) -> int:
        """Number of blocks of the decoder."""
        return self.num_layers if self.num_decoder_layers is None else self.num_decoder_layers

    def replace(self, **changes: Any) -> "ModelConfig":
        """Return the same model with other values, checked again."""
        return dataclasses.replace(self, **changes)

    def parameter_count(self) -> int:
        """Return the number of parameters, by arithmetic; tests compare it with the arrays.

        >>> model_config("11B").parameter_count()
        11307321344
        """
        d, inner = self.d_model, self.inner_dim
        attention = 4 * d * inner + d
        feed_forward = (3 if self.feed_forward == "gated-gelu" else 2) * d * self.d_ff + d
        if self.adapter is not None:
            feed_forward += 2 * d * self.adapter + d
        stack_ends = self.relative_buckets * self.num_heads + d  # bias table, final norm
        count = self.vocab_size * d * (1 if self.tied_logits else 2)
        count += self.decoder_layers * (attention + feed_forward) + stack_ends
        if self.has_encoder:
            count += self.decoder_layers * attention  # cross-attention
            if not self.shares_stacks:
                count += self.num_layers * (attention + feed_forward) + stack_ends
        return count


def _check_positive(name: str, value: Any) -> None:
    if not is_whole(value) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
    if value >= 2**31:  # XLA indexes many things in 32 bits, and no device holds such an axis
        shown = f"{value:.3g}" if value < 10**300 else "far more"  # than a float can show
        raise ValueError(f"{name} must be below 2**31, got {shown}")


def is_number(value: object) -> bool:
    """Return whether a value is a number; Python counts true and false among them."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_whole(value: object) -> bool:
    """Return whether a value is an integer."""
    return isinstance(value, int) and not isinstance(value, bool)


def _v1_0(layers: int, d_model: int, d_ff: int, d_kv: int, heads: int) -> ModelConfig:
    return ModelConfig(num_layers=layers, d_model=d_model, d_ff=d_ff, d_kv=d_kv, num_heads=heads)


def _v1_1(layers: int, d_model: int, d_ff: int, d_kv: int, heads: int) -> ModelConfig:
    # Pre-trained without dropout (released_checkpoints.md of the reference code).
    return _v1_0(layers, d_model, d_ff, d_kv, heads).replace(
        feed_forward="gated-gelu", tied_logits=False, dropout_rate=0.0
    )


#: Name to model. Paper section 3.7 and, for "2x" and "4x", section 3.6; the v1.1 sizes are those
#: of the released checkpoints.
SIZES: Mapping[str, ModelConfig] = {
    "small": _v1_0(6, 512, 2048, 64, 8),
    "base": _v1_0(12, 768, 3072, 64, 12),
    "large": _v1_0(24, 1024, 4096, 64, 16),
    "3B": _v1_0(24, 1024, 16384, 128, 32),
    "11B": _v1_0(24, 1024, 65536, 128, 128),
    "2x": _v1_0(16, 1024, 4096, 64, 16),
    "4x": _v1_0(32, 1024, 4096, 64, 16),
    "v1.1-small": _v1_1(8, 512, 1024, 64, 6),
    "v1.1-base": _v1_1(12, 768, 2048, 64, 12),
    "v1.1-large": _v1_1(24, 1024, 2816, 64, 16),
    "v1.1-xl": _v1_1(24, 2048, 5120, 64, 32),
    "v1.1-xxl": _v1_1(24, 4096, 10240, 64, 64),
    # Not of the paper: for a look on a laptop, and for tests of whole runs.
    "tiny": _v1_0(2, 128, 256, 32, 4),
}

#: Name to what it changes in a size (paper section 3.2, table 2). "half-layer" is the paper's
#: encoder-decoder of 6 + 6 layers beside its 12 + 12.
ARCHITECTURES: Mapping[str, str] = {
    "encoder-decoder": "an encoder and a decoder of their own (the paper's T5)",
    "shared-encoder-decoder": "encoder and decoder share all but cross-attention",
    "half-layer": "an encoder-decoder with half the layers in each",
    "language-model": "a decoder only, causal attention",
    "prefix-language-model": "a decoder only, full attention inside the inputs",
}


def model_config(size: str, architecture: str = "encoder-decoder", **changes: Any) -> ModelConfig:
    """Return a model of the paper by its name, with changes.

    >>> model_config("base", "half-layer").parameter_count()
    123790080
    >>> model_config("smal")
    Traceback (most recent call last):
        ...
    ValueError: no size 'smal', perhaps 'small'; sizes: small, base, large, 3B, 11B, 2x, 4x, \
v1.1-small, v1.1-base, v1.1-large, v1.1-xl, v1.1-xxl, tiny
    """
    require_known("size", size, tuple(SIZES), "sizes")
    require_known("architecture", architecture, tuple(ARCHITECTURES), "architectures")
    config = SIZES[size]
    if architecture == "half-layer":
        config = config.replace(num_layers=config.num_layers // 2)
    else:
        config = config.replace(architecture=architecture)
    return config.replace(**changes)


def require_known(what: str, name: str, names: tuple[str, ...], plural: str) -> None:
    """Raise ValueError, with the nearest name and all, for a name that is not among them."""
    if name not in names:
        near = difflib.get_close_matches(name, names, 1, 0.4)
        hint = f", perhaps {near[0]!r}" if near else ""
        raise ValueError(f"no {what} {name!r}{hint}; {plural}: {', '.join(names)}")
