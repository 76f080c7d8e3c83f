"""Checkpoints: what comes back is what went in, and nothing half-done is taken for whole."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from model.t5.config import model_config
from model.training.checkpoint_layout import MODEL_FILE, newest_step
from model.training.checkpoints import Checkpoints
from model.training.model_folders import load_params, read_model, save_params
from model.training.optimizer import Moment
from model.training.train_step import TrainState

# Orbax closes its event loop when the first array fails; TensorStore then calls back into it for
# the others, which Python can only report.
_OTHER_ARRAYS_FAIL_LATER = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)

_CONFIG = model_config("tiny", "prefix-language-model", vocab_size=128)


def _params():
    draw = np.random.default_rng(0)
    return {
        "embedding": draw.normal(size=(16, 8)).astype(np.float32),
        "decoder": {"final_norm": np.arange(8, dtype=np.float32)},
    }


def _state(scale=1.0):
    params = jax.tree.map(lambda array: jnp.asarray(scale * array), _params())
    moments = {
        "embedding": Moment(jnp.full(16, scale), jnp.full(8, 2 * scale), None),
        "decoder": {"final_norm": Moment(None, None, jnp.full(8, 3 * scale))},
    }
    return TrainState(params, moments, jnp.int32(0))


def _like(state, sharding):
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), state
    )


def _alone():
    return jax.sharding.SingleDeviceSharding(jax.devices()[0])


def _same(got, wanted):
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(a, b)


class _Uncopyable(np.ndarray):
    def __deepcopy__(self, memo):
        raise AssertionError("parameters of 11B take 45 GB: once")


def test_parameters_are_not_copied_on_their_way_to_disk(tmp_path):
    params = jax.tree.map(lambda leaf: np.asarray(leaf).view(_Uncopyable), _params())
    save_params(tmp_path / "p", _CONFIG, params)
    loaded = load_params(tmp_path / "p").params
    jax.tree.map(np.testing.assert_array_equal, loaded, _params())


def test_params_with_model_and_vocabulary(tmp_path):
    vocabulary = tmp_path / "v"
    vocabulary.write_bytes(b"pieces")
    save_params(tmp_path / "made" / "here", _CONFIG, _params(), vocabulary)
    loaded = load_params(tmp_path / "made" / "here")
    assert loaded.config == _CONFIG
    assert loaded.vocabulary.read_bytes() == b"pieces"
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(loaded.params))
    _same(loaded.params, _params())
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["here"]


def test_an_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(ValueError, match="exists already"):
        save_params(tmp_path, _CONFIG, _params())
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_what_fails_leaves_nothing(tmp_path):
    with pytest.raises(FileNotFoundError):
        save_params(tmp_path / "p", _CONFIG, _params(), tmp_path / "no-vocabulary")
    assert list(tmp_path.iterdir()) == []


def test_folders_that_are_no_model(tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        load_params(tmp_path / "none")
    with pytest.raises(ValueError, match=r"model\.json is missing"):
        load_params(tmp_path)
    save_params(tmp_path / "p", _CONFIG, _params())
    path = tmp_path / "p" / MODEL_FILE
    whole = path.read_text()
    for broken in ("{", "[]", whole.replace('"format": 1', '"format": 9'), "{}"):
        path.write_text(broken)
        with pytest.raises(ValueError, match="not a model of this version"):
            read_model(tmp_path / "p")
    path.unlink()
    with pytest.raises(ValueError, match=r"model\.json is missing"):
        load_params(tmp_path / "p")


@_OTHER_ARRAYS_FAIL_LATER
@pytest.mark.parametrize("name", ["_METADATA", "manifest.ocdbt"])
@pytest.mark.parametrize("damage", [pathlib.Path.unlink, lambda path: path.write_bytes(bytes(9))])
def test_damaged_params_are_named_in_a_line(tmp_path, name, damage):
    save_params(tmp_path / "p", _CONFIG, _params())
    damage(tmp_path / "p" / "params" / name)
    with pytest.raises(ValueError, match="cannot be read, give another checkpoint") as told:
        load_params(tmp_path / "p")
    assert "\n" not in str(told.value)


def test_a_state_comes_back_whole(tmp_path):
    state, progress = _state(), {"input": {"shards": {"0": [3, 4]}}, "best": 0.1}
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(7, state, progress)
    checkpoints.wait()
    got, told = checkpoints.restore(7, _like(state, _alone()))
    checkpoints.close()
    assert (told, int(got.step)) == (progress, 7)
    _same(got, state._replace(step=jnp.int32(7)))


def test_a_state_goes_onto_other_devices(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, _state(), {})
    checkpoints.wait()
    mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("a", "b"))
    like = _like(_state(), NamedSharding(mesh, PartitionSpec()))
    split = NamedSharding(mesh, PartitionSpec("b"))
    like = like._replace(params=_like(_state().params, split))
    got, _ = checkpoints.restore(1, like)
    checkpoints.close()
    assert got.params["embedding"].addressable_shards[0].data.shape == (4, 8)
    _same(got.params, _state().params)


@pytest.mark.slow
def test_what_is_saved_is_the_state_of_its_moment(tmp_path):
    """Steps that reuse the memory while files are being written change nothing in them."""
    size = (1 << 20,)
    params = {"embedding": jnp.zeros(size)}
    moments = {"embedding": Moment(None, None, jnp.zeros(size))}
    state = TrainState(params, moments, jnp.int32(0))
    add = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep_last=5)
    for step in range(1, 4):
        state = add(state)
        checkpoints.save(step, state, {"step": step})
        for _ in range(20):
            state = add(state)
    checkpoints.wait()
    for step in range(1, 4):
        got, _ = checkpoints.restore(step, _like(state, _alone()))
        wanted = 21 * (step - 1) + 1
        assert float(got.params["embedding"].min()) == wanted
        assert float(got.params["embedding"].max()) == wanted
    checkpoints.close()


@pytest.mark.slow
def test_which_checkpoints_stay(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep_last=2, keep_every=4)
    for step in range(1, 11):
        checkpoints.save(step, _state(step), {})
    checkpoints.wait()
    checkpoints.close()
    left = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert left == [4, 8, 9, 10]


def test_runs_are_read_by_folder_and_by_step(tmp_path):
    with pytest.raises(ValueError, match=r"model\.json is missing"):
        load_params(tmp_path)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    from model.training.checkpoint_layout import write_model_file

    write_model_file(tmp_path, _CONFIG)
    with pytest.raises(ValueError, match="holds no whole checkpoint yet"):
        load_params(tmp_path)
    for step in (5, 10):
        checkpoints.save(step, _state(step), {})
    checkpoints.close()
    (tmp_path / "checkpoints" / "15.orbax-checkpoint-tmp-0" / "params").mkdir(parents=True)
    assert newest_step(tmp_path / "checkpoints") == 10
    for path, step in ((".", 10), ("checkpoints", 10), ("checkpoints/5", 5)):
        loaded = load_params(tmp_path / path)
        assert loaded.config == _CONFIG
        _same(loaded.params, jax.device_get(_state(step).params))


def test_a_disk_that_fails_is_an_oserror(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    (tmp_path / "checkpoints").rmdir()
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(OSError, match="checkpoints"):
        _save_and_wait(checkpoints)
    checkpoints.close()


def _save_and_wait(checkpoints):
    checkpoints.save(1, _state(), {})
    checkpoints.wait()


def test_a_folder_that_is_no_checkpoint_is_told_and_not_gone_on_from(tmp_path):
    (tmp_path / "7").mkdir()
    assert newest_step(tmp_path) is None
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(ValueError, match="7 is not a whole checkpoint; delete it to resume"):
        checkpoints.newest()
    checkpoints.close()


def _files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


def _flip(path, place):
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << int(place * 64) % 8
    path.write_bytes(content)


@_OTHER_ARRAYS_FAIL_LATER
@pytest.mark.parametrize("place", [0.02, 0.51, 0.95])
def test_a_flipped_bit_never_becomes_another_state(tmp_path, place):
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    progress = {"input": {"shards": {"0": [3, 4]}}, "guard": [0.5]}
    checkpoints.save(7, _state(), progress)
    checkpoints.wait()
    noticed = 0
    step = tmp_path / "run" / "checkpoints" / "7"
    for path in _files(step):
        before = path.read_bytes()
        _flip(path, place)
        try:
            got, told = checkpoints.restore(7, _like(_state(), _alone()))
        except ValueError as error:
            assert f"{step} cannot be restored" in str(error)  # noqa: PT017
            noticed += 1
        else:  # somewhere that says nothing of the state
            _same(got, _state()._replace(step=jnp.int32(7)))
            assert told == progress
        path.write_bytes(before)
    assert noticed >= 4
    checkpoints.close()


@_OTHER_ARRAYS_FAIL_LATER
@pytest.mark.parametrize("place", [0.02, 0.51, 0.95])
def test_a_flipped_bit_never_becomes_other_parameters(tmp_path, place):
    save_params(tmp_path / "p", _CONFIG, _params())
    noticed = 0
    for path in _files(tmp_path / "p" / "params"):
        before = path.read_bytes()
        _flip(path, place)
        try:
            _same(load_params(tmp_path / "p").params, _params())
        except ValueError:
            noticed += 1
        path.write_bytes(before)
    assert noticed >= 2


@pytest.mark.parametrize("content", ["{}", "[]", "null", '{"input": null}', "no json"])
def test_another_place_in_the_data_is_not_gone_on_from(tmp_path, content):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(7, _state(), {"input": {"shards": {}}, "guard": []})
    checkpoints.wait()
    (tmp_path / "checkpoints" / "7" / "progress" / "metadata").write_text(content)
    with pytest.raises(ValueError, match="cannot be restored; delete it to resume from the one"):
        checkpoints.restore(7, _like(_state(), _alone()))
    checkpoints.close()
