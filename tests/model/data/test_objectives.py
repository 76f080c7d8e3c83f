"""Objectives: the spec's examples, its lengths, twins that work token by token, filling back."""

import collections
import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data.objectives import (
    OBJECTIVES,
    Lengths,
    Noise,
    _drawn_below,
    iid_noise,
    objective,
    random_spans_noise,
)
from model.data.sequences import Sequences


@dataclasses.dataclass(frozen=True)
class FakeIds:
    size: int = 1100
    extra_ids: int = 100


IDS = FakeIds()
S0, S1, S2 = 1099, 1098, 1097
A, B, C, D, E, F, G, H = range(11, 19)
TEXT = [A, B, C, D, E, F, G, H]


def rng(*seed):
    return np.random.default_rng(seed)


def noise_at(text, noise):
    return np.isin(np.arange(len(text)), [text.index(token) for token in noise])


def rendered(each, text, noise, ids=IDS):
    texts = Sequences.of([text])
    pair = each.render(texts, Noise(texts, np.asarray(noise, np.bool_)), ids, rng(0))
    return tuple(part.lists()[0] for part in pair)


# The spec's table: tokens a to h, the noise, inputs, targets.
EXAMPLES = [
    ("iid", [C, D, G], [A, B, S0, E, F, S1, H], [S0, C, D, S1, G, S2]),
    ("span3", [C, D, H], [A, B, S0, E, F, G, S1], [S0, C, D, S1, H]),
    ("mass", [C, D, G], [A, B, S0, S0, E, F, S0, H], TEXT),
    ("drop", [C, D, G], [A, B, E, F, H], [C, D, G]),
    ("prefix_lm", [D, E, F, G, H], [A, B, C], [D, E, F, G, H]),
    ("causal_lm", TEXT, [], TEXT),
    # Noise at the beginning: no sentinel before it in the targets.
    ("iid", [A, D], [S0, B, C, S1, E, F, G, H], [A, S0, D, S1]),
]


@pytest.mark.parametrize(("name", "noise", "inputs", "targets"), EXAMPLES)
def test_worked_examples(name, noise, inputs, targets):
    assert rendered(OBJECTIVES[name], TEXT, noise_at(TEXT, noise)) == (inputs, targets)


def test_the_closing_sentinel_of_the_papers_figure():
    closing = OBJECTIVES["iid"].replace(closing_sentinel=True)
    assert rendered(closing, TEXT, noise_at(TEXT, [C, D, H]))[1] == [S0, C, D, S1, H, S2]
    # Figure 2 itself: the text ends in kept words, and the code's targets end in one anyway.
    assert rendered(closing, TEXT, noise_at(TEXT, [C, D, G]))[1] == [S0, C, D, S1, G, S2]


# Spec 2.4: density, mean span, inputs -> raw, targets. The first and last columns of the
# reference's own helper; 2 to 10 at 512 are its gin files' lengths.
@pytest.mark.parametrize(
    ("density", "mean", "inputs", "raw", "targets"),
    [
        (0.15, 2, 512, 552, 126),
        (0.15, 3, 512, 568, 114),
        (0.15, 5, 512, 581, 105),
        (0.15, 10, 512, 591, 99),
        (0.10, 3, 512, 548, 74),
        (0.25, 3, 512, 614, 206),
        (0.50, 3, 512, 766, 512),
        (0.15, 3, 128, 141, 29),
        (0.15, 3, 1024, 1137, 229),
    ],
)
def test_lengths_of_random_spans(density, mean, inputs, raw, targets):
    spans = objective("span3", noise_density=density, mean_span=float(mean))
    assert spans.lengths(inputs) == Lengths(raw, inputs, targets)


# Spec 2.1, last two columns; inputs and, without an encoder, the row that holds both.
@pytest.mark.parametrize(
    ("name", "raw", "inputs", "targets", "joined"),
    [
        ("causal_lm", 511, 0, 512, 512),
        ("prefix_lm", 511, 512, 512, 512),
        ("bert", 511, 512, 512, 1024),
        ("deshuffle", 511, 512, 512, 1024),
        ("mass", 511, 512, 512, 1024),
        ("iid", 511, 512, 192, 704),
        ("iid10", 511, 512, 103, 615),
        ("iid25", 511, 512, 256, 768),
        ("iid50", 511, 512, 512, 1024),
        ("drop", 511, 512, 104, 616),
        ("span2", 552, 512, 126, 638),
        ("span3", 568, 512, 114, 626),
        ("span5", 581, 512, 105, 617),
        ("span10", 591, 512, 99, 611),
    ],
)
def test_lengths_of_every_objective(name, raw, inputs, targets, joined):
    each = OBJECTIVES[name]
    assert each.lengths() == Lengths(raw, inputs, targets)
    together = each.lengths(512, separator_length=1)
    assert together.joined == joined
    # A prefix and the rest share a row: two ends of sequence beside the text.
    assert together.raw == (510 if name == "prefix_lm" else raw)


@given(
    st.sampled_from(sorted(OBJECTIVES)),
    st.integers(8, 96),
    st.sampled_from([None, 1, 3]),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_lengths_hold_what_a_full_text_becomes(name, input_length, separator, closing, seed):
    each = OBJECTIVES[name]
    if each.targets == "sentinels":
        each = each.replace(closing_sentinel=closing)
    lengths = each.lengths(input_length, separator)
    text = rng(seed).integers(3, 1000, lengths.raw).tolist()
    inputs, targets = each(Sequences.of([text]), IDS, rng(seed))
    n_inputs, n_targets = len(inputs.tokens), len(targets.tokens)
    if each.noise == "spans":  # exactly: nothing is cut, nothing is left over
        assert (n_inputs + 1, n_targets + 1) == (
            (lengths.inputs, lengths.targets)
            if each.noise_density != 0.5
            else (n_inputs + 1, lengths.targets)
        )
    if each.inputs != "nothing":
        assert n_inputs + 1 <= lengths.inputs
    if not (each.noise == "iid" and each.targets != "whole"):  # those lengths are estimates
        assert n_targets + 1 <= lengths.targets
    if separator is not None and each.splits:
        assert n_inputs + (separator if n_inputs else 0) + n_targets + 1 == lengths.joined


@pytest.mark.parametrize("name", ["iid", "iid10", "iid25", "iid50", "drop"])
@pytest.mark.parametrize("density", [None, 0.05, 0.3])
def test_targets_of_iid_noise_are_hardly_ever_cut(name, density):
    each = OBJECTIVES[name] if density is None else objective(name, noise_density=density)
    lengths = each.lengths(512)
    texts = Sequences.of([np.full(lengths.raw, 5)] * 2000)
    _, targets = each(texts, FakeIds(40_000, 1000), rng(1))
    cut = float(np.mean(targets.lengths + 1 > lengths.targets))
    gin_files = {"iid10": 0.35, "iid25": 0.04} if density is None else {}  # tight themselves
    assert cut <= gin_files.get(name, 0.001)


# --- twins that go token by token -------------------------------------------------------------


def sentinel_number(k, overflow, ids):
    return ids.size - 1 - (min(k, ids.extra_ids - 1) if overflow == "last" else k)


def runs_replaced(text, marked, overflow, ids):
    out, k, inside = [], 0, False
    for token, mark in zip(text, marked, strict=True):
        if not mark:
            out.append(token)
        elif not inside:
            out.append(sentinel_number(k, overflow, ids))
            k += 1
        inside = mark
    return out


def twin(each, text, noise, ids):
    kept = [not n for n in noise]
    overflow = each.sentinel_overflow
    inputs = {
        "nothing": lambda: [],
        "kept": lambda: [t for t, n in zip(text, noise, strict=True) if not n],
        "sentinels": lambda: runs_replaced(text, noise, overflow, ids),
        "mask": lambda: [ids.size - 1 if n else t for t, n in zip(text, noise, strict=True)],
    }
    targets = {
        "whole": lambda: list(text),
        "noise": lambda: [t for t, n in zip(text, noise, strict=True) if n],
        "sentinels": lambda: runs_replaced(text, kept, overflow, ids),
    }
    made = targets[each.targets]()
    if each.closing_sentinel and (not noise or noise[-1]):
        runs = sum(1 for value, _ in itertools.groupby(kept) if value)
        made.append(sentinel_number(runs, overflow, ids))
    return (inputs[each.inputs]() if each.inputs in inputs else None), made


NOISY = st.lists(st.lists(st.tuples(st.integers(3, 900), st.booleans()), max_size=25), max_size=5)


@pytest.mark.slow
@given(
    st.sampled_from(sorted(OBJECTIVES)),
    NOISY,
    st.integers(1, 6),
    st.booleans(),
    st.sampled_from(["last", "reference"]),
)
def test_rendering_against_a_twin(name, texts, extra_ids, closing, overflow):
    ids = FakeIds(1000, extra_ids)
    each = OBJECTIVES[name].replace(sentinel_overflow=overflow)
    if each.targets == "sentinels":
        each = each.replace(closing_sentinel=closing)
    tokens = [[t for t, _ in text] for text in texts]
    noise = [[n for _, n in text] for text in texts]
    flat = np.array([n for text in noise for n in text], np.bool_)

    sequences = Sequences.of(tokens)
    inputs, targets = each.render(sequences, Noise(sequences, flat), ids, rng(3))

    wanted = [twin(each, *pair, ids) for pair in zip(tokens, noise, strict=True)]
    assert targets.lists() == [pair[1] for pair in wanted]
    if each.inputs == "shuffled":
        assert list(map(sorted, inputs.lists())) == list(map(sorted, tokens))
    elif each.inputs == "mask-random":
        for shown, text, marks in zip(inputs.lists(), tokens, noise, strict=True):
            for token, original, mark in zip(shown, text, marks, strict=True):
                assert 3 <= token < 1000 if mark else token == original
    else:
        assert inputs.lists() == [pair[0] for pair in wanted]


# --- filling back -------------------------------------------------------------------------------


def filled_back(inputs, targets, is_sentinel):
    """The text, from the order of sentinels alone; also where the last one is repeated."""
    kept = [list(run) for mark, run in itertools.groupby(inputs, is_sentinel) if not mark]
    noise = [list(run) for mark, run in itertools.groupby(targets, is_sentinel) if not mark]
    begins_with_noise = bool(targets) and not is_sentinel(targets[0])
    first, second = (noise, kept) if begins_with_noise else (kept, noise)
    pairs = itertools.zip_longest(first, second, fillvalue=[])
    return [token for pair in pairs for run in pair for token in run]


LENGTHS = st.lists(st.integers(2, 60), min_size=1, max_size=4)


@given(st.sampled_from(sorted(OBJECTIVES)), LENGTHS, st.integers(0, 2**32), st.integers(1, 5))
def test_filling_the_targets_back_gives_the_text(name, lengths, seed, extra_ids):
    each = OBJECTIVES[name]
    texts = [rng(seed, i).integers(3, 900, n).tolist() for i, n in enumerate(lengths)]
    ids = FakeIds(1000, extra_ids)
    inputs, targets = each(Sequences.of(texts), ids, rng(seed))
    for text, shown, asked in zip(texts, inputs.lists(), targets.lists(), strict=True):
        if each.targets == "whole":
            assert asked == text
        elif name == "prefix_lm":
            assert shown
            assert asked
            assert shown + asked == text
        elif name == "drop":  # where the noise stood is not told; its order and the rest's are
            assert collections.Counter(shown + asked) == collections.Counter(text)
            assert is_subsequence(shown, text)
            assert is_subsequence(asked, text)
        else:
            assert filled_back(shown, asked, lambda token: token >= 1000 - extra_ids) == text


def is_subsequence(part, whole):
    rest = iter(whole)
    return all(token in rest for token in part)


# --- noise --------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 40), max_size=8),
    st.floats(0.01, 0.99),
    st.floats(1, 12),
    st.integers(0, 2**32),
)
def test_random_spans_have_the_right_number_of_tokens_and_runs(lengths, density, mean, seed):
    mask = random_spans_noise(np.array(lengths, np.int64), density, mean, rng(seed))
    assert len(mask) == sum(lengths)
    begin = 0
    for length in lengths:
        of_text = mask[begin : begin + length].tolist()
        begin += length
        if length < 2:
            assert not any(of_text)
            continue
        noise = min(max(round(length * density), 1), length - 1)
        spans = min(max(round(noise / mean), 1), noise, length - noise)
        runs = [value for value, _ in itertools.groupby(of_text)]
        assert sum(of_text) == noise
        assert runs == [False, True] * spans
    texts = Sequences(np.zeros(sum(lengths), np.int32), np.array(lengths, np.int64))
    chosen = objective("span3", noise_density=density, mean_span=mean)
    drawn = chosen.draw_noise(texts, rng(seed))
    assert drawn.mask.tolist() == mask.tolist()
    found = Noise(texts, mask)
    for runs, wanted in ((drawn.runs, found.runs), (drawn.kept_runs, found.kept_runs)):
        assert [each.tolist() for each in runs] == [each.tolist() for each in wanted]


@given(st.integers(0, 2**32), st.sampled_from([0, 1, 500, 2**30, 2**31 - 5]), st.booleans())
def test_draws_are_those_of_numpy(seed, start, halved):
    bounds = np.arange(start, start + 5)[:, np.newaxis] + np.arange(6)
    bounds[bounds == 0] = 1
    blocks = [(slice(5), slice(2, 4)), (slice(3), slice(2))]
    found, wanted = rng(seed), rng(seed)
    if halved:  # 32 bits of the last 64 are still to come
        for each in (found, wanted):
            each.integers(5, dtype=np.uint32)
    drawn = _drawn_below(bounds, blocks, found)
    for block in blocks:
        assert drawn[block].tolist() == wanted.integers(0, bounds[block]).tolist()
    assert found.bit_generator.state == wanted.bit_generator.state


def test_random_spans_are_uniform_over_all_ways_to_cut():
    # 9 tokens, 4 of them noise in 2 runs: 3 ways to cut the noise, 4 ways to cut the rest.
    draws = 12_000
    mask = random_spans_noise(np.full(draws, 9), 4 / 9, 2.0, rng(5)).reshape(draws, 9)
    seen = collections.Counter(map(bytes, mask.astype(np.uint8)))
    wanted = set()
    for noise, kept in itertools.product(range(1, 4), range(1, 5)):
        wanted.add(bytes([0] * kept + [1] * noise + [0] * (5 - kept) + [1] * (4 - noise)))
    assert seen.keys() == wanted
    expected = draws / len(wanted)
    chi_square = sum((count - expected) ** 2 / expected for count in seen.values())
    assert chi_square < 31.3  # 11 degrees of freedom, one in a thousand


def test_a_span_mask_differs_between_texts():
    mask = random_spans_noise(np.full(50, 100), 0.15, 3.0, rng(5)).reshape(50, 100)
    assert len(np.unique(mask, axis=0)) == 50


def test_iid_noise_has_its_density():
    mask = iid_noise(np.array([100_000, 100_000]), 0.15, rng(6))
    assert abs(mask.mean() - 0.15) < 5 * math.sqrt(0.15 * 0.85 / 200_000)
    assert len(np.unique(mask.reshape(2, -1), axis=0)) == 2


def test_prefixes_are_uniform_and_leave_something():
    each = OBJECTIVES["prefix_lm"]
    inputs, targets = each(Sequences.of([TEXT] * 7000), IDS, rng(2))
    counts = np.bincount(inputs.lengths, minlength=9)
    assert counts[[0, 8]].tolist() == [0, 0]
    assert np.all(np.abs(counts[1:8] - 1000) < 5 * math.sqrt(1000))
    assert np.all(targets.lengths == 8 - inputs.lengths)


def test_a_text_too_short_to_split_is_left_out():
    inputs, targets = OBJECTIVES["prefix_lm"](Sequences.of([[A], [], [B, C]]), IDS, rng(0))
    assert (inputs.lists(), targets.lists()) == ([[B]], [[C]])


def test_bert_style_masks_nine_in_ten_and_swaps_the_rest():
    each = OBJECTIVES["bert"]
    texts = Sequences.of([np.full(200_000, 7)])
    inputs, targets = each(texts, IDS, rng(4))
    changed = inputs.tokens != 7
    masked = inputs.tokens == S0
    swapped = inputs.tokens[changed & ~masked]
    assert abs(changed.mean() - 0.15) < 0.005
    assert abs(masked.sum() / changed.sum() - 0.9) < 0.01
    assert 3 <= swapped.min() < 10  # pad, eos and unk are not drawn
    assert IDS.size - 10 < swapped.max() < IDS.size  # sentinels are
    assert np.array_equal(targets.tokens, texts.tokens)


def test_shuffling_gives_every_order_and_keeps_texts_apart():
    draws = 6000
    inputs, _ = OBJECTIVES["deshuffle"](Sequences.of([[A, B, C]] * draws), IDS, rng(8))
    seen = collections.Counter(map(tuple, inputs.tokens.reshape(draws, 3).tolist()))
    assert seen.keys() == set(itertools.permutations([A, B, C]))
    assert all(abs(count - 1000) < 5 * math.sqrt(1000) for count in seen.values())


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_the_generator_decides_everything(name):
    texts = Sequences.of([rng(i).integers(3, 900, 200) for i in range(20)])
    made = [
        [part.lists() for part in OBJECTIVES[name](texts, IDS, rng(seed))] for seed in (1, 1, 2)
    ]
    assert made[0] == made[1]
    assert (made[0] != made[2]) == (name != "causal_lm")


# --- more runs than sentinels -------------------------------------------------------------------


def test_runs_beyond_the_last_sentinel():
    text, noise = list(range(20, 28)), [False, True] * 4
    ids = FakeIds(1000, 2)
    last, reference = (
        rendered(OBJECTIVES["iid50"].replace(sentinel_overflow=how), text, noise, ids)
        for how in ("last", "reference")
    )
    assert last[0] == [20, 999, 22, 998, 24, 998, 26, 998]
    assert last[1] == [999, 21, 998, 23, 998, 25, 998, 27]
    assert reference[0] == [20, 999, 22, 998, 24, 997, 26, 996]  # 997 and 996 are pieces of text


def test_half_the_tokens_need_more_sentinels_than_there_are_and_stay_out_of_the_pieces():
    each = OBJECTIVES["iid50"]
    texts = Sequences.of([np.full(511, 5)] * 50)
    inputs, _ = each(texts, IDS, rng(0))
    runs = (inputs.tokens != 5).reshape(-1).sum() / 50
    assert runs == pytest.approx(128, abs=3)  # the spec's 128
    assert inputs.tokens[inputs.tokens != 5].min() == 1000
    reference, _ = each.replace(sentinel_overflow="reference")(texts, IDS, rng(0))
    assert reference.tokens[reference.tokens != 5].min() < 1000
    assert np.array_equal(inputs.lengths, reference.lengths)


def test_counting_on_stops_before_the_special_ids():
    each = OBJECTIVES["iid50"].replace(sentinel_overflow="reference")
    with pytest.raises(ValueError, match=r"5 runs of noise .* has only 7 ids; sentinel_overflow"):
        rendered(each, [3] * 10, [False, True] * 5, FakeIds(7, 1))


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("prefix_lm", {"noise_density": 0.2}, "belongs to iid and random-span noise"),
        ("iid", {"noise_density": 1.0}, "between 0 and 1, got 1.0"),
        ("iid", {"noise_density": None}, "belongs to iid and random-span noise, got None"),
        ("iid", {"mean_span": 3.0}, "mean_span belongs to random-span noise"),
        ("span3", {"mean_span": 0.5}, "at least 1, got 0.5"),
        ("drop", {"closing_sentinel": True}, "for targets with sentinels"),
    ],
)
def test_objectives_that_cannot_be(name, changes, message):
    with pytest.raises(ValueError, match=message):
        objective(name, **changes)


@pytest.mark.parametrize("name", ["bert", "mass", "iid", "span3"])
def test_a_vocabulary_without_sentinels_is_refused(name):
    with pytest.raises(ValueError, match="needs sentinels, and the vocabulary has none"):
        OBJECTIVES[name](Sequences.of([TEXT]), FakeIds(900, 0), rng(0))


@pytest.mark.parametrize("name", ["causal_lm", "prefix_lm", "deshuffle", "drop"])
def test_others_do_without_sentinels(name):
    inputs, targets = OBJECTIVES[name](Sequences.of([TEXT]), FakeIds(900, 0), rng(0))
    assert len(inputs) == len(targets) == 1


def test_inputs_must_hold_something():
    with pytest.raises(ValueError, match="input_length must be at least 4, got 3"):
        OBJECTIVES["span3"].lengths(3)


@pytest.mark.parametrize("name", ["iid", "iid10", "iid25", "iid50", "span2", "span3", "span10"])
@pytest.mark.parametrize("input_length", [128, 512, 2048])
def test_no_text_needs_more_sentinels_than_are_said(name, input_length):
    chosen = objective(name)
    raw = chosen.lengths(input_length).raw
    texts = Sequences.of([np.full(raw, 5, np.int32)] * 300)
    rng = np.random.default_rng(7)
    noise = chosen.draw_noise(texts, rng).mask.reshape(300, raw)
    begins = np.diff(noise, axis=1, prepend=False) & noise
    kept = np.diff(~noise, axis=1, prepend=False) & ~noise
    found = max(begins.sum(1).max(), kept.sum(1).max())
    said = chosen.most_sentinels(raw)
    assert found <= said
    # Nor far more: spans are known exactly, iid noise to a few standard deviations.
    assert said == found if chosen.noise == "spans" else said < 1.4 * found + 5


@pytest.mark.parametrize(
    ("name", "most"), [("drop", 0), ("prefix_lm", 0), ("mass", 1), ("bert", 1)]
)
def test_other_objectives_need_one_sentinel_or_none(name, most):
    assert objective(name).most_sentinels(5000) == most
