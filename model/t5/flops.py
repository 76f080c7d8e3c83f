"""How many floating-point operations a model is worth: what utilisation is measured against.

Products of matrices only, two operations for each multiply and add, as is usual for model FLOP
utilisation; norms, softmax and dropout are a few percent more. Attention counts every pair of
positions, also those a mask hides. Nothing here depends on how the network is computed: what
rematerialisation computes again is not counted.
"""

from model.t5.config import ModelConfig


def forward_flops(
    config: ModelConfig, batch: int, length: int, inputs: int | None = None
) -> dict[str, int]:
    """Return the operations of a forward pass by part: "encoder" if any, "decoder", "logits".

    Projecting the encoder's output to keys and values counts to the decoder.

    Args:
      config: the model.
      batch: sequences.
      length: of each in the decoder, in tokens.
      inputs: length in the encoder, for a model with one.

    >>> from model.t5.config import model_config
    >>> flops = forward_flops(model_config("base"), 128, 114, 512)
    >>> {part: f"{n:.2e}" for part, n in flops.items()}
    {'encoder': '1.24e+13', 'decoder': '5.08e+12', 'logits': '7.20e+11'}
    """
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
        assert inputs is not None
        encoder = inputs * (attention + feed_forward) + pairs(inputs, inputs)
        parts["encoder"] = 2 * batch * config.num_layers * encoder
        decoder += (length + inputs) * attention // 2 + pairs(length, inputs)
    parts["decoder"] = 2 * batch * config.decoder_layers * decoder
    parts["logits"] = 2 * batch * length * width * config.vocab_size
    return parts


def step_flops(config: ModelConfig, batch: int, length: int, inputs: int | None = None) -> int:
    """Return the operations of a training step: two products backward for each one forward.

    Arguments are those of `forward_flops`.
    """
    return 3 * sum(forward_flops(config, batch, length, inputs).values())
