"""How many floating-point operations a model is worth: what utilisation is measured against.

Products of matrices only, two operations for each multiply and add, as is usual for model FLOP
utilisation; norms, softmax and dropout are a few percent more. Attention counts every pair of
positions, also those a mask hides. Nothing here depends on how the network is computed: what
rematerialisation computes again is not counted.
"""

from collections.abc import Mapping

from model.t5.config import ModelConfig

Shapes = Mapping[str, tuple[int, ...]]


def forward_flops(config: ModelConfig, shapes: Shapes) -> dict[str, int]:
    """Return the operations of a forward pass by part: "encoder" if any, "decoder", "logits".

    `shapes` are those of a batch: "decoder_input_tokens" (sequences, length), and
    "encoder_tokens" for a model with an encoder; others are ignored. Projecting the encoder's
    output to keys and values counts to the decoder.
    Raises ValueError if one is missing or is not two numbers.

    >>> from model.t5.config import model_config
    >>> shapes = {"encoder_tokens": (128, 512), "decoder_input_tokens": (128, 114)}
    >>> {part: f"{n:.2e}" for part, n in forward_flops(model_config("base"), shapes).items()}
    {'encoder': '1.24e+13', 'decoder': '5.08e+12', 'logits': '7.20e+11'}
    """
    batch, length = _shape(shapes, "decoder_input_tokens")
    width, inner = config.d_model, config.inner_dim
    feed_forward = (3 if config.feed_forward == "gated-gelu" else 2) * width * config.d_ff
    if config.adapter is not None:
        feed_forward += 2 * width * config.adapter
    attention = 4 * width * inner  # query, key, value and output of one token

    def pairs(queries: int, keys: int) -> int:
        return 2 * queries * keys * inner  # logits, and weighted values

    decoder = length * (attention + feed_forward) + pairs(length, length)
    parts = {}
    if config.has_encoder:
        _, inputs = _shape(shapes, "encoder_tokens")
        encoder = inputs * (attention + feed_forward) + pairs(inputs, inputs)
        parts["encoder"] = 2 * batch * config.num_layers * encoder
        decoder += (length + inputs) * attention // 2 + pairs(length, inputs)
    parts["decoder"] = 2 * batch * config.decoder_layers * decoder
    parts["logits"] = 2 * batch * length * width * config.vocab_size
    return parts


def step_flops(config: ModelConfig, shapes: Shapes) -> int:
    """Return the operations of a training step: two products backward for each one forward.

    `shapes` as in `forward_flops`.
    """
    return 3 * sum(forward_flops(config, shapes).values())


def _shape(shapes: Shapes, name: str) -> tuple[int, int]:
    shape = shapes.get(name)
    if shape is None or len(shape) != 2:
        raise ValueError(
            f"flops needs the shape of {name} as (sequences, length), got {shape}; batch has "
            f"{', '.join(shapes) or 'nothing'}"
        )
    return shape[0], shape[1]
