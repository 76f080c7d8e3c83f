"""The door for other tools, against numbers made elsewhere."""

import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

import model
from model.exchange.hugging_face import export_model
from testing.tiny_t5 import V1_0, random_params

GOLDEN = pathlib.Path(__file__).resolve().parents[3] / ".." / "shared" / "golden"


@pytest.fixture(scope="module", params=["t5_v1_0_tiny", "t5_v1_1_tiny"])
def golden(request):
    if not GOLDEN.is_dir():
        pytest.skip("needs ../shared/golden")
    folder = GOLDEN / request.param
    return model.load_hf(folder), np.load(folder / "expected.npz")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hf") / "tiny"
    export_model(folder, V1_0, random_params(V1_0))
    return model.load_hf(str(folder))


def test_encoder_outputs_are_theirs(golden):
    loaded, expected = golden
    found = loaded.encode(expected["input_ids"], expected["input_mask"])
    real = expected["input_mask"] == 1
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[real], expected["encoder_output"][real], rtol=0, atol=1e-4)


def test_logits_and_loss_are_theirs(golden):
    loaded, expected = golden
    targets = expected["target_ids"]
    found = loaded.logits(expected["input_ids"], expected["input_mask"], targets)
    real = targets != 0
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[real], expected["logits"][real], rtol=0, atol=1e-4)

    shifted = found - found.max(-1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    loss = -np.take_along_axis(log_probabilities, targets[..., None], -1)[..., 0][real].mean()
    assert abs(loss - float(expected["mean_token_loss"])) < 1e-5


def test_greedy_ids_are_theirs_without_the_start_token(golden):
    loaded, expected = golden
    theirs = expected["greedy"]
    assert (theirs[:, 0] == 0).all()
    length = theirs.shape[1] - 1
    found = loaded.generate(expected["input_ids"], expected["input_mask"], max_new_tokens=length)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, theirs[:, 1:])


def test_beams_are_theirs_without_the_start_token(golden):
    loaded, expected = golden
    theirs = expected["beam4_alpha06"]
    found = loaded.generate(expected["input_ids"], expected["input_mask"], 16, beams=4)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, theirs[:, 1:])


@pytest.mark.slow
def test_one_beam_is_not_greedy_and_the_penalty_counts():
    # Ends that are likely.
    loaded = model.LoadedModel(V1_0.replace(eos_ids=tuple(range(1, 30))), random_params(V1_0))
    ids = np.random.default_rng(1).integers(3, 320, (24, 6))
    greedy, one, longer = (
        loaded.generate(ids, np.ones_like(ids), 12, **options)
        for options in ({}, {"beams": 1}, {"beams": np.int64(1), "length_penalty": 5.0})
    )
    assert (greedy != one).any()
    assert (longer != 0).sum() > (one != 0).sum(), "a larger penalty prefers longer sequences"


@pytest.mark.slow
def test_ids_after_the_end_are_padding(tiny):
    rng = np.random.default_rng(1)
    ids = rng.integers(3, 320, (8, 6))
    found = tiny.generate(ids, np.ones_like(ids), max_new_tokens=40)
    assert found.shape == (8, 40)
    for row in found:
        ends = np.flatnonzero(row == 1)
        assert not ends.size or not row[ends[0] + 1 :].any()


@pytest.mark.slow
def test_generation_starts_ends_and_pads_as_the_folder_says(tmp_path, tiny):
    ids = np.random.default_rng(1).integers(3, 320, (4, 6))
    mask = np.ones_like(ids)
    plain = tiny.generate(ids, mask, max_new_tokens=6)
    end = int(plain[0, 2])
    config = V1_0.replace(eos_ids=(1, end), pad_id=9)
    export_model(tmp_path / "other", config, random_params(V1_0))
    found = model.load_hf(tmp_path / "other").generate(ids, mask, max_new_tokens=6)
    for row, before in zip(found, plain, strict=True):
        stops = np.flatnonzero(np.isin(before, (1, end)))
        length = stops[0] + 1 if stops.size else 6
        assert row.tolist() == [*before[:length].tolist(), *[9] * (6 - length)]

    # What the decoder reads first decides the first logits, in one way of asking as in the other.
    export_model(tmp_path / "start", V1_0.replace(start_id=8), random_params(V1_0))
    other = model.load_hf(tmp_path / "start")
    logits = other.logits(ids, mask, ids[:, :1])
    assert np.abs(logits - tiny.logits(ids, mask, ids[:, :1])).max() > 1e-3
    first = other.generate(ids, mask, max_new_tokens=1)
    np.testing.assert_array_equal(first[:, 0], logits[:, 0].argmax(-1))


@pytest.mark.slow
def test_what_is_on_padding_does_not_matter(tiny):
    rng = np.random.default_rng(2)
    ids = rng.integers(3, 320, (2, 9))
    mask = np.ones_like(ids)
    mask[0, 5:] = 0
    other = np.where(mask == 1, ids, 7)
    assert not np.array_equal(ids, other)

    encoded, again = tiny.encode(ids, mask), tiny.encode(other, mask)
    np.testing.assert_array_equal(encoded[mask == 1], again[mask == 1])
    # And it is the mask that decides this: without it they differ.
    everything = np.ones_like(mask)
    assert np.abs(tiny.encode(ids, everything) - tiny.encode(other, everything))[0, :5].max() > 1e-3
    targets = rng.integers(3, 320, (2, 4))
    np.testing.assert_array_equal(
        tiny.logits(ids, mask, targets), tiny.logits(other, mask, targets)
    )


@pytest.mark.slow
def test_lists_and_other_integers_are_taken_as_tokenizers_give_them(tiny):
    ids, mask = [[5, 6, 1], [7, 1, 0]], [[True, True, True], [True, True, False]]
    expected = tiny.encode(np.array(ids, np.int32), np.array(mask, np.int32))
    for kind in (np.int64, np.uint16):
        found = tiny.encode(np.array(ids, kind), mask)
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(tiny.encode(ids, mask), expected)


@pytest.mark.slow
def test_each_method_compiles_once_a_shape(tiny):
    ids = np.full((1, 4), 5)
    for fill in (5, 6, 7):
        tiny.encode(ids * 0 + fill, np.ones_like(ids))
    before = tiny._encode._cache_size()
    tiny.encode(ids * 0 + 9, np.ones_like(ids))
    assert tiny._encode._cache_size() == before
    tiny.encode(ids[:, :3], np.ones((1, 3), int))
    assert tiny._encode._cache_size() == before + 1


GOOD = {"input_ids": np.full((2, 3), 5), "input_mask": np.ones((2, 3), int)}


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("encode", {"input_ids": np.full(3, 5)}, "must be [batch, length], got the shape [3]"),
        ("encode", {"input_ids": np.empty((0, 3), int)}, "got the shape [0, 3]"),
        ("encode", {"input_ids": np.full((2, 3), 5.0)}, "input_ids must be integers, got float64"),
        ("encode", {"input_ids": np.full((2, 3), 320)}, "ids from 0 to 319, got 320"),
        ("encode", {"input_ids": np.full((2, 3), -1)}, "ids from 0 to 319, got -1"),
        ("encode", {"input_mask": np.ones((2, 4), int)}, "shape of input_ids, [2, 3], got [2, 4]"),
        ("encode", {"input_mask": np.full((2, 3), 2)}, "1 on tokens and 0 on padding, got 2"),
        ("encode", {"input_mask": np.full((2, 3), np.nan)}, "0 on padding, got nan"),
        ("logits", {"target_ids": np.full((3, 2), 5)}, "as many rows as input_ids, got 3 and 2"),
        ("logits", {"target_ids": np.full((2, 2), -100)}, "target_ids must be ids from 0 to 319"),
        ("logits", {"target_ids": np.full((2, 2), 5), "input_mask": [[1]]}, "shape of input_ids"),
        ("generate", {"max_new_tokens": 0}, "max_new_tokens must be a positive integer, got 0"),
        ("generate", {"max_new_tokens": 2.5}, "max_new_tokens must be a positive integer, got 2.5"),
        ("generate", {"input_ids": np.full((2, 3), 320)}, "got 320"),
        ("generate", {"beams": 0}, "beams must be a positive integer, got 0"),
        ("generate", {"beams": True}, "beams must be a positive integer, got True"),
        ("generate", {"beams": 2, "length_penalty": -1}, "length_penalty must be a number from 0"),
        ("generate", {"length_penalty": -1}, "length_penalty must be a number from 0"),
    ],
)
def test_wrong_arrays_are_refused_with_what_is_wrong(tiny, method, arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        getattr(tiny, method)(**(GOOD | arguments))


@pytest.mark.slow
def test_bfloat16_is_near_and_not_the_same(tmp_path, tiny):
    export_model(tmp_path / "tiny", V1_0, random_params(V1_0))
    loaded = model.load_hf(tmp_path / "tiny", dtype="bfloat16")
    found, expected = (door.encode(**GOOD) for door in (loaded, tiny))
    assert found.dtype == np.float32
    assert 1e-5 < np.abs(found - expected).max() < 0.2


def test_other_architectures_do_not_fit_the_door():
    from model.exchange.loaded_model import LoadedModel

    config = V1_0.replace(architecture="language-model")
    with pytest.raises(ValueError, match="a language-model is not supported here"):
        LoadedModel(config, {})


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has no config\.json"):
        model.load_hf(tmp_path)


@pytest.mark.slow
def test_the_package_is_light_until_the_door_is_opened():
    code = (
        "import sys, model; print('jax' in sys.modules, 'load_hf' in dir(model)); "
        "model.load_hf; print('jax' in sys.modules, hasattr(model, 'nothing'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True", "True", "False"], done.stderr
