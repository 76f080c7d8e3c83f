"""What becomes of a process at one signal and at two, in programs that only seem to have JAX."""

import pathlib
import signal
import subprocess
import sys
import time

import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_HEAD = """
import gc, hashlib, signal, subprocess, sys, types
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs begin without
{jax}
from pipelines.interruption import Interruption
def work_without_a_bytecode():
    hashlib.pbkdf2_hmac("sha1", b"", b"", 10**9)  # minutes
with Interruption("c4: interrupted", own_process=True, patience_s={patience_s}) as interruption:
    try:
"""
_TAIL = """
    except KeyboardInterrupt:
        sys.exit(interruption.tell())
"""
_JAX = 'sys.modules["jax"] = types.ModuleType("jax")'


def _start(body: str, jax: str = _JAX, patience_s: float | None = None) -> "subprocess.Popen[str]":
    lines = ["print('ready', flush=True)", *body.strip().splitlines()]
    script = (
        _HEAD.format(jax=jax, patience_s=patience_s)
        + "\n".join("        " + line for line in lines)
        + _TAIL
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=_ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def _end(process: "subprocess.Popen[str]") -> tuple[int, str]:
    _, said = process.communicate(timeout=20)
    return process.returncode, said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("jax", ["", _JAX])  # whose threads would crash Python's finalisation
def test_one_signal_is_one_line_and_status_130(number: int, jax: str) -> None:
    process = _start("import time; time.sleep(60)", jax)
    process.send_signal(number)
    assert _end(process) == (130, "\nc4: interrupted\n")


@pytest.mark.slow
def test_a_second_one_ends_what_no_handler_reaches() -> None:
    process = _start("work_without_a_bytecode()")
    time.sleep(1)  # until it is at it: between two bytecodes the first would end it
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    assert process.poll() is None  # the first one only asks
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert _end(process) == (130, "\nc4: interrupted\n")
    assert time.monotonic() - began < 5


@pytest.mark.slow
def test_one_is_enough_where_patience_ends() -> None:
    process = _start("work_without_a_bytecode()", "", patience_s=1.0)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert _end(process) == (130, "\nc4: interrupted\n")
    assert 0.5 < time.monotonic() - began < 6


@pytest.mark.slow
def test_a_second_one_ends_the_children_too() -> None:
    # By way of a shell, as Beam starts workers.
    body = """
child = subprocess.Popen(f"{sys.executable} -c 'import time; time.sleep(60)'; true", shell=True)
print("child", flush=True)
work_without_a_bytecode()
"""
    process = _start(body)
    assert process.stdout is not None
    assert process.stdout.readline() == "child\n"
    time.sleep(1)
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
    assert _end(process)[0] == 130  # which waits until nobody holds the pipe any more


def test_signals_are_seen_after_a_time_without_the_thread() -> None:
    body = """
import os, threading
with interruption.unwatched():
    print(threading.active_count(), len(os.listdir("/proc/self/task")), file=sys.stderr)
    try:
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    except KeyboardInterrupt:
        pass
with interruption.unwatched():
    pass
work_without_a_bytecode()
"""
    process = _start(body, patience_s=0.1)
    assert _end(process) == (130, "1 1\n\nc4: interrupted\n")


@pytest.mark.slow
def test_the_end_does_not_wait_for_a_reader_of_standard_error() -> None:
    body = """
import os
os.set_blocking(2, False)
try:
    while True:
        os.write(2, bytes(1 << 16))
except BlockingIOError:
    os.set_blocking(2, True)
print("full", flush=True)
sys.stderr.write("which waits\\n")
"""
    process = _start(body)
    assert process.stdout is not None
    assert process.stdout.readline() == "full\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 130
    _end(process)


def test_what_python_drops_is_remembered() -> None:
    body = """
import threading
class Raised:
    def __del__(self): signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
sys.unraisablehook = lambda unraisable: None
Raised()
print("went on", interruption.asked(), file=sys.stderr)
"""
    assert _end(_start(body)) == (0, "went on True\n")


def test_a_signal_after_the_end_changes_nothing() -> None:
    body = """
import atexit, os
atexit.register(lambda: [os.kill(os.getpid(), signal.SIGTERM) for _ in range(2)])
"""
    assert _end(_start(body)) == (0, "")
