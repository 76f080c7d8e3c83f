"""Sequences against the same work on lists."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model.data.sequences import Sequences

LISTS = st.lists(st.lists(st.integers(0, 50), max_size=9), max_size=6)


@given(LISTS)
def test_lists_come_back(lists):
    assert Sequences.of(lists).lists() == lists


@given(LISTS)
def test_each_token_knows_its_sequence(lists):
    sequences = Sequences.of(lists)
    assert sequences.owners.tolist() == [i for i, each in enumerate(lists) for _ in each]
    assert sequences.tokens.dtype == np.int32


@given(LISTS, st.integers(0, 6), st.lists(st.integers(1, 9), max_size=2), st.data())
def test_take_reorders_cuts_and_ends(lists, most, ending, data):
    which = data.draw(st.lists(st.sampled_from(range(len(lists))))) if lists else []
    sequences = Sequences.of(lists)
    assert sequences.take(which).lists() == [lists[i] for i in which]
    wanted = [lists[i][:most] + ending for i in which]
    assert sequences.take(which, most, ending).lists() == wanted
    ended = [data.draw(st.booleans()) for _ in which]
    wanted = [lists[i][:most] + ending * end for i, end in zip(which, ended, strict=True)]
    assert sequences.take(which, most, ending, np.array(ended, np.bool_)).lists() == wanted


@given(LISTS, st.data())
def test_only_keeps_what_is_asked_for(lists, data):
    kept = [[data.draw(st.booleans()) for _ in each] for each in lists]
    flat = np.array([k for each in kept for k in each], dtype=np.bool_)
    wanted = [
        [t for t, k in zip(*pair, strict=True) if k] for pair in zip(lists, kept, strict=True)
    ]
    assert Sequences.of(lists).only(flat).lists() == wanted


@given(LISTS, st.integers(1, 5))
def test_cut_makes_pieces_in_order(lists, most):
    wanted = [each[i : i + most] for each in lists for i in range(0, len(each), most)]
    assert Sequences.of(lists).cut(most).lists() == wanted


@given(LISTS)
def test_joined_is_one(lists):
    assert Sequences.of(lists).joined().lists() == [[t for each in lists for t in each]]
