"""Searches against plain Python: on random tables of logits, and on small models."""

import functools
import itertools
import math
import re

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.t5 import search as search_module
from model.t5.config import ModelConfig
from model.t5.network import T5
from model.t5.search import search
from model.t5.strategies import Beam, Greedy, Sample
from tests.model.t5.test_decode import (
    ARCHITECTURES,
    CONFIG,
    ROWS,
    Uncached,
    random_inputs,
    random_params,
)

pytestmark = pytest.mark.usefixtures("quick_xla")

_STATES = 997


@flax.struct.dataclass
class TableCache:
    """Pasts of rows and beams, told apart by a number."""

    state: jax.Array

    def take(self, beams):
        return TableCache(jnp.take_along_axis(self.state, beams, axis=1))


def next_state(state, token):
    return (state * 31 + token + 1) % _STATES


@pytest.fixture
def tables(monkeypatch):
    """Make `search` read logits from tables [rows, states, vocabulary] in the place of a model."""

    def start(model, params, inputs, max_new_tokens, beams=1):
        rows = len(params)
        return params[:, 0], TableCache(jnp.zeros((rows, beams), jnp.int32))

    def step(model, params, cache, tokens):
        state = next_state(cache.state, tokens)
        return jax.vmap(lambda table, of: table[of])(params, state), TableCache(state)

    monkeypatch.setattr("model.t5.decode.start", start)
    monkeypatch.setattr("model.t5.decode.step_weights", lambda model, params: params)
    monkeypatch.setattr("model.t5.decode.step", step)

    def run(config, params, max_new_tokens, how, **inputs):
        inputs = {"encoder_tokens": jnp.zeros((len(params), 1), jnp.int32), **inputs}
        call = jax.jit(
            functools.partial(search, T5(config), max_new_tokens=max_new_tokens, how=how)
        )
        return np.asarray(call(params, inputs))

    return run


def random_tables(rows, vocabulary, seed, spread=2.0):
    random = np.random.default_rng(seed)
    return random.normal(size=(rows, _STATES, vocabulary)).astype(np.float32) * spread


def log_softmax(logits):
    return logits - np.logaddexp.reduce(logits.astype(np.float64))


def with_ends(vocabulary, ends):
    return ModelConfig(
        d_model=8, d_ff=8, d_kv=4, num_heads=2, num_layers=1, vocab_size=vocabulary, eos_ids=ends
    )


def padded(sequence, length):
    return [*sequence, *[0] * (length - len(sequence))]


def reference_beam_search(table, ends, length, beams, alpha):
    """Mesh TensorFlow's algorithm for one row, with lists: returns the best sequence."""
    alive, finished = [((), 0, 0.0)], []
    penalty = lambda n: ((5 + n) / 6) ** alpha  # noqa: E731
    vocabulary = table.shape[1]
    for index in range(length):
        # Its bound: the likeliest unfinished sequence against the worst of the finished ones.
        if finished and finished[-1][1] > alive[0][2] / penalty(length):
            break
        candidates = []
        for sequence, state, total in alive:
            for token, each in enumerate(log_softmax(table[state])):
                candidates.append(((*sequence, token), next_state(state, token), total + each))
        candidates.sort(key=lambda c: -c[2])
        candidates = candidates[: min((1 + len(ends)) * beams, beams * vocabulary)]
        ended = [c for c in candidates if c[0][-1] in ends]
        alive = [c for c in candidates if c[0][-1] not in ends][:beams]
        finished += [(c[0], c[2] / penalty(index + 1)) for c in ended]
        finished = sorted(finished, key=lambda f: -f[1])[:beams]
        if not alive:
            break
    return finished[0][0] if finished else alive[0][0]


def best_of_all(table, ends, length, alpha):
    """Score every sequence that ends: the best one; of none, the likeliest of full length."""
    finished, full = [], []

    def follow(sequence, state, total):
        for token, each in enumerate(log_softmax(table[state])):
            longer, sum_ = (*sequence, token), total + each
            if token in ends:
                finished.append((sum_ / ((5 + len(longer)) / 6) ** alpha, longer))
            elif len(longer) == length:
                full.append((sum_, longer))
            else:
                follow(longer, next_state(state, token), sum_)

    follow((), 0, 0.0)
    return max(finished or full)[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("vocabulary", "ends", "length", "beams", "alpha"),
    [
        (9, (1,), 8, 1, 0.6),
        (9, (1,), 8, 2, 0.6),
        (9, (1,), 8, 4, 0.0),
        (7, (1, 5), 8, 3, 1.5),
        (5, (), 6, 3, 0.6),
        (3, (1,), 6, 4, 0.6),  # fewer candidates than beams at first
        (30, (1,), 1, 4, 0.6),
        (30, (1,), 12, 5, 0.6),
    ],
)
def test_beam_search_is_the_reference_s(tables, vocabulary, ends, length, beams, alpha):
    params = random_tables(80, vocabulary, seed=beams)
    params[:20, :, list(ends)] -= 4  # longer ones
    params[20:30, :, list(ends)] -= 50  # which nothing finishes in the beam
    params[30:40, :, list(ends)] += 3
    found = tables(with_ends(vocabulary, ends), params, length, Beam(beams, alpha))
    for row, table in zip(found.tolist(), params, strict=True):
        expected = reference_beam_search(table, ends, length, beams, alpha)
        assert row == padded(expected, length)


@pytest.mark.slow
@pytest.mark.parametrize(("ends", "alpha"), [((1,), 0.6), ((1,), 0.0), ((1, 2), 2.0), ((), 0.6)])
def test_enough_beams_find_the_best_of_all_sequences(tables, ends, alpha):
    vocabulary, length = 4, 4
    params = random_tables(40, vocabulary, seed=7)
    params[:10, :, list(ends)] -= 5
    found = tables(with_ends(vocabulary, ends), params, length, Beam(4**3, alpha))
    for row, table in zip(found.tolist(), params, strict=True):
        assert row == padded(best_of_all(table, ends, length, alpha), length)


@pytest.mark.slow
def test_one_beam_goes_on_after_an_end_and_greedy_does_not(tables):
    vocabulary, length, config = 9, 8, with_ends(9, (1,))
    params = random_tables(60, vocabulary, seed=3)
    greedy = tables(config, params, length, Greedy())
    one = tables(config, params, length, Beam(1))
    assert (greedy != one).any(axis=1).sum() >= 5
    for row, table in zip(greedy.tolist(), params, strict=True):
        expected, state = [], 0
        while len(expected) < length and 1 not in expected:
            expected.append(int(table[state].argmax()))
            state = next_state(state, expected[-1])
        assert row == padded(expected, length)


@pytest.mark.slow
@pytest.mark.parametrize("how", [Greedy(), Beam(3), Sample(0.8, 0.9, seed=4)])
def test_a_row_is_what_it_is_alone(tables, how):
    vocabulary, length, config = 9, 10, with_ends(9, (1,))
    params = random_tables(12, vocabulary, seed=11)
    params[::2, :, 1] += 3  # some end long before the others
    together = tables(config, params, length, how)
    assert len({(row == 1).argmax() for row in together}) > 2
    for place in (0, 1, 11):
        numbers = jnp.array([place])
        alone = tables(config, params[place : place + 1], length, how, numbers=numbers)
        np.testing.assert_array_equal(alone[0], together[place])


@pytest.mark.slow
def test_a_finished_sequence_is_preferred_to_a_better_unfinished_one(tables):
    params = np.full((1, _STATES, 4), -20, np.float32)
    params[..., 2] = 0  # on and on
    params[..., 1] = -5  # an end, which only a second beam's candidate has
    assert tables(with_ends(4, (1,)), params, 5, Beam(1)).tolist() == [[2, 2, 2, 2, 1]]
    # Out of the candidates nothing finishes: the likeliest sequence.
    params[..., 1] = -30
    assert tables(with_ends(4, (1,)), params, 5, Beam(1)).tolist() == [[2, 2, 2, 2, 2]]


@pytest.mark.slow
def test_samples_have_the_distribution_asked_for():
    rows, shares = 6000, np.array([0.05, 0.1, 0.15, 0.3, 0.4], np.float32)
    logits = jnp.broadcast_to(jnp.log(shares), (rows, 5))

    def draw(how):
        return np.asarray(search_module._drawn(how, jnp.arange(rows))(logits, 0))

    for how, expected in (
        (Sample(), shares),
        (Sample(temperature=0.5), np.square(shares) / np.square(shares).sum()),
        # The third reaches 0.8 and is kept.
        (Sample(top_p=0.8), np.array([0, 0, 0.15, 0.3, 0.4]) / 0.85),
        (Sample(top_p=0.69), np.array([0, 0, 0, 0.3, 0.4]) / 0.7),
        (Sample(top_p=1e-6), [0, 0, 0, 0, 1]),
    ):
        found = np.bincount(draw(how), minlength=5) / rows
        assert (found[np.asarray(expected) == 0] == 0).all()
        np.testing.assert_allclose(found, expected, atol=4 * math.sqrt(0.25 / rows))
    np.testing.assert_array_equal(draw(Sample(seed=1)), draw(Sample(seed=1)))
    assert (draw(Sample(seed=1)) != draw(Sample(seed=2))).mean() > 0.5


@pytest.mark.slow
def test_the_places_of_a_sample_are_drawn_apart(tables):
    params = np.zeros((300, _STATES, 5), np.float32)
    found = tables(with_ends(5, ()), params, 4, Sample())
    for one, other in itertools.combinations(range(4), 2):
        assert 0.1 < (found[:, one] == found[:, other]).mean() < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_beams_of_a_model_are_those_of_running_it_anew(architecture):
    model = T5(CONFIG.replace(architecture=architecture))
    uncached, length, how = Uncached(model), 6, Beam(3)
    beam = jax.jit(functools.partial(search, model, max_new_tokens=length, how=how))
    for seed in range(2):
        params, inputs = random_params(model, seed), random_inputs(model, seed)
        found = np.asarray(beam(params, inputs))
        for row in range(0, ROWS, 2):
            pasts = [()]

            class Logits:
                """A table whose states are places in a list of pasts."""

                shape = (None, CONFIG.vocab_size)

                def __getitem__(self, state):
                    return uncached.next_logits(params, inputs, row, list(pasts[state]))  # noqa: B023

            expected = reference_of_pasts(Logits(), pasts, length, how)
            assert found[row].tolist() == padded(expected, length)


def reference_of_pasts(logits, pasts, length, how):
    """Run the reference with states that number the pasts seen so far."""

    def follow(state, token):
        pasts.append((*pasts[state], token))
        return len(pasts) - 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{__name__}.next_state", follow)
        return reference_beam_search(logits, (1,), length, how.beams, how.length_penalty)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Beam(0), "beams must be a positive integer, got 0 (--beams)"),
        (lambda: Beam(4, -0.1), "length_penalty must be a number from 0, got -0.1"),
        (lambda: Beam(4, math.nan), "length_penalty must be a number from 0, got nan"),
        (lambda: Sample(temperature=0), "temperature must be a number above 0, got 0"),
        (lambda: Sample(top_p=1.01), "top_p must be above 0 and at most 1, got 1.01 (--top-p)"),
        (lambda: Sample(seed=-1), "seed must be an integer from 0 to 2**32 - 1, got -1"),
    ],
)
def test_settings_out_of_range(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


class Averaged(Uncached):
    """An ensemble, row by row and token by token."""

    def next_logits(self, params, inputs, row, generated):
        each = [super(Averaged, self).next_logits(one, inputs, row, generated) for one in params]
        return np.mean(each, axis=0)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["encoder-decoder", "language-model"])
def test_an_ensemble_averages_logits(architecture):
    model = T5(CONFIG.replace(architecture=architecture))
    members = tuple(random_params(model, seed) for seed in (1, 2, 3))
    inputs = random_inputs(model, 4)
    run = jax.jit(functools.partial(search, model, max_new_tokens=9, how=Greedy()))
    found = np.asarray(run(members, inputs))
    assert found.tolist() == Averaged(model).greedy(members, inputs).tolist()
    assert found.tolist() != np.asarray(run(members[0], inputs)).tolist()

    beams = jax.jit(functools.partial(search, model, max_new_tokens=9, how=Beam(3)))
    one, copies = members[0], (members[0],) * 2
    assert np.asarray(beams(copies, inputs)).tolist() == np.asarray(beams(one, inputs)).tolist()
