"""Opening runs, checkpoints and folders in Hugging Face's layout."""

import json
import re
import shutil

import jax
import numpy as np
import pytest

from model.evaluation.best_files import kept_best
from model.evaluation.trained import open_trained
from model.exchange.hugging_face import export_model
from model.training.checkpoint_layout import write_model_file
from model.training.checkpoints import Checkpoints
from model.training.model_folders import save_params
from model.training.train_step import TrainState
from testing import vocabularies
from testing.fake_google_cloud import fake_google_cloud
from testing.tiny_t5 import V1_1, random_params


def scaled(factor):
    return jax.tree.map(lambda leaf: np.float32(factor) * leaf, random_params(V1_1))


def of_params(trained):
    return float(trained.params["embedding"][0, 0] / random_params(V1_1)["embedding"][0, 0])


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    return vocabularies.train(tmp_path_factory.mktemp("vocabulary") / "v.model")


@pytest.fixture(scope="module")
def run_folder(vocabulary, tmp_path_factory):
    """A run with checkpoints of steps 2 and 4, whose parameters are twice and four times ours."""
    run = tmp_path_factory.mktemp("runs") / "first"
    run.mkdir()
    write_model_file(run, V1_1)
    shutil.copy(vocabulary, run / "vocabulary.model")
    checkpoints = Checkpoints(run / "checkpoints")
    for step in (2, 4):
        state = TrainState(scaled(step), {"slot": np.zeros(1, np.float32)}, np.int32(step))
        checkpoints.save(step, state, {})
    checkpoints.close()
    return run


@pytest.fixture
def keeps(run_folder, vocabulary):
    """Make the run keep best checkpoints, for one test."""

    def keep(**steps):
        for task, step in steps.items():
            save_params(run_folder / "best" / task, V1_1, scaled(10 * step), vocabulary)
        record = {task: {"step": step, "metric": "accuracy"} for task, step in steps.items()}
        (run_folder / "best.json").write_text(json.dumps(record))

    yield keep
    shutil.rmtree(run_folder / "best", ignore_errors=True)
    (run_folder / "best.json").unlink(missing_ok=True)


@pytest.mark.slow
def test_a_run_is_its_last_checkpoint_unless_one_is_named(run_folder):
    last = open_trained(run_folder)
    assert (last.name, last.step, of_params(last)) == ("first", 4, pytest.approx(4))
    assert last.config == V1_1
    assert last.vocabulary.pieces == 100
    assert open_trained(run_folder / "checkpoints").step == 4
    earlier = open_trained(f"{run_folder}/checkpoints/2/")
    assert (earlier.name, earlier.step, of_params(earlier)) == ("first", 2, pytest.approx(2))
    # A task is a matter of kept checkpoints alone.
    assert open_trained(run_folder, "glue_cola").step == 4


@pytest.mark.slow
def test_the_kept_best_checkpoint_comes_before_the_last(run_folder, keeps):
    keeps(glue_cola=3)
    assert set(kept_best(run_folder)) == {"glue_cola"}
    for task in (None, "glue_cola"):
        best = open_trained(run_folder, task)
        assert (best.name, best.step, of_params(best)) == ("first", 3, pytest.approx(30))
    with pytest.raises(ValueError, match="keeps no checkpoint of glue_sst2: choose of glue_cola"):
        open_trained(run_folder, "glue_sst2")
    assert open_trained(run_folder / "checkpoints").step == 4
    keeps(glue_sst2=2)
    keeps_both = {"glue_cola": {"step": 3}, "glue_sst2": {"step": 2}}
    (run_folder / "best.json").write_text(json.dumps(keeps_both))
    assert of_params(open_trained(run_folder, "glue_sst2")) == pytest.approx(20)
    several = r"keeps several checkpoints: choose of glue_cola, glue_sst2 \(--task\)"
    with pytest.raises(ValueError, match=several):
        open_trained(run_folder)


@pytest.mark.parametrize("content", ["{", "[]", '{"glue_cola": 3}', '{"../x": {}}'])
def test_a_damaged_record_of_the_best(run_folder, keeps, content):
    del keeps
    (run_folder / "best.json").write_text(content)
    with pytest.raises(ValueError, match=re.escape(f"{run_folder}/best.json: damaged")):
        open_trained(run_folder)


@pytest.mark.slow
def test_a_folder_of_parameters(tmp_path, vocabulary):
    save_params(tmp_path / "mine", V1_1, scaled(3), vocabulary)
    trained = open_trained(str(tmp_path / "mine"))
    assert (trained.name, trained.step, of_params(trained)) == ("mine", None, pytest.approx(3))
    save_params(tmp_path / "bare", V1_1, scaled(3))
    with pytest.raises(ValueError, match=r"bare has no vocabulary: .*c4 import-hf --vocab"):
        open_trained(tmp_path / "bare")


def test_a_folder_in_hugging_face_s_layout(tmp_path, vocabulary):
    export_model(tmp_path / "theirs", V1_1, scaled(1), vocabulary)
    trained = open_trained(tmp_path / "theirs")
    assert (trained.name, trained.step, of_params(trained)) == ("theirs", None, 1)
    assert trained.vocabulary.size == 200
    assert trained.vocabulary.decode(trained.vocabulary.encode("a narrow path")) == "a narrow path"
    export_model(tmp_path / "bare", V1_1, scaled(1))
    with pytest.raises(ValueError, match=r"bare has no tokenizer: add its spiece.model"):
        open_trained(tmp_path / "bare")


def test_a_folder_of_nothing(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ValueError, match=re.escape(str(path))):
            open_trained(path)


@pytest.mark.slow
def test_a_run_in_an_object_store(tmp_path, vocabulary, monkeypatch):
    pytest.importorskip("obstore", reason="needs the extra gcp")
    save_params(tmp_path / "p", V1_1, scaled(3), vocabulary)
    with fake_google_cloud() as cloud:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", cloud.address)
        for path in (tmp_path / "p").rglob("*"):
            if path.is_file():
                name = path.relative_to(tmp_path / "p")
                cloud.objects[f"gs://bucket/run/best/glue_cola/{name}"] = path.read_bytes()
        cloud.objects["gs://bucket/run/best.json"] = b'{"glue_cola": {"step": 7}}'
        trained = open_trained("gs://bucket/run")
    assert (trained.name, trained.step, of_params(trained)) == ("run", 7, pytest.approx(3))
    assert trained.vocabulary.pieces == 100
