"""Commands in processes of their own."""

import json
import pathlib
import subprocess
import sys
import time

import pytest

from model.studies.commands import run_c4, run_python
from model.studies.folders import write_json
from testing.helpers import run_c4 as run_main


def test_what_a_command_prints_is_returned_and_kept(tmp_path):
    log = tmp_path / "logs" / "one.log"
    printed = run_python("json.tool", ["--compact", str(_json(tmp_path))], log)
    assert printed == log.read_text() == '{"a":1}\n'


def _json(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [found.name for found in path.parent.iterdir()] == ["x.json"]
    return path


def test_a_failed_command_says_its_last_line(tmp_path):
    log = tmp_path / "tasks.log"
    with pytest.raises(
        ValueError, match=r"^no task 'cola', perhaps .* \(its output: .*tasks.log\)$"
    ):
        run_c4(["tasks", "show", "cola"], log)


def test_an_interrupt_is_passed_on_once_and_waited_for(tmp_path):
    """As Ctrl-C is, which a terminal sends to all processes of a group."""
    child = tmp_path / "child.py"
    child.write_text(
        "import pathlib, signal, sys, time\n"
        "def end(*_):\n"
        "    with open('signals', 'a') as file: file.write('x')\n"
        "    time.sleep(0.3)\n"
        "    pathlib.Path('saved').touch()\n"
        "    sys.exit(130)\n"
        "for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, end)\n"
        "pathlib.Path('ready').touch()\n"
        "while True: signal.pause()\n"
    )
    parent = (
        "import pathlib\n"
        "from model.studies.commands import run_python\n"
        "try:\n"
        "    run_python('child', [], pathlib.Path('log'))\n"
        "except KeyboardInterrupt:\n"
        "    print(pathlib.Path('saved').exists())\n"
    )
    root = str(pathlib.Path(__file__).resolve().parents[3])
    process = subprocess.Popen(
        [sys.executable, "-c", parent], cwd=tmp_path, text=True, stdout=subprocess.PIPE,
        env={"PYTHONPATH": f"{root}:{tmp_path}", "PATH": ""}, process_group=0,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
    subprocess.run(["kill", "-INT", "--", f"-{process.pid}"], check=True)
    out, _ = process.communicate(timeout=60)
    assert out == "True\n"
    assert (tmp_path / "signals").read_text() == "x"


@pytest.mark.parametrize("words", [("--corpus", "c4=d"), ("--vocab", "v"), ("--dry-run",)])
def test_options_of_a_run_belong_to_it(words):
    refused = run_main("study", "table", "table4", *words)
    assert refused.status == 1
    assert f"{words[0]} belongs to c4 study run" in refused.err
