"""The best checkpoint of each task: chosen, whole at every moment, and repaired after a kill."""

import contextlib
import functools
import json
import math
import os
import pathlib
import shutil

import pytest

from model.evaluation.best_files import kept_best
from model.t5.config import model_config
from model.training.model_folders import load_params
from model.training.remote_run import RemoteRun
from model.tuning.best import BestCheckpoints, RemoteBest, Standing

_CONFIG = model_config("tiny", "language-model", vocab_size=128)


def _params(value):
    import jax.numpy as jnp

    return {"embedding": jnp.full((4, 2), value, jnp.float32)}


@pytest.fixture
def run(tmp_path):
    (tmp_path / "vocabulary.model").write_bytes(b"pieces")
    return tmp_path


def _open(run):
    return BestCheckpoints(run, _CONFIG, run / "vocabulary.model")


def _embedding(run, task):
    return float(load_params(run / "best" / task).params["embedding"][0, 0])


def _standing(step, value, loss=None, metric="accuracy"):
    return Standing(step, metric, value, loss)


@pytest.mark.parametrize(
    ("scores", "losses", "best"),
    [
        ([1.0, 2.0, 1.5], [3.0, 2.0, 1.0], 1),  # the score decides where it differs
        ([0.0, 0.0, 0.0], [3.0, 1.0, 2.0], 1),
        ([0.0, 0.0, -0.0], [3.0, 0.0, 0.0], 2),
        ([0.0, 0.0, 0.0], [None, None, None], 2),
        ([0.0, 0.0, 0.0], [1.0, math.nan, None], 0),
        ([math.nan, 0.0, math.nan], [1.0, 2.0, 0.5], 1),
        ([math.nan, math.nan], [1.0, 2.0], 0),
    ],
)
def test_the_best_score_wins_then_the_lower_loss_then_the_later(run, scores, losses, best):
    """Also for a run that is resumed, and comes to any of the steps again."""
    every = [_standing(step, *each) for step, each in enumerate(zip(scores, losses, strict=True))]
    kept = _open(run)
    for standing in every:
        if kept.is_beaten("own", standing):
            kept.keep("own", standing, {}, _params(standing.step))
    assert kept.kept()["own"]["step"] == _embedding(run, "own") == best
    again = _open(run)
    assert not any(again.is_beaten("own", standing) for standing in every)


def test_what_is_kept_is_found_again(run):
    best = _open(run)
    assert best.is_beaten("own", _standing(1, math.nan))
    best.keep("own", _standing(10, 50.0), {"accuracy": 50.0}, _params(1))
    best.keep("own", _standing(20, 75.0), {"accuracy": 75.0}, _params(2))
    best.keep(
        "glue_stsb",
        _standing(20, math.nan, 1.5, "mean"),
        {"pearson_corrcoef": math.nan},
        _params(3),
    )
    again = _open(run)
    assert not again.is_beaten("own", _standing(30, 74.0))
    assert again.is_beaten("own", _standing(30, 74.0, metric="loss"))  # not to be compared
    assert again.is_beaten("glue_stsb", _standing(30, -1.0, metric="mean"))
    assert json.loads((run / "best.json").read_text()) == kept_best(run) == {
        "glue_stsb": {
            "step": 20, "metric": "mean", "value": None, "validation_loss": 1.5,
            "scores": {"pearson_corrcoef": None},
        },
        "own": {
            "step": 20, "metric": "accuracy", "value": 75.0, "validation_loss": None,
            "scores": {"accuracy": 75.0},
        },
    }  # fmt: skip
    assert _embedding(run, "own") == 2
    assert load_params(run / "best" / "own").vocabulary.read_bytes() == b"pieces"
    assert sorted(path.name for path in (run / "best").iterdir()) == ["glue_stsb", "own"]


def test_a_run_that_begins_again_keeps_nothing_of_a_killed_start(run):
    _open(run).keep("own", _standing(10, 90.0), {"accuracy": 90.0}, _params(1))
    again = BestCheckpoints(run, _CONFIG, run / "vocabulary.model", resumes=False)
    assert again.kept() == {}
    assert kept_best(run) == {}
    assert not (run / "best").exists()


def test_a_full_disk_is_named(run, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("model.tuning.best.save_params", full)
    with pytest.raises(OSError, match=r"best/\.own\.new"):
        _open(run).keep("own", _standing(10, 90.0), {"accuracy": 90.0}, _params(1))


class _KilledError(Exception):
    pass


def _kill_at(moment, monkeypatch, act):
    """Act, but end before the rename of that number; return whether there was one."""
    left = [moment]

    def counted(move):
        def moved(self, target):
            if left[0] == 0:
                raise _KilledError
            left[0] -= 1
            return move(self, target)

        return moved

    with monkeypatch.context() as patched:
        patched.setattr(pathlib.Path, "rename", counted(pathlib.Path.rename))
        patched.setattr(os, "replace", counted(os.replace))
        patched.setattr("shutil.rmtree", lambda *_, **__: None)  # a killed process cleans nothing
        try:
            act()
        except _KilledError:
            return True
    return False


@pytest.mark.slow
def test_a_process_killed_at_any_moment_leaves_one_of_the_two(run, monkeypatch):
    """Renames are the moments: before and after each, the folder and its score belong together."""
    found = []
    for moment in range(20):
        for path in (run / "best", run / "best.json"):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        best = _open(run)
        best.keep("own", _standing(10, 50.0), {}, _params(1))
        second = functools.partial(best.keep, "own", _standing(20, 75.0), {}, _params(2))
        killed = _kill_at(moment, monkeypatch, second)
        again = _open(run)
        record = kept_best(run)["own"]
        assert (record["step"], record["value"]) in ((10, 50.0), (20, 75.0))
        assert _embedding(run, "own") == {10: 1, 20: 2}[record["step"]]
        assert again.kept()["own"] == record
        assert [path.name for path in (run / "best").iterdir()] == ["own"]
        found.append(record["step"])
        if not killed:
            break
    assert not killed
    assert len(found) > 4, "no rename was a moment"
    assert found == sorted(found)
    assert found[-2:] == [20, 20], "when only best.json is old"


@pytest.mark.slow
def test_a_store_that_is_cut_off_at_any_moment_has_one_of_the_two(run, cloud):
    url, found = "gs://bucket/run", []

    def opened(*, resumes):
        return RemoteBest(RemoteRun(url), _CONFIG, run / "vocabulary.model", resumes=resumes)

    def cut_off_after(accepted):
        def fail(method, what):
            if method in ("PUT", "DELETE") and "/best" in what:
                moments.append(what)
            return 403 if len(moments) > accepted else None

        moments: list[str] = []
        cloud.fail = fail
        return moments

    accepted, moments = 9, [""] * 10  # of the first dozen, all files of one folder
    while len(moments) > accepted:
        accepted += 1
        cloud.fail = lambda method, what: None
        best = opened(resumes=False)
        assert best.kept() == kept_best(url) == {}
        best.keep("own", _standing(10, 50.0), {}, _params(1))
        moments = cut_off_after(accepted)
        with contextlib.suppress(PermissionError):
            best.keep("own", _standing(20, 75.0), {}, _params(2))
        cloud.fail = lambda method, what: None

        embedding = float(load_params(f"{url}/best/own").params["embedding"][0, 0])
        again = opened(resumes=True)
        record = kept_best(url)["own"]
        assert (record["step"], record["value"]) in ((10, 50.0), (20, 75.0))
        assert embedding == {10: 1, 20: 2}[record["step"]]
        assert again.kept()["own"] == record
        best_names = [name for name in cloud.objects if name.startswith(f"{url}/best/")]
        assert {name.split("/")[6] for name in best_names} == {str(record["step"])}
        found.append(record["step"])
    assert found == sorted(found)
    assert found[0] == 10
    assert found[-2:] == [20, 20], "when only best.json is old"
