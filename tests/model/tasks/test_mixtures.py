"""Rates of mixtures against the paper's formulas, written out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.tasks import TASKS, mixture
from model.tasks.mixtures import Mixture

# Training examples, from the published sizes.
GLUE = {
    "glue_cola": 8551, "glue_sst2": 67349, "glue_mrpc": 3668, "glue_qqp": 363849,
    "glue_stsb": 5749, "glue_mnli": 392702, "glue_qnli": 104743, "glue_rte": 2490,
}  # fmt: skip
SUPER_GLUE = {
    "super_glue_boolq": 9427, "super_glue_cb": 250, "super_glue_copa": 400,
    "super_glue_multirc": 27243, "super_glue_record": 138854, "super_glue_rte": 2490,
    "super_glue_wic": 5428, "super_glue_wsc": 259, "dpr": 1322,
}  # fmt: skip
HUGE = 10**9
OTHERS = {
    "cnn_dailymail": 287113, "squad": 87599, "wmt_ende": 4592289, "wmt_enfr": HUGE,
    "wmt_enro": 610320,
}  # fmt: skip
SUPERVISED = GLUE | SUPER_GLUE | OTHERS


def normalized(weights):
    total = sum(weights.values())
    return {name: pytest.approx(weight / total, abs=1e-12) for name, weight in weights.items()}


def expected(sizes, limit, temperature=1.0):
    scaled = dict(sizes)
    if {"glue_rte", "super_glue_rte"} <= set(sizes):
        scaled |= {"glue_rte": 1245, "super_glue_rte": 1245}
    return normalized({n: min(s, limit) ** (1 / temperature) for n, s in scaled.items()})


def test_there_are_22_supervised_tasks():
    rates = mixture("all").rates()
    assert len(rates) == 23
    assert set(rates) == {*SUPERVISED, "c4"}
    assert sum(rates.values()) == pytest.approx(1)


@pytest.mark.parametrize("limit", [2**16, 2**17, 2**18, 2**19, 2**20, 2**21])
def test_proportional_with_a_limit(limit):
    assert mixture("all", limit=limit).rates() == expected(SUPERVISED | {"c4": HUGE}, limit)
    supervised = mixture("all", limit=limit, unsupervised=False).rates()
    assert supervised == expected(SUPERVISED, limit)


@pytest.mark.parametrize("temperature", [2, 4, 8])
def test_temperature(temperature):
    found = mixture("all", limit=2**21, temperature=temperature).rates()
    assert found == expected(SUPERVISED | {"c4": HUGE}, 2**21, temperature)


def test_equal_gives_every_task_one_share_rte_too():
    assert mixture("all", equal=True).rates() == normalized(dict.fromkeys([*SUPERVISED, "c4"], 1))


def test_the_default_limit_of_all_is_that_of_multi_task_training():
    assert mixture("all") == mixture("all", limit=2**19, temperature=1.0, unsupervised=True)


def test_glue_and_super_glue_are_proportional_without_a_limit():
    assert mixture("glue").rates() == normalized(GLUE)
    assert mixture("super_glue").rates() == normalized(SUPER_GLUE)


@pytest.mark.parametrize(
    ("left", "gone"),
    [
        ("glue", set(GLUE)),
        ("super_glue", set(SUPER_GLUE)),
        ("squad", {"squad"}),
        ("glue_rte", {"glue_rte"}),
        ("c4", {"c4"}),
    ],
)
def test_leave_one_out_and_then_rte_counts_in_full(left, gone):
    kept = {n: s for n, s in (SUPERVISED | {"c4": HUGE}).items() if n not in gone}
    assert mixture("all", leave_out=left).rates() == expected(kept, 2**19)


def test_an_artificial_size_of_the_unlabelled_data_is_not_limited():
    found = mixture("all", limit=1_000_000, unsupervised_size=2_620_000).rates()
    weights = {n: min(s, 1_000_000) for n, s in SUPERVISED.items()}
    weights |= {"glue_rte": 1245, "super_glue_rte": 1245, "c4": 2_620_000}
    assert found == normalized(weights)


def test_tasks_of_ones_own_choice_and_examples():
    assert mixture(["glue_cola", "squad"]).rates() == normalized(
        {"glue_cola": 8551, "squad": 87599}
    )
    found = Mixture(("glue_cola", "own")).rates({"own": 8551})
    assert found == {"glue_cola": 0.5, "own": 0.5}


@given(
    st.lists(st.sampled_from([*SUPERVISED, "c4"]), min_size=1, unique=True),
    st.none() | st.integers(1, 2**40),
    st.floats(0.1, 100),
    st.booleans(),
)
def test_rates_are_probabilities_in_the_order_of_sizes(names, limit, temperature, equal):
    rates = Mixture(tuple(names), limit, temperature, equal).rates()
    assert list(rates) == names
    assert sum(rates.values()) == pytest.approx(1)
    assert all(rate >= 0 for rate in rates.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "glues"}, "no task or mixture 'glues'"),
        ({"name": "glue", "leave_out": "squad"}, "'squad' is not in the mixture"),
        ({"name": "all", "leave_out": "nothing"}, "'nothing' is not in the mixture"),
        ({"name": "glue", "leave_out": "glue"}, "at least one task"),
        ({"name": "all", "limit": 0}, "at least 1, got 0"),
        ({"name": "all", "temperature": 0}, "must be positive, got 0"),
        ({"name": "all", "temperature": float("nan")}, "must be positive, got nan"),
        ({"name": "all", "unsupervised_size": 0}, "at least 1, got 0"),
    ],
)
def test_wrong_mixtures_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        mixture(**arguments)


@pytest.mark.parametrize("temperature", [1e-3, 1e-320])
def test_a_temperature_beyond_all_numbers_is_refused(temperature):
    with pytest.raises(ValueError, match=r"too low for [\d,]+ examples of .* \(--temperature\)"):
        mixture("all", temperature=temperature).rates()


def test_a_task_that_is_never_trained_on_has_no_rate():
    with pytest.raises(ValueError, match="no training examples are known of glue_wnli"):
        mixture("glue_wnli").rates()
    assert TASKS["glue_wnli"].mixing_examples == 0
