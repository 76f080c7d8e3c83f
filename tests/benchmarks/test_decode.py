"""The benchmark of decoding runs, on a model of toy size and with a peer of few lines."""

import json
import sys

import pytest

pytest.importorskip("jax", reason="the train extra is not installed")

from benchmarks import decode

pytestmark = pytest.mark.slow

_TOY = ["--size=tiny", "--batch=1", "--inputs=6", "--new=3", "--repeat=1"]


@pytest.fixture
def fake_peer(tmp_path):
    """Make an interpreter that answers as a peer does and takes as long as the test wants."""

    def make(seconds, loss=0.0):
        peer = tmp_path / "peer"
        answer = {"seconds": seconds, "loss": loss}
        about = "STEP " + json.dumps({"about": "PyTorch 2.0", **answer})
        again = "STEP " + json.dumps(answer)
        peer.write_text(
            f"#!{sys.executable}\nimport sys\nprint({about!r}, flush=True)\n"
            f"for _ in sys.stdin: print({again!r}, flush=True)\n"
        )
        peer.chmod(0o755)
        return str(peer)

    return make


@pytest.mark.parametrize(("seconds", "beams", "status"), [(1e-9, "0", 1), (1e9, "2", 0)])
def test_the_bar_is_the_peer(capsys, fake_peer, seconds, beams, status):
    options = [*_TOY, "--beams", beams, "--peer-python", fake_peer(seconds)]
    assert decode.main(options) == status
    told = capsys.readouterr().out.splitlines()
    way = "greedy" if beams == "0" else "beam 2"
    assert told[0] == "tiny: 1 rows, 6 input and 3 new tokens"
    assert [line.partition(" tokens/s")[0].rpartition(":")[0] for line in told[1:4]] == [
        f"{way}: ours", f"{way}: theirs, sdpa", f"{way}: theirs, eager",
    ]  # fmt: skip
    assert told[4].startswith(f"{way}: ours / theirs: ")


def test_a_peer_that_stops_early_does_not_count(fake_peer):
    with pytest.raises(SystemExit, match="theirs, sdpa did not make 3 tokens in every row"):
        decode.main([*_TOY, "--beams", "0", "--peer-python", fake_peer(1.0, loss=1.0)])
