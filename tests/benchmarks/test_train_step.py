"""The benchmark of training steps runs, on a model of toy size and with a peer of few lines."""

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


@pytest.mark.parametrize(("seconds", "status"), [(1e-9, 1), (1e9, 0)])
def test_the_bar_is_the_peer(capsys, tmp_path, seconds, status):
    # An interpreter that answers as a peer does, and takes as long as we like.
    peer = tmp_path / "peer"
    peer.write_text(
        f"#!{sys.executable}\nimport sys\nprint('ready', flush=True)\n"
        f"for _ in sys.stdin: print({seconds}, flush=True)\n"
    )
    peer.chmod(0o755)
    assert train_step.main([*_TOY, "--peer-python", str(peer)]) == status
    assert "ours / theirs: " in capsys.readouterr().out


def test_a_peer_that_does_not_start_is_an_error():
    with pytest.raises(ValueError, match="/bin/false ended before its first step"):
        train_step.main([*_TOY, "--peer-python", "/bin/false"])
