"""Short form of benchmarks/plan.py: the model against one small build."""

import pathlib

import pytest

from benchmarks import plan


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
