"""Worker processes: answers, errors, ends."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from model.data.workers import RESTARTS, WorkerEndedError, WorkerError, Workers

ROOT = pathlib.Path(__file__).resolve().parents[3]


class Answers:
    """What the workers of these tests do."""

    def __init__(self, base):
        self.base = base

    def __call__(self, what, value=0):
        if what == "add":
            return self.base + value
        if what == "pid":
            return os.getpid()
        if what == "modules":
            return sorted({"jax", "numpy", "pipelines"} & set(sys.modules))
        if what == "large":
            return bytes(value)
        if what == "refuse":
            raise ValueError("page 7 is\nbad: mend it")
        if what == "missing":
            raise FileNotFoundError(2, "No such file or directory", "a.parquet")
        if what == "exhaust":
            raise MemoryError
        if what == "sleep":
            time.sleep(value)
            return value
        raise KeyError("our mistake")


class Unmakeable:
    def __init__(self):
        raise ValueError("the corpus is gone")


@pytest.fixture
def workers():
    pool = Workers(2, Answers, 100)
    yield pool
    pool.close()


def ended(pid):
    """Whether a process is no more, or only waits to be buried."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_results_come_by_ticket_in_any_order(workers):
    tickets = [workers.submit(i % 2, "add", i) for i in range(8)]
    assert [workers.fetch(tickets[i]) for i in (7, 0, 3, 2, 1, 6, 5, 4)] == [
        107, 100, 103, 102, 101, 106, 105, 104,
    ]  # fmt: skip


def test_each_worker_is_a_process_of_its_own_without_jax(workers):
    pids = {workers.fetch(workers.submit(i % 2, "pid")) for i in range(4)}
    assert len(pids) == 2
    assert os.getpid() not in pids
    assert workers.fetch(workers.submit(0, "modules")) == []


def test_what_is_cancelled_does_not_come(workers):
    first, second, third = (workers.submit(0, "add", i) for i in range(3))
    workers.cancel(second)
    assert workers.fetch(third) == 102
    workers.cancel(first)  # had come already
    assert workers.fetch(workers.submit(0, "add", 9)) == 109
    assert not workers._results  # nothing is kept that nobody fetches


def test_results_larger_than_a_socket_holds(workers):
    tickets = [workers.submit(0, "large", 5_000_000) for _ in range(3)]
    assert [len(workers.fetch(ticket)) for ticket in tickets] == [5_000_000] * 3


def test_a_refusal_is_the_same_value_error_in_one_line(workers):
    with pytest.raises(ValueError, match="page 7 is") as caught:
        workers.fetch(workers.submit(1, "refuse"))
    assert str(caught.value) == "page 7 is bad: mend it"
    assert "in input worker 1" in caught.value.__notes__[0]
    with pytest.raises(ValueError, match=r"No such file or directory: 'a\.parquet'"):
        workers.fetch(workers.submit(1, "missing"))
    with pytest.raises(ValueError, match=r"^an input worker has no more memory: .*--workers\)"):
        workers.fetch(workers.submit(1, "exhaust"))
    assert workers.fetch(workers.submit(1, "add", 1)) == 101  # it goes on


def test_a_mistake_of_ours_says_so_and_where(workers):
    with pytest.raises(WorkerError, match="our mistake") as caught:
        workers.fetch(workers.submit(0, "other"))
    assert str(caught.value) == "KeyError: 'our mistake'"
    assert "test_workers.py" in caught.value.__notes__[0]


def test_a_worker_that_cannot_begin_says_why():
    pool = Workers(1, Unmakeable)
    with pytest.raises(ValueError, match="the corpus is gone"):
        pool.fetch(pool.submit(0))
    pool.close()


def test_a_killed_worker_is_started_again_and_owes_nothing(workers, capfd):
    pid = workers.fetch(workers.submit(1, "pid"))
    tickets = [workers.submit(1, "sleep", 0.2), *(workers.submit(1, "add", i) for i in range(3))]
    workers.cancel(tickets.pop(2))
    os.kill(pid, signal.SIGKILL)
    assert [workers.fetch(ticket) for ticket in tickets] == [0.2, 100, 102]
    assert workers.fetch(workers.submit(1, "pid")) != pid
    assert wait_until(lambda: ended(pid))
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "input worker 1 of 2 has ended: killed by SIGKILL, perhaps for want of memory" in said


@pytest.mark.slow
def test_workers_that_end_again_and_again_are_given_up(workers, capfd):
    pid = workers.fetch(workers.submit(0, "pid"))
    for _ in range(RESTARTS + 1):
        os.kill(workers.fetch(workers.submit(1, "pid")), signal.SIGKILL)
    with pytest.raises(WorkerEndedError, match=r"killed by SIGKILL, .*; 5 were started again"):
        workers.fetch(workers.submit(1, "pid"))
    assert wait_until(lambda: ended(pid))
    assert capfd.readouterr().err.count("started again") == RESTARTS
    with pytest.raises(ValueError, match="closed"):
        workers.submit(0, "add", 1)


def test_interrupts_and_sigterm_are_left_to_the_parent(workers):
    pid = workers.fetch(workers.submit(0, "pid"))
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    assert workers.fetch(workers.submit(0, "pid")) == pid


def test_closing_ends_the_processes_also_busy_ones():
    pool = Workers(2, Answers, 0)
    pids = [pool.fetch(pool.submit(i, "pid")) for i in range(2)]
    for _ in range(4):
        pool.submit(0, "large", 3_000_000)  # more than fits between us
    began = time.monotonic()
    pool.close()
    pool.close()
    assert time.monotonic() - began < 4
    assert all(map(ended, pids))


def test_forgetting_the_pool_ends_the_processes():
    pool = Workers(1, Answers, 0)
    pid = pool.fetch(pool.submit(0, "pid"))
    del pool
    assert wait_until(lambda: ended(pid))


def test_at_least_one():
    with pytest.raises(ValueError, match="at least one worker, got 0"):
        Workers(0, Answers, 0)


SCRIPT = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs begin without
from model.data.workers import Workers
from tests.model.data.test_workers import Answers
pool = Workers(2, Answers, 0)
print(*[pool.fetch(pool.submit(i, "pid")) for i in range(2)], flush=True)
for _ in range(5):
    pool.submit(0, "large", 3_000_000)
if sys.argv[1] == "wait":
    time.sleep(60)
if sys.argv[1] == "fail":
    raise SystemExit("enough")
"""


def start(how):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, how],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.parametrize(("how", "status", "said"), [("end", 0, ""), ("fail", 1, "enough\n")])
def test_a_program_ends_at_once_and_quietly_with_work_under_way(how, status, said):
    process = start(how)
    output, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (status, said)
    assert all(map(ended, map(int, output.split())))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_worker_outlives_its_parent(number):
    with start("wait") as process:
        pids = list(map(int, process.stdout.readline().split()))
        assert len(pids) == 2
        process.send_signal(number)
        process.wait(20)
        assert wait_until(lambda: all(map(ended, pids)))
        said = process.stderr.read()
    # One traceback at most, the parent's own.
    assert said.count("Traceback") == (number == signal.SIGINT)
