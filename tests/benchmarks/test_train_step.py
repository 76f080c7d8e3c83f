"""The benchmark of training steps runs, on a model of toy size and with a peer of few lines."""

import json
import sys

import pytest

pytest.importorskip("jax", reason="the train extra is not installed")

from benchmarks import train_step

pytestmark = pytest.mark.slow

_TOY = ["--size=tiny", "--batch=1", "--inputs=12", "--targets=6", "--repeat=2", "--dropout=0"]


def test_a_step_is_timed_and_set_against_the_peak(capsys):
    assert train_step.main([*_TOY, "--peak-tflops", "1e-3"]) == 0
    told = capsys.readouterr().out
    assert "tiny float32, dropout 0.0, batch 1 x 12/6" in told
    assert "tokens/s" in told
    assert "% model FLOP utilisation" in told
    assert "theirs" not in told


ABOUT = {
    "torch": "2.0", "transformers": "5.0", "device": "cpu", "attention": "sdpa",
    "params": "float32", "dropout": 0.0, "loss": 1.0, "peak_gb": 0,
}  # fmt: skip


@pytest.fixture
def fake_peer(tmp_path):
    """Make an interpreter that answers as a peer does and takes as long as the test wants."""

    def make(seconds, about=ABOUT):
        peer = tmp_path / "peer"
        about = "STEP " + json.dumps({**about, "seconds": seconds})
        answer = f'STEP {{"seconds": {seconds}, "loss": 1.0, "peak_gb": 0}}'
        peer.write_text(
            f"#!{sys.executable}\nimport sys\nprint('a warning')\nprint({about!r}, flush=True)\n"
            f"for _ in sys.stdin: print({answer!r}, flush=True)\n"
        )
        peer.chmod(0o755)
        return str(peer)

    return make


@pytest.mark.parametrize(("seconds", "status"), [(1e-9, 1), (1e9, 0)])
def test_the_bar_is_the_peer(capsys, fake_peer, seconds, status):
    assert train_step.main([*_TOY, "--peer-python", fake_peer(seconds)]) == status
    told = capsys.readouterr().out
    assert "ours / theirs: " in told
    assert (
        "theirs: PyTorch 2.0, Transformers 5.0 on cpu, attention sdpa, parameters float32, "
        "dropout 0.0, not compiled\n" in told
    )


def test_a_peer_that_does_not_start_is_an_error():
    with pytest.raises(ValueError, match="/false ended before its first step"):
        train_step.main([*_TOY, "--peer-python", "/bin/false"])


def test_a_peer_without_pytorch_is_an_error(fake_peer):
    python = fake_peer(1, about={"missing": "torch"})
    with pytest.raises(SystemExit, match=f"{python} has no torch: .* install torch"):
        train_step.main([*_TOY, "--peer-python", python])


def test_on_a_gpu_the_peer_starts_after_ours_has_ended(fake_peer):
    events = []

    class Ours:
        about = {"platform": "gpu"}  # noqa: RUF012

        def step(self):
            events.append("step")
            return {"seconds": 2.0}

        def close(self):
            events.append("closed")

    options = train_step.parse([*_TOY, "--dtype", "bfloat16", "--peer-python", fake_peer(4)])
    taken, theirs = train_step.race(options, Ours(), ("bfloat16", "autocast"))
    assert events == ["step", "step", "closed"]
    assert (taken, list(theirs.values())) == (2.0, [4.0])
