"""The manifest of a corpus: its settings, inputs, counts by rule and shards."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pipelines import corpus_folder, json_files, layout, storage
from pipelines.clean_files import FileSummary
from pipelines.config import BuildConfig
from pipelines.corpus_folder import FolderError
from pipelines.formats.dataset_info import dataset_card, dataset_info_files
from pipelines.write_shards import ShardSummary

__all__ = [
    "BalanceError",
    "FolderError",
    "checksum",
    "make_manifest",
    "read_manifest",
    "rewrite_manifest",
    "side_files",
    "write_manifest",
    "write_side_files",
]

_MANIFEST_VERSION = 1
_SAMPLES_PER_VERDICT = 5
_SECTIONS = frozenset({"recipe", "inputs", "unreadable_inputs", "counts", "splits", "shards"})
_DATASET_VERSION = "1.0.0"


class BalanceError(AssertionError):
    """Some pages or lines were neither written nor counted as dropped: a bug of this project."""


def make_manifest(
    config: BuildConfig, files: Iterable[FileSummary], shards: Iterable[ShardSummary]
) -> dict[str, Any]:
    """Add up a build. Raises BalanceError if pages or lines are missing from the sums."""
    files = sorted(files, key=lambda file: file.path)
    shards = sorted(shards, key=lambda shard: (shard.split != "train", shard.index))
    read = [file for file in files if not file.unreadable]
    parts: list[FileSummary | ShardSummary] = [*read, *shards]
    pages_dropped = _added(*(part.pages_dropped for part in parts))
    lines_dropped = _added(*(part.lines_dropped for part in parts))
    rejected = _added(*(file.records_rejected for file in read))
    counts: dict[str, Any] = {
        "files_read": len(read),
        "files_unreadable": len(files) - len(read),
        "pages_read": sum(file.pages_read for file in read),
        "pages_written": sum(shard.pages for shard in shards),
        "pages_dropped": pages_dropped,
        "lines_read": sum(file.lines_read for file in read),
        "lines_written": sum(shard.lines for shard in shards),
        "lines_dropped": lines_dropped,
        "records_rejected": sum(rejected.values()),
        "records_rejected_by_reason": rejected,
        "records_of_other_types": _added(*(file.records_of_other_types for file in read)),
        "records_of_wrong_length": sum(file.wrong_lengths for file in read),
    }
    for what in ("pages", "lines"):
        dropped = sum(counts[f"{what}_dropped"].values())
        if counts[f"{what}_read"] != counts[f"{what}_written"] + dropped:
            raise BalanceError(
                f"{what} do not balance: read {counts[f'{what}_read']}, written "
                f"{counts[f'{what}_written']}, dropped {dropped}"
            )
    return {
        "manifest_version": _MANIFEST_VERSION,
        "recipe": config.recipe.as_dict(),
        "settings": {
            key: value
            for key, value in config.identity.items()
            if key not in ("recipe", "versions")
        },
        "versions": config.identity["versions"],
        "inputs": [
            {
                "path": file.path,
                "bytes": file.bytes,
                "sha256": file.sha256,
                "identity": file.identity,
                "pages_read": file.pages_read,
            }
            for file in read
        ],
        "unreadable_inputs": [
            {
                "path": file.path,
                "bytes": file.bytes,
                "identity": file.identity,
                "error": file.unreadable,
            }
            for file in files
            if file.unreadable
        ],
        "counts": counts,
        "splits": {
            split: {
                "pages": sum(shard.pages for shard in shards if shard.split == split),
                "text_bytes": sum(shard.text_bytes for shard in shards if shard.split == split),
            }
            for split in ("train", "validation")
        },
        "shards": [
            {
                "name": file["name"],
                "split": shard.split,
                "format": file["format"],
                "pages": shard.pages,
                "bytes": file["bytes"],
                "sha256": file["sha256"],
            }
            for shard in shards
            for file in shard.files
        ],
        "keep": config.keep,
        "recleaned": [
            {"path": file.path, "reason": file.recleaned} for file in read if file.recleaned
        ],
        "kept_page": next((shard.kept_page for shard in shards if shard.kept_page), None),
        "samples": _samples([part.samples for part in parts]),
        "timing": {
            "clean_cpu_s": round(sum(file.cpu_s for file in read), 3),
            "write_cpu_s": round(sum(shard.cpu_s for shard in shards), 3),
            "files_resumed": sum(file.resumed for file in read),
        },
    }


def write_manifest(
    config: BuildConfig, manifest: Mapping[str, Any], require: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Finish a corpus: remove shards of earlier builds, write side files, then the manifest.

    Args:
        config: The build.
        manifest: What `make_manifest` returned.
        require: Raises an error if another build has taken the folder. It is called before
            anything is published.

    Returns:
        The manifest as it was written.
    """
    output = config.output
    require()
    current = {shard["name"] for shard in manifest["shards"]}
    corpus_folder.record_files(output, {layout.shards_in_split(name)[0] for name in current})
    storage.remove(
        storage.join(output, name)
        for name in corpus_folder.own_shards(output, storage.listdir(output))
        if name not in current
    )
    made = {**manifest, "side_files": write_side_files(output, manifest)}
    require()
    return rewrite_manifest(output, made)


def side_files(manifest: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the content of the files beside the shards, by name, from the manifest."""
    formats = list(dict.fromkeys(shard["format"] for shard in manifest["shards"]))
    described = "tfrecord" if "tfrecord" in formats else formats[0]
    splits: dict[str, list[tuple[str, int, int]]] = {"train": [], "validation": []}
    for shard in manifest["shards"]:
        if shard["format"] == described:
            splits[shard["split"]].append((shard["name"], shard["pages"], shard["bytes"]))
    name = manifest["recipe"]["name"]
    description = f"C4-style corpus, recipe {name}: {manifest['recipe']['description']}"
    files = dataset_info_files(described, splits, description, name, _DATASET_VERSION)
    return {**files, "README.md": dataset_card(formats, splits, description, name).encode()}


def write_side_files(output: str, manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Write the side files of a corpus, without overwriting files of the user.

    Returns:
        Name, bytes and sha256 of each file that belongs to the build, as the manifest lists them.
    """
    wanted = side_files(manifest)
    own = corpus_folder.own_side_files(output, wanted)
    contents = {}
    for name, content in wanted.items():
        path = storage.join(output, name)
        if name in own or not storage.exists(path) or storage.read_bytes(path) == content:
            contents[name] = content  # else it is the user's own
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    # Recorded first, so that after a kill the next build recognises them as its own.
    corpus_folder.record_files(output, digests=digests)
    for name, content in contents.items():
        path = storage.join(output, name)
        if storage.read_if_exists(path) != content:
            with storage.write_atomically(path) as file:
                file.write(content)
    return [
        {"name": name, "bytes": len(content), "sha256": digests[name]}
        for name, content in contents.items()
    ]


def rewrite_manifest(output: str, made: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the manifest of a finished corpus, whose shards stay unchanged, and return it."""
    made = {**made, "checksum": checksum(made)}
    with storage.write_atomically(storage.join(output, layout.MANIFEST)) as file:
        file.write(json_files.encode(made))
    return made


def checksum(made: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a manifest's values, in whatever form its JSON is written."""
    values = {name: value for name, value in made.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def read_manifest(output: str) -> dict[str, Any]:
    """Return the manifest of a finished corpus.

    Raises:
        FolderError: There is no manifest (the folder is not a corpus, or its build has not
            finished), or it is damaged or written by another version.
    """
    path = storage.join(output, layout.MANIFEST)
    if not storage.exists(path):
        raise FolderError(
            f"{output} has no {layout.MANIFEST}: it is not a corpus, or its build has not finished "
            "(run the same c4 build again to finish it)"
        )
    try:
        manifest = json.loads(storage.read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise FolderError(f"{path}: damaged: {error}") from None
    if not isinstance(manifest, dict):
        raise FolderError(f"{path}: damaged: not a JSON object")
    version = manifest.get("manifest_version")
    if version != _MANIFEST_VERSION:
        raise FolderError(
            f"{path}: manifest_version must be {_MANIFEST_VERSION}, got {version!r}: it is "
            "damaged, or another version of c4 made it"
        )
    if missing := _SECTIONS.difference(manifest):
        raise FolderError(f"{path}: damaged: it lacks {', '.join(sorted(missing))}")
    try:
        _require_types(manifest)
    except (KeyError, TypeError, AttributeError) as error:
        raise FolderError(f"{path}: damaged: {type(error).__name__}: {error}") from None
    return manifest


def _require_types(manifest: Mapping[str, Any]) -> None:
    """Raise KeyError, TypeError or AttributeError if a value that is used has another type."""
    counts, splits, page = (manifest.get(name) for name in ("counts", "splits", "kept_page"))
    if not isinstance(counts, dict) or not isinstance(splits, dict):
        raise TypeError("counts and splits must be objects")
    numbers = [
        counts[name]
        for name in ("files_read", "pages_read", "pages_written", "lines_read", "lines_written")
    ]
    numbers += [counts["records_rejected"], manifest["timing"]["files_resumed"]]
    words = [manifest["recipe"]["name"], manifest["recipe"]["description"]]
    words.append(manifest.get("keep", ""))
    for file in manifest.get("side_files", ()):
        words += [file["name"], file["sha256"]]
        numbers.append(file["bytes"])
    words += [file["reason"] for file in manifest.get("recleaned", ())]
    for name in ("pages_dropped", "lines_dropped", "records_rejected_by_reason"):
        numbers += counts[name].values()
    if set(splits) != {"train", "validation"}:
        raise TypeError(f"splits are {sorted(map(str, splits))}")
    for split in splits.values():
        numbers += [split["pages"], split["text_bytes"]]
    for file in manifest["inputs"]:
        words += [file["path"], file["sha256"], file.get("identity", "")]
        numbers.append(file["bytes"])
    for file in manifest["unreadable_inputs"]:
        words += [file["path"], file["error"]]
    for shard in manifest["shards"]:
        words += [shard["name"], shard["split"]]
        numbers.append(shard["bytes"])
    if page is not None:
        words += [page["url"], page["text"]]
    for value, kind in [*((number, int) for number in numbers), *((word, str) for word in words)]:
        if type(value) is not kind:
            raise TypeError(f"{str(value)[:100]!r} is not of type {kind.__name__}")


def _added(*parts: Mapping[str, int]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return {key: count for key, count in sorted(total.items()) if count}


def _samples(parts: Sequence[Mapping[str, list[dict[str, str]]]]) -> dict[str, Any]:
    samples: dict[str, list[dict[str, str]]] = {}
    for part in parts:
        for verdict, pages in part.items():
            samples.setdefault(verdict, []).extend(pages)
    return {
        verdict: sorted(pages, key=lambda page: page["url"])[:_SAMPLES_PER_VERDICT]
        for verdict, pages in sorted(samples.items())
    }
