"""safetensors files, one tensor at a time: in memory is no more than the tensor at hand.

The library reads. It cannot write tensors one by one: ``serialize_file`` wants all those of a file
in memory at once, contiguous, which for transposed ones is another copy of the model (477 MB more
for a file of 500 MB, where `write` takes 66). So `write` makes the file itself: 8 bytes for the
length of a JSON header (little endian), the header with type, shape and place of each tensor, then
their bytes, row-major (https://github.com/huggingface/safetensors). Large models are in several
files, which ``model.safetensors.index.json`` assigns to names.
"""

import dataclasses
import json
import math
import os
import pathlib
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import ml_dtypes
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from model.small_files import read_json_object, write_json

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

#: The format's name of each type that a published T5 has, to NumPy's.
DTYPES: Mapping[str, np.dtype[Any]] = {
    "F32": np.dtype(np.float32),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F16": np.dtype(np.float16),
}
_NAMES = {"float32": "F32", "bfloat16": "BF16"}


class TensorFileError(ValueError):
    """A file that is damaged, or holds what no T5 is made of."""


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor of an open file."""

    path: pathlib.Path
    name: str
    dtype: str  #: as the format names it, such as "F32"
    shape: tuple[int, ...]
    file: Any  #: the open file of the library

    def array(self) -> npt.NDArray[Any]:
        """Read the tensor.

        Raises TensorFileError for a type that is not in `DTYPES`, such as that of the weights of a
        quantised model, which are of no use without the scales beside them.
        """
        if self.dtype not in DTYPES:
            raise TensorFileError(
                f"{self.path}: holds tensors of type {self.dtype}, {', '.join(DTYPES)} are read; "
                "of a quantised model give what it was made from"
            )
        try:
            found: npt.NDArray[Any] = self.file.get_tensor(self.name)
        except SafetensorError as error:
            raise TensorFileError(f"{self.path}: {self.name} cannot be read: {error}") from None
        return found


def read(folder: str | os.PathLike[str]) -> dict[str, StoredTensor]:
    """All tensors of a model's folder by name, in one file or in several.

    Raises TensorFileError where there are none or a file is damaged.
    """
    root = pathlib.Path(folder)
    if (root / SINGLE).exists():
        return _read_header(root / SINGLE)
    if (root / INDEX).exists():
        return _read_shards(root)
    for name in ("pytorch_model.bin", "pytorch_model.bin.index.json"):
        if (root / name).exists():
            raise TensorFileError(
                f"{root} has its weights as {name} only, which needs PyTorch to read: convert it "
                "(with Hugging Face: from_pretrained, then save_pretrained) or fetch the "
                f"{SINGLE} that most models are published with too"
            )
    raise TensorFileError(f"{root} has neither {SINGLE} nor {INDEX}")


def _read_shards(root: pathlib.Path) -> dict[str, StoredTensor]:
    path = root / INDEX
    places = read_json_object(path).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise TensorFileError(f"{path}: damaged: no weight_map of file names")
    shards = {}
    for name in sorted(set(places.values())):
        if pathlib.PurePath(name).name != name:
            raise TensorFileError(f"{path}: names {name!r}, which is not a file beside it")
        if not (root / name).is_file():
            raise TensorFileError(f"{root}: {name!r} is missing, which {INDEX} names")
        shards[name] = _read_header(root / name)
    found = {}
    for tensor, name in places.items():
        if tensor not in shards[name]:
            raise TensorFileError(f"{root / name}: lacks {tensor}, which {INDEX} says it holds")
        found[tensor] = shards[name][tensor]
    return found


def _read_header(path: pathlib.Path) -> dict[str, StoredTensor]:
    if not path.is_file():
        raise TensorFileError(f"{path}: not a file but a pipe, a device or a folder")
    try:
        # Not mapped: pages of a mapped file count as the memory of this process.
        file = safe_open(path, framework="np", backend="pread")
    except SafetensorError as error:
        reason = str(error).encode("unicode_escape").decode()  # it may quote a name of the file's
        raise TensorFileError(
            f"{path}: not a safetensors file, cut short or damaged: {reason}"
        ) from None
    found = {}
    for name in file.keys():  # noqa: SIM118 - not a mapping
        kept = file.get_slice(name)
        found[name] = StoredTensor(path, name, kept.get_dtype(), tuple(kept.get_shape()), file)
    return found


def write(
    folder: str | os.PathLike[str],
    shapes: Mapping[str, tuple[int, ...]],
    tensor: Callable[[str], npt.NDArray[Any]],
    *,
    dtype: Literal["float32", "bfloat16"] = "float32",
    max_file_bytes: int = 5_000_000_000,
) -> None:
    """Write tensors in the order of ``shapes``, asking ``tensor(name)`` for one at a time.

    What they need in memory is what the largest of them needs. They go into ``model.safetensors``
    or, beyond ``max_file_bytes`` of tensors, into several files and their index; a tensor larger
    than that has a file of its own.
    """
    root = pathlib.Path(folder)
    kind = DTYPES[_NAMES[dtype]]
    sizes = {name: math.prod(shape) * kind.itemsize for name, shape in shapes.items()}
    shards = list(_shards(sizes, max_file_bytes))
    places = {}
    for number, names in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors" if shards[1:] else SINGLE
        _write_file(root / name, names, shapes, tensor, dtype)
        places.update(dict.fromkeys(names, name))
    if shards[1:]:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": places}
        write_json(root / INDEX, index)


def _shards(sizes: Mapping[str, int], limit: int) -> Iterator[list[str]]:
    names: list[str] = []
    filled = 0
    for name, size in sizes.items():
        if names and filled + size > limit:
            yield names
            names, filled = [], 0
        names.append(name)
        filled += size
    yield names


def _write_file(
    path: pathlib.Path,
    names: Sequence[str],
    shapes: Mapping[str, tuple[int, ...]],
    tensor: Callable[[str], npt.NDArray[Any]],
    dtype: str,
) -> None:
    kind = DTYPES[_NAMES[dtype]]
    # Transformers reads no file whose metadata does not say which library's tensors these are.
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        begin, end = end, end + math.prod(shapes[name]) * kind.itemsize
        header[name] = {
            "dtype": _NAMES[dtype], "shape": list(shapes[name]), "data_offsets": [begin, end]
        }  # fmt: skip
    content = json.dumps(header, separators=(",", ":")).encode()
    content += b" " * (-len(content) % 8)  # so that tensors are aligned
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(content)) + content)
        for name in names:
            array = tensor(name)
            if array.shape != tuple(shapes[name]):
                raise TensorFileError(
                    f"{name} has the shape {list(array.shape)}, {list(shapes[name])} was announced"
                )
            for part in _parts(array):
                # As bytes: NumPy has no buffer of bfloat16.
                file.write(np.ascontiguousarray(part, kind).view(np.uint8).data)


def _parts(array: npt.NDArray[Any]) -> Iterable[npt.NDArray[Any]]:
    """Yield the rows in pieces of about 64 MB, so that a transposed tensor is not copied whole."""
    if array.ndim < 2:
        return [np.atleast_1d(array)]
    rows = max(1, 2**24 // max(1, math.prod(array.shape[1:])))
    return (array[start : start + rows] for start in range(0, len(array), rows))
