"""The measurement on a GPU, tried on a CPU: its stages, and what is left of one that fails."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("jax", reason="the train extra is not installed")

from benchmarks import gpu
from testing.material import material

__all__ = ["material"]

# What the interpreter runs first: as if Beam and this package were not installed.
_BARE = """
import importlib.metadata, sys

class NoBeam:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "apache_beam":
            raise ModuleNotFoundError("no Beam here", name=name)

sys.meta_path.insert(0, NoBeam())
find = importlib.metadata.Distribution.from_name

def from_name(name):
    if name.replace("_", "-") == "colossal-c4":
        raise importlib.metadata.PackageNotFoundError(name)
    return find(name)

importlib.metadata.Distribution.from_name = from_name
"""


def run(out, *options, path=""):
    places = [str(path)] if path else []
    quick = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "true", "XLA_FLAGS": ""}  # compiles fast
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--out", str(out), *map(str, options)],
        capture_output=True, text=True, cwd=gpu.ROOT, check=False,
        env={**os.environ, **quick, "PYTHONPATH": os.pathsep.join([*places, str(gpu.ROOT)])},
    )  # fmt: skip


@pytest.mark.slow
def test_the_stages_run_from_a_bare_checkout_without_beam(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(_BARE)
    python = tmp_path / "python"  # a peer without PyTorch
    python.write_text("""#!/bin/sh\necho 'STEP {"missing": "torch"}'\n""")
    python.chmod(0o755)
    stages = ["card", "check", "ours-base-fused", "step-base", "peer-base-bf16"]
    ended = run(
        tmp_path / "out", "--tiny", "--only", ",".join(stages), "--peer-python", python,
        "--seconds", 600, path=tmp_path,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    results = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert list(results) == stages
    assert results["card"]["device"] == "cpu"
    assert results["card"]["versions"]["jax"]
    assert results["check"]["bad"] == []
    assert results["check"]["backend"] == "cpu"
    for name in ("ours-base-fused", "step-base"):
        assert results[name]["size"] == "tiny"
        assert results[name]["seconds"] > 0
        assert re.search(rf"^{name} +2 ", ended.stdout, re.M)
    first, last = results["step-base"]["losses"]
    assert last < first
    assert " has no torch: " in results["peer-base-bf16"]["skipped"]
    assert "===== step-base" in (tmp_path / "out" / "stages.log").read_text()
    assert sorted(os.listdir(tmp_path / "out")) == ["gpu.json", "stages.log"]


@pytest.mark.slow
def test_pretrain_runs_from_a_bare_checkout_without_beam(tmp_path, material):
    (tmp_path / "sitecustomize.py").write_text(_BARE)
    ended = run(
        tmp_path / "out", "--tiny", "--only", "pretrain", "--corpus", material.corpus,
        "--vocab", material.vocab, path=tmp_path,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    result = json.loads((tmp_path / "out" / "gpu.json").read_text())["pretrain"]
    assert result["steps"] == 4
    assert 0 <= result["waiting"] <= 1
    assert result["last"]["loss"] > 0


@pytest.mark.slow
def test_without_a_gpu_a_stage_is_an_error_of_one_line(tmp_path):
    ended = run(tmp_path, "--only", "card")
    assert ended.returncode == 1
    error = json.loads((tmp_path / "gpu.json").read_text())["card"]["error"]
    assert error == "RuntimeError: JAX sees no GPU, only cpu (--tiny runs on a CPU)"


def options(tmp_path, *more):
    return gpu.parse(["--out", str(tmp_path), *more])


def stages(monkeypatch, **programs):
    """Let each stage be a Python program."""
    monkeypatch.setattr(gpu, "STAGES", {name: gpu.Stage(30, 5, [name], {}) for name in programs})
    monkeypatch.setattr(
        gpu, "command_of", lambda stage, _: [sys.executable, "-c", programs[stage.arguments[0]]]
    )


def test_a_stage_that_fails_costs_only_itself(tmp_path, monkeypatch, capsys):
    stages(
        monkeypatch,
        raises="""raise MemoryError("all of it")""",
        killed="import os; print('RESULT {\"first_s\": 1}'); os.abort()",
        whole="print('noise'); print('RESULT {\"a\": 1}'); print('RESULT {\"b\": 2}')",
    )
    assert gpu.drive(options(tmp_path)) == 1
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert results["raises"]["error"] == "exit status 1: MemoryError: all of it"
    assert results["killed"]["first_s"] == 1  # what was measured before is kept
    assert results["killed"]["error"] == "killed by SIGABRT: printed nothing"
    assert (results["whole"]["a"], results["whole"]["b"]) == (1, 2)
    assert "error" not in results["whole"]
    log = (tmp_path / "stages.log").read_text()
    assert "noise" in log
    assert "Traceback" in log


def test_results_are_written_after_each_stage(tmp_path, monkeypatch, capsys):
    file = str(tmp_path / "gpu.json")
    told = f"import json; print('RESULT', json.dumps({{'seen': list(json.load(open({file!r})))}}))"
    stages(monkeypatch, first="pass", second=told, third=told)
    assert gpu.drive(options(tmp_path)) == 0
    results = json.loads(pathlib.Path(file).read_text())
    assert results["third"]["seen"] == ["first", "second"]


@pytest.mark.slow
def test_a_stage_that_hangs_is_stopped_with_all_it_started(tmp_path, monkeypatch, capsys):
    pid = tmp_path / "pid"
    hang = (
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"pathlib.Path({str(pid)!r}).write_text(str(child.pid))\n"
        "print('waiting', flush=True)\n"
        "time.sleep(60)"
    )
    stages(monkeypatch, hangs=hang, late="pass")
    monkeypatch.setitem(gpu.STAGES, "hangs", gpu.Stage(3, 1, ["hangs"], {}))
    monkeypatch.setitem(gpu.STAGES, "late", gpu.Stage(30, 1000, ["late"], {}))
    assert gpu.drive(options(tmp_path)) == 1
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert results["hangs"]["error"] == "stopped after its limit of 3 s: waiting"
    assert re.fullmatch(r"\d+ s left, needs 1000 s", results["late"]["skipped"])
    assert has_ended(int(pid.read_text()))


def has_ended(pid):
    """Whether a process ends within seconds; one that nobody has waited for yet counts as ended."""
    for _ in range(100):
        try:
            status = pathlib.Path(f"/proc/{pid}/stat").read_text()
        except FileNotFoundError:
            return True
        if status.rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.1)
    return False


def test_a_stop_of_the_driver_ends_its_stage(tmp_path):
    pid = tmp_path / "pid"
    program = (
        "import sys\nfrom benchmarks import gpu\n"
        "stage = '''import os, pathlib, time\n"
        f"pathlib.Path({str(pid)!r}).write_text(str(os.getpid()))\ntime.sleep(60)'''\n"
        "gpu.command_of = lambda stage_, options: [sys.executable, '-c', stage]\n"
        f"gpu.main(['--out', {str(tmp_path)!r}, '--only', 'card'])\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=gpu.ROOT) as driver:
        while not (pid.exists() and pid.read_text()):
            assert driver.poll() is None
            time.sleep(0.05)
        driver.send_signal(signal.SIGTERM)
        assert driver.wait(30) == 128 + signal.SIGTERM
    assert has_ended(int(pid.read_text()))


def test_golden_models_that_are_not_there_are_no_success(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    assert gpu.main(["--stage", "golden", "--tiny"]) == 0
    assert capsys.readouterr().out == (
        'RESULT {"skipped": "no golden models in ../shared/golden or .gpu/golden"}\n'
    )


def test_an_unknown_stage_is_refused(capsys):
    with pytest.raises(SystemExit):
        gpu.parse(["--out", "x", "--only", "card,speed"])
    assert "no stage 'speed'; known: card, golden, check" in capsys.readouterr().err


def test_golden_models_come_first_and_every_peer_has_our_match():
    names = list(gpu.STAGES)
    assert names[:3] == ["card", "golden", "check"]
    parsed = {name: gpu.parse(["--stage", *stage.arguments]) for name, stage in gpu.STAGES.items()}
    shapes = {
        kind: {
            (option.size, option.batch, option.inputs, option.targets, option.dropout)
            for option in parsed.values()
            if option.stage == kind
        }
        for kind in ("ours", "peer")
    }
    assert shapes["ours"] == shapes["peer"]
    assert {shape[-1] for shape in shapes["ours"]} == {0.0, 0.1}
    peers = [option for option in parsed.values() if option.stage == "peer"]
    assert {option.params for option in peers} == {"bfloat16", "autocast"}
    assert {option.peer_attention for option in peers} == {"sdpa"}
    assert all(option.peer_compile != "no" for option in peers)
