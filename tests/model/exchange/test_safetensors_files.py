"""safetensors files of ours in their library and the other way round; damaged ones refused."""

import json
import os
import struct

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from model.exchange import safetensors_files
from model.exchange.safetensors_files import TensorFileError

RNG = np.random.default_rng(0)
TENSORS = {
    "a.weight": RNG.normal(size=(5, 3)).astype(np.float32),
    "b.weight": RNG.normal(size=(2, 3, 4)).astype(np.float32),
    "norm": RNG.normal(size=7).astype(np.float32),
    "scalar": np.array(3.5, np.float32),
    "empty": np.empty((0, 4), np.float32),
}
SHAPES = {name: array.shape for name, array in TENSORS.items()}


def arrays(folder):
    return {name: stored.array() for name, stored in safetensors_files.read(folder).items()}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_their_library_reads_what_we_write(tmp_path):
    safetensors_files.write(tmp_path, SHAPES, TENSORS.__getitem__)
    assert os.listdir(tmp_path) == ["model.safetensors"]
    assert_equal(load_file(tmp_path / "model.safetensors"), TENSORS)
    assert_equal(arrays(tmp_path), TENSORS)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_we_read_what_their_library_writes(tmp_path, dtype):
    tensors = {name: array.astype(dtype) for name, array in TENSORS.items()}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert_equal(arrays(tmp_path), tensors)


def test_bfloat16_is_rounded_to_the_nearest(tmp_path):
    safetensors_files.write(tmp_path, SHAPES, TENSORS.__getitem__, dtype="bfloat16")
    rounded = {name: array.astype(ml_dtypes.bfloat16) for name, array in TENSORS.items()}
    assert_equal(load_file(tmp_path / "model.safetensors"), rounded)


@pytest.mark.slow
def test_transposed_tensors_are_written_as_they_read(tmp_path):
    big = RNG.normal(size=(300, 70_000)).astype(np.float32)  # several parts
    safetensors_files.write(tmp_path, {"t": big.T.shape}, lambda _: big.T)
    np.testing.assert_array_equal(load_file(tmp_path / "model.safetensors")["t"], big.T)


@settings(max_examples=30)
@given(sizes=st.lists(st.integers(0, 30), min_size=1, max_size=8), limit=st.integers(1, 200))
def test_several_files_hold_each_tensor_once_within_the_limit(tmp_path_factory, sizes, limit):
    folder = tmp_path_factory.mktemp("shards")
    tensors = {f"t{i}": np.full(size, i, np.float32) for i, size in enumerate(sizes)}
    shapes = {name: array.shape for name, array in tensors.items()}

    safetensors_files.write(folder, shapes, tensors.__getitem__, max_file_bytes=limit)
    paths = list(folder.iterdir())

    assert_equal(arrays(folder), tensors)
    shards = [path for path in paths if path.suffix == ".safetensors"]
    assert (len(paths) > 1) == (sum(4 * size for size in sizes) > limit and len(shards) > 1)
    merged = {}
    for path in shards:
        content = load_file(path)
        assert len(content) == 1 or sum(array.nbytes for array in content.values()) <= limit
        assert not merged.keys() & content.keys()
        merged |= content
    assert_equal(merged, tensors)


def test_the_index_names_the_file_of_each_tensor_and_the_size(tmp_path):
    safetensors_files.write(tmp_path, SHAPES, TENSORS.__getitem__, max_file_bytes=160)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(a.nbytes for a in TENSORS.values())
    assert index["weight_map"]["a.weight"] == "model-00001-of-00002.safetensors"
    assert not (tmp_path / "model.safetensors").exists()


def test_a_tensor_of_another_shape_than_announced_is_a_bug_said_aloud(tmp_path):
    with pytest.raises(TensorFileError, match=r"t has the shape \[2\], \[3\] was announced"):
        safetensors_files.write(tmp_path, {"t": (3,)}, lambda _: np.zeros(2))


def _cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def _cut_header(path):
    path.write_bytes(path.read_bytes()[:40])


def _no_json(path):
    path.write_bytes(struct.pack("<Q", 4) + b"\xff\xff{}" + bytes(99))


def _list(path):
    path.write_bytes(struct.pack("<Q", 2) + b"[]")


def _tensors(places, data):
    def damage(path):
        entries = {
            name: {"dtype": "F32", "shape": [(end - begin) // 4], "data_offsets": [begin, end]}
            for name, (begin, end) in places.items()
        }
        header = json.dumps(entries).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(data))

    return damage


def _entry(**changes):
    def damage(path):
        entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes
        header = json.dumps({"t": {k: v for k, v in entry.items() if v is not None}}).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        *(_cut, _cut_header, _no_json, _list),
        lambda path: path.write_bytes(b"PK"),
        lambda path: path.write_bytes(b"\xff" * 64),
        lambda path: path.write_bytes(struct.pack("<Q", 10**5) + b"[" * 10**5),
        _entry(shape=[3]),
        _entry(shape=[1]),
        _entry(shape=None),
        _entry(shape=[-2]),
        _entry(shape=[2**62, 2**62]),
        _entry(shape=[float("inf")]),
        _entry(shape="2"),
        _entry(shape=[2.0]),
        _entry(dtype="X9"),
        _entry(data_offsets=[0, 9]),
        _entry(data_offsets=[4, 0]),
        _entry(data_offsets=[0, float("inf")]),
        _tensors({"a": (0, 8), "b": (4, 12)}, 12),
        _tensors({"a": (0, 8), "b\n\x1b[2J": (0, 8)}, 8),
        _tensors({"a": (0, 4), "b": (8, 12)}, 12),
        _tensors({"a": (0, 4)}, 7),
    ],
)
def test_damage_is_told_in_a_line_with_the_file(tmp_path, damage):
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path)
    damage(path)
    with pytest.raises(TensorFileError, match="cut short or damaged: ") as caught:
        safetensors_files.read(tmp_path)
    assert str(path) in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_file_that_shrinks_while_it_is_read_is_told(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path)
    tensors = safetensors_files.read(tmp_path)
    _cut_header(path)
    with pytest.raises(TensorFileError, match=r"model\.safetensors: norm cannot be read"):
        tensors["norm"].array()


def test_quantised_tensors_are_refused_when_read(tmp_path):
    save_file({"t": np.zeros(4, np.int8)}, tmp_path / "model.safetensors")
    stored = safetensors_files.read(tmp_path)["t"]
    with pytest.raises(TensorFileError, match="tensors of type I8, F32, BF16, F16 are read"):
        stored.array()


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"t": "gone.safetensors"}, r"gone\.safetensors. is missing"),
        ({"t": "../model.safetensors"}, "not a file beside it"),
        ({"t": ".."}, "'..' is missing"),
        ({"t": ""}, "'' is missing"),
        ({"nope": "one.safetensors"}, r"one\.safetensors: lacks nope"),
        ("no map", "no weight_map"),
        ({"t": 1}, "no weight_map"),
    ],
)
def test_a_wrong_index_is_told(tmp_path, weight_map, message):
    save_file({"t": np.zeros(1, np.float32)}, tmp_path / "one.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(TensorFileError, match=message):
        safetensors_files.read(tmp_path)


def test_folders_without_safetensors_say_what_they_have(tmp_path):
    with pytest.raises(TensorFileError, match=r"neither model\.safetensors nor"):
        safetensors_files.read(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(TensorFileError, match=r"pytorch_model\.bin only, .* convert it"):
        safetensors_files.read(tmp_path)
