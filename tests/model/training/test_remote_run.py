"""Runs whose folder is in an object store."""

import contextlib
import pathlib
import subprocess

import jax
import numpy as np
import pytest

from model.training.metrics import read_rows
from model.training.model_folders import load_params, read_model
from model.training.remote_run import whole_steps
from testing.helpers import run_c4

RUN = "gs://bucket/runs/a"


@pytest.fixture
def start_remote(start_run, cloud, tmp_path):
    """Start a run in the store. Its folder of this machine is in ``tmp_path``."""

    def start(*more):
        variables = {"STORAGE_EMULATOR_HOST": cloud.address, "TMPDIR": str(tmp_path)}
        return start_run(RUN, *more, variables=variables)

    return start


def losses(folder, tmp_path, cloud):
    clocks = ("seconds", "tokens_per_s", "data_wait_fraction")
    if isinstance(folder, str):
        path = tmp_path / "metrics.jsonl"
        path.write_bytes(cloud.objects[f"{folder}/metrics.jsonl"])
    else:
        path = folder / "metrics.jsonl"
    return [{k: v for k, v in row.items() if k not in clocks} for row in read_rows(path)]


@pytest.mark.slow
def test_a_run_killed_in_an_upload_goes_on_bit_for_bit(
    uninterrupted, start_remote, cloud, tmp_path
):
    run = start_remote()
    second = []

    def kill_in_the_upload_of_step_20(method, what):
        if method == "PUT" and "/checkpoints/20/" in what:
            second.append(what)
            if len(second) == 4:
                run.kill()
                return 503
        return None

    cloud.fail = kill_in_the_upload_of_step_20
    text, _ = run.communicate(timeout=300)
    assert run.returncode == -9, text
    half = [name for name in cloud.objects if "/checkpoints/20/" in name]
    assert half
    assert f"{RUN}/checkpoints/20/files.json" not in half
    assert whole_steps(RUN) == [10]

    refused = []

    def start_another_at_step_30(method, what):
        if method == "PUT" and "/checkpoints/30/files.json" in what and not refused:
            refused.append(start_remote())
        if method == "PUT" and "/checkpoints/40/files.json" in what:
            # The run may not end before the other has looked: it tries again a little later.
            with contextlib.suppress(subprocess.TimeoutExpired):
                refused[0].wait(timeout=5)
            return 503 if refused[0].poll() is None else None
        return None

    cloud.fail = start_another_at_step_30
    run = start_remote()
    text, _ = run.communicate(timeout=300)
    assert run.returncode == 0, text
    assert f"resuming from step 10 in {RUN}" in text
    said, _ = refused[0].communicate(timeout=120)
    assert refused[0].returncode == 1
    assert "another training run is running in gs://bucket/runs/a" in said
    assert "--out" in said

    assert losses(RUN, tmp_path, cloud) == losses(uninterrupted, tmp_path, cloud)
    assert whole_steps(RUN) == [110, 120]
    steps = {name.split("/")[6] for name in cloud.objects if name.startswith(f"{RUN}/checkpoints/")}
    assert steps == {"110", "120"}
    mine, other = load_params(RUN), load_params(uninterrupted)
    assert mine.config == other.config
    for one, two in zip(jax.tree.leaves(mine.params), jax.tree.leaves(other.params), strict=True):
        np.testing.assert_array_equal(one, two)
    names = {name.removeprefix(f"{RUN}/").partition("/")[0] for name in cloud.objects}
    assert names == {
        "run.json", "model.json", "vocabulary.model", "metrics.jsonl", "loss.png", "tensorboard",
        "checkpoints", "builders",
    }  # fmt: skip
    assert read_model(RUN)[1] == f"{RUN}/vocabulary.model"
    assert len(list(tmp_path.glob("c4-run-*"))) == 1, "that of the killed run, kept for a minute"


_TINY = (
    "--size", "tiny", "--set", "d_model=32", "--set", "d_ff=64", "--set", "d_kv=8", "--set",
    "num_layers=1", "--input-length", "32", "--batch-size", "8", "--workers", "0", "--quiet",
    "--eval-every", "0",
)  # fmt: skip
_ANY_MODEL = ("--input-length", "32", "--batch-size", "8", "--workers", "0", "--quiet")


def pretrain(material, out, *more):
    return run_c4("pretrain", "--corpus", material.corpus, "--out", out, *more)


@pytest.mark.slow
def test_buckets_in_every_place(material, quick_xla, cloud, tmp_path):
    cloud.objects["gs://bucket/vocab.model"] = pathlib.Path(material.vocab).read_bytes()
    vocab = ("--vocab", "gs://bucket/vocab.model")
    done = pretrain(material, RUN, *_TINY, *vocab, "--steps", "4", "--checkpoint-every", "2",
                    "--keep-last", "1", "--keep-every", "2")  # fmt: skip
    assert done.status == 0, done.err
    assert whole_steps(RUN) == [2, 4]
    assert cloud.objects[f"{RUN}/vocabulary.model"] == cloud.objects["gs://bucket/vocab.model"]

    again = pretrain(material, RUN, *_TINY, *vocab, "--steps", "4")
    assert again.status == 0, again.err
    other = pretrain(material, RUN, *_TINY, *vocab, "--steps", "4", "--seed", "3")
    assert other.status == 1
    assert f"{RUN} was begun with seed 0, now it is 3" in other.err

    begun = pretrain(
        material, tmp_path / "b", *_ANY_MODEL, "--steps", "1", "--init-from", RUN, "--eval-every=0"
    )
    assert begun.status == 0, begun.err
    for checkpoint in (RUN, f"{RUN}/checkpoints", f"{RUN}/checkpoints/4/"):
        out = tmp_path / f"hf-{len(checkpoint)}"
        exported = run_c4("export-hf", checkpoint, "--output", out)
        assert exported.status == 0, exported.err
        assert (out / "spiece.model").exists()
    for path, message in (
        (f"{RUN}/checkpoints/3", f"{RUN} holds no whole checkpoint 3"),
        ("gs://bucket/nothing", "gs://bucket/nothing holds no model (model.json is missing)"),
    ):
        failed = run_c4("export-hf", path, "--output", tmp_path / "none")
        assert failed.status == 1
        assert message in failed.err


@pytest.mark.parametrize("name", ["notes.txt", "deep/er/notes.txt"])
def test_a_folder_of_something_else_is_refused(material, cloud, name):
    cloud.objects[f"{RUN}/{name}"] = b"mine"
    done = pretrain(material, RUN, *_TINY, "--vocab", material.vocab, "--steps", "1")
    assert done.status == 1
    assert f"{RUN} is not the folder of a run: it holds {name.partition('/')[0]}" in done.err
    assert [*cloud.objects] == [f"{RUN}/{name}"]


def test_a_checkpoint_counts_only_with_all_of_its_files(material, quick_xla, cloud):
    vocab = ("--vocab", material.vocab, "--checkpoint-every", "1")
    assert pretrain(material, RUN, *_TINY, *vocab, "--steps", "2").status == 0
    lost = next(name for name in cloud.objects if name.startswith(f"{RUN}/checkpoints/2/params/"))
    cloud.objects[lost] = cloud.objects[lost][:-1]
    assert whole_steps(RUN) == [1]
    done = pretrain(material, RUN, *_TINY, *vocab, "--steps", "3")
    assert done.status == 0, done.err
    assert whole_steps(RUN) == [1, 2, 3]


def test_a_failed_upload_stops_the_run_with_one_line(material, quick_xla, cloud):
    cloud.fail = lambda method, what: 403 if method == "PUT" and "/checkpoints/" in what else None
    done = pretrain(material, RUN, *_TINY, "--vocab", material.vocab, "--steps", "2")
    assert done.status == 1
    assert done.err.count("\n") == 1, done.err
    assert "Permission denied" in done.err
    assert f"{RUN}/checkpoints/2/" in done.err
    assert whole_steps(RUN) == []
    assert f"{RUN}/metrics.jsonl" in cloud.objects, "what was measured is there all the same"
