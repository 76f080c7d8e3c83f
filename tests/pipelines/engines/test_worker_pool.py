"""The worker pool's command line; tests/flink has it at work."""

import socket

from testing.helpers import run_c4


def test_a_wrong_or_taken_port_is_one_line() -> None:
    outcome = run_c4("worker-pool", "--port", "0")
    assert (outcome.status, outcome.err) == (
        1, "c4: error: port must be between 1 and 65535, got 0 (--port)\n"
    )  # fmt: skip
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        outcome = run_c4("worker-pool", "--port", str(taken.getsockname()[1]))
    assert outcome.status == 1
    [error] = [line for line in outcome.err.splitlines() if line.startswith("c4: error")]
    assert "the port is taken" in error
