"""A corpus folder: who owns it, and which of its files a build may replace or delete.

A folder is ours if its ``build.json`` carries our mark. ``builders/written.json`` lists the shards
and side files of every build, and is updated before they are written. At the top of the folder,
nothing else is ever deleted or replaced. The name of a kept file shows which input it is of.
"""

import contextlib
import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from c4_filters.end_marks import ENGLISH_END_MARKS
from pipelines import builders, storage
from pipelines.config import KEEP, BuildConfig, flatten
from pipelines.corpus import json_files, layout, typed_json
from pipelines.corpus.manifest import OPT_OUT, read_listed
from pipelines.input_list import known_inputs

_MARK = "made_by"
#: What the ``build.json`` of version 0.1 holds, which has no mark.
_KEYS_OF_0_1 = frozenset(
    ("recipe", "lists", "versions", "max_record_bytes", "max_file_bytes", "formats", "shards")
)
#: Fields added to recipes since, with the values that keep the rules of version 0.1.
_RECIPE_DEFAULTS = {"end_marks": list(ENGLISH_END_MARKS)}
_RECIPE_KEYS_OF_0_1 = frozenset(("name", "order", "dedup_unit", "dedup_window", "languages"))
_CARDS = ("README.md", "CARD.md")
_SIDE_FILES = ("dataset_info.json", "features.json", "croissant.json", *_CARDS)
#: The lines of the README.md that version 0.1 wrote.
_CARD_OF_0_1 = re.compile(
    r"|---|configs: \[.*\]|dataset_info: \{.*\}|# c4/\S+|C4-style corpus, recipe .*"
    r"|\| split \| pages \||\|---\|---\||\| (train|validation) \| [\d,]+ \||```(python)?"
    r"|import (tensorflow_datasets as tfds|datasets)"
    r'|(tfds\.builder_from_directory|datasets\.load_dataset)\("PATH/OF/THIS/FOLDER"\).*'
)
_NAME_OF_KEPT = re.compile(r".*-([0-9a-f]{8,64})", re.DOTALL)


class FolderError(ValueError):
    """The output folder holds something else, another build, or no usable manifest."""


def require_own_folder(output: str, start_over: bool = False) -> None:
    """Raise FolderError unless a folder carries our mark or is empty but for a README.md."""
    path = storage.join(output, layout.BUILD)
    if not storage.exists(path):
        # Where the user has a README.md, the card goes to CARD.md.
        foreign = [name for name in _foreign_files(output) if name != "README.md"]
        if foreign and builders.claimed_by_us(output):
            if not start_over:
                raise _unknown_settings(path, "missing")
        elif foreign:
            raise FolderError(
                f"{output} holds files that c4 build did not write, such as {foreign[0]}; give a "
                "new or empty folder (--output)"
            )
        return
    found = _read_build(output)
    if found is None and builders.claimed_by_us(output):
        if start_over:
            return
        raise _unknown_settings(path, "damaged")
    if found is None or not (found.get(_MARK) == builders.MADE_BY or _is_of_0_1(found)):
        raise FolderError(
            f"{output} holds files that c4 build did not write: its {layout.BUILD} was written by "
            "something else; give a new or empty folder (--output)"
        )


def _unknown_settings(path: str, what: str) -> FolderError:
    return FolderError(
        f"{path} is {what}: the settings of the build in this folder are unknown; give another "
        "--output, or --start-over to remove that build"
    )


def require_same_build(config: BuildConfig) -> None:
    """Raise FolderError, naming the difference, if the folder has a build of other settings.

    Only the opt-out list may be another one: it changes no cleaned file.
    """
    found = _read_build(config.output)
    if found is None:
        return
    old, new = _settings(found), _settings(config.identity)
    opted_out, list_now = _take_opt_out(old), _take_opt_out(new)
    if old != new:
        what = _other_older(config, old.get("against") or []) or _difference(old, new)
        raise FolderError(
            f"{config.output} holds a build with other settings: {what}; give another --output, "
            "or --start-over to remove that build"
        )
    if opted_out and not list_now:
        raise FolderError(
            f"{config.output} was built with an opt-out list, and without one its pages would be "
            f"published: give the list ({OPT_OUT} FILE; an empty file takes all of them back in)"
        )


def claim_folder(config: BuildConfig, start_over: bool) -> None:
    """Make ``config.output`` the folder of this build.

    A folder records the recipe, settings and versions of its build. Call this function while
    holding the folder (`pipelines.builders`).

    Args:
        config: The build.
        start_over: First remove what earlier builds wrote, and only that.

    Raises:
        FolderError: The folder holds something else, or a build of other settings.
    """
    require_own_folder(config.output, start_over)
    if start_over:
        _clear(config.output)
    else:
        require_same_build(config)
        _record_earlier(config.output)
    content = json_files.encode({_MARK: builders.MADE_BY, **_settings(config.identity)})
    path = storage.join(config.output, layout.BUILD)
    if storage.read_if_exists(path) != content:
        storage.write_bytes(path, content)


def _read_build(output: str) -> dict[str, Any] | None:
    """Return the content of ``build.json``; None if it is missing or damaged."""
    return json_files.read_object(storage.join(output, layout.BUILD))


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


def _take_opt_out(settings: dict[str, Any]) -> str | None:
    """Remove the digest of the opt-out list from settings, and return it."""
    lists = settings.get("lists")
    return lists.pop(OPT_OUT, None) if isinstance(lists, dict) else None


def _foreign_files(output: str) -> list[str]:
    """Return the files in a folder, and in its folders that a build would write into."""
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


def _other_older(config: BuildConfig, built: Sequence[str]) -> str:
    """Return which older corpora a build was not made against; empty: it was against the same."""
    given = {older.fingerprints[:16]: older.folder for older in config.older}
    if other := [folder for digest, folder in given.items() if digest not in built]:
        return f"it was not built against {', '.join(other)} as it is now (--against)"
    return "" if len(given) == len(built) else "it was built against more older corpora (--against)"


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    old, new = flatten(found), flatten(wanted)
    # Recipes with different names differ in many fields: show the name first.
    names = sorted(old.keys() | new.keys(), key=lambda name: (name != "recipe.name", name))
    changed = [name for name in names if old.get(name) != new.get(name)]
    if not changed:  # an empty mapping in place of none, say
        return "its build.json was written by another version"
    first = changed[0]
    more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
    return f"{first} is {old.get(first)!r} there and {new.get(first)!r} now{more}"


# ------------------------------------------------------------------- what builds have written


@dataclasses.dataclass(frozen=True)
class _Written:
    """What builds of a folder have recorded before they wrote it."""

    shards: list[str] = dataclasses.field(default_factory=list)  # patterns
    side_files: dict[str, list[str]] = dataclasses.field(default_factory=dict)  # name -> SHA-256s


def _written(output: str) -> _Written:
    """Return the record of a folder; an empty one if it is missing or damaged."""
    found = json_files.read_object(builders.written_path(output)) or {}
    with contextlib.suppress(ValueError):
        written: _Written = typed_json.decode(_Written, found)
        return written
    return _Written()


def record_files(
    output: str, patterns: Iterable[str] = (), digests: Mapping[str, str] | None = None
) -> None:
    """Record shards and side files before a build writes them.

    Args:
        output: The corpus folder.
        patterns: Of the shards (`layout.shards_in_split`).
        digests: SHA-256 of side files, by name.
    """
    known = _written(output)
    side = {name: set(values) for name, values in known.side_files.items()}
    for name, digest in (digests or {}).items():
        side.setdefault(name, set()).add(digest)
    written = _Written(
        sorted({*known.shards, *patterns}),
        {name: sorted(values) for name, values in sorted(side.items())},
    )
    if written != known:
        _write_record(output, written)


def _write_record(output: str, written: _Written) -> None:
    content = {_MARK: builders.MADE_BY, **dataclasses.asdict(written)}
    storage.write_bytes(builders.written_path(output), json_files.encode(content))


def _record_earlier(output: str) -> None:
    """Record the files that a manifest lists, and those of version 0.1, which had no record."""
    listed = read_listed(output)
    shards = filter(layout.is_shard, listed.shards)
    patterns = {layout.shards_in_split(name)[0] for name in shards}
    digests = {name: value for name, value in listed.side_files.items() if name in _SIDE_FILES}
    if _is_of_0_1(_read_build(output) or {}):
        for name in _SIDE_FILES:
            content = storage.read_if_exists(storage.join(output, name))
            if content and _is_side_file_of_0_1(name, content):
                digests.setdefault(name, hashlib.sha256(content).hexdigest())
    record_files(output, patterns, digests)


def _is_side_file_of_0_1(name: str, content: bytes) -> bool:
    if name == "README.md":
        lines = content.decode("utf-8", "replace").splitlines()
        return all(map(_CARD_OF_0_1.fullmatch, lines)) and any(
            line.startswith("# c4/") for line in lines
        )
    found = json_files.as_object(content) or {}
    if name == "features.json":
        return found.keys() == {"featuresDict", "pythonClassName"}
    if name != "dataset_info.json":
        return False
    return found.get("name") == "c4" and {"configName", "fileFormat", "splits"} <= found.keys()


def plan_files(output: str, names: Sequence[str]) -> None:
    """Record the shards that a build is about to write.

    Raises:
        OSError: A file has the name of a shard, and no build of this folder wrote it.
    """
    recorded = _written(output).shards
    patterns = {layout.shards_in_split(name)[0] for name in names}
    new = {name for name in names if layout.shards_in_split(name)[0] not in recorded}
    if foreign := sorted(new.intersection(storage.listdir(output))):
        raise OSError(
            f"{storage.join(output, foreign[0])} has the name of a shard of this build, but no "
            "build of this folder wrote it: move it elsewhere"
        )
    record_files(output, patterns)


def own_shards(output: str, names: Iterable[str]) -> list[str]:
    """Return those file names that are shards which a build of this folder wrote."""
    recorded = _written(output).shards
    return [
        name
        for name in names
        if layout.is_shard(name) and layout.shards_in_split(name)[0] in recorded
    ]


def own_side_files(output: str, names: Iterable[str]) -> list[str]:
    """Return those of the side files that exist and that a build of this folder wrote.

    A README.md or CARD.md that has changed since then belongs to the user.
    """
    recorded = _written(output).side_files
    return [
        name
        for name in names
        if name in recorded
        and (content := storage.read_if_exists(storage.join(output, name)))
        and (name not in _CARDS or hashlib.sha256(content).hexdigest() in recorded[name])
    ]


def own_kept(output: str, folders: Iterable[str]) -> list[str]:
    """Return the paths of kept files that were made from an input of a build in this folder."""
    digests: dict[str, list[str]] = {}
    for path in known_inputs(output) | read_listed(output).inputs:
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
    """Remove the files that builds wrote, and nothing else. The manifest goes first."""
    _record_earlier(output)
    kept = own_kept(output, layout.STAGE_FOLDERS)
    names = storage.listdir(output)
    side = own_side_files(output, _SIDE_FILES)
    shards = own_shards(output, names)
    ordered = [layout.MANIFEST, *shards, *side, layout.INPUTS]
    storage.remove(storage.join(output, name) for name in ordered if name in names)
    _drop_pieces_and_leftovers(output)
    storage.remove([*kept, layout.why_index(output)])
    _write_record(output, _Written())


def begin(output: str) -> None:
    """Remove the manifest, then leftovers, before anything else of a corpus changes."""
    _record_earlier(output)
    storage.remove([storage.join(output, layout.MANIFEST)])
    _drop_pieces_and_leftovers(output)
    storage.remove(_marks(output))


def _drop_pieces_and_leftovers(output: str) -> None:
    for folder in ("", *layout.STAGE_FOLDERS):
        storage.sweep_temporaries(storage.join(output, folder) if folder else output)
    drop_pieces(output)


def drop_pieces(output: str) -> None:
    """Remove what only a running build needs: merged pieces and workers' notes."""
    folder = storage.join(output, layout.MERGED)
    storage.sweep_temporaries(folder)
    names = [name for name in storage.listdir(folder) if layout.pieces_like(name)]
    storage.remove(storage.join(folder, name) for name in names)
    builders.remove_progress(output)


def kept_to_drop(output: str, keep: str) -> list[str]:
    """Return the paths of kept files that ``--keep`` removes from a finished corpus."""
    if not KEEP[keep]:
        return []
    index = layout.why_index(output)  # of no use without them
    return [*own_kept(output, KEEP[keep]), *([index] if storage.exists(index) else [])]


def interrupted_inputs(output: str) -> list[str]:
    """Return the inputs that workers were cleaning when they died, by the marks they left."""
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
    return storage.read_if_exists(mark).decode("utf-8", "surrogateescape")
