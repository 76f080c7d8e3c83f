"""The lock of a folder: who gets it, who is refused, who is taken for dead."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pipelines import builders, storage

ELSEWHERE = {"host": "elsewhere", "boot": "another", "pid_namespace": "1"}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builders, "_PATIENCE_S", 0.4)
    monkeypatch.setattr(builders, "_PATIENCE_DETACHED_S", 0.8)
    monkeypatch.setattr(builders, "_LOOK_S", 0.05)


@pytest.fixture
def out(tmp_path: pathlib.Path) -> str:
    return str(tmp_path / "out")


def claim_of(out: str, number: int = 1, **changes: Any) -> pathlib.Path:
    """Changes what a claim says of its builder."""
    path = pathlib.Path(out) / "builders" / f"{number:05}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return path


def abandoned(out: str, kind: str = builders.WAITING, **changes: Any) -> builders.Claim:
    """A claim whose builder has gone without a word."""
    with builders.hold(out, kind=kind) as claim:
        pass
    for suffix in ("ended", "beat"):
        (pathlib.Path(out) / "builders" / f"{claim.number:05}.{suffix}").unlink(missing_ok=True)
    claim_of(out, claim.number, **changes)
    return claim


def test_a_second_build_is_refused_in_a_line_that_names_the_first(out: str) -> None:
    with builders.hold(out):
        with pytest.raises(OSError, match="another build is running in") as raised:
            take(out)
        with pytest.raises(OSError, match="another build is running in"):
            builders.require_not_running(out)
        words = str(raised.value)
        assert "\n" not in words
        owner = json.loads((pathlib.Path(out) / "builders" / "00001.json").read_text())
        for value in (owner["host"], str(owner["pid"]), owner["started"]):
            assert value in words
        assert "00002.json" not in names(out)
    builders.require_not_running(out)
    take(out)


def take(out: str, kind: str = builders.WAITING) -> builders.Claim:
    with builders.hold(out, kind=kind, note=lambda _: None) as claim:
        return claim


def names(out: str) -> list[str]:
    return sorted(path.name for path in (pathlib.Path(out) / "builders").iterdir())


def test_a_number_is_not_used_twice_and_old_claims_go(out: str) -> None:
    assert [take(out).number for _ in range(20)] == list(range(1, 21))
    numbers = [name for name in names(out) if name.endswith(".json")]
    assert numbers == [f"{number:05}.json" for number in range(5, 21)]


def test_an_old_listing_makes_no_second_owner(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    take(out)
    before = builders._numbers(out)
    with builders.hold(out):  # claim 2
        listings = [before]  # what the next one reads first is older than claim 2

        def numbers(output: str, real: Callable[[str], list[int]] = builders._numbers) -> list[int]:
            return listings.pop() if listings else real(output)

        monkeypatch.setattr(builders, "_numbers", numbers)
        with pytest.raises(OSError, match="another build is running"):
            take(out)
        (pathlib.Path(out) / "builders" / "00003.json").write_text("{}")
        (pathlib.Path(out) / "builders" / "00003.ended").write_text("")
        (pathlib.Path(out) / "builders" / "00002.json").unlink()
        listings = [before]  # its number is free, but not the highest
        assert take(out).number == 4


def test_an_answer_that_was_lost_is_asked_for_again(
    out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = builders.storage.create_if_absent

    def lost(path: str, content: bytes) -> bool:
        create(path, content)
        return False

    monkeypatch.setattr(builders.storage, "create_if_absent", lost)
    assert take(out).number == 1


def test_a_claim_is_held_from_the_moment_that_others_can_read_it(out, monkeypatch):
    create, found = storage.create_if_absent, []

    def create_and_look(path, content):
        created = create(path, content)
        if not found:
            found.append(None)
            with pytest.raises(OSError, match="another build is running"), builders.hold(out):
                pass
        return created

    monkeypatch.setattr(storage, "create_if_absent", create_and_look)
    with builders.hold(out) as claim:
        assert (claim.number, found) == (1, [None])


def test_of_many_at_a_time_one_gets_it(out: str) -> None:
    got: list[int] = []
    refused: list[str] = []
    ready, done = threading.Barrier(8), threading.Barrier(8)

    def build() -> None:
        ready.wait()
        with contextlib.ExitStack() as stack:
            try:
                got.append(stack.enter_context(builders.hold(out)).number)
            except OSError as error:
                refused.append(str(error))
            done.wait()

    threads = [threading.Thread(target=build) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 7), refused


@contextlib.contextmanager
def another_process(out: str) -> Iterator[subprocess.Popen[str]]:
    """A process of this machine that holds the folder."""
    code = (
        "import sys, time; from pipelines import builders\n"
        "with builders.hold(sys.argv[1]):\n print('held', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, out], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_process_that_is_stopped_lives_and_one_that_was_killed_does_not(out: str) -> None:
    with another_process(out) as process:
        process.send_signal(19)  # SIGSTOP
        with pytest.raises(OSError, match=f"pid {process.pid}, started"):
            take(out)
        process.kill()
        deadline = time.monotonic() + 10
        while builders._process_start(process.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        # Nobody has asked for its status yet: a zombie is no builder either.
        assert take(out).number == 2


def test_a_number_that_another_process_has_now_is_no_sign_of_life(out: str) -> None:
    with another_process(out) as process:
        abandoned_by = process.pid
    abandoned_claim = json.loads((pathlib.Path(out) / "builders" / "00001.json").read_text())
    assert abandoned_claim["pid"] == abandoned_by
    claim_of(out, 1, pid=1)  # of init, which started at another time
    assert take(out).number == 2


@pytest.mark.parametrize(
    ("kind", "beats", "free"),
    [
        (builders.WAITING, True, False),
        (builders.WAITING, False, True),
        (builders.DETACHED, True, False),
        (builders.DETACHED, False, True),
        (builders.TEMPLATE, True, False),
        (builders.TEMPLATE, False, True),
    ],
)
def test_elsewhere_the_heartbeat_decides(out: str, kind: str, beats: bool, free: bool) -> None:
    claim = abandoned(out, kind, **ELSEWHERE)
    beat = pathlib.Path(out) / "builders" / "00001.beat"
    stop = threading.Event()

    def run() -> None:
        count = 0
        while not stop.wait(0.05):
            beat.write_text(str(count := count + 1))

    said: list[str] = []
    if beats:
        beat.write_text("0")
        threading.Thread(target=run).start()
    try:
        if free:
            with builders.hold(out, note=said.append):
                with pytest.raises(OSError, match="another build has taken the folder") as raised:
                    claim.require(now=True)
                assert "\n" not in str(raised.value)
        else:
            with (
                pytest.raises(OSError, match=r"another build is running in .*host elsewhere"),
                builders.hold(out, note=said.append),
            ):
                pass
            claim.require(now=True)
    finally:
        stop.set()
    if kind == builders.TEMPLATE and free:
        assert said == [], "nobody has started that job: there is nothing to wait for"
    else:
        [line] = said
        assert "host elsewhere" in line
        assert "00001.json to continue at once" in line


def test_whoever_deletes_the_claim_of_a_dead_build_goes_on_at_once(
    out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builders, "_PATIENCE_S", 60)
    claim = abandoned(out, **ELSEWHERE)
    path = pathlib.Path(out) / "builders" / "00001.json"
    with builders.hold(out, note=lambda _: path.unlink()) as second:
        assert second.number in (1, 2)
        with pytest.raises(OSError, match="another build has taken"):
            claim.require(now=True)


def test_a_job_that_goes_on_keeps_its_claim_until_it_ends_it(out: str) -> None:
    with builders.hold(out, kind=builders.DETACHED) as claim:
        pass
    claim.require(now=True)
    assert "00001.ended" not in names(out)
    claim.end()
    claim.end()
    claim.require(now=True)  # its last bundle may be tried again
    take(out)
    with pytest.raises(OSError, match="another build has taken"):
        claim.require(now=True)


def test_a_job_that_cannot_be_submitted_leaves_no_claim(out: str) -> None:
    with pytest.raises(KeyError), builders.hold(out, kind=builders.DETACHED):
        raise KeyError
    assert take(out).number == 2


def test_workers_share_one_heartbeat(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = abandoned(out, builders.DETACHED)
    monkeypatch.setattr(builders, "_BEAT_S", 0)
    builders._beats.clear()
    beat = pathlib.Path(out) / "builders" / "00001.beat"
    claim.show()
    first = beat.read_bytes()
    claim.show()
    second = beat.read_bytes()
    assert first != second
    beat.write_bytes(b"another worker's")
    claim.show()
    assert beat.read_bytes() == b"another worker's", "somebody else has shown it"
    claim.show()
    assert beat.read_bytes() != b"another worker's"
    monkeypatch.setattr(builders, "_BEAT_S", 60)
    claim.show()
    last = beat.read_bytes()
    claim.show()
    assert beat.read_bytes() == last


def test_a_folder_that_cannot_be_asked_often_is_not(
    out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    real = builders._numbers
    monkeypatch.setattr(builders, "_numbers", lambda output: asked.append(1) or real(output))
    with builders.hold(out) as claim:
        claim.require(now=True)
        asked.clear()
        claim.require()
        assert not asked
        claim.require(now=True)
        assert asked == [1]


@pytest.mark.parametrize("pid", [0, -5, 1 << 31, 1 << 80, 1.5, "1", None])
def test_a_process_number_that_cannot_be_is_nobody_known(out: str, pid: object) -> None:
    with builders.hold(out):
        owner = json.loads((pathlib.Path(out) / "builders" / "00001.json").read_bytes())
    assert builders._is_running(owner | {"pid": pid}) is None


def test_a_folder_that_is_gone_was_taken_by_nobody(out: str) -> None:
    with builders.hold(out) as claim:
        os.rename(out, f"{out}-elsewhere")
        with pytest.raises(OSError, match=r"the files of this build in .* are gone"):
            claim.require(now=True)
