"""TensorBoard and Weights & Biases; wandb itself is played by a module of the tests."""

import os
import sys
import types

import pytest

from model.training.reports import TensorBoard, Wandb, require_installed


class FakeRun:
    """As ``wandb.init`` returns it."""

    def __init__(self, step, **options):
        self.step, self.options, self.logged, self.status = step, options, [], None
        self.id = options["id"] or "made-up"

    def log(self, values, step):
        if step == 5:
            raise OSError("no network\nat all")
        self.logged.append((step, values))

    def finish(self, exit_code):
        self.status = exit_code


@pytest.fixture
def wandb(monkeypatch):
    """The fake module; ``runs`` are those that were begun, ``step`` is where the next begins."""
    module = types.ModuleType("wandb")
    module.runs, module.step = [], 0

    def init(**options):
        module.runs.append(FakeRun(module.step, **options))
        return module.runs[-1]

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    for name in ("WANDB_PROJECT", "WANDB_NAME", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    return module


def _begin(tmp_path, said):
    return Wandb(tmp_path / "run", tmp_path / "id.txt", {"batch_size": 8}, said.append)


def test_a_run_has_the_names_and_steps_of_tensorboard(wandb, tmp_path, monkeypatch):
    report = _begin(tmp_path, [])
    [run] = wandb.runs
    assert run.options == {
        "project": "colossal", "name": "run", "id": None, "resume": "allow",
        "dir": str(tmp_path / "run"), "config": {"batch_size": 8},
    }  # fmt: skip
    report.write({"step": 1, "loss": 2.0, "accuracy": 0.5})
    report.write({"step": 1, "validation_loss": 3.0})
    report.flush()
    report.close(130)
    assert run.logged == [
        (1, {"train/loss": 2.0, "train/accuracy": 0.5}), (1, {"validation/loss": 3.0}),
    ]  # fmt: skip
    assert run.status == 130
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    _begin(tmp_path, [])
    assert wandb.runs[-1].options["project"] == "mine"


def test_a_run_that_goes_on_is_the_same_run(wandb, tmp_path):
    _begin(tmp_path, []).close(0)
    wandb.step = 3  # wandb has the steps before
    report = _begin(tmp_path, [])
    assert wandb.runs[-1].options["id"] == "made-up"
    for step in (2, 3):
        report.write({"step": step, "loss": 2.0})
    assert wandb.runs[-1].logged == [(3, {"train/loss": 2.0})]


def test_a_failure_is_said_once_and_kills_nothing(wandb, tmp_path):
    said = []
    report = _begin(tmp_path, said)
    for step in (4, 5, 5, 6):
        report.write({"step": step, "loss": 2.0})
    report.close(0)
    assert said == ["note: wandb has failed (no network at all): training goes on without it"]
    assert [step for step, _ in wandb.runs[0].logged] == [4]


def test_a_run_that_cannot_begin_is_one_line(wandb, tmp_path):
    def init(**options):
        raise RuntimeError("api_key not configured (no-tty).\nCall wandb.login")

    wandb.init = init
    with pytest.raises(ValueError, match=r"^wandb could .*not configured .*WANDB_MODE=offline.*$"):
        _begin(tmp_path, [])


@pytest.mark.parametrize("module", [None, types.ModuleType("wandb")], ids=["none", "a folder"])
def test_a_package_that_is_missing_is_named(monkeypatch, module):
    monkeypatch.setitem(sys.modules, "wandb", module)
    require_installed(("tensorboard",))
    with pytest.raises(ValueError, match=r"pip install 'colossal-c4\[wandb\]'"):
        require_installed(("tensorboard", "wandb"))


@pytest.mark.slow
def test_files_of_another_kind_are_named(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe is not a folder: move it away"):
        TensorBoard(tmp_path / "pipe", 0)
