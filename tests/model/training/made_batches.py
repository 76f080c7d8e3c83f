"""Batches of random tokens, one example a row, for tests of the training step."""

import numpy as np

from model.t5.config import ModelConfig, model_config


def tiny_config(architecture: str = "encoder-decoder", **changes) -> ModelConfig:
    """Two layers, 64 ids: compiles in about two seconds."""
    sizes = {"d_model": 32, "d_ff": 64, "d_kv": 8, "num_heads": 4, "vocab_size": 64}
    return model_config("tiny", architecture, **{**sizes, **changes})


def made_batch(config: ModelConfig, rows: int, seed: int = 0, length: int = 12) -> dict:
    """Inputs of ``length`` tokens and targets of half as many at most, the rest padding."""
    draw = np.random.default_rng(seed)
    half = length // 2
    sizes = draw.integers(2, half + 1, rows)
    real = (np.arange(half) < sizes[:, None]).astype(np.int32)
    targets = draw.integers(3, config.vocab_size, (rows, half)).astype(np.int32) * real
    inputs = draw.integers(3, config.vocab_size, (rows, length)).astype(np.int32)
    if config.has_encoder:
        batch = {
            "encoder_tokens": inputs,
            "encoder_segments": np.ones_like(inputs),
            "decoder_target_tokens": targets,
            "decoder_segments": real,
            "loss_weights": real.astype(np.float32),
        }
    else:
        tokens = np.concatenate([inputs, targets], axis=1)
        segments = np.concatenate([np.ones_like(inputs), real], axis=1)
        is_target = (np.arange(length + half) >= length).astype(np.int32)
        batch = {
            "decoder_target_tokens": tokens,
            "decoder_segments": segments,
            "loss_weights": (segments * is_target).astype(np.float32),
            "prefix": np.repeat((np.arange(length + half) <= length)[None], rows, 0).astype(
                np.int32
            ),
        }
    shifted = np.zeros_like(batch["decoder_target_tokens"])
    shifted[:, 1:] = batch["decoder_target_tokens"][:, :-1]
    return {**batch, "decoder_input_tokens": shifted * batch["decoder_segments"]}
