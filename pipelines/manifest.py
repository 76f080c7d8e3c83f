"""A corpus folder's records: what is being built in it, what builds wrote, what came out.

A folder is ours if its ``build.json`` carries our mark. ``builders/written.json`` records, before
they are written, the shards and side files of every build: nothing else is ever deleted or
replaced at the top of the folder. Kept files are known by the inputs that they were made from.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from c4_filters.end_marks import ENGLISH_END_MARKS
from pipelines import builders, layout, storage
from pipelines.clean_files import FileSummary
from pipelines.config import KEEP, BuildConfig, flatten
from pipelines.formats.dataset_info import dataset_card, dataset_info_files
from pipelines.input_list import known_inputs
from pipelines.write_shards import ShardSummary

__all__ = [
    "BalanceError",
    "FolderError",
    "checksum",
    "claim_folder",
    "kept_to_drop",
    "make_manifest",
    "own_kept",
    "plan_files",
    "read_manifest",
    "require_own_folder",
    "require_same_build",
    "rewrite_manifest",
    "side_files",
    "write_manifest",
    "write_side_files",
]

_MANIFEST_VERSION = 1
_SAMPLES_PER_VERDICT = 5
_SECTIONS = frozenset({"recipe", "inputs", "unreadable_inputs", "counts", "splits", "shards"})
_DATASET_VERSION = "1.0.0"
_MARK = "made_by"
#: What the ``build.json`` of version 0.1 holds, which has no mark.
_KEYS_OF_0_1 = frozenset(
    ("recipe", "lists", "versions", "max_record_bytes", "max_file_bytes", "formats", "shards")
)
#: Fields that recipes have got since, with the values that keep the rules of version 0.1.
_RECIPE_DEFAULTS = {"end_marks": list(ENGLISH_END_MARKS)}
_RECIPE_KEYS_OF_0_1 = frozenset(("name", "order", "dedup_unit", "dedup_window", "languages"))
_SIDE_FILES = ("dataset_info.json", "features.json", "README.md")
#: The lines of the README.md that version 0.1 wrote.
_CARD_OF_0_1 = re.compile(
    r"|---|configs: \[.*\]|dataset_info: \{.*\}|# c4/\S+|C4-style corpus, recipe .*"
    r"|\| split \| pages \||\|---\|---\||\| (train|validation) \| [\d,]+ \||```(python)?"
    r"|import (tensorflow_datasets as tfds|datasets)"
    r'|(tfds\.builder_from_directory|datasets\.load_dataset)\("PATH/OF/THIS/FOLDER"\).*'
)
_NAME_OF_KEPT = re.compile(r".*-([0-9a-f]{8,64})", re.DOTALL)


class FolderError(ValueError):
    """The output folder belongs to something else."""


class BalanceError(AssertionError):
    """Pages or lines went in that neither came out nor were counted as dropped: our bug."""


def require_own_folder(output: str, start_over: bool = False) -> None:
    """Raise FolderError unless a folder is empty, or ours by its mark. Writes nothing."""
    path = storage.join(output, layout.BUILD)
    if not storage.exists(path):
        if strangers := _strangers(output):
            raise FolderError(
                f"{output} holds files of something else, such as {strangers[0]}; give a new "
                "or empty folder (--output)"
            )
        return
    found = _read_build(output)
    if found is None and builders.claimed_by_us(output):
        if start_over:
            return
        raise FolderError(
            f"{path} is damaged: the settings of the build in this folder are unknown; give "
            "another --output, or --start-over to remove that build"
        )
    if found is None or not (_is_marked(found) or _is_of_0_1(found)):
        raise FolderError(
            f"{output} holds files of something else: its {layout.BUILD} was not written by c4 "
            "build; give a new or empty folder (--output)"
        )


def require_same_build(config: BuildConfig) -> None:
    """Raise FolderError, naming the difference, if the folder was begun with other settings."""
    found = _read_build(config.output)
    if found is not None and _settings(found) != _settings(config.identity):
        raise FolderError(
            f"{config.output} holds a build with other settings: "
            f"{_difference(_settings(found), _settings(config.identity))}; give another --output, "
            "or --start-over to remove that build"
        )


def claim_folder(config: BuildConfig, start_over: bool) -> None:
    """Make ``config.output`` the folder of this build, or refuse, naming the difference.

    An output folder remembers the recipe, settings and versions it was begun with; a build with
    others is refused unless ``start_over``, which removes what earlier builds wrote, and only
    that. Call it while holding the folder (`pipelines.builders`). Raises FolderError.
    """
    require_own_folder(config.output, start_over)
    if start_over:
        _clear(config.output)
    else:
        require_same_build(config)
        _record_earlier(config.output)
    content = _json({_MARK: builders.MADE_BY, **_settings(config.identity)})
    path = storage.join(config.output, layout.BUILD)
    if not storage.exists(path) or storage.read_bytes(path) != content:
        with storage.write_atomically(path) as file:
            file.write(content)


def _read_build(output: str) -> dict[str, Any] | None:
    """Return the content of ``build.json``; None if it is missing or damaged."""
    path = storage.join(output, layout.BUILD)
    return _json_object(storage.read_bytes(path)) if storage.exists(path) else None


def _json_object(content: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _is_marked(found: Mapping[str, Any]) -> bool:
    return found.get(_MARK) == builders.MADE_BY


def _is_of_0_1(found: Mapping[str, Any]) -> bool:
    recipe = found.get("recipe")
    return (
        found.keys() == _KEYS_OF_0_1
        and isinstance(recipe, dict)
        and recipe.keys() >= _RECIPE_KEYS_OF_0_1
        and isinstance(found["versions"], dict)
        and "colossal-c4" in found["versions"]
    )


def _settings(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as they are read back from JSON, without the mark."""
    settings: dict[str, Any] = json.loads(json.dumps(found))
    if _is_of_0_1(settings):  # its rules are those of today's defaults
        settings["recipe"] = _RECIPE_DEFAULTS | settings["recipe"]
    settings.pop(_MARK, None)
    return settings


def _strangers(output: str) -> list[str]:
    """Files of a folder in which nothing was built, and of those that a build would write into."""
    found = [name for name in storage.listdir(output) if name != "lost+found"]
    for folder in (*layout.STAGE_FOLDERS, layout.MERGED):
        names = storage.listdir(storage.join(output, folder))
        found += [storage.join(folder, name) for name in names]
    found += [
        storage.join(layout.BUILDERS, name)
        for name in storage.listdir(storage.join(output, layout.BUILDERS))
        if not builders.is_own_file(name)
    ]
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


# ------------------------------------------------------------------- what builds have written


def _written(output: str) -> tuple[set[str], dict[str, set[str]]]:
    """Return the patterns of shards, and the SHA-256s of side files by name, on record."""
    path = builders.written_path(output)
    found = _json_object(storage.read_bytes(path)) if storage.exists(path) else None
    patterns, digests = (found or {}).get("shards"), (found or {}).get("side_files")
    return (
        {str(pattern) for pattern in patterns} if isinstance(patterns, list) else set(),
        {
            name: set(map(str, values))
            for name, values in digests.items()
            if name in _SIDE_FILES and isinstance(values, list)
        }
        if isinstance(digests, dict)
        else {},
    )


def _record(
    output: str, patterns: Iterable[str] = (), digests: Mapping[str, str] | None = None
) -> None:
    """Record shards and side files that a build will write, or has written."""
    shards, side = _written(output)
    before = json.dumps([sorted(shards), sorted(map(str, side.items()))])
    shards.update(patterns)
    for name, digest in (digests or {}).items():
        side.setdefault(name, set()).add(digest)
    if json.dumps([sorted(shards), sorted(map(str, side.items()))]) != before:
        _write_record(output, shards, side)


def _write_record(output: str, shards: Iterable[str], side: Mapping[str, Iterable[str]]) -> None:
    with storage.write_atomically(builders.written_path(output)) as file:
        content = {
            _MARK: builders.MADE_BY,
            "shards": sorted(shards),
            "side_files": {name: sorted(values) for name, values in sorted(side.items())},
        }
        file.write(_json(content))


def _record_earlier(output: str) -> None:
    """Record what a manifest lists, and what version 0.1, which kept no record, left."""
    patterns: set[str] = set()
    digests: dict[str, str] = {}
    made = _json_object(_content(storage.join(output, layout.MANIFEST))) or {}
    for shard in _objects(made.get("shards")):
        if layout.is_shard(str(shard.get("name"))):
            patterns.add(layout.shards_in_split(shard["name"])[0])
    for file in _objects(made.get("side_files")):
        if file.get("name") in _SIDE_FILES:
            digests[file["name"]] = str(file.get("sha256"))
    if _is_of_0_1(_read_build(output) or {}):
        for name in _SIDE_FILES:
            content = _content(storage.join(output, name))
            if content and _is_side_file_of_0_1(name, content):
                digests.setdefault(name, _sha256(content))
    _record(output, patterns, digests)


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _is_side_file_of_0_1(name: str, content: bytes) -> bool:
    if name == "README.md":
        lines = content.decode("utf-8", "replace").splitlines()
        return all(map(_CARD_OF_0_1.fullmatch, lines)) and any(
            line.startswith("# c4/") for line in lines
        )
    found = _json_object(content) or {}
    if name == "features.json":
        return found.keys() == {"featuresDict", "pythonClassName"}
    return found.get("name") == "c4" and {"configName", "fileFormat", "splits"} <= found.keys()


def plan_files(output: str, names: Sequence[str]) -> None:
    """Record the shards that a build is about to write.

    Raises:
        OSError: A file has the name of a shard, and no build of this folder wrote it.
    """
    recorded, _ = _written(output)
    patterns = {layout.shards_in_split(name)[0] for name in names}
    new = {name for name in names if layout.shards_in_split(name)[0] not in recorded}
    if foreign := sorted(new.intersection(storage.listdir(output))):
        raise OSError(
            f"{storage.join(output, foreign[0])} has the name of a shard of this build, but no "
            "build of this folder wrote it: move it elsewhere"
        )
    _record(output, patterns)


def _own_shards(output: str, names: Iterable[str]) -> list[str]:
    recorded, _ = _written(output)
    return [
        name
        for name in names
        if layout.is_shard(name) and layout.shards_in_split(name)[0] in recorded
    ]


def _own_side_files(output: str, names: Iterable[str]) -> list[str]:
    """Return those side files that are there and that a build wrote.

    A README.md that was changed since is the user's.
    """
    _, recorded = _written(output)
    return [
        name
        for name in names
        if name in recorded
        and (content := _content(storage.join(output, name)))
        and (name != "README.md" or _sha256(content) in recorded[name])
    ]


def own_kept(output: str, folders: Iterable[str]) -> list[str]:
    """Return the paths of kept files that were made from an input of a build in this folder."""
    digests: dict[str, list[str]] = {}
    made = _json_object(_content(storage.join(output, layout.MANIFEST))) or {}
    paths = known_inputs(output)
    for section in ("inputs", "unreadable_inputs"):
        paths.update(str(file.get("path")) for file in _objects(made.get(section)))
    for path in paths:
        digest = hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()
        digests.setdefault(digest[:8], []).append(digest)
    found = []
    for folder in folders:
        suffixes = (layout.STAGE_FOLDERS[folder], layout.STARTED)
        for file in storage.listdir(storage.join(output, folder)):
            suffix = next((suffix for suffix in suffixes if file.endswith(suffix)), None)
            name = suffix and _NAME_OF_KEPT.fullmatch(file.removesuffix(suffix))
            if name and any(digest.startswith(name[1]) for digest in digests.get(name[1][:8], ())):
                found.append(storage.join(output, folder, file))
    return found


def _clear(output: str) -> None:
    """Remove what builds have written, and nothing else, the mark of completeness first."""
    _record_earlier(output)
    kept = own_kept(output, layout.STAGE_FOLDERS)
    names = storage.listdir(output)
    side = _own_side_files(output, _SIDE_FILES)
    shards = _own_shards(output, names)
    ordered = [layout.MANIFEST, *shards, *side, layout.INPUTS]
    storage.remove(storage.join(output, name) for name in ordered if name in names)
    _drop_pieces_and_leftovers(output)
    storage.remove(kept)
    _write_record(output, (), {})


def begin(output: str) -> None:
    """Take back the mark of completeness before anything else of a corpus changes."""
    _record_earlier(output)
    storage.remove([storage.join(output, layout.MANIFEST)])
    _drop_pieces_and_leftovers(output)
    storage.remove(_marks(output))


def _drop_pieces_and_leftovers(output: str) -> None:
    for folder in ("", *layout.STAGE_FOLDERS):
        storage.sweep_temporaries(storage.join(output, folder) if folder else output)
    drop_pieces(output)


def drop_pieces(output: str) -> None:
    """Remove what only a build that is running needs: its shards hold the cleaned pages then."""
    folder = storage.join(output, layout.MERGED)
    storage.sweep_temporaries(folder)
    names = [name for name in storage.listdir(folder) if layout.pieces_like(name)]
    storage.remove(storage.join(folder, name) for name in names)


def kept_to_drop(output: str, keep: str) -> list[str]:
    """Return the kept files that a finished corpus does not keep, by its ``--keep``."""
    return own_kept(output, KEEP[keep]) if KEEP[keep] else []


def died_on(output: str) -> list[str]:
    """Return inputs that were being cleaned when their worker died, as far as a build left it."""
    return [_input_of(mark) for mark in _marks(output)]


def _marks(output: str) -> list[str]:
    folder = storage.join(output, "cleaned")
    marks = []
    for name in storage.listdir(folder):
        if name.endswith(layout.STARTED):
            mark = storage.join(folder, name)
            if mark == layout.started(output, layout.file_name(_input_of(mark))):
                marks.append(mark)
    return marks


def _input_of(mark: str) -> str:
    return _content(mark).decode("utf-8", "surrogateescape")


def _content(path: str) -> bytes:
    """Return the content of a file; nothing if there is none."""
    try:
        return storage.read_bytes(path)
    except FileNotFoundError:
        return b""


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


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
    """Finish a corpus: remove shards of earlier builds, describe the rest, mark it complete.

    ``require`` raises an error if another build has taken the folder; it is called before
    anything is published. Returns the manifest as it was written.
    """
    output = config.output
    require()
    current = {shard["name"] for shard in manifest["shards"]}
    _record(output, {layout.shards_in_split(name)[0] for name in current})
    storage.remove(
        storage.join(output, name)
        for name in _own_shards(output, storage.listdir(output))
        if name not in current
    )
    made = {**manifest, "side_files": write_side_files(output, manifest)}
    require()
    return rewrite_manifest(output, made)


def side_files(manifest: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the files beside the shards of a corpus, by name: they follow from its manifest."""
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
    """Write the side files of a corpus, but over no file that is not ours.

    Returns name, bytes and sha256 of each that is ours, as the manifest lists them.
    """
    contents = side_files(manifest)
    own = _own_side_files(output, contents)
    for name in list(contents):
        path = storage.join(output, name)
        if name not in own and storage.exists(path) and _content(path) != contents[name]:
            del contents[name]  # the user's own
    digests = {name: _sha256(content) for name, content in contents.items()}
    # Recorded first: a build that is killed in between must know them as its own.
    _record(output, digests=digests)
    for name, content in contents.items():
        path = storage.join(output, name)
        if _content(path) != content:
            with storage.write_atomically(path) as file:
                file.write(content)
    return [
        {"name": name, "bytes": len(content), "sha256": digests[name]}
        for name, content in contents.items()
    ]


def rewrite_manifest(output: str, made: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the manifest of a corpus whose shards stay as they are. Returns what was written."""
    made = {**made, "checksum": checksum(made)}
    with storage.write_atomically(storage.join(output, layout.MANIFEST)) as file:
        file.write(_json(made))
    return made


def checksum(made: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a manifest's values, in whatever form its JSON is written."""
    values = {name: value for name, value in made.items() if name != "checksum"}
    return _sha256(json.dumps(values, sort_keys=True).encode())


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
