"""Cached decoding against running the whole model again for each token."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.t5.config import ModelConfig
from model.t5.decode import start, step, step_weights
from model.t5.network import T5
from model.t5.search import search
from model.t5.strategies import Greedy

# Most of the time goes into compiling.
pytestmark = pytest.mark.usefixtures("quick_xla")

_NEW, _VOCABULARY = 9, 12
CONFIG = ModelConfig(
    d_model=16, d_ff=24, d_kv=4, num_heads=2, num_layers=2, vocab_size=_VOCABULARY,
    relative_buckets=8, relative_max_distance=6,
)  # fmt: skip
ARCHITECTURES = [
    "encoder-decoder", "shared-encoder-decoder", "language-model", "prefix-language-model",
]  # fmt: skip
ROWS = 6


def random_params(model, seed):
    shapes, tree = jax.tree.flatten(model.param_shapes())
    random = np.random.default_rng(seed)
    arrays = [0.5 * random.standard_normal(s.shape, np.float32) for s in shapes]
    return jax.tree.map(jnp.asarray, jax.tree.unflatten(tree, arrays))


def random_inputs(model, seed, longest=7):
    """Prompts of different lengths, from one token to the longest."""
    random = np.random.default_rng(seed)
    lengths = np.concatenate([[1, longest], random.integers(1, longest + 1, ROWS - 2)])
    segments = (np.arange(longest) < lengths[:, None]).astype(np.int32)
    # Padding holds tokens too: none may matter.
    tokens = random.integers(2, _VOCABULARY, segments.shape).astype(np.int32)
    if model.config.has_encoder:
        return {"encoder_tokens": tokens, "encoder_segments": segments}
    tokens[:, 0] = 0
    return {"decoder_input_tokens": tokens, "decoder_segments": segments}


def greedy(model, max_new_tokens=_NEW):
    return functools.partial(search, model, max_new_tokens=max_new_tokens, how=Greedy())


class Uncached:
    """Row by row, token by token, everything computed again; one shape, so one compilation."""

    def __init__(self, model):
        self.model = model
        self.logits = jax.jit(model.logits)

    def next_logits(self, params, inputs, row, generated):
        if self.model.config.has_encoder:
            prompt = [0]
        else:
            length = inputs["decoder_segments"][row].sum()
            prompt = inputs["decoder_input_tokens"][row][:length].tolist()
        sequence = prompt + generated
        width = 7 + _NEW
        padded = np.zeros((1, width), np.int32)
        padded[0, : len(sequence)] = sequence
        batch = {
            "decoder_input_tokens": padded,
            "decoder_segments": (np.arange(width) < len(sequence)).astype(np.int32)[None],
            "prefix": (np.arange(width) < len(prompt)).astype(np.int32)[None],
        } | {name: array[row : row + 1] for name, array in inputs.items() if "encoder" in name}
        return np.asarray(self.logits(params, batch))[0, len(sequence) - 1]

    def greedy(self, params, inputs):
        outputs = np.zeros((ROWS, _NEW), np.int32)
        for row in range(ROWS):
            generated = []
            while len(generated) < _NEW and 1 not in generated:
                generated.append(int(self.next_logits(params, inputs, row, generated).argmax()))
            outputs[row, : len(generated)] = generated
        return outputs


@pytest.fixture(scope="module", params=ARCHITECTURES)
def decoder(request):
    adapter = 3 if request.param == "shared-encoder-decoder" else None
    model = T5(CONFIG.replace(architecture=request.param, adapter=adapter))
    compiled = jax.jit(greedy(model))
    return model, compiled, Uncached(model)


@pytest.mark.slow
def test_greedy_is_the_argmax_of_the_whole_model(decoder):
    model, compiled, uncached = decoder
    ended = []
    for seed in range(6):
        params, inputs = random_params(model, seed), random_inputs(model, seed)
        found = np.asarray(compiled(params, inputs))
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, uncached.greedy(params, inputs))
        ended += [(row[:-1] == 1).any() for row in found]
    assert 0 < np.mean(ended) < 1, "some rows end early and some do not, or this proves little"


@pytest.mark.slow
def test_logits_of_each_step_and_of_beams_taken_from_others(decoder):
    model, _, uncached = decoder
    beams, random = 3, np.random.default_rng(0)
    params, inputs = random_params(model, 7), random_inputs(model, 7)
    stepped = jax.jit(functools.partial(step, model))
    weights = jax.jit(functools.partial(step_weights, model))(params)
    begin = functools.partial(start, model, max_new_tokens=5, beams=beams)
    logits, cache = jax.jit(begin)(params, inputs)
    logits = jnp.broadcast_to(logits[:, None], (ROWS, beams, _VOCABULARY))
    histories = [[[] for _ in range(beams)] for _ in range(ROWS)]
    for time in range(5):
        for row, beam in np.ndindex(ROWS, beams):
            expected = uncached.next_logits(params, inputs, row, histories[row][beam])
            np.testing.assert_allclose(logits[row, beam], expected, atol=2e-4)
        if time == 4:
            break
        if time:  # as beam search does: some go on twice, others end
            taken = random.integers(0, beams, (ROWS, beams))
            cache = cache.take(jnp.asarray(taken))
            histories = [
                [list(of_row[beam]) for beam in old]
                for of_row, old in zip(histories, taken, strict=True)
            ]
        tokens = random.integers(2, _VOCABULARY, (ROWS, beams)).astype(np.int32)
        logits, cache = stepped(weights, cache, tokens)
        for row, beam in np.ndindex(ROWS, beams):
            histories[row][beam].append(int(tokens[row, beam]))


@pytest.mark.slow
def test_decoding_ends_with_the_last_row(decoder, monkeypatch):
    model, compiled, _ = decoder
    calls = []
    real = step

    def counted(model, params, cache, tokens):
        jax.debug.callback(lambda: calls.append(1))
        return real(model, params, cache, tokens)

    monkeypatch.setattr("model.t5.decode.step", counted)
    counting = jax.jit(greedy(model))
    for seed in range(6):
        params, inputs = random_params(model, seed), random_inputs(model, seed)
        calls.clear()
        found = np.asarray(counting(params, inputs))
        jax.effects_barrier()
        ends = [(row == 1).argmax() + 1 if 1 in row else _NEW for row in found]
        assert len(calls) == max(ends) - 1  # the last token is not read
    one = {name: array[:1] for name, array in inputs.items()}
    # Another id as the end: decoding stops at the first token of all.
    first = int(compiled(params, one)[0, 0])
    for ends in ((first,), (1, first)):
        calls.clear()
        other = T5(model.config.replace(eos_ids=ends, pad_id=7))
        stopped = greedy(other)(params, one)
        jax.effects_barrier()
        assert stopped.tolist() == [[first] + [7] * (_NEW - 1)]
        assert not calls
    # No end at all: all tokens are chosen.
    calls.clear()
    greedy(T5(model.config.replace(eos_ids=())))(params, one)
    jax.effects_barrier()
    assert len(calls) == _NEW - 1


@pytest.mark.slow
def test_the_decoder_starts_with_the_id_that_the_model_names():
    params, inputs = random_params(T5(CONFIG), 0), random_inputs(T5(CONFIG), 0)
    by_start = [
        np.asarray(start(T5(CONFIG.replace(start_id=first)), params, inputs, 1)[0])
        for first in (0, 5)
    ]
    assert np.abs(by_start[0] - by_start[1]).max() > 1e-3


def test_no_new_tokens_is_an_error():
    model = T5(CONFIG)
    with pytest.raises(ValueError, match="max_new_tokens must be positive, got 0"):
        greedy(model, 0)(model.param_shapes(), random_inputs(model, 0))


@pytest.mark.slow
def test_bfloat16_decodes_in_bfloat16():
    model = T5(CONFIG.replace(dtype="bfloat16", architecture="language-model"))
    inputs = random_inputs(model, 0)
    logits, cache = jax.eval_shape(
        lambda params: start(model, params, inputs, 4), model.param_shapes()
    )
    assert (logits.dtype, cache.layers[0][0].dtype) == (jnp.float32, jnp.bfloat16)
    assert len(cache.layers) == 2
    assert cache.layers[0][0].shape == (ROWS, 2, 7 + 3, 4)
