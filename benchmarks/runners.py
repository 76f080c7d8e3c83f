"""Compare the bytes and the cost of the same build on several engines.

::

    python -m benchmarks.runners bytes    --wet '../shared/wet/*.warc.wet.gz'
    python -m benchmarks.runners overhead --wet '../shared/wet/*.warc.wet.gz'

``bytes`` builds on this machine, on Beam's portable job service with a worker pool, and on Flink
with parallelism 1, 2 and 4, and compares the digests of all shards. ``overhead`` takes the CPU
seconds of all processes of both, JobManager and launcher included, and subtracts the cost of a
build of one page; quote the ratio. Both start a Flink cluster of their own
(scripts/flink_cluster.py), which needs Java, Maven and, the first time, a network.
"""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

import psutil

from benchmarks import build, measure
from scripts import flink_packages
from scripts.flink_cluster import ClusterConfig, FlinkCluster
from testing.helpers import manifest_of

_PARALLELISMS = (1, 2, 4)
_RUNS = 2
_SHARDS = "40"  # so many that 13 files are merged before shards are written


def run(inputs: Sequence[str], output: pathlib.Path, options: Sequence[str]) -> measure.Cost:
    """Run ``c4 build`` with options of Beam's. Raises CalledProcessError when it fails."""
    # In a process of its own: measure waits for all below it, and the cluster is below this one.
    return measure.in_process(build.build, inputs, output, "--shards", _SHARDS, *options)


def shard_digests(output: pathlib.Path) -> dict[str, str]:
    return {shard["name"]: shard["sha256"] for shard in manifest_of(output)["shards"]}


@contextlib.contextmanager
def flink(folder: pathlib.Path, cache: pathlib.Path) -> Iterator[FlinkCluster]:
    """Run a cluster of two TaskManagers with two slots each, inside the block."""
    cluster = FlinkCluster(ClusterConfig(folder, cache))
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()


@contextlib.contextmanager
def portable(folder: pathlib.Path) -> Iterator[list[str]]:
    """Run a worker pool; yield the options of a build with it and Beam's Python job service."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "portable.log").open("wb") as log:
        pool = subprocess.Popen(
            [*measure.C4, "worker-pool", f"--port={port}"],
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 5).close()
                break
            if time.monotonic() > deadline:
                raise TimeoutError(f"nothing listens on port {port}; see {folder}")
            time.sleep(0.2)
        yield [
            "--runner=PortableRunner",
            "--job_endpoint=embed",
            "--environment_type=EXTERNAL",
            f"--environment_config=127.0.0.1:{port}",
        ]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pool.pid, signal.SIGKILL)
        pool.wait()


def same_bytes(paths: Sequence[str], cache: pathlib.Path) -> bool:
    """Print a line for each engine; says whether all gave the same shards."""
    with tempfile.TemporaryDirectory(prefix="c4-runners-") as name:
        folder = pathlib.Path(name)
        found: dict[str, dict[str, str]] = {}

        def built(what: str, options: Sequence[str]) -> None:
            output = folder / f"out-{len(found)}"
            wall_s = run(paths, output, options).wall_s
            found[what] = shard_digests(output)
            same = "same bytes" if found[what] == found["local"] else "OTHER BYTES"
            print(f"{what:<24}{len(found[what]):>3} shards  {same}  {wall_s:6.1f} s", flush=True)

        built("local", [])
        with portable(folder / "portable") as options:
            built("portable job service", options)
        with flink(folder / "flink", cache) as cluster:
            for parallelism in _PARALLELISMS:
                built(
                    f"Flink, parallelism {parallelism}",
                    [*cluster.beam_options(), f"--parallelism={parallelism}"],
                )
        print(json.dumps(found["local"], indent=1))
        return all(digests == found["local"] for digests in found.values())


def cpu_of_group(leader: int) -> float:
    """CPU seconds of a session's processes so far, and of those that they have waited for."""
    total = 0.0
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getsid(process.pid) == leader:
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
    return total


def overhead(paths: Sequence[str], cache: pathlib.Path) -> float:
    """Print what both cost and their ratio; return the ratio."""
    with tempfile.TemporaryDirectory(prefix="c4-runners-") as name:
        folder = pathlib.Path(name)
        one = [build.one_page_file(folder)]
        pages = 0
        net: dict[str, list[float]] = {"local": [], "Flink": []}
        with flink(folder / "flink", cache) as cluster:

            def on_flink(inputs: Sequence[str], output: pathlib.Path) -> dict[str, float]:
                before = {what: cpu_of_group(cluster.pid(what) or 0) for what in cluster.names}
                # As many workers as the local build has.
                launcher = run(inputs, output, [*cluster.beam_options(), "--parallelism=2"]).cpu_s
                # Workers are counted when their parent has waited for them.
                time.sleep(2)
                spent = {
                    what: cpu_of_group(cluster.pid(what) or 0) - cpu for what, cpu in before.items()
                }
                return {"launcher": launcher, **spent}

            on_flink(one, folder / "first")  # the JVMs load and compile what they need
            for turn in range(_RUNS):
                # Two processes for one page too: the cost of starting them is subtracted.
                start_up = run(one, folder / f"local-one-{turn}", ["--workers", "2"]).cpu_s
                cost = run(paths, folder / f"local-{turn}", ["--workers", "2"]).cpu_s
                pages = manifest_of(folder / f"local-{turn}")["counts"]["pages_read"]
                net["local"].append(cost - start_up)
                print(f"local  {cost:7.1f} CPU s, {start_up:.1f} of them start-up", flush=True)
                parts_one = on_flink(one, folder / f"flink-one-{turn}")
                parts = on_flink(paths, folder / f"flink-{turn}")
                start_up, cost = sum(parts_one.values()), sum(parts.values())
                net["Flink"].append(cost - start_up)
                shares = ", ".join(f"{what} {cpu:.1f}" for what, cpu in parts.items())
                print(
                    f"Flink  {cost:7.1f} CPU s, {start_up:.1f} of them start-up ({shares})",
                    flush=True,
                )
        least = {what: min(costs) / pages * 1e3 for what, costs in net.items()}
        ratio = least["Flink"] / least["local"]
        print(
            f"{pages:,} pages: {least['local']:.3f} ms per page locally, {least['Flink']:.3f} on "
            f"Flink: {ratio:.2f} times the CPU"
        )
        return ratio


def main() -> int:
    parser = measure.parser(__doc__, wet=True)
    parser.add_argument("what", choices=("bytes", "overhead"))
    parser.add_argument("--cache", type=pathlib.Path, default=flink_packages.default_cache())
    arguments = parser.parse_args()
    paths = measure.wet_files(parser, arguments.wet)
    if arguments.what == "bytes":
        return 0 if same_bytes(paths, arguments.cache) else 1
    overhead(paths, arguments.cache)
    return 0


if __name__ == "__main__":
    sys.exit(main())
