"""Run a Flink cluster on loopback: one JobManager, TaskManagers, Python workers.

::

    scripts/flink_cluster.sh fetch     # downloads the packages and starts nothing
    scripts/flink_cluster.sh up        # downloads what is missing, starts what does not run
    scripts/flink_cluster.sh status    # exit status 0: all of it runs
    scripts/flink_cluster.sh down      # leaves no process

It is a real standalone cluster, started from packages, without Docker. ``up`` prints the
``c4 build`` command that uses it. Run again after a process died, it restarts that process alone.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

if __package__ in (None, ""):  # run as a file: the repository is the place to import from
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from pipelines.options import add_options, check_bounds, given_values, option
from scripts import flink_packages
from scripts.flink_packages import FLINK_VERSION, FlinkPackages, PackageError

#: What the options of a cluster are added to; README.md has the same command.
BUILD_COMMAND = "c4 build --input 'crawl/*.warc.wet.gz' --output corpus"

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_CONFIGURATION = _ROOT / "scripts" / "flink_config.yaml"
_LOG4J = _ROOT / "scripts" / "flink_log4j.properties"
_ANSWERS_S = 120.0  # a busy machine of two cores takes 30
_ENDS_S = 10.0
# What Flink's own configuration opens of Java 9 and later to its serializers and networking.
_OPENED = ("lang", "lang.reflect", "io", "net", "nio", "text", "time", "util")
_OPENED += ("util.concurrent", "util.concurrent.atomic", "util.concurrent.locks")
_JAVA_OPTIONS = (
    "-XX:TieredStopAtLevel=1",  # jobs here are short: no time to earn back a second compilation
    *(f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in _OPENED),
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-exports=java.base/sun.net.util=ALL-UNNAMED",
    "--add-exports=java.rmi/sun.rmi.registry=ALL-UNNAMED",
    "--add-exports=java.security.jgss/sun.security.krb5=ALL-UNNAMED",
)
_JOB_MANAGER = "jobmanager"
_POOL = "workerpool"
_RESULT = "BASH_JAVA_UTILS_EXEC_RESULT:"


class ClusterError(RuntimeError):
    """The cluster could not be started, or does not answer; one line with the way out."""


_PORT: dict[str, Any] = {"default": 0, "metavar": "PORT", "least": 0, "most": (1 << 16) - 1}


@dataclasses.dataclass(frozen=True)
class ClusterConfig:
    """Settings of the cluster."""

    folder: pathlib.Path = option(
        "configuration, logs and process ids (default: out/flink)", "--dir",
        default=_ROOT / "out" / "flink", read=os.path.abspath,
    )  # fmt: skip
    cache: pathlib.Path = option(
        f"where the packages are kept (default: {flink_packages.default_cache()})",
        default=flink_packages.default_cache(), read=os.path.abspath,
    )  # fmt: skip
    task_managers: int = option("how many", default=2, metavar="N", least=1, most=8)
    slots: int = option("of each TaskManager", default=2, metavar="N", least=1)
    rest_port: int = option("of the JobManager (default: a free one)", **_PORT)
    pool_port: int = option("of the worker pool (default: a free one)", **_PORT)
    python: str = sys.executable  # of the workers: has this package installed

    def __post_init__(self) -> None:
        check_bounds(self)
        for name in ("folder", "cache"):
            object.__setattr__(self, name, pathlib.Path(getattr(self, name)))


class FlinkCluster:
    """The cluster whose state is in ``config.folder``: ``conf``, ``log``, ``pid``, ``tmp``."""

    def __init__(
        self,
        config: ClusterConfig,
        pool: Sequence[str] = ("-m", "pipelines.c4_main", "worker-pool"),
        pool_environment: Mapping[str, str] | None = None,
    ) -> None:
        """Return the cluster's handle; start nothing.

        ``pool``: what a Python interpreter is given to be the worker pool; tests have their own.
        ``pool_environment``: variables that the workers are to have besides this process's.
        """
        self.config = config
        self._pool = tuple(pool)
        self._pool_environment = dict(pool_environment or {})
        self._children: dict[str, subprocess.Popen[bytes]] = {}  # those started by this handle
        self._ports_file = config.folder / "ports.json"

    @property
    def names(self) -> list[str]:
        """The processes of the cluster, in the order they start."""
        managers = [f"taskmanager-{number}" for number in range(self.config.task_managers)]
        return [_JOB_MANAGER, *managers, _POOL]

    @property
    def ports(self) -> dict[str, int]:
        """``rest``, ``rpc`` and ``pool``. Raises ClusterError before the first `up`."""
        try:
            ports: dict[str, int] = json.loads(self._ports_file.read_text(encoding="ascii"))
        except FileNotFoundError:
            raise ClusterError(
                f"no cluster was started in {self.config.folder}: run up first (--dir)"
            ) from None
        return ports

    @property
    def rest_address(self) -> str:
        """host:port of the JobManager's REST interface."""
        return f"127.0.0.1:{self.ports['rest']}"

    def beam_options(self) -> list[str]:
        """Return the options with which ``c4 build`` runs on this cluster."""
        jar = flink_packages.fetch(self.config.cache).job_server_jar
        return [
            "--runner=FlinkRunner",
            f"--flink_master={self.rest_address}",
            f"--environment_config=127.0.0.1:{self.ports['pool']}",
            f"--flink_job_server_jar={jar}",
        ]

    def build_command(self) -> str:
        """Return the command that builds a corpus on this cluster, one line per option."""
        options = map(shlex.quote, self.beam_options())
        return " \\\n    ".join([BUILD_COMMAND, *options])

    def up(self) -> None:
        """Start what does not run, and wait until it answers.

        Raises ClusterError or PackageError; what was started until then is stopped again unless
        something ran before.
        """
        if shutil.which("java") is None:
            raise ClusterError("Flink needs Java 11 or 17: apt-get install openjdk-17-jre-headless")
        packages = flink_packages.fetch(self.config.cache)
        fresh = not any(map(self.pid, self.names))
        if fresh:
            self._choose_ports()
        self._configure()
        try:
            for name in self.names:
                if self.pid(name) is None:
                    _report(f"starting {name}")
                    self._start(name, packages)
            self._wait()
            _report("ready")
        except BaseException:
            if fresh:
                self.down()
            raise

    def down(self) -> None:
        """Stop every process of the cluster, workers included, and wait for their end."""
        for name in reversed(self.names):
            self.kill(name, signal.SIGTERM)
        deadline = time.monotonic() + _ENDS_S
        while any(map(self.pid, self.names)) and time.monotonic() < deadline:
            time.sleep(0.1)
        for name in self.names:
            self.kill(name, signal.SIGKILL)
        for child in self._children.values():
            child.wait()
        self._children.clear()

    def kill(self, name: str, number: int = signal.SIGKILL) -> bool:
        """Send a signal to one process and those it has started; False: it did not run."""
        pid = self.pid(name)
        if pid is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, number)
        if number == signal.SIGKILL and name in self._children:
            self._children[name].wait()
        return True

    def pid(self, name: str) -> int | None:
        """Return the process id, which is also its group's; None if it does not run."""
        try:
            pid = int((self.config.folder / "pid" / name).read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return None
        child = self._children.get(name)
        if child is not None and child.pid == pid:
            return pid if child.poll() is None else None
        # Another process may have the number by now: ours have the folder as an argument.
        return pid if str(self.config.folder) in _command_line(pid) else None

    def log(self, name: str) -> pathlib.Path:
        """Return the log of a process; the pool's workers write into the pool's."""
        return self.config.folder / "log" / f"{name}.log"

    def rest(self, path: str, timeout_s: float = 10.0) -> Any:
        """Return an answer of the JobManager. Raises ClusterError if there is none."""
        try:
            with urllib.request.urlopen(
                f"http://{self.rest_address}{path}", timeout=timeout_s
            ) as answer:
                return json.load(answer)
        except (OSError, ValueError) as error:
            raise ClusterError(
                f"the JobManager at {self.rest_address} does not answer: {error}"
            ) from None

    def _choose_ports(self) -> None:
        self.config.folder.mkdir(parents=True, exist_ok=True)
        wanted = {"rest": self.config.rest_port, "rpc": 0, "pool": self.config.pool_port}
        with contextlib.ExitStack() as held:  # all at once, or one might be chosen twice
            ports = {}
            for name, port in wanted.items():
                sock = held.enter_context(socket.socket())
                try:
                    sock.bind(("127.0.0.1", port))
                except OSError as error:
                    raise ClusterError(
                        f"port {port} is not free: {error.strerror}; choose another (--{name}-port)"
                    ) from None
                ports[name] = sock.getsockname()[1]
        self._ports_file.write_text(json.dumps(ports), encoding="ascii")

    def _configure(self) -> None:
        for name in ("conf", "log", "pid", "tmp"):
            (self.config.folder / name).mkdir(parents=True, exist_ok=True)
        here = {
            "rpc_port": self.ports["rpc"],
            "rest_port": self.ports["rest"],
            "slots": self.config.slots,
            "all_slots": self.config.task_managers * self.config.slots,
            "tmp": self.config.folder / "tmp",
        }
        text = _CONFIGURATION.read_text(encoding="utf-8").format(**here)
        # Beam's runner is on the class path of TaskManagers. Loaded anew for every job, its gRPC
        # would keep the direct memory of each: six jobs filled 384 MB.
        loads_once = "classloader.resolve-order: parent-first\n"
        for role, own in (("jobmanager", ""), ("taskmanager", loads_once)):
            conf = self.config.folder / "conf" / role
            conf.mkdir(exist_ok=True)
            (conf / "config.yaml").write_text(text + own, encoding="utf-8")
            shutil.copy(_LOG4J, conf / "log4j.properties")

    def _start(self, name: str, packages: FlinkPackages) -> None:
        environment = {**os.environ}
        if name == _POOL:
            environment |= self._pool_environment
            path = [str(_ROOT), environment.get("PYTHONPATH", "")]
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
            command = [self.config.python, *self._pool]
            command += ["--port", str(self.ports["pool"]), "--label", str(self.config.folder)]
        else:
            command = self._java(name, packages)
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=self.config.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._children[name] = process
        (self.config.folder / "pid" / name).write_text(str(process.pid), encoding="ascii")

    def _java(self, name: str, packages: FlinkPackages) -> list[str]:
        runtime = "org.apache.flink.runtime"
        if name == _JOB_MANAGER:
            role, question, path = "jobmanager", "JM", f"{packages.lib}/*"
            main = [f"{runtime}.entrypoint.StandaloneSessionClusterEntrypoint"]
            main += ["--executionMode", "cluster"]
        else:
            role, question = "taskmanager", "TM"
            path = f"{packages.lib}/*:{packages.job_server_jar}"
            main = [f"{runtime}.taskexecutor.TaskManagerRunner"]
        conf = self.config.folder / "conf" / role
        [dist] = packages.lib.glob("flink-dist-*.jar")
        asked = ["java", "-cp", f"{packages.java_utils}:{dist}:{packages.lib}/*"]
        asked += ["org.apache.flink.runtime.util.bash.BashJavaUtils"]
        asked += [f"GET_{question}_RESOURCE_PARAMS", "--configDir", str(conf)]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=120, check=False)
        answers = [
            line.removeprefix(_RESULT) for line in done.stdout.splitlines() if _RESULT in line
        ]
        if len(answers) != 2:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise ClusterError(f"Flink cannot work out its memory: {' '.join(last)}")
        flags, options = (answer.split() for answer in answers)
        command = ["java", *flags, *_JAVA_OPTIONS]
        command += [f"-Dlog4j.configurationFile=file:{conf}/log4j.properties"]
        return [*command, "-cp", path, *main, "--configDir", str(conf), *options]

    def _wait(self) -> None:
        deadline = time.monotonic() + _ANSWERS_S
        missing = reported = "nothing"
        while time.monotonic() < deadline:
            for name in self.names:
                if self.pid(name) is None:
                    child = self._children.get(name)
                    status = f" with status {child.returncode}" if child else ""
                    raise ClusterError(f"{name} has ended{status}; {self.log(name)} says why")
            missing = self._missing()
            if not missing:
                return
            if missing != reported:
                _report(f"waiting: {missing} yet (at most {_ANSWERS_S:.0f} s)")
                reported = missing
            time.sleep(0.2)
        raise ClusterError(f"{missing} within {_ANSWERS_S:.0f} s; see {self.config.folder}/log")

    def _missing(self) -> str:
        try:
            overview = self.rest("/overview", timeout_s=5)
        except ClusterError:
            return "the JobManager did not answer"
        if overview["taskmanagers"] < self.config.task_managers:
            return "not every TaskManager registered"
        try:
            socket.create_connection(("127.0.0.1", self.ports["pool"]), timeout=5).close()
        except OSError:
            return "the worker pool did not answer"
        return ""


def _command_line(pid: int) -> str:
    """Return a process's arguments; empty if it has ended."""
    try:
        content = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        if pathlib.Path("/proc/self").exists():
            return ""
        done = subprocess.run(  # systems without /proc
            ["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        return done.stdout
    return content.replace(b"\0", b" ").decode("utf-8", "surrogateescape")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="scripts/flink_cluster.sh",
        description=f"A Flink {FLINK_VERSION} cluster on loopback, with Python workers.",
    )
    parser.add_argument("command", choices=("fetch", "up", "down", "status"))
    add_options(parser, ClusterConfig)
    arguments = parser.parse_args(argv)
    try:
        config = ClusterConfig(**given_values(arguments, ClusterConfig))
        if arguments.command == "fetch":
            _print(f"{flink_packages.fetch(config.cache).job_server_jar}")
            return 0
        cluster = FlinkCluster(config)
        if arguments.command == "down":
            cluster.down()
            return 0
        if arguments.command == "up":
            cluster.up()
        return _print_status(cluster)
    except (ClusterError, PackageError, ValueError, OSError) as error:
        print(f"flink_cluster: error: {error}", file=sys.stderr)
        return 1


def _print_status(cluster: FlinkCluster) -> int:
    pids = {name: cluster.pid(name) for name in cluster.names}
    _print("\n".join(f"{name:<16}{pid or 'not running'}" for name, pid in pids.items()))
    if not all(pids.values()):
        return 1
    overview = cluster.rest("/overview")
    _print(
        f"http://{cluster.rest_address}  Flink {overview['flink-version']}, "
        f"{overview['taskmanagers']} TaskManagers, {overview['slots-total']} slots; "
        f"logs in {cluster.config.folder}/log\n"
    )
    _print(cluster.build_command())
    return 0


def _report(what: str) -> None:
    """Report the progress of the start: Flink takes a minute, and downloads take several."""
    print(f"flink_cluster: {what}", file=sys.stderr, flush=True)


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # the reader has closed the pipe; the exit status still counts
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # or the interpreter fails at its end
        os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
