"""Rows against rows laid out by hand, example by example, and the table of arrays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data.batches import BatchSpec, concatenated, pack_joined, pack_pairs, shift_right
from model.data.packing import first_fit
from model.data.sequences import Sequences

ENCODER, DECODER, JOINED = 9, 7, 14
TOKENS = st.integers(3, 99)
PAIRS = st.lists(
    st.tuples(
        st.lists(TOKENS, max_size=ENCODER - 1).map(lambda tokens: [*tokens, 1]),
        st.lists(TOKENS, max_size=DECODER - 1).map(lambda tokens: [*tokens, 1]),
    ),
    min_size=1,
    max_size=12,
)


def of(pairs):
    return [Sequences.of([pair[side] for pair in pairs]) for side in (0, 1)]


def padded(values, length):
    return [*values, *[0] * (length - len(values))]


def by_row(packing):
    rows = [[] for _ in range(packing.rows)]
    for example, row in enumerate(packing.row.tolist()):
        rows[row].append(example)
    return rows


def feature_row(sequences, length):
    """Tokens, segments and shifted tokens of one row, one example behind the other."""
    tokens, segments, shifted = [], [], []
    for number, sequence in enumerate(sequences, 1):
        tokens += sequence
        segments += [number] * len(sequence)
        shifted += [0, *sequence[:-1]] if sequence else []
    return tuple(padded(values, length) for values in (tokens, segments, shifted))


@given(PAIRS)
def test_pairs_in_rows_against_rows_by_hand(pairs):
    batch = pack_pairs(*of(pairs), ENCODER, DECODER)
    sizes = np.array([[len(inputs), len(targets)] for inputs, targets in pairs])
    rows = by_row(first_fit(sizes, (ENCODER, DECODER)))
    BatchSpec(len(rows), DECODER, encoder_length=ENCODER).check(batch)
    for number, examples in enumerate(rows):
        tokens, segments, _ = feature_row([pairs[e][0] for e in examples], ENCODER)
        assert batch["encoder_tokens"][number].tolist() == tokens
        assert batch["encoder_segments"][number].tolist() == segments
        tokens, segments, shifted = feature_row([pairs[e][1] for e in examples], DECODER)
        assert batch["decoder_target_tokens"][number].tolist() == tokens
        assert batch["decoder_segments"][number].tolist() == segments
        assert batch["decoder_input_tokens"][number].tolist() == shifted
        assert batch["loss_weights"][number].tolist() == [float(s > 0) for s in segments]


SHORT_PAIRS = st.lists(
    st.tuples(
        st.lists(TOKENS, max_size=5).map(lambda tokens: [*tokens, 1] if tokens else []),
        st.lists(TOKENS, max_size=7).map(lambda tokens: [*tokens, 1]),
    ),
    min_size=1,
    max_size=12,
)


@given(SHORT_PAIRS, st.booleans(), st.booleans())
def test_joined_rows_against_rows_by_hand(pairs, prefix, loss_on_inputs):
    batch = pack_joined(*of(pairs), JOINED, prefix=prefix, loss_on_inputs=loss_on_inputs)
    sizes = np.array([[len(inputs) + len(targets)] for inputs, targets in pairs])
    rows = by_row(first_fit(sizes, (JOINED,)))
    BatchSpec(len(rows), JOINED).check(batch)
    for number, examples in enumerate(rows):
        here = [pairs[e] for e in examples]
        tokens, segments, shifted = feature_row([i + t for i, t in here], JOINED)
        visible, weights = [], []
        for inputs, targets in here:
            # The separator is read one place to the right of where it is predicted.
            seen = len(inputs) + 1 if inputs and prefix else 0
            visible += [1] * seen + [0] * (len(inputs) + len(targets) - seen)
            weights += [float(loss_on_inputs)] * len(inputs) + [1.0] * len(targets)
        assert batch["decoder_target_tokens"][number].tolist() == tokens
        assert batch["decoder_segments"][number].tolist() == segments
        assert batch["decoder_input_tokens"][number].tolist() == shifted
        assert batch["prefix"][number].tolist() == padded(visible, JOINED)
        assert batch["loss_weights"][number].tolist() == padded(weights, JOINED)


def test_a_prefix_ends_where_its_separator_is_read():
    batch = pack_joined(
        Sequences.of([[5, 6, 1]]), Sequences.of([[7, 8, 1]]), 8, prefix=True, loss_on_inputs=False
    )
    assert batch["decoder_input_tokens"].tolist() == [[0, 5, 6, 1, 7, 8, 0, 0]]
    assert batch["prefix"].tolist() == [[1, 1, 1, 1, 0, 0, 0, 0]]
    assert batch["loss_weights"].tolist() == [[0, 0, 0, 1, 1, 1, 0, 0]]


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), min_size=1, max_size=4))
def test_shifting_restarts_in_every_segment(sequences):
    tokens, segments, shifted = feature_row(sequences, 24)
    made = shift_right(np.array([tokens], np.int32), np.array([segments], np.int32))
    assert made.tolist() == [shifted]


def good():
    return {
        name: np.zeros(shape, kind)
        for name, (shape, kind) in BatchSpec(2, 3, encoder_length=4).arrays.items()
    }


def without(name):
    batch = good()
    del batch[name]
    return batch


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (without("encoder_segments"), "lacking encoder_segments; not asked for none"),
        (good() | {"prefix": np.zeros((2, 3), np.int32)}, "lacking none; not asked for prefix"),
        (
            good() | {"loss_weights": np.zeros((2, 3))},
            r"loss_weights must be float32 \[2, 3\], got float64 \[2, 3\]",
        ),
        (
            good() | {"encoder_tokens": np.zeros((2, 5), np.int32)},
            r"encoder_tokens must be int32 \[2, 4\], got int32 \[2, 5\]",
        ),
    ],
)
def test_other_arrays_than_the_tables_are_refused(batch, message):
    spec = BatchSpec(2, 3, encoder_length=4)
    spec.check(good())
    with pytest.raises(ValueError, match=message):
        spec.check(batch)


def test_a_table_of_nothing_is_refused():
    with pytest.raises(ValueError, match="decoder_length must be positive, got 0"):
        BatchSpec(2, 0)


def test_rows_of_several_batches_keep_their_order():
    first, second = good(), good()
    second["encoder_tokens"] += 1
    made = concatenated([first, second])
    assert made["encoder_tokens"][:, 0].tolist() == [0, 0, 1, 1]
    assert concatenated([first]) is first
