"""Whole runs through the command, in this process: on eight devices of the CPU."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import threading
import zlib

import jax
import numpy as np
import pytest

from model.data.input_pipeline import InputIterator
from model.data.workers import WorkerEndedError, Workers
from model.t5.flops import step_flops
from model.training import trainer
from model.training.checkpoint_layout import newest_step
from model.training.checkpoints import Checkpoints
from model.training.metrics import read_rows
from model.training.model_folders import load_params, save_params
from pipelines.interruption import Interruption
from testing.corpora import make_corpus
from testing.helpers import run_c4

pytestmark = [pytest.mark.usefixtures("quick_xla"), pytest.mark.slow]

_TINY = [
    "--size", "tiny", "--set", "d_model=32", "--set", "d_ff=64", "--set", "d_kv=8",
    "--input-length", "32", "--batch-size", "8", "--workers", "0", "--eval-every", "0",
]  # fmt: skip


_QUIET = ["--dropout", 0]


def _run(material, out, *more, status=0):
    outcome = run_c4(
        "pretrain", "--corpus", material.corpus, "--vocab", material.vocab, "--out", out, *_TINY,
        *more,
    )  # fmt: skip
    assert outcome.status == status, outcome
    return outcome


def _losses(out):
    return [row["loss"] for row in read_rows(out / "metrics.jsonl") if "loss" in row]


def _params(out):
    return jax.tree.leaves(load_params(out).params)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return tmp_path_factory.mktemp("finished") / "run"


@pytest.fixture
def run30(material, finished):
    """A run of 30 steps, checkpoints after 10, 20 and 30."""
    if not finished.exists():
        _run(
            material, finished, "--steps", 30, "--checkpoint-every", 10, *_QUIET,
            "--log-every", 10, "--peak-tflops", 1e-3,
        )  # fmt: skip
    return finished


@pytest.fixture
def run20(run30, tmp_path):
    """The same, as if it had been killed some steps after the second checkpoint."""
    out = tmp_path / "run20"
    shutil.copytree(run30, out)
    shutil.rmtree(out / "checkpoints" / "30")
    (out / "loss.png").unlink()
    return out


def test_a_folder_tells_all_of_its_run(material, run30):
    row = read_rows(run30 / "metrics.jsonl")[-1]
    assert set(row) == {
        "step", "loss", "z_loss", "accuracy", "learning_rate", "gradient_norm", "param_norm",
        "target_tokens", "seconds", "tokens_per_s", "data_wait_fraction", "mfu",
        "epoch",
    }  # fmt: skip
    epochs = [row["epoch"] for row in read_rows(run30 / "metrics.jsonl")]
    assert 0 < epochs[0] < epochs[-1]
    assert epochs == sorted(epochs)
    assert row["learning_rate"] == pytest.approx(0.01)
    assert 0 <= row["data_wait_fraction"] <= 1
    begun = json.loads((run30 / "run.json").read_text())
    assert begun["settings"]["model"]["d_model"] == 32
    assert begun["versions"]["jax"] == jax.__version__
    loaded = load_params(run30)
    assert loaded.config.vocab_size == 256  # 64 pieces and 100 sentinels, padded
    assert loaded.vocabulary.read_bytes() == pathlib.Path(material.vocab).read_bytes()
    assert (run30 / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert newest_step(run30 / "checkpoints") == 30


def test_tensorboard_gets_means_of_steps(run30):
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    (path,) = (run30 / "tensorboard").iterdir()
    found = {
        event.step: value.simple_value
        for event in LegacyEventFileLoader(str(path)).Load()
        for value in event.summary.value
        if value.tag == "train/loss"
    }
    assert list(found) == [1, 10, 20, 30]
    assert found[20] == pytest.approx(np.mean(_losses(run30)[10:20]), rel=1e-5)


def test_utilisation_is_model_flops_over_what_could_be(run30):
    config = load_params(run30).config
    share = step_flops(config, 8, 8, 32) / (8 * 1e9)  # eight devices of 1e-3 TFLOP/s
    for row in read_rows(run30 / "metrics.jsonl"):
        assert row["mfu"] * row["seconds"] == pytest.approx(share, rel=0.02)


def test_a_finished_run_takes_more_steps(material, run30, tmp_path):
    assert "already done" in _run(material, run30, "--steps", 30, *_QUIET).out
    out = tmp_path / "run"
    _run(material, out, "--steps", 20, *_QUIET)
    _run(material, out, "--steps", 30, *_QUIET)
    assert _losses(out) == _losses(run30)
    for mine, wanted in zip(_params(out), _params(run30), strict=True):
        np.testing.assert_array_equal(mine, wanted)


def test_half_written_things_do_not_count(material, run30, run20):
    half = run20 / "checkpoints" / "25.orbax-checkpoint-tmp-7"
    (half / "params").mkdir(parents=True)
    with open(run20 / "metrics.jsonl", "a") as file:
        file.write('{"step": 31, "loss": 1.0}\n{"step": 32, "lo')
    _run(material, run20, "--steps", 30, *_QUIET)
    assert not half.exists()
    assert _losses(run20) == _losses(run30)


def test_a_run_goes_on_with_another_mesh_and_microbatches(material, run30, run20):
    _run(
        material, run20, "--steps", 30, *_QUIET,
        "--mesh", "data=1,fsdp=2,tensor=4", "--accumulate", 2, "--remat", "full",
    )  # fmt: skip
    np.testing.assert_allclose(_losses(run20), _losses(run30), rtol=1e-4)


def test_steps_can_be_traced(material, run20):
    _run(material, run20, "--steps", 25, "--profile", 2, *_QUIET)
    assert list((run20 / "profile").rglob("*.xplane.pb"))


def test_no_evaluation_without_validation_pages(material, tmp_path):
    corpus = make_corpus(tmp_path / "corpus", {"train": [["some words here, and more."] * 20]})
    outcome = run_c4(
        "pretrain", "--corpus", corpus, "--vocab", material.vocab, "--out", tmp_path / "run",
        *_TINY[:-2], "--steps", 1, *_QUIET,
    )  # fmt: skip
    assert outcome.status == 0, outcome
    assert "no evaluation: " in outcome.out
    assert "validation" not in (tmp_path / "run" / "metrics.jsonl").read_text()


def _exhaust(*_, **__):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")


def test_memory_that_runs_out_in_the_first_step_is_one_line(material, tmp_path, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patched:  # where the results of a step are fetched
        patched.setattr("model.training.records.jax.device_get", _exhaust)
        outcome = _run(material, out, "--steps", 3, "--seed", 5, *_QUIET, status=1)
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("c4: error: out of memory: Out of memory allocating 9 bytes; ")
    assert "; a smaller --batch-size, or --remat full" in outcome.err
    # No step was done: the folder takes other settings.
    outcome = _run(material, out, "--steps", 3, *_QUIET)
    assert "this folder had other settings and no finished step: replacing them" in outcome.out
    assert json.loads((out / "run.json").read_text())["settings"]["input"]["seed"] == 0
    first, _, last = _losses(out)
    labelled = (
        rf"^loss at step 1 {first:.3f} .+ {last:.3f} at step 3 \(in the lines above: means\)$"
    )
    assert re.search(labelled, outcome.out, re.MULTILINE)


@pytest.mark.parametrize(
    ("place", "options"),
    [
        ("model.training.trainer.new_state", []),
        ("model.training.trainer._Run._evaluate", ["--eval-every", 1, "--eval-batches", 1]),
        ("model.training.programs.Program.__call__", []),
        ("model.training.trainer.DeviceBatches.__next__", []),
    ],
)
def test_memory_that_runs_out_anywhere_is_one_line(material, tmp_path, monkeypatch, place, options):
    monkeypatch.setattr(place, _exhaust)
    outcome = _run(material, tmp_path / "run", "--steps", 3, *_QUIET, *options, status=1)
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("c4: error: out of memory: Out of memory allocating 9 bytes; ")


def test_memory_that_runs_out_while_restoring_blames_no_checkpoint(material, run20, monkeypatch):
    import orbax.checkpoint as ocp

    monkeypatch.setattr(ocp.CheckpointManager, "restore", _exhaust)
    outcome = _run(material, run20, "--steps", 30, *_QUIET, status=1)
    assert outcome.err.startswith("c4: error: out of memory: ")
    assert "delete it" not in outcome.err


def test_what_does_not_fit_is_refused_with_what_would(material, tmp_path, monkeypatch):
    from model.training import memory, programs

    need = []

    def room(devices):
        return memory.Room(bytes=need[0], devices=len(devices), of_host=True)

    monkeypatch.setattr(programs, "available_room", room)
    options = ["--steps", 2, "--batch-size", 128, "--input-length", 128, *_QUIET]
    need.append(1e9)
    said = _run(material, tmp_path / "run", "--dry-run", *options).out
    found = re.search(r"training step keeps ([\d.]+) MB per device, .* for 8 devices: ", said)
    need[0] = float(found[1]) * 1e6 * 8 * 0.6
    refused = _run(material, tmp_path / "run", *options, status=1)
    assert refused.err.count("\n") == 1
    assert "compiling the training step" in refused.out
    assert not (tmp_path / "run" / "metrics.jsonl").read_text()
    helps = re.search(r"--accumulate (\d+) should fit", refused.err)
    assert _run(material, tmp_path / "run", "--dry-run", *options, status=1).err == refused.err
    # Its word is kept, in the same folder.
    _run(material, tmp_path / "run", *options, "--accumulate", helps[1])


def test_before_the_first_step_all_that_matters_is_said(material, tmp_path):
    out = _run(
        material, tmp_path / "run", "--steps", 1, *_QUIET, "--eval-every", 1, "--eval-batches", 1
    ).out
    before, step, after = out.partition("step 1/1  loss")
    assert step
    lines = before.splitlines()
    wanted = [
        "starting JAX", "encoder-decoder, ", "corpus: 120 pages, ", "validation: 10 pages: too few",
        "compiling the training step and the evaluation step", "compiled in ",
        "the training step keeps ",
    ]  # fmt: skip
    assert [line[: len(begin)] for line, begin in zip(lines, wanted, strict=True)] == wanted
    assert "validation loss " in after
    assert re.search(r"acc 0\.\d{3}  \d+ target tokens\n", after)


def test_a_damaged_checkpoint_is_named(material, run20):
    for path in (run20 / "checkpoints" / "20" / "params").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-20])
    outcome = _run(material, run20, "--steps", 30, *_QUIET, status=1)
    assert outcome.err.count("\n") == 1
    assert "20 cannot be restored" in outcome.err


def test_parameters_of_another_run(material, run30, tmp_path):
    outcome = run_c4(
        "pretrain", "--corpus", material.corpus, "--out", tmp_path / "run", "--init-from", run30,
        "--input-length", 32, "--batch-size", 8, "--workers", 0, "--eval-every", 0,
        "--steps", 1, *_QUIET,
    )  # fmt: skip
    assert outcome.status == 0, outcome
    assert _losses(tmp_path / "run")[0] < 0.8 * _losses(run30)[0]
    assert newest_step(tmp_path / "run" / "checkpoints") == 1


def test_an_interrupt_names_the_newest_whole_checkpoint(material, tmp_path, monkeypatch):
    lines, at_save = [], []
    monkeypatch.setattr(Interruption, "expect", lambda _, line, __: lines.append(line))
    save = Checkpoints.save

    def whole_at_once(self, step, *content):
        at_save.append(lines[-1])
        save(self, step, *content)
        self.wait()

    monkeypatch.setattr(Checkpoints, "save", whole_at_once)
    outcome = run_c4(
        "pretrain", "--corpus", material.corpus, "--vocab", material.vocab,
        "--out", tmp_path / "run", "--size", "tiny", "--set", "num_layers=1",
        "--input-length", 32, "--batch-size", 8, "--workers", 0, "--eval-every", 0,
        "--steps", 4, "--checkpoint-every", 2, *_QUIET,
    )  # fmt: skip
    assert outcome.status == 0, outcome
    assert at_save[0].endswith("no checkpoint was written yet")
    assert at_save[1].endswith("to resume from the checkpoint of step 2")
    assert lines[-1] == "c4: interrupted after the last step: its checkpoint is good"


def test_a_loss_that_is_no_number_stops_the_run(material, run30, tmp_path):
    loaded = load_params(run30)
    loaded.params["decoder"]["final_norm"][3] = np.nan
    save_params(tmp_path / "broken", loaded.config, loaded.params, loaded.vocabulary)
    outcome = run_c4(
        "pretrain", "--corpus", material.corpus, "--out", tmp_path / "run", "--workers", 0,
        "--init-from", tmp_path / "broken", "--input-length", 32, "--batch-size", 8,
        "--eval-every", 0, "--steps", 5, "--checkpoint-every", 1, *_QUIET,
    )  # fmt: skip
    assert outcome.status == 1
    assert outcome.err.count("\n") == 1
    assert "step 1: loss nan" in outcome.err
    assert "no checkpoint was written yet" in outcome.err
    assert newest_step(tmp_path / "run" / "checkpoints") is None
    assert read_rows(tmp_path / "run" / "metrics.jsonl")[-1]["loss"] is None


def test_a_run_that_diverges_keeps_its_last_good_checkpoint(material, run20):
    # As if the last 100 steps had been better than those to come.
    saved = run20 / "checkpoints" / "20" / "progress" / "metadata"
    progress = json.loads(saved.read_text())
    progress["guard"] = {"losses": [1.0] * 100, "best": 1.0}
    saved.write_text(json.dumps(progress))
    noted = run20 / "checkpoints" / "20" / "checksums" / "metadata"
    checksums = json.loads(noted.read_text())
    checksums["progress"]["json"] = zlib.crc32(json.dumps(progress, sort_keys=True).encode())
    noted.write_text(json.dumps(checksums))
    outcome = _run(
        material, run20, "--steps", 30, "--checkpoint-every", 1, "--divergence", 0.05, *_QUIET,
        status=1,
    )  # fmt: skip
    assert outcome.err.count("\n") == 1
    # Each of these losses is some 2.5 above the others.
    assert "step 22: the mean loss of 100 steps" in outcome.err
    assert "the run diverges (--divergence 0.05); checkpoint 21 is good" in outcome.err
    assert newest_step(run20 / "checkpoints") == 21


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dropout", "0.1"], "dropout_rate 0.0, now it is 0.1"),
        (["--dropout", "0", "--seed", "1"], "begun with seed 0, now it is 1"),
        (["--dropout", "0", "--objective", "iid"], "objective"),
        (["--dropout", "0", "--batch-size", "16"], "batch_size 8, now it is 16"),
        (["--dropout", "0", "--z-loss", "0"], "z_loss"),
        (["--dropout", "0", "--warmup", "5"], "warmup"),
        (["--dropout", "0", "--set", "num_layers=3"], "num_layers 2, now it is 3"),
    ],
)
def test_a_folder_takes_no_other_run(material, run30, options, message):
    before = sorted(run30.rglob("*"))
    outcome = _run(material, run30, "--steps", 40, *options, status=1)
    assert outcome.err.count("\n") == 1
    assert message in outcome.err
    assert sorted(run30.rglob("*")) == before


def test_a_folder_takes_one_process_at_a_time(material, run30):
    from model.training.run_folder import RunFolder

    with RunFolder(run30).locked():
        outcome = _run(material, run30, "--steps", 40, *_QUIET, status=1)
    assert "another process is training into it" in outcome.err


def test_without_input_what_was_trained_is_kept(material, run30, tmp_path, monkeypatch):
    out = tmp_path / "run"
    whole, left = InputIterator.__next__, [17]

    def give_up(self):
        left[0] -= 1
        if left[0] < 0:
            raise WorkerEndedError("input worker 0 of 1 has ended: killed by SIGKILL")
        return whole(self)

    options = ["--steps", 30, "--checkpoint-every", 10, *_QUIET]
    with monkeypatch.context() as patched:
        patched.setattr(InputIterator, "__next__", give_up)
        outcome = _run(material, out, *options, status=1)
    assert outcome.err == "c4: error: input worker 0 of 1 has ended: killed by SIGKILL\n"
    assert "no input for step 18: saving" in outcome.out
    assert newest_step(out / "checkpoints") == 17
    _run(material, out, *options)
    assert _losses(out) == _losses(run30)


def test_a_signal_in_an_evaluation_is_seen(material, tmp_path, monkeypatch):
    out = tmp_path / "run"
    evaluate = trainer._Run._evaluate

    def signalled(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(*arguments)

    monkeypatch.setattr(trainer._Run, "_evaluate", signalled)
    outcome = _run(
        material, out, "--steps", 30, "--eval-every", 5, "--eval-batches", 1, *_QUIET, status=130
    )
    assert outcome.err.count("\n") == 2  # what it says begins below a terminal's "^C"
    assert newest_step(out / "checkpoints") == 6
    rows = read_rows(out / "metrics.jsonl")
    assert [row["step"] for row in rows if "validation_loss" in row] == [5]
    assert _losses(out)[-1] == rows[-1]["loss"]


def test_a_signal_that_python_drops_is_not_forgotten(material, tmp_path, monkeypatch):
    plan = trainer._plan

    def dropped(*arguments):
        with contextlib.suppress(KeyboardInterrupt):  # as in a finalizer
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        return plan(*arguments)

    monkeypatch.setattr(trainer, "_plan", dropped)
    outcome = _run(material, tmp_path / "run", "--steps", 30, *_QUIET, status=130)
    assert outcome.err == "\nc4: interrupted before the first step: nothing was saved\n"
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == ""
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_damaged_and_strange_files_of_a_run(material, run30, run20):
    metrics = run20 / "metrics.jsonl"
    text = metrics.read_text()
    metrics.write_text(text[: len(text) - 100])  # in the middle of step 30
    steps = run20 / "checkpoints"
    (steps / "notes.txt").write_text("mine")
    (steps / "backup").mkdir()
    (steps / "30.orbax-checkpoint-tmp").mkdir()
    (steps / "40").write_text("a file")
    (run20 / f".vocabulary.model.tmp-{'0' * 32}").write_text("of a start that was killed")
    outcome = _run(material, run20, "--steps", 30, *_QUIET)
    assert outcome.err == ""
    assert _losses(run20) == _losses(run30)
    assert (steps / "notes.txt").read_text() == "mine"
    assert not (run20 / f".vocabulary.model.tmp-{'0' * 32}").exists()


@pytest.mark.parametrize("shards", [0, 3, 10**9, True, "8", None])
def test_a_damaged_number_of_input_shards_is_told_of_its_file(material, run20, shards):
    path = run20 / "run.json"
    begun = json.loads(path.read_text())
    begun["settings"]["input"]["input_shards"] = shards
    path.write_text(json.dumps(begun))
    outcome = _run(material, run20, "--steps", 30, *_QUIET, status=1)
    assert outcome.err.count("\n") == 1
    assert "run.json is damaged" in outcome.err


def test_a_missing_file_of_a_checkpoint_is_one_line(material, run20):
    (run20 / "checkpoints" / "20" / "params" / "manifest.ocdbt").unlink()
    outcome = _run(material, run20, "--steps", 30, *_QUIET, status=1)
    assert outcome.err.count("\n") == 1
    assert "20 cannot be restored; delete it" in outcome.err


def test_a_worker_that_is_killed_changes_no_loss(material, run30, tmp_path, monkeypatch):
    fetch = Workers.fetch

    def after_a_kill(self, ticket):
        process = self._processes[self._worker_of[ticket]]
        process.kill()
        process.wait()
        return fetch(self, ticket)

    monkeypatch.setattr(Workers, "fetch", after_a_kill)
    out = tmp_path / "run"
    options = ["--steps", 30, "--checkpoint-every", 10, *_QUIET, "--workers", 2]
    said = _run(material, out, *options).err
    assert said.count("has ended: killed by SIGKILL") == said.count("; started again\n") > 0
    assert _losses(out) == _losses(run30)
