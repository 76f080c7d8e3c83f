"""Without an accelerator and without options, a run suits the machine."""

import argparse
import json
import re

import pytest

from model.commands import pretrain
from model.commands.cpu_defaults import CPU_DEFAULTS, apply_cpu_defaults
from testing.helpers import run_c4

_PAPER = {
    "size": None, "batch_size": 128, "input_length": 512, "steps": 2**19, "warmup": 10_000,
    "checkpoint_every": 5000,
}  # fmt: skip


def _chosen(out, *options):
    """The values of the options after the choice, and what was said."""
    parser = argparse.ArgumentParser()
    pretrain.add_arguments(parser)
    arguments = parser.parse_args(["--out", str(out), *options])
    said = []
    apply_cpu_defaults(arguments, said.append)
    return {name: getattr(arguments, name, value) for name, value in _PAPER.items()}, said


def test_on_a_cpu_a_run_is_small_and_says_so(tmp_path):
    values, [line] = _chosen(tmp_path / "run")
    assert values == CPU_DEFAULTS
    for name, value in CPU_DEFAULTS.items():
        assert f"--{name.replace('_', '-')} {value}" in line
    assert "the paper's: --size base --batch-size 128 --input-length 512" in line


def test_an_option_that_was_given_wins(tmp_path):
    values, [line] = _chosen(tmp_path / "run", "--steps", "100", "--warmup", "10000")
    assert values == {**CPU_DEFAULTS, "steps": 100, "warmup": 10_000}
    assert "--steps" not in line


@pytest.mark.parametrize(
    "options",
    [
        ["--size", "tiny"], ["--batch-size", "128"], ["--input-length", "512"],
        ["--accumulate", "1"], ["--set", "num_layers=1"], ["--architecture", "half-layer"],
        ["--init-from", "somewhere"],
    ],
)  # fmt: skip
def test_who_gives_a_shape_gets_the_papers_values_for_the_rest(tmp_path, options):
    name = options[0].removeprefix("--").replace("-", "_")
    values, said = _chosen(tmp_path / "run", *options)
    assert said == []
    assert {**values, name: None} == {**_PAPER, name: None}


def test_on_an_accelerator_the_defaults_are_the_papers(tmp_path, monkeypatch):
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    assert _chosen(tmp_path / "run") == (_PAPER, [])


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("begun", ["cpu", "paper", None])
def test_a_run_that_goes_on_keeps_its_defaults(tmp_path, monkeypatch, backend, begun):
    content = {"format": 1, "settings": {}, "defaults": begun}
    if begun is None:  # of an earlier version
        del content["defaults"]
    (tmp_path / "run.json").write_text(json.dumps(content))
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    monkeypatch.setattr("jax.default_backend", lambda: backend)
    values, _ = _chosen(tmp_path)
    assert values == (CPU_DEFAULTS if begun == "cpu" else _PAPER)


@pytest.mark.parametrize("options", [["--accumulate", "2"], ["--size", "tiny"]])
def test_a_run_that_goes_on_keeps_its_defaults_beside_what_is_given(tmp_path, options):
    content = {"format": 1, "settings": {}, "defaults": "cpu"}
    (tmp_path / "run.json").write_text(json.dumps(content))
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    values, [line] = _chosen(tmp_path, *options)
    assert values == CPU_DEFAULTS
    assert options[0] not in line
    assert line.startswith(f"{tmp_path} was begun with the defaults of a CPU: --")


def test_the_help_has_both_defaults():
    text = " ".join(run_c4("pretrain", "--help").out.split())
    for paper, name in (
        ("small", "size"),
        (128, "batch_size"),
        (512, "input_length"),
        (10000, "warmup"),
    ):
        assert f"(default: {paper}; on a CPU {CPU_DEFAULTS[name]})" in text
    assert re.search("without any of --size, --set, .* the defaults", text)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_xla")
def test_the_same_command_goes_on(material, tmp_path):
    command = [
        "pretrain", "--corpus", material.corpus, "--vocab", material.vocab,
        "--out", tmp_path / "run", "--workers", "0", "--eval-every", "0",
    ]  # fmt: skip
    for said in ("step 1/1  loss", "step 1 is already done"):
        outcome = run_c4(*command, "--steps", "1")
        assert outcome.status == 0, outcome
        assert "--size tiny" in outcome.out
        assert said in outcome.out
    begun = json.loads((tmp_path / "run" / "run.json").read_text())
    assert begun["settings"]["batch_size"] == CPU_DEFAULTS["batch_size"]
    assert begun["defaults"] == "cpu"
