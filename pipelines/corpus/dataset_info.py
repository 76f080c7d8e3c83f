"""The small files by which other libraries open a folder of shards with no code of ours.

``tfds.builder_from_directory(OUT).as_dataset()`` reads ``dataset_info.json`` (what shards there
are) and ``features.json`` (how to parse a record). Both are the JSON form of protocol buffers, from
tensorflow_datasets/core/proto/{dataset_info,feature}.proto, in which 64-bit numbers are strings.
Shards are named otherwise than TensorFlow Datasets would, so each split carries its own template.
A split of no examples at all is not listed: ``as_dataset()`` raises on one. Empty shards are fine.

Only a TFRecord build opens that way: what TensorFlow Datasets calls Parquet is one column of
serialised examples, and it knows no JSON lines. A Parquet or JSON build has the same two files, as
a description. ``as_data_source`` needs random access, which TFRecord files give to no reader.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.corpus.formats import format_named, shard_file_name
from pipelines.corpus.formats.pages import TEXT_FEATURES
from pipelines.corpus.layout import SPLITS
from pipelines.corpus.manifest import Manifest

# Name of a split -> (file name, examples, bytes) of its shards, in order.
Splits = Mapping[str, Sequence[tuple[str, int, int]]]

_NAME = "c4"
_VERSION = "1.0.0"  # of every corpus, for TensorFlow Datasets
_FEATURES_DICT = "tensorflow_datasets.core.features.features_dict.FeaturesDict"
_TEXT = "tensorflow_datasets.core.features.text_feature.Text"


def features() -> dict[str, Any]:
    """Return the content of ``features.json``: each feature of a TFRecord is one UTF-8 text."""
    texts = {name: {"pythonClassName": _TEXT, "text": {}} for name in sorted(TEXT_FEATURES)}
    return {"featuresDict": {"features": texts}, "pythonClassName": _FEATURES_DICT}


def dataset_info(
    format: str,  # noqa: A002
    splits: Splits,
    description: str,
    config_name: str,
) -> dict[str, Any]:
    """Return the content of ``dataset_info.json``.

    Args:
        format: A key of `pipelines.corpus.formats.FORMATS`.
        splits: All shards of each split, those without examples included.
        description: What the corpus is, for people.
        config_name: The recipe, as in ``c4/en``.

    Raises:
        ValueError: A shard is named otherwise than `shard_file_name` names it, so that no template
            would find it.
    """
    for split, shards in splits.items():
        for i, (name, _, _) in enumerate(shards):
            wanted = shard_file_name(split, i, len(shards), format)
            if name != wanted:
                raise ValueError(f"shard {i} of split {split!r} must be {wanted!r}, got {name!r}")
    return {
        "configName": config_name,
        "description": description,
        "fileFormat": format,
        "name": _NAME,
        "splits": [
            {
                "filepathTemplate": "{SPLIT}-{SHARD_X_OF_Y}" + format_named(format).suffix,
                "name": split,
                "numBytes": str(sum(n_bytes for _, _, n_bytes in shards)),
                "shardLengths": [str(examples) for _, examples, _ in shards],
            }
            for split, shards in with_examples(splits).items()
        ],
        "version": _VERSION,
    }


def dataset_info_files(*described: Any) -> dict[str, bytes]:
    """Return both files by name; arguments and errors are those of `dataset_info`.

    A folder of several formats gets the files of its TFRecord build, if it has one.
    """
    contents = {"features.json": features(), "dataset_info.json": dataset_info(*described)}
    return {
        name: json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"
        for name, content in contents.items()
    }


def described_format(made: Manifest) -> str:
    """Return the format whose shards the files of TensorFlow Datasets describe."""
    return "tfrecord" if "tfrecord" in made.formats else made.formats[0]


def splits_of(made: Manifest) -> Splits:
    """Return the shards of a corpus by split, in the format that `dataset_info` describes."""
    described = described_format(made)
    splits: dict[str, list[tuple[str, int, int]]] = {split: [] for split in SPLITS}
    for shard in made.shards:
        if shard.format == described:
            splits[shard.split].append((shard.name, shard.pages, shard.bytes))
    return splits


def with_examples(splits: Splits) -> Splits:
    """Leave out splits without examples, on which other libraries raise."""
    return {s: shards for s, shards in splits.items() if any(n for _, n, _ in shards)}
