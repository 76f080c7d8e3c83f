"""Numbers on the command line: what is accepted, by every option that takes one."""

import argparse
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import c4_main, number_options
from testing.helpers import run_c4

#: What int() or float() would read, or what comes close to it.
NEAR = st.text(st.sampled_from("0123456789-+.eE_ \t\u0663\uff15\u00b2naif"), max_size=24)


@given(NEAR | st.integers().map(str))
def test_whole_numbers_are_ascii_digits_and_nothing_else(text: str) -> None:
    right = re.fullmatch("-?[0123456789]{1,18}", text)
    if right:
        assert number_options.whole_number(text) == int(text)
    else:
        with pytest.raises(argparse.ArgumentTypeError, match=r"^expected .{,80}$"):
            number_options.whole_number(text)


@given(NEAR | st.floats().map(str) | st.floats().map("{:g}".format))
def test_decimal_numbers_are_finite_and_ascii(text: str) -> None:
    try:
        right = math.isfinite(float(text)) and not set(text) - set("0123456789.eE+-")
        right = right and not re.search("[eE][+-]?[0-9]{4}", text)
    except ValueError:
        right = False
    if right:
        assert number_options.decimal_number(text) == float(text)
    else:
        with pytest.raises(argparse.ArgumentTypeError, match=r"^expected .{,80}$"):
            number_options.decimal_number(text)


@given(NEAR | st.integers(0, 100_001).map(str) | st.just("auto"))
def test_shards_are_auto_or_up_to_five_digits(text: str) -> None:
    right = text == "auto" or (re.fullmatch("[0123456789]{1,5}", text) and int(text) > 0)
    if right:
        assert number_options.shard_count(text) == (None if text == "auto" else int(text))
    else:
        with pytest.raises(ValueError, match="--shards wants auto or a whole number from 1"):
            number_options.shard_count(text)


@pytest.mark.parametrize("value", [0.99, 5.01, float("nan"), -3, 10**17])
def test_what_is_out_of_bounds_is_refused_by_the_name_of_its_option(value: float) -> None:
    number_options.require_within("--n", 1, 1, 5)
    number_options.require_within("--n", 5, 1, 5)
    with pytest.raises(ValueError, match="--n must lie between 1 and 5, got"):
        number_options.require_within("--n", value, 1, 5)


def options_with_numbers() -> list[tuple[str, str]]:
    """Command and option, of all that declare ``type=int`` or ``type=float``."""
    found = []
    for name, command in c4_main._COMMANDS.items():
        module = pytest.importorskip(command.module)
        parser = argparse.ArgumentParser()
        module.add_arguments(parser)
        found += [
            (name, action.option_strings[0])
            for action in parser._actions
            if action.type in (int, float)
        ]
    return found


OPTIONS = options_with_numbers()


def test_the_commands_have_options_with_numbers() -> None:
    names = {name for name, _ in OPTIONS}
    assert names == {
        "build", "explain", "plan", "worker-pool", "vocab", "pretrain", "finetune", "tasks",
        "predict", "evaluate", "study", "ablate", "fetch", "report",
        "import",
    }  # fmt: skip


@pytest.mark.parametrize(("command", "option"), OPTIONS)
@pytest.mark.parametrize("value", ["\u0663", "1_000", " 5", "nan", "9" * 5000])
def test_every_option_refuses_what_is_no_number(command: str, option: str, value: str) -> None:
    outcome = run_c4(command, f"{option}={value}")
    assert outcome.status == 2
    last = outcome.err.splitlines()[-1]
    assert f"argument {option}: expected" in last
    assert len(last) < 200


@pytest.mark.parametrize("command", ["build", "plan"])
@pytest.mark.parametrize("value", ["\u0663", "9" * 5000, "1_0", "0", "100000"])
def test_build_and_plan_refuse_the_same_shards(command: str, value: str) -> None:
    others = {"build": ("--input", "a.gz", "--output", "out"), "plan": ("--files", "9")}
    outcome = run_c4(command, *others[command], "--shards", value)
    assert outcome.status == 1
    assert outcome.err.startswith(
        "c4: error: --shards wants auto or a whole number from 1 to 99999"
    )
    assert len(outcome.err) < 200


def test_options_of_beam_are_numbers_too() -> None:
    outcome = run_c4(
        "build", "--input", "samples/wet/*", "--output", "out", "--direct_num_workers=\u0663"
    )
    assert outcome.status == 1
    assert "--direct_num_workers: expected a whole number" in outcome.err
