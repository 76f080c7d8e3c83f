"""The handle of a cluster, without starting one; tests/flink has a running one."""

import os
import pathlib
import re
import shlex
import socket
import subprocess
import sys

import pytest

from scripts import flink_cluster, flink_packages
from scripts.flink_cluster import ClusterConfig, ClusterError, FlinkCluster


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"task_managers": 0}, "--task-managers"),
        ({"slots": 0}, "--slots"),
        ({"rest_port": 70000}, "--rest-port"),
        ({"pool_port": -1}, "--pool-port"),
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ClusterConfig(pathlib.Path("/x"), pathlib.Path("/y"), **wrong)  # type: ignore[arg-type]


def test_nothing_runs_before_it_is_started(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert flink_cluster.main(["status", "--dir", str(tmp_path)]) == 1
    assert capsys.readouterr().out.count("not running") == 4
    assert flink_cluster.main(["down", "--dir", str(tmp_path)]) == 0
    with pytest.raises(ClusterError, match="run up first"):
        _ = FlinkCluster(ClusterConfig(tmp_path, tmp_path)).ports


def test_who_stops_reading_is_not_told_of_a_broken_pipe(tmp_path: pathlib.Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, flink_cluster.__file__, "status", "--dir", str(tmp_path)],
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")  # 1: nothing runs


def test_the_command_that_up_prints_is_the_one_in_the_readme(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = flink_packages._packages(tmp_path / "a cache")
    monkeypatch.setattr(flink_packages, "fetch", lambda _: packages)
    cluster = FlinkCluster(ClusterConfig(tmp_path, tmp_path / "a cache"))
    cluster._choose_ports()

    command = cluster.build_command()

    assert shlex.split(command.replace("\\\n", ""))[-4:] == cluster.beam_options()
    assert f"--environment_config=127.0.0.1:{cluster.ports['pool']}" in cluster.beam_options()
    shown = re.sub(r"127\.0\.0\.1:\d+", "HOST:PORT", command)
    shown = shown.replace(shlex.quote(f"--flink_job_server_jar={packages.job_server_jar}"), "{jar}")
    readme = (pathlib.Path(flink_cluster.__file__).parents[1] / "README.md").read_text("utf-8")
    assert shown.format(jar="--flink_job_server_jar=JAR") + "\n" in readme


def test_fetch_downloads_the_packages_and_prints_the_jar(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    packages = flink_packages._packages(tmp_path)
    asked: list[pathlib.Path] = []
    monkeypatch.setattr(flink_packages, "fetch", lambda cache: asked.append(cache) or packages)
    assert flink_cluster.main(["fetch", "--cache", str(tmp_path)]) == 0
    assert asked == [tmp_path]
    assert capsys.readouterr().out == f"{packages.job_server_jar}\n"


def test_a_process_of_another_program_is_not_ours(tmp_path: pathlib.Path) -> None:
    cluster = FlinkCluster(ClusterConfig(tmp_path, tmp_path))
    (tmp_path / "pid").mkdir()
    (tmp_path / "pid" / "jobmanager").write_text("1")
    assert cluster.pid("jobmanager") is None
    assert not cluster.kill("jobmanager")


def test_a_port_that_is_taken_is_named(tmp_path: pathlib.Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        cluster = FlinkCluster(ClusterConfig(tmp_path, tmp_path, rest_port=port))
        with pytest.raises(ClusterError, match=rf"port {port} is not free.*--rest-port"):
            cluster._choose_ports()


def test_up_tells_what_it_waits_for(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    packages = flink_packages._packages(tmp_path / "a cache")
    monkeypatch.setattr(flink_packages, "fetch", lambda _: packages)
    monkeypatch.setattr(flink_cluster.shutil, "which", lambda _: "java")
    monkeypatch.setattr(flink_cluster.time, "sleep", lambda _: None)
    cluster = FlinkCluster(ClusterConfig(tmp_path, tmp_path, task_managers=1))
    running: set[str] = set()
    answers = ["the JobManager did not answer"] * 2 + ["not every TaskManager registered", ""]
    monkeypatch.setattr(FlinkCluster, "pid", lambda _, name: 1 if name in running else None)
    monkeypatch.setattr(FlinkCluster, "_start", lambda _, name, packages: running.add(name))
    monkeypatch.setattr(FlinkCluster, "_missing", lambda _: answers.pop(0))
    cluster.up()
    assert capsys.readouterr().err.splitlines() == [
        "flink_cluster: starting jobmanager",
        "flink_cluster: starting taskmanager-0",
        "flink_cluster: starting workerpool",
        "flink_cluster: waiting: the JobManager did not answer yet (at most 120 s)",
        "flink_cluster: waiting: not every TaskManager registered yet (at most 120 s)",
        "flink_cluster: ready",
    ]
