"""Faults on a real Flink cluster: the corpus is the undisturbed one, at once or by a second run.

Without ``C4_ALL_FAULTS=1`` two of them run; all take some ten minutes on two cores::

    scripts/flink_cluster.sh fetch                 # downloads the packages, once
    C4_ALL_FAULTS=1 python -m pytest tests/flink
"""

import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from scripts.flink_cluster import FlinkCluster
from tests.flink import builds, faulty_pool

pytestmark = pytest.mark.slow  # they share a cluster, which takes half a minute to start
ALL = bool(os.environ.get("C4_ALL_FAULTS"))
long = pytest.mark.skipif(not ALL, reason="long: C4_ALL_FAULTS=1 runs it")
LET_BY = {"clean": "sample-00000", "dedup": "sample-00000", "write": "0."}


def held(faults: pathlib.Path, stage: str) -> bool:
    return any(faults.glob(f"held-{stage}-*"))


@pytest.mark.parametrize("stage", faulty_pool.STAGES)
@pytest.mark.parametrize("victim", ["taskmanager-0", "workerpool"])
def test_a_process_killed_in_a_stage(
    victim: str,
    stage: str,
    idle: FlinkCluster,
    faults: pathlib.Path,
    expected: dict[str, str],
    tmp_path: pathlib.Path,
) -> None:
    if not ALL and (victim, stage) not in (("taskmanager-0", "clean"), ("workerpool", "write")):
        pytest.skip("long: C4_ALL_FAULTS=1 runs it")
    output = tmp_path / "out"
    words = builds.command(output, idle.beam_options())
    (faults / f"hold-{stage}").write_text(LET_BY[stage])
    with builds.started(words) as process:
        builds.wait_for(lambda: held(faults, stage) or process.poll() is not None)
        assert process.poll() is None, process.communicate()[1]
        before = builds.cleaned(output)
        assert idle.kill(victim)
        (faults / f"hold-{stage}").unlink()
        idle.up()  # as a supervisor would: what died is started again
        first = builds.finish(process)
    error = builds.settle(output, words, first, expected)
    print(f"{victim} killed in {stage}: {error or 'went on by itself'}")
    after = builds.cleaned(output)
    assert {path: after[path] for path in before} == before, "cleaned twice"


@long
def test_a_corpus_that_grows_is_the_local_one(idle: FlinkCluster, tmp_path: pathlib.Path) -> None:
    builds.grow(tmp_path, idle.beam_options())


@long
def test_near_duplicates_are_those_of_a_local_build(
    idle: FlinkCluster, tmp_path: pathlib.Path
) -> None:
    builds.require_same_near_duplicates(tmp_path, idle.beam_options())


@long
def test_the_job_manager_restarted(
    idle: FlinkCluster, faults: pathlib.Path, expected: dict[str, str], tmp_path: pathlib.Path
) -> None:
    output = tmp_path / "out"
    words = builds.command(output, idle.beam_options())
    (faults / "hold-clean").write_text(LET_BY["clean"])
    with builds.started(words) as process:
        builds.wait_for(lambda: held(faults, "clean"))
        assert idle.kill("jobmanager")
        (faults / "hold-clean").unlink()
        idle.up()
        first = builds.finish(process)
    assert "restarted" in builds.settle(output, words, first, expected)


@long
def test_a_file_that_crashes_the_parser(
    idle: FlinkCluster, faults: pathlib.Path, expected: dict[str, str], tmp_path: pathlib.Path
) -> None:
    output = tmp_path / "out"
    words = builds.command(output, idle.beam_options())
    (faults / "hold-clean").write_text(LET_BY["clean"])
    with builds.started(words) as process:
        builds.wait_for(lambda: builds.cleaned(output) or process.poll() is not None)
        (faults / "crash-clean").write_text("sample-00001")
        (faults / "hold-clean").unlink()
        first = builds.finish(process)
    assert first.status == 1
    (faults / "crash-clean").unlink()  # the file, or the parser, was mended
    assert builds.cleaned(output), "the other files are kept"
    error = builds.settle(output, words, first, expected)
    assert "worker died" in error
    assert "sample-00001" in error, "which file it was"


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file system of 200 kB."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@long
def test_a_full_disk(
    idle: FlinkCluster, expected: dict[str, str], small_disk: pathlib.Path
) -> None:
    output = small_disk / "out"
    words = builds.command(output, idle.beam_options())
    first = builds.run(words, 300)
    assert first.status == 1
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert "No space left on device" in builds.settle(output, words, first, expected)
