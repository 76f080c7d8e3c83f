"""What a run starts with: parameters, statistics and step of another, and what is drawn new."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.t5.network import T5
from model.training import optimizer as schedules
from model.training import sharding
from model.training.checkpoint_layout import RUN_FILE, write_model_file
from model.training.checkpoints import Checkpoints
from model.training.model_folders import Origin, read_origin, save_params
from model.training.optimizer import constant
from model.training.programs import new_state, place_run
from model.training.start import first_step, start_notes
from model.training.train_config import StepConfig
from model.training.train_step import Learner
from tests.model.training.made_batches import made_batch, tiny_config

_CONFIG = tiny_config("language-model", num_layers=1, d_model=128, d_ff=128)  # some are factored
pytestmark = pytest.mark.usefixtures("quick_xla")
_QUICK = {"xla_backend_optimization_level": 0}


def _learner(config=_CONFIG):
    return Learner(T5(config), constant(1e-2))


def _steps(state, numbers):
    step = jax.jit(_learner().step, compiler_options=_QUICK)
    for number in numbers:
        state, _ = step(state, made_batch(_CONFIG, 4, seed=number))
    return state


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A run of two steps that itself went on from step 3; and its state."""
    folder = tmp_path_factory.mktemp("run")
    state = jax.jit(_learner().init, compiler_options=_QUICK)(jax.random.key(0))
    state = _steps(state._replace(step=jnp.int32(3)), range(2))
    checkpoints = Checkpoints(folder / "checkpoints")
    checkpoints.save(2, state, {})
    checkpoints.close()
    write_model_file(folder, _CONFIG)
    settings = {"first_step": 3, "learning_rate_schedule": "constant"}
    (folder / RUN_FILE).write_text(json.dumps({"format": 1, "settings": settings}))
    return folder, state


def _start(folder, model=_CONFIG, kept="keep", first_step=0):
    config = types.SimpleNamespace(
        model=model, rate=lambda: constant(1e-2), step=StepConfig(), trainable=lambda: None,
        data=types.SimpleNamespace(seed=7), init_from=str(folder), optimizer_state=kept,
        first_step=first_step,
    )  # fmt: skip
    placement = place_run(_learner(model), sharding.MeshShape(), jax.devices()[:1])
    return new_state(config, placement)


def _same(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


@pytest.mark.slow
def test_a_run_carried_on_is_as_one_that_was_never_stopped(origin):
    folder, state = origin
    found = read_origin(folder)
    assert found.step == 5
    assert found.settings["learning_rate_schedule"] == "constant"
    start = _start(folder, first_step=found.step)
    _same(start, state)
    _same(_steps(start, [2, 3]), _steps(state, [2, 3]))


@pytest.mark.slow
def test_new_statistics_start_at_nothing(origin):
    folder, state = origin
    start = _start(folder / "checkpoints" / "2", kept="new")
    _same(start.params, state.params)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(start.optimizer))
    assert start.step == 0


@pytest.mark.slow
def test_adapters_are_drawn_and_the_rest_is_read(origin):
    folder, state = origin
    adapted = _CONFIG.replace(adapter=4)
    start = _start(folder, adapted, first_step=5)
    drawn = jax.jit(T5(adapted).init)(jax.random.key(7))
    found = start.params["decoder"]["layers"].pop("adapter")
    _same(found, drawn["decoder"]["layers"]["adapter"])
    moments = start.optimizer["decoder"]["layers"].pop("adapter")
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(moments))
    _same(start.params, state.params)
    _same(start.optimizer, state.optimizer)
    assert start.step == 5


@pytest.mark.slow
def test_parameters_of_another_model_are_named(origin, tmp_path):
    folder, _ = origin
    with pytest.raises(ValueError, match="not of this model: it lacks logits"):
        _start(folder, _CONFIG.replace(tied_logits=False))
    adapted = _CONFIG.replace(adapter=4)
    save_params(tmp_path / "adapted", adapted, jax.jit(T5(adapted).init)(jax.random.key(0)))
    with pytest.raises(ValueError, match="holds decoder/layers/adapter/norm, which it has not"):
        _start(tmp_path / "adapted", kept="new")
    _same(_start(tmp_path / "adapted", adapted, "new").step, jnp.int32(0))


def test_folders_without_statistics_have_no_origin(tmp_path):
    save_params(tmp_path / "params", _CONFIG, {"embedding": np.zeros((2, 2), np.float32)})
    assert read_origin(tmp_path / "params") is None


@pytest.mark.slow
def test_a_checkpoint_without_its_run_counts_from_zero(origin, tmp_path):
    folder, _ = origin
    (tmp_path / "checkpoints").symlink_to(folder / "checkpoints")
    write_model_file(tmp_path, _CONFIG)
    assert read_origin(tmp_path) == Origin(2, {})
    (tmp_path / RUN_FILE).write_text("[]")
    with pytest.raises(ValueError, match=r"run\.json: not a run of this version"):
        read_origin(tmp_path)
    (tmp_path / "run.json").write_text('{"format": 1, "settings": {"first_step": Infinity}}')
    with pytest.raises(ValueError, match=r"run\.json: not a run of this version"):
        read_origin(tmp_path)


def _config(folder, kept, schedule="inverse-square-root", rate=None, first=0):
    made = schedules.schedule(schedule, rate, 100)
    return types.SimpleNamespace(
        init_from=folder and str(folder), optimizer_state=kept, rate=lambda: made,
        schedule=schedule, first_step=first,
    )  # fmt: skip


@pytest.fixture
def slow_run(tmp_path):
    """A run whose rate was 0.05 at its last step, 400; its arrays are never read."""
    for item in ("params", "optimizer", "progress", "checksums"):
        (tmp_path / "run" / "checkpoints" / "400" / item).mkdir(parents=True)
    write_model_file(tmp_path / "run", _CONFIG)
    settings = {
        "learning_rate_schedule": "inverse-square-root", "learning_rate": None, "warmup": 100,
    }  # fmt: skip
    (tmp_path / "run" / RUN_FILE).write_text(json.dumps({"format": 1, "settings": settings}))
    return tmp_path / "run"


def test_a_rate_that_jumps_is_noted(slow_run):
    [note] = start_notes(_config(slow_run, "new"))
    assert "learning rate starts at 0.1" in note
    assert "run was last trained at 0.0501: --optimizer-state keep carries on" in note
    keep = _config(slow_run, "keep")
    assert first_step(keep, None) == 400
    assert start_notes(_config(slow_run, "keep", first=400)) == []
    assert start_notes(_config(slow_run, "new", "constant", 0.5)) == []


def test_parameters_alone_have_no_statistics_to_keep(tmp_path):
    save_params(tmp_path / "params", _CONFIG, {"embedding": np.zeros((2, 2), np.float32)})
    keep = _config(tmp_path / "params", "keep")
    assert first_step(keep, None) == 0
    without, jump = start_notes(keep)
    assert "params holds no statistics of the optimizer: they are new" in without
    assert "starts at 0.1" in jump
    assert "params is trained already: --learning-rate-schedule constant" in jump
    assert start_notes(_config(tmp_path / "params", "new", "constant")) == []
    assert start_notes(_config(None, "new")) == []


def test_a_resumed_run_starts_where_it_began(slow_run):
    assert first_step(_config(slow_run, "keep"), {"first_step": 300}) == 300
    assert first_step(_config(slow_run, "new"), {}) == 0
    assert first_step(_config(slow_run, "new"), None) == 0
