"""T5 as pure functions of its parameters: one stack of blocks, put together five ways."""

import functools
from collections.abc import Mapping
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers

from model.t5.attention import attention_mask, is_attended, relative_bias
from model.t5.config import ModelConfig
from model.t5.layers import Block, draw_keep, dropout, rms_norm
from model.t5.partitioning import constrain

Params = dict[str, Any]  #: nested, of float32 arrays
Batch = Mapping[str, jax.Array]

_POLICIES = jax.checkpoint_policies
_REMAT_POLICIES = {
    # Products with weights have no batch axis in common; those of attention have. Of attention its
    # result is kept, so that it does not run again.
    "dots": _POLICIES.save_from_both_policies(
        _POLICIES.dots_with_no_batch_dims_saveable, is_attended
    ),
    "full": _POLICIES.nothing_saveable,
}


def product_with_head(features: jax.Array, head: jax.Array) -> jax.Array:
    """Return float32 logits [batch, length, vocab] of features [batch, length, d_model].

    `head` is [vocab, d_model], in the type of the features.
    """
    logits = jnp.einsum("bld,vd->blv", features, head, preferred_element_type=jnp.float32)
    return constrain(logits, "batch", "length", "vocab")


class T5:
    """One model, made from its configuration; holds no arrays.

    Parameters are a nested dictionary: "embedding" [vocabulary, d_model]; "encoder" and "decoder",
    each with "layers" (arrays of all blocks, one after another along a first axis),
    "relative_bias" [heads, buckets] and "final_norm" [d_model]; "logits" [d_model, vocabulary]
    where they are not tied to the embedding. A model without an encoder lacks "encoder"; a shared
    one has "shared" in the place of both, and under "decoder" only its cross-attention. Adapter
    layers are "adapter" in "layers". Kernels are [inputs, outputs].
    """

    def __init__(self, config: ModelConfig) -> None:
        self.config = config

    def init(self, rng: jax.Array) -> Params:
        """Return new parameters, float32. Under `jax.jit` only what is used is computed.

        >>> from model.t5.config import model_config
        >>> params = T5(model_config("tiny", vocab_size=128)).init(jax.random.key(0))
        >>> params["decoder"]["layers"]["cross_attention"]["query"].shape
        (2, 128, 128)
        """
        params: Params = nn.meta.unbox(self._boxed(rng))
        return params

    def param_shapes(self) -> Params:
        """Return what `init` would, as `jax.ShapeDtypeStruct`; nothing is computed."""
        shapes: Params = nn.meta.unbox(_boxed_shapes(self.config))
        return shapes

    def param_axes(self) -> Params:
        """Return a tuple in the place of each parameter, which names its axes.

        Names: "layers", "vocab", "embed" (the width of the model), "norm" (that of a norm's
        scale), "heads" (all heads side by side), "mlp", "relpos_heads", "buckets".
        """
        axes: Params = jax.tree.map(
            lambda box: ("layers",) * (box.value.ndim - len(box.names)) + box.names,
            _boxed_shapes(self.config),
            is_leaf=lambda leaf: isinstance(leaf, nn.Partitioned),
        )
        return axes

    def encode(
        self,
        params: Params,
        tokens: jax.Array,
        segment_ids: jax.Array,
        *,
        dropout_rng: jax.Array | None = None,
    ) -> jax.Array:
        """Return the encoder's output [batch, length, d_model] in the type of activations.

        `tokens` and `segment_ids` are int32 [batch, length]; a token attends to all of its
        segment. With `dropout_rng` dropout is applied.
        Raises ValueError if the model has no encoder.
        """
        if not self.config.has_encoder:
            raise ValueError(
                f"{self.config.architecture} has no encoder: put the inputs before the targets and "
                "call logits"
            )
        stack = params["shared"] if self.config.shares_stacks else params["encoder"]
        mask = attention_mask(segment_ids, segment_ids)
        return self._through(
            Block(self.config), params, stack, tokens, mask, bidirectional=True, rng=dropout_rng
        )

    def logits(
        self, params: Params, batch: Batch, *, dropout_rng: jax.Array | None = None
    ) -> jax.Array:
        """Return float32 logits [batch, length, vocabulary] of each position of the decoder.

        See `features` for the arguments.
        """
        features = self.features(params, batch, dropout_rng=dropout_rng)
        return product_with_head(features, self.head(params).astype(features.dtype))

    def features(
        self, params: Params, batch: Batch, *, dropout_rng: jax.Array | None = None
    ) -> jax.Array:
        """Return the features that logits are a product of, [batch, length, d_model].

        `batch` holds int32 arrays: "decoder_input_tokens" and "decoder_segments" [batch, length];
        with an encoder also "encoder_tokens" and "encoder_segments" [batch, encoder length]; for a
        prefix language model also "prefix", 1 where a position is seen by its whole segment.
        With `dropout_rng` dropout is applied.
        """
        config = self.config
        encoder_rng = decoder_rng = None
        if dropout_rng is not None:
            encoder_rng, decoder_rng = jax.random.split(dropout_rng)
        memory = memory_mask = prefix = None
        segments = batch["decoder_segments"]
        if config.has_encoder:
            memory = self.encode(
                params, batch["encoder_tokens"], batch["encoder_segments"], dropout_rng=encoder_rng
            )
            memory_mask = attention_mask(segments, batch["encoder_segments"])
        elif self.bidirectional_decoder:
            prefix = batch["prefix"]
        mask = attention_mask(segments, segments, causal=True, prefix=prefix)
        hidden = self._through(
            self.decoder_block, params, self.decoder_stack(params), batch["decoder_input_tokens"],
            mask, memory, memory_mask, bidirectional=self.bidirectional_decoder, rng=decoder_rng,
        )  # fmt: skip
        return self._scaled(hidden)

    def head(self, params: Params) -> jax.Array:
        """Return the other factor of logits, float32 [vocabulary, d_model]."""
        head: jax.Array = params["embedding"] if self.config.tied_logits else params["logits"].T
        return head

    @property
    def bidirectional_decoder(self) -> bool:
        """Whether the decoder's buckets tell left from right: where some positions see both."""
        return self.config.architecture == "prefix-language-model"

    @property
    def decoder_block(self) -> Block:
        """The block of the decoder."""
        return Block(self.config, cross=self.config.has_encoder)

    def decoder_stack(self, params: Params) -> Params:
        """Return the decoder's "layers", "relative_bias" and "final_norm"."""
        if not self.config.shares_stacks:
            stack: Params = params["decoder"]
            return stack
        shared = params["shared"]
        return {**shared, "layers": {**shared["layers"], **params["decoder"]["layers"]}}

    def embed(
        self, params: Params, tokens: jax.Array, *, keep: jax.Array | None = None
    ) -> jax.Array:
        """Return the first block's input [batch, length, d_model] for `tokens` [batch, length].

        `keep` [batch, length or 1, d_model] is dropout's mask.
        """
        # An id beyond the vocabulary becomes NaN: loud, where clipping would train on another.
        # Gathered along "fsdp" first: XLA would gather the whole result for the gradient instead.
        table = constrain(params["embedding"], "vocab", "embed_act")
        hidden = jnp.take(table, tokens, axis=0).astype(self.config.dtype)
        return constrain(self._drop(hidden, keep), "batch", "length", "embed_act")

    def finish(
        self, stack: Params, hidden: jax.Array, *, keep: jax.Array | None = None
    ) -> jax.Array:
        """Return the output of a stack from that of its last block: [batch, length, d_model].

        `keep` [batch, length or 1, d_model] is dropout's mask.
        """
        normed = rms_norm(hidden, stack["final_norm"], self.config.norm_epsilon)
        return self._drop(normed, keep)

    def unembed(
        self, params: Params, hidden: jax.Array, *, head: jax.Array | None = None
    ) -> jax.Array:
        """Return float32 logits [batch, length, vocabulary] of the decoder's output.

        `head` [d_model, vocabulary] is `head(params)` transposed and in the type of `hidden`, where
        somebody has it at hand: a product with few rows is faster with it.
        """
        features = self._scaled(hidden)
        if head is None:
            return product_with_head(features, self.head(params).astype(features.dtype))
        logits = jnp.dot(features, head, preferred_element_type=jnp.float32)
        return constrain(logits, "batch", "length", "vocab")

    def _scaled(self, hidden: jax.Array) -> jax.Array:
        if not self.config.tied_logits:
            return hidden
        # In float32: rounded to bfloat16, the factor would scale all logits by 0.1 % too much.
        scaled = hidden.astype(jnp.float32) * self.config.d_model**-0.5
        return cast(jax.Array, scaled.astype(hidden.dtype))

    def _boxed(self, rng: jax.Array) -> Params:
        config = self.config
        keys = iter(jax.random.split(rng, 4))

        def box(init: Any, shape: tuple[int, ...], axes: tuple[str, ...], key: jax.Array) -> Any:
            return nn.with_partitioning(init, axes)(key, shape, jnp.float32)

        def stack(key: jax.Array, block: Block, num_layers: int) -> Params:
            layers_key, bias_key = jax.random.split(key)
            hidden = jnp.zeros((1, 1, config.d_model))
            bias = jnp.zeros((1, config.num_heads, 1, 1))
            mask = jnp.ones((1, 1, 1, 1), bool)
            memory = (hidden, mask) if block.cross else (None, None)

            def layer(key: jax.Array) -> Params:
                return dict(block.init(key, hidden, bias, mask, *memory)["params"])

            return {
                "layers": jax.vmap(layer)(jax.random.split(layers_key, num_layers)),
                # Mesh TensorFlow leaves this one to its default: uniform, after Glorot.
                "relative_bias": box(
                    initializers.glorot_uniform(),
                    (config.num_heads, config.relative_buckets),
                    ("relpos_heads", "buckets"),
                    bias_key,
                ),
                "final_norm": box(initializers.ones, (config.d_model,), ("norm",), bias_key),
            }

        vocabulary = (config.vocab_size, config.d_model)
        params = {
            "embedding": box(initializers.normal(1.0), vocabulary, ("vocab", "embed"), next(keys)),
            "decoder": stack(next(keys), self.decoder_block, config.decoder_layers),
        }
        if config.shares_stacks:
            shared = params["decoder"]
            cross = shared["layers"].pop("cross_attention")
            params |= {"shared": shared, "decoder": {"layers": {"cross_attention": cross}}}
        elif config.has_encoder:
            params["encoder"] = stack(next(keys), Block(config), config.num_layers)
        if not config.tied_logits:
            params["logits"] = box(
                initializers.truncated_normal(config.d_model**-0.5),
                vocabulary[::-1],
                ("embed", "vocab"),
                next(keys),
            )
        return params

    def _through(
        self, block: Block, params: Params, stack: Params, tokens: jax.Array, *context: Any,
        bidirectional: bool, rng: jax.Array | None,
    ) -> jax.Array:  # fmt: skip
        """Return the output of a stack; `context` is what its blocks get besides the bias."""
        config, (rows, length) = self.config, tokens.shape
        keep: list[jax.Array | None] = [None, None]  # of the first block's input, of the output
        layer_rngs = None
        if rng is not None and config.dropout_rate:
            layers = len(jax.tree.leaves(stack["layers"])[0])
            rngs = jax.random.split(rng, layers + 1)
            layer_rngs = rngs[1:]
            ends = (1 if config.dropout_broadcast else length, config.d_model)
            keep[:] = draw_keep(rngs[0], config.dropout_rate, rows, [ends, ends])
        bias = relative_bias(
            stack["relative_bias"], length, length,
            bidirectional=bidirectional, max_distance=config.relative_max_distance,
        )  # fmt: skip

        def body(hidden: jax.Array, layer: Any) -> tuple[jax.Array, None]:
            layer_params, rng = layer
            result = block.apply({"params": layer_params}, hidden, bias, *context, dropout_rng=rng)
            return cast(jax.Array, result), None

        if config.remat != "none":
            policy = _REMAT_POLICIES[config.remat]
            body = jax.checkpoint(body, policy=policy, prevent_cse=False)
        embedded = self.embed(params, tokens, keep=keep[0])
        hidden, _ = jax.lax.scan(body, embedded, (stack["layers"], layer_rngs))
        return self.finish(stack, hidden, keep=keep[1])

    def _drop(self, hidden: jax.Array, keep: jax.Array | None) -> jax.Array:
        return dropout(hidden, keep, self.config.dropout_rate)


@functools.lru_cache(maxsize=8)  # tracing a model takes a good part of a second
def _boxed_shapes(config: ModelConfig) -> Any:
    return jax.eval_shape(T5(config)._boxed, jax.random.key(0))
