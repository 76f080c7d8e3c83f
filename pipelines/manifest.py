"""A corpus folder's two records: what is being built in it, and what the build came to."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipelines import layout, storage
from pipelines.clean_files import FileSummary
from pipelines.config import BuildConfig, flatten
from pipelines.formats.dataset_info import write_dataset_card, write_dataset_info
from pipelines.write_shards import ShardSummary

__all__ = [
    "BalanceError",
    "FolderError",
    "claim_folder",
    "make_manifest",
    "read_manifest",
    "write_manifest",
]

_MANIFEST_VERSION = 1
_SAMPLES_PER_VERDICT = 5
_SECTIONS = frozenset({"recipe", "inputs", "unreadable_inputs", "counts", "splits", "shards"})
_DATASET_VERSION = "1.0.0"
_OWN_FILES = (
    layout.BUILD,
    layout.INPUTS,
    layout.MANIFEST,
    "dataset_info.json",
    "features.json",
    "README.md",
)


class FolderError(ValueError):
    """The output folder belongs to something else."""


class BalanceError(AssertionError):
    """Pages or lines went in that neither came out nor were counted as dropped: our bug."""


def claim_folder(config: BuildConfig, start_over: bool) -> None:
    """Makes ``config.output`` the folder of this build, or refuses, naming the difference.

    An output folder remembers the recipe, settings and versions it was begun with; a build with
    others is refused unless ``start_over``, which removes what earlier builds wrote, and only
    that. Raises FolderError.
    """
    path = storage.join(config.output, layout.BUILD)
    wanted = json.loads(json.dumps(config.identity))
    built = storage.exists(path)
    if built and start_over:
        _clear(config.output)
    elif built:
        try:
            found = json.loads(storage.read_bytes(path))
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise FolderError(
                f"{path} is damaged: what is built in this folder cannot be told; give another "
                "--output, or --start-over to remove that build"
            )
        if found != wanted:
            raise FolderError(
                f"{config.output} holds a build with other settings: "
                f"{_difference(found, wanted)}; give another --output, or --start-over to "
                "remove that build"
            )
    elif strangers := _strangers(config.output):
        raise FolderError(
            f"{config.output} holds files of something else, such as {strangers[0]}; give a new "
            "or empty folder (--output)"
        )
    with storage.write_atomically(path) as file:
        file.write(_json(wanted))


def _strangers(output: str) -> list[str]:
    """Files of a folder in which nothing was built, and of those that a build would write into."""
    found = [name for name in storage.listdir(output) if name != "lost+found"]
    for folder in (*layout.STAGE_FOLDERS, layout.MERGED):
        names = storage.listdir(storage.join(output, folder))
        found += [storage.join(folder, name) for name in names]
    return found


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    old, new = flatten(found), flatten(wanted)
    # A recipe of another name differs in much else; its name says it best.
    names = sorted(old.keys() | new.keys(), key=lambda name: (name != "recipe.name", name))
    changed = [name for name in names if old.get(name) != new.get(name)]
    if not changed:  # an empty mapping in place of none, say
        return "its build.json is another version's"
    first = changed[0]
    more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
    return f"{first} is {old.get(first)!r} there and {new.get(first)!r} now{more}"


def _clear(output: str) -> None:
    """Removes what builds write, and nothing else, the mark of completeness first."""
    names = set(storage.listdir(output))
    ordered = [layout.MANIFEST, *sorted(name for name in names if layout.is_shard(name))]
    ordered += [name for name in _OWN_FILES if name != layout.MANIFEST]
    storage.remove(storage.join(output, name) for name in ordered if name in names)
    drop_pieces(output)
    for folder, suffix in layout.STAGE_FOLDERS.items():
        stage = storage.join(output, folder)
        storage.sweep_temporaries(stage)
        storage.remove(
            storage.join(stage, name)
            for name in storage.listdir(stage)
            if name.endswith((suffix, layout.STARTED))
        )


def begin(output: str) -> None:
    """Takes back the mark of completeness before anything else of a corpus changes."""
    storage.remove([storage.join(output, layout.MANIFEST)])
    for folder in ("", *layout.STAGE_FOLDERS):
        storage.sweep_temporaries(storage.join(output, folder) if folder else output)
    storage.remove(_marks(output))
    drop_pieces(output)


def drop_pieces(output: str) -> None:
    """Removes what only a build that is under way needs: cleaned pages stand in its shards then."""
    folder = storage.join(output, layout.MERGED)
    storage.sweep_temporaries(folder)
    names = [name for name in storage.listdir(folder) if layout.pieces_like(name)]
    storage.remove(storage.join(folder, name) for name in names)


def died_on(output: str) -> list[str]:
    """Input files that were being cleaned when their worker died, as far as a build has left it."""
    return [storage.read_bytes(mark).decode("utf-8", "surrogateescape") for mark in _marks(output)]


def _marks(output: str) -> list[str]:
    folder = storage.join(output, "cleaned")
    names = [name for name in storage.listdir(folder) if name.endswith(layout.STARTED)]
    return [storage.join(folder, name) for name in names]


def make_manifest(
    config: BuildConfig, files: Iterable[FileSummary], shards: Iterable[ShardSummary]
) -> dict[str, Any]:
    """Adds up a build. Raises BalanceError unless what went in came out or was counted."""
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
                "pages_read": file.pages_read,
            }
            for file in read
        ],
        "unreadable_inputs": [
            {"path": file.path, "bytes": file.bytes, "error": file.unreadable}
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
        "kept_page": next((shard.kept_page for shard in shards if shard.kept_page), None),
        "samples": _samples([part.samples for part in parts]),
        "timing": {
            "clean_cpu_s": round(sum(file.cpu_s for file in read), 3),
            "write_cpu_s": round(sum(shard.cpu_s for shard in shards), 3),
            "files_resumed": sum(file.resumed for file in read),
        },
    }


def write_manifest(config: BuildConfig, manifest: Mapping[str, Any]) -> None:
    """Finishes a corpus: removes shards of earlier builds, describes the rest, marks it whole."""
    output = config.output
    current = {shard["name"] for shard in manifest["shards"]}
    storage.remove(
        storage.join(output, name)
        for name in storage.listdir(output)
        if layout.is_shard(name) and name not in current
    )
    described = "tfrecord" if "tfrecord" in config.formats else config.formats[0]
    splits: dict[str, list[tuple[str, int, int]]] = {"train": [], "validation": []}
    for shard in manifest["shards"]:
        if shard["format"] == described:
            splits[shard["split"]].append((shard["name"], shard["pages"], shard["bytes"]))
    description = f"C4-style corpus, recipe {config.recipe.name}: {config.recipe.description}"
    name = config.recipe.name
    write_dataset_info(output, described, splits, description, name, _DATASET_VERSION)
    write_dataset_card(output, config.formats, splits, description, name)
    with storage.write_atomically(storage.join(output, layout.MANIFEST)) as file:
        file.write(_json(manifest))


def read_manifest(output: str) -> dict[str, Any]:
    """The manifest of a finished corpus.

    Raises FolderError when there is none: the folder is not a corpus, or not a whole one; and when
    it is damaged or another version's.
    """
    path = storage.join(output, layout.MANIFEST)
    if not storage.exists(path):
        raise FolderError(
            f"{output} has no {layout.MANIFEST}: it is no corpus, or its build has not finished "
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
    """Raises what meeting another kind of value raises, for all that is shown or looked up."""
    counts, splits, page = (manifest.get(name) for name in ("counts", "splits", "kept_page"))
    if not isinstance(counts, dict) or not isinstance(splits, dict):
        raise TypeError("counts and splits must be objects")
    numbers = [
        counts[name]
        for name in ("files_read", "pages_read", "pages_written", "lines_read", "lines_written")
    ]
    numbers += [counts["records_rejected"], manifest["timing"]["files_resumed"]]
    words = []
    for name in ("pages_dropped", "lines_dropped", "records_rejected_by_reason"):
        numbers += counts[name].values()
    if set(splits) != {"train", "validation"}:
        raise TypeError(f"splits are {sorted(map(str, splits))}")
    for split in splits.values():
        numbers += [split["pages"], split["text_bytes"]]
    for file in manifest["inputs"]:
        words.append(file["path"])
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
            raise TypeError(f"{str(value)[:100]!r} is no {kind.__name__}")


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


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
