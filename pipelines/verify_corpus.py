"""Check a finished corpus against its manifest: sums, files, sizes and, if asked, digests."""

import concurrent.futures
import dataclasses
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pipelines import corpus_folder, layout, manifest, storage
from pipelines.corpus.container import Container, DamagedFileError, OtherVersionError
from pipelines.digests import Progress, sha256_of

__all__ = [
    "Problem",
    "kept_problems",
    "manifest_problems",
    "shard_problems",
    "side_file_problems",
    "tell_of_foreign_shards",
]

_REQUESTS_AT_A_TIME = 32
_CURRENT_NAME = re.compile(r"-[0-9a-f]{32}\.(arrow|bin)$")  # version 0.1 used 8 digits


@dataclasses.dataclass(frozen=True)
class Problem:
    """One problem with one file of a corpus."""

    file: str  # name in the corpus folder
    what: str

    def __str__(self) -> str:
        return f"{self.file} {self.what}"


def manifest_problems(made: Mapping[str, Any]) -> list[Problem]:
    """Check that a manifest is consistent: every sum is right and every shard is listed."""
    try:
        wrong = _wrong_sums(made)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        wrong = [f"{type(error).__name__}: {error}"]
    # The sums say more; older manifests have no checksum.
    if not wrong and "checksum" in made and made["checksum"] != manifest.checksum(made):
        wrong = ["checksum mismatch"]
    return [Problem(layout.MANIFEST, f"is damaged: {what}") for what in wrong]


def _wrong_sums(made: Mapping[str, Any]) -> list[str]:
    counts, inputs, shards = made["counts"], made["inputs"], made["shards"]
    unreadable = made["unreadable_inputs"]
    sums = {
        "files_read": (counts["files_read"], len(inputs)),
        "files_unreadable": (counts["files_unreadable"], len(unreadable)),
        "pages_read": (counts["pages_read"], sum(file["pages_read"] for file in inputs)),
        "records_rejected": (
            counts["records_rejected"],
            sum(counts["records_rejected_by_reason"].values()),
        ),
    }
    for what in ("pages", "lines"):
        written, dropped = counts[f"{what}_written"], counts[f"{what}_dropped"]
        came_out = written + sum(dropped.values())
        sums[f"{what} written and dropped"] = (came_out, counts[f"{what}_read"])
    sums["pages_written"] = (
        counts["pages_written"],
        sum(split["pages"] for split in made["splits"].values()),
    )
    names = Counter(shard["name"] for shard in shards)
    wrong = [f"{name} is listed {count} times" for name, count in names.items() if count > 1]
    parts: Counter[str] = Counter()  # pattern -> shards
    pages: dict[tuple[str, str], int] = {}  # format, split -> pages
    for shard in shards:
        if not layout.is_shard(shard["name"]):
            wrong.append(f"{str(shard['name'])[:100]!r} is not the name of a shard")
            continue
        if not shard["name"].startswith(f"{shard['split']}-") or len(shard["sha256"]) != 64:
            wrong.append(f"the entry of {shard['name']} is wrong")
        parts[shard["name"]] += 1
        key = (shard["format"], shard["split"])
        pages[key] = pages.get(key, 0) + shard["pages"]
    found = Counter(map(layout.shards_in_split, parts))
    wrong += [
        f"it lists {held} of {count} shards {pattern}"
        for (pattern, count), held in found.items()
        if held != count
    ]
    formats = {file_format for file_format, _ in pages}
    if not formats or len(found) != 2 * len(formats):
        wrong.append("it lists no shards for one of the splits")
    for (file_format, split), count in sorted(pages.items()):
        sums[f"pages of {split} in {file_format}"] = (count, made["splits"][split]["pages"])
    numbers = [number for pair in sums.values() for number in pair]
    numbers += [shard["bytes"] for shard in shards] + [shard["pages"] for shard in shards]
    numbers += counts["pages_dropped"].values()
    numbers += counts["lines_dropped"].values()
    if any(number < 0 for number in numbers):
        wrong.append("it has a negative number")
    for name, (one, other) in sums.items():
        if one != other:
            wrong.append(f"{name} must be {other:,}, got {one:,}")
    return wrong


def shard_problems(
    output: str,
    made: Mapping[str, Any],
    digests: bool = False,
    progress: Progress = lambda _: None,
) -> list[Problem]:
    """Check that every shard exists with its size and, if ``digests``, its SHA-256."""

    def check(shard: Mapping[str, Any]) -> str | None:
        return _wrong_content(storage.join(output, shard["name"]), shard, digests, progress)

    return _each(check, made["shards"], digests)


def foreign_shards(output: str, made: Mapping[str, Any]) -> list[str]:
    """Return the names of files that readers of a pattern take for shards of this corpus."""
    own = {shard["name"] for shard in made["shards"]}
    formats = {shard["format"] for shard in made["shards"]}
    return [
        name
        for name in storage.listdir(output)
        if name not in own and layout.is_shard(name) and layout.format_of(name) in formats
    ]


def tell_of_foreign_shards(output: str, made: Mapping[str, Any]) -> None:
    """Say on standard error which files beside the shards are no part of a corpus."""
    for name in foreign_shards(output, made)[:10]:
        print(
            f"c4: note: {storage.join(output, name)} is no part of this corpus, but readers of "
            f"{re.sub(r'[0-9]{5}', '*', name)} read it too: move it elsewhere",
            file=sys.stderr,
        )


def side_file_problems(
    output: str, made: Mapping[str, Any], digests: bool = False
) -> list[Problem]:
    """Check the files beside the shards, which `manifest.write_side_files` writes.

    A corpus of version 0.1 lists none of them: they must exist, with any content.
    """

    def check(file: Mapping[str, Any]) -> str | None:
        path = storage.join(output, file["name"])
        if "bytes" not in file:
            return None if storage.exists(path) else "is missing"
        wrong = _wrong_content(path, file, digests)
        if wrong not in (None, "is missing") and file["name"] == "README.md":
            wrong = None  # the user has changed it, so it belongs to the user now
        return wrong

    listed = made.get("side_files")
    listed = listed if isinstance(listed, list) else []
    names = {file["name"] for file in listed}
    # A file that is not listed belonged to the user. If the user has deleted it, it is missing.
    listed = [*listed, *({"name": n} for n in manifest.side_files(made) if n not in names)]
    return _each(check, listed, digests)


def kept_problems(output: str) -> tuple[list[Problem], int]:
    """Check every byte of the kept files that exist, and return the problems and their number.

    Files of an earlier version are not counted: a build writes them again.
    """
    files = [
        {"folder": folder, "name": f"{folder}/{os.path.basename(path)}"}
        for folder in ("cleaned", "fingerprints", "removals")
        for path in corpus_folder.own_kept(output, [folder])
        if _CURRENT_NAME.search(path)
    ]
    older = []

    def check(file: Mapping[str, Any]) -> str | None:
        try:
            with Container(storage.join(output, file["name"]), file["folder"]) as container:
                container.verify()
        except OtherVersionError:
            older.append(file)
        except DamagedFileError as error:
            return f"is damaged ({error.reason})"
        return None

    problems = _each(check, files, True)
    return problems, len(files) - len(older)


def _wrong_content(
    path: str, entry: Mapping[str, Any], digest: bool, progress: Progress = lambda _: None
) -> str | None:
    """Return how a file differs from its entry in the manifest, or None."""
    try:
        found = storage.stat(path).size
    except FileNotFoundError:
        return "is missing"
    if found != entry["bytes"]:
        return f"has {found:,} bytes instead of {entry['bytes']:,}"
    if digest and sha256_of(path, progress) != entry["sha256"]:
        return "is damaged (checksum mismatch)"
    return None


def _each(
    check: Callable[[Mapping[str, Any]], str | None],
    files: Sequence[Mapping[str, Any]],
    reads: bool,
) -> list[Problem]:
    """Check files in parallel: they may be remote, and computing digests uses every core."""
    workers = min(_REQUESTS_AT_A_TIME, os.cpu_count() or 1) if reads else _REQUESTS_AT_A_TIME
    found: Iterable[str | None]
    if len(files) < 2:
        found = map(check, files)
    else:
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            found = list(pool.map(check, files))
    return [Problem(file["name"], what) for file, what in zip(files, found, strict=True) if what]
