"""Short form of benchmarks/plan.py: the model against one small build, and how rates are solved."""

import pathlib

import numpy as np
import pytest

from benchmarks import plan


def test_least_squares_gives_the_rates_back_and_never_less_than_nothing() -> None:
    chance = np.random.default_rng(0)
    features = chance.uniform(1, 10, (8, 3))
    seconds = features @ np.array([2.0, 0.0, 5.0])
    assert plan.solved(features, seconds.tolist()) == pytest.approx([2, 0, 5], abs=1e-9)
    seconds = features @ np.array([2.0, -0.3, 5.0])
    found = plan.solved(features, seconds.tolist())
    assert (found >= 0).all()
    assert found[1] == 0


def test_a_line_through_two_points() -> None:
    assert plan.line((10.0, 7.0), (30.0, 11.0)) == pytest.approx((0.2, 5.0))
    assert plan.line((10.0, 7.0), (30.0, 5.0)) == (0.0, 7.0)


@pytest.mark.slow
def test_the_model_knows_the_bytes_of_a_small_build(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # CPU and time of so few pages are the machine's mood: `check` at full size is for these.
    plan.check([4_000], workers=2, seed=1)
    errors = {}
    for row in capsys.readouterr().out.splitlines():
        if row.startswith("  GB "):
            name, _, rest = row.strip().partition("  ")
            errors[name] = float(rest.split()[3].rstrip("%")) / 100
    assert set(errors) >= {"GB a worker", "GB shuffled", "GB cleaned", "GB fingerprints"}
    assert all(abs(error) <= plan.BAR for error in errors.values()), errors
