"""Checks a finished corpus against its manifest: sums, files, sizes and, if asked, digests."""

import concurrent.futures
import dataclasses
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pipelines import layout, manifest, storage
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
_NAMED_NOW = re.compile(r"-[0-9a-f]{32}\.(arrow|bin)$")  # and not as version 0.1 did


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is wrong with a file of a corpus."""

    file: str  # name in the corpus folder
    what: str

    def __str__(self) -> str:
        return f"{self.file} {self.what}"


def manifest_problems(made: Mapping[str, Any]) -> list[Problem]:
    """Check that a manifest agrees with itself: every sum again, and no shard missing."""
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
            wrong.append(f"the entry of {shard['name']}")
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
        wrong.append("it lists no shards of one split")
    for (file_format, split), count in sorted(pages.items()):
        sums[f"pages of {split} in {file_format}"] = (count, made["splits"][split]["pages"])
    numbers = [number for pair in sums.values() for number in pair]
    numbers += [shard["bytes"] for shard in shards] + [shard["pages"] for shard in shards]
    numbers += counts["pages_dropped"].values()
    numbers += counts["lines_dropped"].values()
    if any(number < 0 for number in numbers):
        wrong.append("a negative number")
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
    """Check that every shard is there with its size and, if ``digests``, its SHA-256."""

    def check(shard: Mapping[str, Any]) -> str | None:
        path = storage.join(output, shard["name"])
        wrong = _wrong_size(path, shard["bytes"])
        if wrong is None and digests and sha256_of(path, progress) != shard["sha256"]:
            wrong = "is damaged (checksum mismatch)"
        return wrong

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
    """Check the files beside the shards: `manifest.write_side_files` makes them again.

    A corpus of version 0.1 lists none; its files must be there, with any content.
    """

    def check(file: Mapping[str, Any]) -> str | None:
        path = storage.join(output, file["name"])
        if "bytes" not in file:
            return None if storage.exists(path) else "is missing"
        wrong = _wrong_size(path, file["bytes"])
        if wrong is None and digests and sha256_of(path) != file["sha256"]:
            wrong = "is damaged (checksum mismatch)"
        if wrong not in (None, "is missing") and file["name"] == "README.md":
            wrong = None  # the user has changed it: from now on it is theirs
        return wrong

    listed = made.get("side_files")
    if not isinstance(listed, list):
        listed = [{"name": name} for name in manifest.side_files(made)]
    else:
        # One that was the user's own, and is gone, is wanted again.
        names = {file["name"] for file in listed}
        listed = [*listed, *({"name": n} for n in manifest.side_files(made) if n not in names)]
    return _each(check, listed, digests)


def kept_problems(output: str) -> tuple[list[Problem], int]:
    """Check every byte of the kept files that are there; also returns how many there are.

    Those of an earlier version, which a build makes again, are not counted.
    """
    files = [
        {"folder": folder, "name": f"{folder}/{os.path.basename(path)}"}
        for folder in ("cleaned", "fingerprints", "removals")
        for path in manifest.own_kept(output, [folder])
        if _NAMED_NOW.search(path)
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


def _wrong_size(path: str, size: int) -> str | None:
    try:
        found = storage.stat(path).size
    except FileNotFoundError:
        return "is missing"
    return None if found == size else f"has {found:,} bytes instead of {size:,}"


def _each(
    check: Callable[[Mapping[str, Any]], str | None],
    files: Sequence[Mapping[str, Any]],
    reads: bool,
) -> list[Problem]:
    """Check many files at a time: they may be remote, and digests want all processors."""
    workers = min(_REQUESTS_AT_A_TIME, os.cpu_count() or 1) if reads else _REQUESTS_AT_A_TIME
    found: Iterable[str | None]
    if len(files) < 2:
        found = map(check, files)
    else:
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            found = list(pool.map(check, files))
    return [Problem(file["name"], what) for file, what in zip(files, found, strict=True) if what]
