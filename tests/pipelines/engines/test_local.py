"""Deaths of the processes of a build on this machine, through the shipped command line."""

import contextlib
import dataclasses
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import psutil
import pytest

from c4_filters.recipes import RECIPES
from pipelines import builds, storage
from pipelines.builders import Claim
from pipelines.config import BuildConfig, RunConfig
from pipelines.engines import local
from pipelines.engines.failures import BuildError
from pipelines.engines.run import run_build
from pipelines.input_list import write_input_list
from pipelines.quiet_beam import beam
from pipelines.stages.graph import BuildCorpus
from samples.make_samples import WET_DIR
from testing.helpers import digests, run_c4

pytestmark = pytest.mark.slow

#: From a death to the end of the command: at most 10 seconds where the machine is not busy.
ENDS_S = 60
MOMENTS = int(os.environ.get("C4_KILLS", "6"))
INPUTS = str(WET_DIR / "*.wet*")


def start(out: pathlib.Path, inputs: str = INPUTS, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "pipelines.c4_main", "build", "--workers", "2", "--quiet"),
            *("--input", inputs, "--output", str(out)),
        ],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def end(process: "subprocess.Popen[str]", seconds: float = ENDS_S) -> str:
    """Standard error, once the command and its workers have ended: they hold standard output."""
    try:
        return process.communicate(timeout=seconds)[1]
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise


def processes_of(launcher: int) -> list[psutil.Process]:
    """The launcher and what it has started, as far as they live."""
    try:
        process = psutil.Process(launcher)
        found = [process, *process.children(recursive=True)]
        return [each for each in found if each.status() != psutil.STATUS_ZOMBIE]
    except psutil.NoSuchProcess:
        return []


def ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE  # that nobody waits for
    except psutil.NoSuchProcess:
        return True


def workers_of(launcher: int) -> list[psutil.Process]:
    """The workers: not the launcher, nor the process that starts workers."""
    found = processes_of(launcher)[1:]
    with contextlib.suppress(psutil.NoSuchProcess):
        return [process for process in found if process.ppid() != launcher]
    return []


def wait_for_workers(process: "subprocess.Popen[str]", count: int) -> list[psutil.Process]:
    deadline = time.monotonic() + 120
    while len(found := workers_of(process.pid)) < count:
        assert time.monotonic() < deadline
        assert process.poll() is None, end(process)
        time.sleep(0.005)
    return found


# What becomes of the starter at its beginning, and what is said of it.
KILLED = ("os.kill(os.getpid(), 9)", "a worker process died (killed, or out of memory);")
ENDED = ("os._exit(3)", "a worker process ended with status 3;")
FAILED = ("sys.modules['grpc'] = None", "with status 1: ModuleNotFoundError: import")
# Runs in every process of the command: a launcher with a thread does not fork.
INTERPRETER = """
import os, sys, threading
if 'pipelines.engines.local_worker' in sys.orig_argv:
    {does}
else:
    threading.Thread(target=threading.Event().wait, daemon=True).start()
"""
FORKED = """
import os
def do():
    {does}
os.register_at_fork(after_in_child=do)
"""


@pytest.mark.parametrize(
    ("starter", "fate"),
    [(FORKED, KILLED), (FORKED, ENDED), (INTERPRETER, KILLED), (INTERPRETER, FAILED)],
    ids=["forked, killed", "forked, ended", "killed", "cannot import"],
)
def test_a_worker_that_dies_in_its_first_second_ends_the_build(
    starter: str, fate: tuple[str, str], tmp_path: pathlib.Path
) -> None:
    does, says = fate
    (tmp_path / "sitecustomize.py").write_text(starter.format(does=does))
    out = tmp_path / "out"
    process = start(out, PYTHONPATH=f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    errors = end(process, 120)  # Beam's imports are among them
    assert process.returncode == 1
    assert says in errors
    assert "run the same command again to resume" in errors
    assert len(errors.splitlines()) == 1, errors
    assert run_c4("build", "--input", INPUTS, "--output", out).status == 0


def test_a_broken_interpreter_is_an_error_of_the_library(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local.sys, "executable", str(tmp_path / "no python"))
    files = storage.match([INPUTS])
    config = BuildConfig(
        inputs=tuple(file.path for file in files),
        output=str(tmp_path / "out"),
        recipe=RECIPES["en"],
    )
    write_input_list(config.output, files)
    options = beam.options.pipeline_options.PipelineOptions(
        ["--runner=FnApiRunner", "--direct_num_workers=2"]
    )
    hook = threading.excepthook
    began = time.monotonic()
    with pytest.raises(BuildError, match="no python"):
        run_build(BuildCorpus(config, claim=Claim(config.output, 1, "run")), options, None)
    assert time.monotonic() - began < ENDS_S
    assert threading.excepthook is hook or threading.excepthook.__name__ == "mute"


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_workers_end_with_their_launcher(
    seconds: float, sent: signal.Signals, tmp_path: pathlib.Path
) -> None:
    for number in range(200):  # some seconds of work for two workers
        shutil.copy(WET_DIR / "sample-00000.warc.wet.gz", tmp_path / f"{number}.warc.wet.gz")
    process = start(tmp_path / "out", str(tmp_path / "*.wet.gz"))
    workers = wait_for_workers(process, 2)
    time.sleep(seconds)
    if sent == signal.SIGSTOP:  # one that hangs when another is killed is ended by the launcher
        workers[0].suspend()
        workers[1].kill()
        errors = end(process)
        assert process.returncode == 1
        assert "a worker process died" in errors
    else:
        process.kill()
        end(process)
    deadline = time.monotonic() + ENDS_S
    while not all(ended(worker) for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("fresh") / "out"
    assert run_c4("build", "--input", INPUTS, "--output", out).status == 0
    return digests(out)


def kill_one(out: pathlib.Path, draw: random.Random, longest_s: float) -> str:
    """Build, kill one of the processes at some moment; say what happened."""
    process = start(out)
    # Every second one near the moment when workers start: that is most of a small build.
    first_second = draw.random() < 0.5
    if first_second:
        wait_for_workers(process, draw.choice([1, 2]))
    time.sleep(draw.uniform(0, 1.0 if first_second else longest_s))
    victims: Sequence[psutil.Process] = processes_of(process.pid)
    if draw.random() < 0.75 and len(victims) > 1:
        victims = victims[1:]  # rather a worker than the launcher
    if not victims:
        end(process)
        return "finished before"
    victim = draw.choice(victims)
    with contextlib.suppress(psutil.NoSuchProcess):
        victim.kill()
    began = time.monotonic()
    errors = end(process)
    what = "launcher" if victim.pid == process.pid else "worker"
    if what == "launcher":
        assert process.returncode == -signal.SIGKILL
    elif process.returncode != 0:
        assert process.returncode == 1
        assert len(errors.splitlines()) == 1, errors
        assert errors.startswith("c4: error: a worker process died"), errors
    took = time.monotonic() - began
    return f"{what} killed: status {process.returncode} after {took:.1f} s"


def test_single_processes_killed_at_random_moments(
    tmp_path: pathlib.Path, fresh: dict[str, str]
) -> None:
    """C4_KILLS=50 is the long form; C4_SEED repeats a run."""
    seed = int(os.environ.get("C4_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
    print(f"C4_SEED={seed}")
    draw = random.Random(seed)
    began = time.monotonic()
    process = start(tmp_path / "timed")
    assert end(process, 300) == ""
    longest_s = time.monotonic() - began
    for number in range(MOMENTS):
        out = tmp_path / str(number)
        print(number, kill_one(out, draw, longest_s), flush=True)
        outcome = run_c4("build", "--input", INPUTS, "--output", out, "--quiet")
        assert outcome.status == 0, outcome.err
        assert digests(out) == fresh
        assert not [path for path in out.rglob(".*") if path.is_file()], "temporaries are swept"


def test_a_worker_finds_the_code_of_its_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(pathlib.Path(local.__file__).resolve().parents[2])
    monkeypatch.setenv("PYTHONPATH", "/somewhere else")
    assert local._python_path() == {"PYTHONPATH": f"{root}:/somewhere else"}
    paths = {"purelib": root, "platlib": root}
    monkeypatch.setattr(local.sysconfig, "get_path", paths.__getitem__)
    assert local._python_path() == {}  # installed: the interpreter finds it by itself


@pytest.mark.parametrize("forks", [True, False])
def test_a_starter_reports_what_becomes_of_its_workers(
    forks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without fork, as on macOS, each worker is an interpreter of its own."""
    module = local.local_worker.MODULE
    code = f"import {module} as it; it._FORKS = {forks}; it._main()"
    real = subprocess.Popen

    def popen(command: list[str], **options: Any) -> "subprocess.Popen[bytes]":
        at = command.index("-m")
        return real([*command[:at], "-c", code, *command[at + 2 :]], **options)

    monkeypatch.setattr(local.subprocess, "Popen", popen)
    with local.Workers() as workers:
        workers.start({"CONTROL_API_SERVICE_DESCRIPTOR": "no address"})
        with pytest.raises(local.WorkerDiedError, match=r"with status 1: .*ParseError"):
            workers.run(threading.Event().wait)
        starter = workers._starter
    assert starter is not None
    assert starter.poll() is not None


def test_a_starter_has_one_thread_and_imports_no_clients() -> None:
    code = (
        "import os, sys; from pipelines.engines import lean_imports, local_worker; "
        "lean_imports.leave_out_unused(); local_worker.import_all(); "
        "print(len(os.listdir('/proc/self/task')), "
        "*{'apache_beam', 'apitools', 'boto3', 'bson', 'google.cloud.storage', 'hdfs', 'pandas'} "
        "& set(sys.modules))"
    )
    environment = {**os.environ, **local.lean_imports.ENVIRONMENT}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("1 apache_beam\n", "")


# A command's process, with all that a starter must not keep.
LAUNCHER = """
import os, pathlib, signal, socket, sys, tempfile, time
from pipelines.engines import lean_imports, local
from pipelines.interruption import Interruption
lean_imports.leave_out_threads()
lean_imports.leave_out_unused()
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs begin without
opened = tempfile.TemporaryFile(), *socket.socketpair()
for each in opened:
    os.set_inheritable(each.fileno(), True)
sys.stdout.write("once ")
def masks(process):
    status = dict(line.split(":", 1) for line in (process / "status").open())
    return [int(status[name], 16) for name in ("SigBlk", "SigIgn", "SigCgt")]
def look():
    while not workers._deaths:  # then it serves
        time.sleep(0.01)
    [starter] = {int(child) for task in pathlib.Path("/proc/self/task").iterdir()
                 for child in (task / "children").read_text().split()}
    process = pathlib.Path("/proc") / str(starter)
    print(workers._deaths[0])
    for each in sorted((process / "fd").iterdir(), key=lambda each: int(each.name)):
        words = each.samefile(f"/proc/self/fd/{workers._printed.fileno()}")
        print("words" if words else os.readlink(each).split(":")[0], end=" ")
    print()
    blocked, ignored, caught = masks(process)
    ignored &= ~masks(pathlib.Path("/proc/self"))[1]
    for mask in blocked, ignored, caught:
        print("signals", *[each.name for each in signal.Signals if mask >> each - 1 & 1])
    print(*process.joinpath("cmdline").read_text().split("\\0")[1:2])
    return True
with Interruption("", own_process=True) as interruption:
    with local.Workers(interruption.unwatched) as workers:
        workers.prepare()
        workers.start({"CONTROL_API_SERVICE_DESCRIPTOR": "no address"})
        workers.run(look)
"""


def test_a_forked_starter_keeps_nothing_of_its_launcher() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LAUNCHER], capture_output=True, text=True, check=True,
        cwd=pathlib.Path(local.__file__).parents[2], stdin=subprocess.PIPE,
    )  # fmt: skip
    died, files, *signals, command = done.stdout.splitlines()
    assert died.startswith("once a worker process ended with status 1: "), done.stdout
    assert "ParseError" in died
    # Its standard streams, of which the launcher reads one; the connection; a pipe for signals.
    stdin, stdout, stderr, *others = files.split()
    assert (stdin, stdout, stderr) == ("/dev/null", "pipe", "words")
    assert sorted(others) == ["pipe", "pipe", "socket"]
    # Blocked; ignored by it alone (a launcher under nohup ignores SIGHUP, and so does it); caught.
    assert signals == ["signals", "signals SIGINT", "signals SIGCHLD"]
    assert command == "-c"  # it is no interpreter of its own


def test_what_a_fork_must_not_share_forbids_it() -> None:
    code = """
import sys, threading
from pipelines.engines.local_worker import can_fork
alone, over = can_fork(), threading.Event()
thread = threading.Thread(target=over.wait)
thread.start()
with_thread = can_fork()
over.set()
thread.join()
sys.modules["requests"] = sys
print(alone, with_thread, can_fork())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True False False\n"


@pytest.mark.parametrize("rules", [(), ("rules_of_mine:none",)])
def test_with_own_rules_a_launcher_does_not_fork(
    rules: tuple[str, ...], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rules_of_mine.py").write_text('"""Mine."""\ndef none(page): return None\n')
    monkeypatch.syspath_prepend(tmp_path)
    config = BuildConfig(
        inputs=INPUTS,
        output=str(tmp_path / "out"),
        recipe=dataclasses.replace(RECIPES["en"], rules=rules),
        allow_rules=("rules_of_mine",) if rules else (),
    )

    class SeenError(Exception):
        pass

    def workers(one_thread: Any) -> None:
        raise SeenError(one_thread)

    monkeypatch.setattr(builds, "Workers", workers)
    one_thread = contextlib.nullcontext
    with pytest.raises(SeenError) as seen:
        builds.run(config, RunConfig(), one_thread=one_thread)
    assert seen.value.args == (None if rules else one_thread,)


def test_a_forked_process_that_the_system_has_reaped_has_ended() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    forked = local._Forked(process.pid)
    forked.kill()
    assert forked.wait() == 0
    forked.kill()
