"""docs/evaluation.md and docs/studies.md: commands are accepted, files and names are those."""

import argparse
import importlib
import pathlib
import re
import shlex
import shutil

import pytest

from model.evaluation.evaluate import EvaluateConfig
from model.evaluation.submissions import submission_name
from model.studies.ablate import AblateConfig
from model.studies.experiments import CORPORA
from model.studies.run import StudyConfig, study_names
from model.tasks import TASKS
from model.tasks.prepared import prepare
from pipelines.options import given_values
from testing.helpers import run_c4
from tests.model.tasks.extra import needs_extra

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
EVALUATION = (DOCS / "evaluation.md").read_text("utf-8")
STUDIES = (DOCS / "studies.md").read_text("utf-8")


def commands(text):
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def parsed(line):
    _, name, *words = shlex.split(line)
    parser = argparse.ArgumentParser()
    importlib.import_module(f"model.commands.{name}").add_arguments(parser)
    return name, parser.parse_args(words)


@pytest.mark.parametrize("line", commands(EVALUATION) + commands(STUDIES))
def test_commands_are_accepted(line):
    name, arguments = parsed(line)
    if name == "evaluate":
        EvaluateConfig(**given_values(arguments, EvaluateConfig))
    elif name == "ablate":
        AblateConfig(**given_values(arguments, AblateConfig))
    elif arguments.action == "run":
        StudyConfig(names=study_names(arguments.name), **given_values(arguments, StudyConfig))
    elif "--runs" not in line:
        done = run_c4(*shlex.split(line)[1:])
        assert done.status == 0, done.err
        assert done.out.startswith("table")


def test_the_files_of_submissions_are_listed():
    names = {
        submission_name(name, split) for name, entry in TASKS.items() for split in entry.splits
    }
    listed = set(re.findall(r"`([\w-]+\.(?:tsv|jsonl))`", EVALUATION))
    assert listed == names - {None}


def test_the_corpora_and_defaults_are_those_of_the_code():
    named = STUDIES.partition("Corpora are named: ")[2].partition(".")[0]
    assert re.findall(r"`(\w+)`", named) == list(CORPORA)
    defaults = AblateConfig(a="a", b="b", out="out")
    assert f"{defaults.level:g}" in STUDIES
    assert f"{defaults.steps} steps" in STUDIES
    assert defaults.held_out_share == 1 / 50
    assert (defaults.objective, defaults.size) == ("causal_lm", "tiny")


@needs_extra
@pytest.mark.slow
def test_the_library_s_example_runs(tmp_path, monkeypatch, capsys):
    from model.data.vocabulary import Vocabulary
    from model.training.model_folders import save_params
    from testing.tiny_t5 import V1_0, random_params
    from testing.vocabularies import train

    monkeypatch.chdir(tmp_path)
    vocabulary = train(tmp_path / "v.model")
    config = V1_0.replace(vocab_size=Vocabulary(vocabulary).padded_size)
    save_params("run", config, random_params(config), vocabulary)
    prepare("glue_cola", [("validation", TASKS["glue_cola"].sample)], "tasks", "x")
    text = (DOCS / "library.md").read_text("utf-8")
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
               if "evaluate(" in block]  # fmt: skip
    exec(code, {})
    assert capsys.readouterr().out.startswith("{'cola_mcc': 0.0} ")
    shutil.rmtree("run")
