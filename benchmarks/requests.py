"""Count the requests of a build on an object store.

    python -m benchmarks.requests
    python -m benchmarks.requests --files 400 --shards 64 --pieces 12 --where

It builds a corpus from made-up files in a fake of Google Cloud Storage on loopback, and prints the
requests by kind; with ``--where`` also by folder. ``--pieces`` makes pieces so small that about as
many are merged as a crawl of so many files would have, if the build merges at all. Heartbeats are
left out: their number depends on the time that a build takes.
"""

import argparse
import contextlib
import io
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from unittest import mock

from pipelines import builders, c4_main
from pipelines.plan import Fleet, Profile, Work, make_plan
from pipelines.stages import merge_files
from testing.fake_google_cloud import fake_google_cloud
from testing.helpers import wet_bytes

_KINDS = ("PUT", "GET", "HEAD", "LIST", "DELETE")
_TEXT = (
    "The ferry to {place} leaves at {hour} in the morning.\n"
    "It carries the mail for {place} and some {hour} passengers.\n"
    "In winter nobody waits at the pier of {place} for more than {hour} minutes."
)
_PAGES = 12
TEXT_BYTES = 160  # of a page, about
_OF_FILES = re.compile(
    r"wet/N|out/(cleaned|fingerprints|removals)/N|out/merged/group|out/(train|validation)-"
)
_NUMBER = re.compile(r"[0-9a-f]{32}|-[0-9a-f]{8,16}\b|\d{2,}")


class Counted(NamedTuple):
    """The requests of one build."""

    kinds: Mapping[str, int]
    places: Mapping[tuple[str, str], int]  # by kind and kind of file

    @property
    def total(self) -> int:
        """All requests."""
        return sum(self.kinds.values())

    @property
    def of_files(self) -> Mapping[str, int]:
        """Those by kind that grow with the number of files and shards."""
        found: Counter[str] = Counter()
        for (kind, place), count in self.places.items():
            if _OF_FILES.match(place):
                found[kind] += count
        return found


def count_requests(files: int, shards: int, pages: int = _PAGES) -> Counted:
    """Build a corpus of so many files of so many pages, and count the requests."""
    places: Counter[tuple[str, str]] = Counter()

    def note(method: str, what: str) -> None:
        path = what.partition(" b")[0]
        if "builders" in path and ".beat" in path:
            return
        if "list-type" in path:
            method, path = "LIST", path.partition("prefix=")[2].partition("&")[0] or "out/"
        kind = "PUT" if method == "POST" else method
        places[kind, _NUMBER.sub("N", path.removeprefix("/bucket/"))] += 1

    with fake_google_cloud() as cloud, _environment(cloud.address):
        for number in range(files):
            made = [
                (
                    f"http://{number}.example/{page}",
                    "2019-04-18T10:00:00Z",
                    _TEXT.format(place=f"Port {number} {page}", hour=page + 2),
                )
                for page in range(pages)
            ]
            cloud.objects[f"gs://bucket/wet/{number:03}.warc.wet.gz"] = wet_bytes(made)
        cloud.fail = note  # type: ignore[assignment]  # answers as usual
        words = ["build", "--quiet", "--input", "gs://bucket/wet/*", "--output", "gs://bucket/out"]
        words += ["--workers", "1", "--shards", str(shards)]
        with contextlib.redirect_stdout(io.StringIO()):
            status = c4_main.main(words)
        if status or cloud.refused:
            raise RuntimeError(f"the build failed ({status}): {cloud.refused}")
    kinds: Counter[str] = Counter()
    for (kind, _), count in places.items():
        kinds[kind] += count
    return Counted({kind: kinds[kind] for kind in _KINDS}, places)


@contextlib.contextmanager
def pieces_of(text_bytes: int) -> Iterator[None]:
    """Let builds and plans make merged pieces of so much text."""
    names = ("_LEAST_TEXT_BYTES", "_MOST_TEXT_BYTES")
    with mock.patch.multiple(merge_files, **dict.fromkeys(names, text_bytes)):
        yield


@contextlib.contextmanager
def _environment(address: str) -> Iterator[None]:
    values = {"STORAGE_EMULATOR_HOST": address, "NO_GCE_CHECK": "true"}
    with mock.patch.dict(os.environ, values), mock.patch.object(builders, "_BEAT_S", 1e6):
        yield


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=40)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--pieces", type=int, metavar="N", help="merge into about N pieces")
    parser.add_argument("--where", action="store_true", help="also by kind of file")
    arguments = parser.parse_args()
    of_piece = contextlib.nullcontext()
    if arguments.pieces:
        of_piece = pieces_of(arguments.files * _PAGES * TEXT_BYTES // arguments.pieces)
    with of_piece:
        found = count_requests(arguments.files, arguments.shards)
        profile = Profile(stored_bytes=500.0, kept_pages=1.0, kept_bytes=TEXT_BYTES, units=3.0)
        work = Work(arguments.files, arguments.files * _PAGES, profile)
        plan = make_plan(work, Fleet(1, 1, 16.0), shards=arguments.shards)
    if arguments.where:
        for (kind, place), count in sorted(found.places.items(), key=lambda item: -item[1]):
            print(f"{count:6} {kind:6} {place}")
    print(", ".join(f"{kind} {count:,}" for kind, count in found.kinds.items()))
    own, published = found.of_files, arguments.shards + 1
    print(
        f"that grow with files and shards: {own['PUT'] + published:,} write or list, model "
        f"{plan.total('class_a'):,.0f}; {own['GET'] + own['HEAD'] + published:,} read, model "
        f"{plan.total('class_b'):,.0f}; {plan.pieces:,} pieces"
    )
    print(f"{found.total:,} requests: {arguments.files} files, {arguments.shards} shards")


if __name__ == "__main__":
    main()
