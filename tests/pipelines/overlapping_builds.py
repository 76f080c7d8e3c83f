"""Start two builds of different inputs in one folder, some time apart, many times.

    python -m tests.pipelines.overlapping_builds --offsets 50
    python -m tests.pipelines.overlapping_builds --offsets 50 --store gs

The second must be refused in one line, or, if the first has ended by then, build its own corpus. It
counts wrong corpora, builds that hang, and builds that fail in other ways; all must be 0. ``gs`` is
a fake of Google Cloud Storage on loopback.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence

from pipelines import storage
from pipelines.corpus.manifest import read_manifest
from testing.fake_google_cloud import fake_google_cloud
from testing.helpers import wet_bytes

_HANGS_S = 300
_TEXT = (
    "The ferry to {place} leaves at {hour} in the morning.\n"
    "It carries the mail for {place} and some {hour} passengers.\n"
    "In winter nobody waits at the pier of {place} for more than {hour} minutes."
)


@dataclasses.dataclass(frozen=True)
class Store:
    """Where the folders are, and how a command reaches them."""

    root: str
    environment: Mapping[str, str]


@contextlib.contextmanager
def local_store(folder: pathlib.Path) -> Iterator[Store]:
    """Yield a folder of this machine."""
    yield Store(str(folder), {})


@contextlib.contextmanager
def gs_store(_: pathlib.Path) -> Iterator[Store]:
    """Run an object store on loopback."""
    with fake_google_cloud() as cloud:
        environment = {"STORAGE_EMULATOR_HOST": cloud.address, "NO_GCE_CHECK": "true"}
        before = {name: os.environ.get(name) for name in environment}
        os.environ |= environment
        try:
            yield Store("gs://bucket", environment)
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value


STORES = {"local": local_store, "gs": gs_store}


class Overlap:
    """Two sets of inputs, the corpora that they make, and pairs of builds."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._expected = {}
        for name, files in (("first", 3), ("second", 2)):
            for number in range(files):
                pages = [
                    (
                        f"http://{name}{number}.example/{page}",
                        "2019-04-18T10:00:00Z",
                        _TEXT.format(place=f"Port {name} {number} {page}", hour=page + 2),
                    )
                    for page in range(40)
                ]
                path = storage.join(store.root, "wet", f"{name}-{number}.warc.wet.gz")
                with storage.write_atomically(path) as file:
                    file.write(wet_bytes(pages))
            alone = storage.join(store.root, f"alone-{name}")
            build = self._start(name, alone)
            said, _ = build.communicate(timeout=_HANGS_S)
            if build.returncode:
                raise RuntimeError(f"a build alone fails: {said}")
            self._expected[name] = _shards(alone)

    def _start(self, name: str, output: str, workers: int = 1) -> "subprocess.Popen[str]":
        inputs = storage.join(self._store.root, "wet", f"{name}-*.warc.wet.gz")
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "pipelines.c4_main", "build", "--quiet"),
                *("--input", inputs, "--output", output),
                *("--workers", str(workers)),
            ],
            env={**os.environ, **self._store.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def check(self, number: int, offset_s: float) -> list[str]:
        """Start both, ``offset_s`` apart; return what went wrong."""
        output = storage.join(self._store.root, f"out-{number}")
        builds = {"first": self._start("first", output, 1 + number % 2)}
        time.sleep(offset_s)
        builds["second"] = self._start("second", output)
        wrong, built = [], []
        for name, build in builds.items():
            try:
                said, _ = build.communicate(timeout=_HANGS_S)
            except subprocess.TimeoutExpired:
                build.kill()
                build.communicate()
                wrong.append(f"the {name} build hangs")
                continue
            notes = [line for line in said.splitlines() if not line.startswith("c4: note:")]
            if build.returncode == 0 and not notes:
                built.append(name)
            elif (
                build.returncode != 1
                or len(notes) != 1
                or "another build is running in" not in notes[0]
            ):
                wrong.append(f"the {name} build ends with {build.returncode}: {said!r}")
        if not wrong and not built:
            wrong.append("both builds are refused")
        if built and _shards(output) not in [self._expected[name] for name in built]:
            wrong.append(f"{' and '.join(built)} built a wrong corpus")
        return wrong


def _shards(output: str) -> dict[str, str]:
    """Return the digest of each shard, as it is stored and as the manifest has it."""
    made = read_manifest(output).shards
    for shard in made:
        stored = storage.read_bytes(storage.join(output, shard.name))
        if hashlib.sha256(stored).hexdigest() != shard.sha256:
            return {shard.name: "is not what its manifest says"}
    return {shard.name: shard.sha256 for shard in made}


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line for each pair that went wrong, and how many did."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--offsets", type=int, default=50, metavar="N", help="pairs of builds")
    parser.add_argument("--store", choices=list(STORES), default="local")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)
    chance = random.Random(arguments.seed)
    failed = 0
    with (
        tempfile.TemporaryDirectory(prefix="c4-overlap-") as folder,
        STORES[arguments.store](pathlib.Path(folder)) as store,
    ):
        overlap = Overlap(store)
        for number in range(arguments.offsets):
            offset_s = chance.uniform(0, 2)
            wrong = overlap.check(number, offset_s)
            failed += bool(wrong)
            for line in wrong:
                print(f"{offset_s:.2f} s apart: {line}", flush=True)
    print(
        f"{arguments.offsets} pairs on {arguments.store}, 0 to 2 s apart, seed {arguments.seed}: "
        f"{failed} went wrong"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
