"""Paired comparisons."""

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.studies.statistics import compare_paired, spread

finite = st.floats(-100, 100)


def test_the_interval_is_student_s():
    """By hand: differences 1, 2, 3, 4; t(0.975, 3) = 3.18245."""
    found = compare_paired([0, 0, 0, 0], [1, 2, 3, 4], level=0.95, higher_is_better=True)
    half = 3.18244630528 * math.sqrt(5 / 3) / 2
    assert found.difference == 2.5
    assert (found.low, found.high) == pytest.approx((2.5 - half, 2.5 + half))
    assert (found.a, found.b, found.pairs) == (0, 2.5, 4)
    assert found.verdict == "B is better"


@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=8), st.booleans())
def test_swapping_the_arms_turns_the_verdict_round(pairs, higher):
    a, b = zip(*pairs, strict=True)
    one = compare_paired(a, b, higher_is_better=higher)
    other = compare_paired(b, a, higher_is_better=higher)
    turned = {"A is better": "B is better", "B is better": "A is better"}
    assert other.verdict == turned.get(one.verdict, "cannot tell")
    assert other.difference == pytest.approx(-one.difference)
    assert one.low <= one.difference <= one.high


def test_which_way_is_better():
    a, b = [2.0, 2.1, 2.2], [2.5, 2.61, 2.7]
    assert compare_paired(a, b, higher_is_better=False).verdict == "A is better"
    assert compare_paired(a, b, higher_is_better=True).verdict == "B is better"


def test_too_little_to_tell():
    assert compare_paired([1.0], [2.0], higher_is_better=True).verdict == "cannot tell"
    assert compare_paired([1.0, 2.0], [1.0, 2.0], higher_is_better=True).verdict == "cannot tell"
    # Differences of rounding alone are none.
    a = [0.1 + 0.2, 1.1]
    assert compare_paired(a, [0.3, 1.1], higher_is_better=True).verdict == "cannot tell"


def test_false_alarms_come_as_often_as_the_level_says():
    rng = random.Random(0)
    runs = [rng.gauss(0, 1) for _ in range(16)]
    for level, most in ((0.99, 8), (0.95, 24)):
        alarms = 0
        for _ in range(200):
            rng.shuffle(runs)
            found = compare_paired(runs[:8], runs[8:], level=level, higher_is_better=False)
            alarms += found.verdict != "cannot tell"
        assert 0 <= alarms <= most
    rng = np.random.default_rng(1)
    values = rng.normal(size=(2000, 2, 5))
    alarms = sum(
        compare_paired(a, b, level=0.9, higher_is_better=True).verdict != "cannot tell"
        for a, b in values.tolist()
    )
    assert 150 < alarms < 250


def test_what_is_no_comparison():
    for a, b in (([], []), ([1.0], [1.0, 2.0])):
        with pytest.raises(ValueError, match="a paired comparison needs pairs"):
            compare_paired(a, b, higher_is_better=True)
    with pytest.raises(ValueError, match="finite values"):
        compare_paired([math.nan, 1], [1, 2], higher_is_better=True)
    with pytest.raises(ValueError, match="the level must be between 0 and 1"):
        compare_paired([1], [2], level=1, higher_is_better=True)
    assert math.isnan(spread([1.0]))
    assert spread([1.0, 3.0]) == pytest.approx(math.sqrt(2))
