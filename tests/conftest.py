"""What holds for every test."""

import os
import pathlib
import re
import signal
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from testing.fake_google_cloud import FakeGoogleCloud, fake_google_cloud

# A shared machine may be busy: slowness is no failure here, the run's own time limit guards that.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

# Before any test module is collected: whoever imports JAX first decides. Eight devices of the CPU,
# also for the commands that tests start.
os.environ["JAX_PLATFORMS"] = "cpu"
_DEVICES = "--xla_force_host_platform_device_count=8"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_DEVICES}".strip()

# A background job of a shell ignores SIGINT, and so would the commands that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ALLOWED_SKIPS = pathlib.Path(__file__).parent / "allowed_skips.txt"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--strict-skips",
        action="store_true",
        help="fail when a test is skipped for a reason that tests/allowed_skips.txt does not list",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("strict_skips"):
        config.pluginmanager.register(StrictSkips(ALLOWED_SKIPS), "strict-skips")


class StrictSkips:
    """Fails the run when something was skipped for a reason that is not on the list.

    The list has one reason a line; ``*`` stands for any text, ``#`` begins a comment.
    """

    def __init__(self, allowed: pathlib.Path) -> None:
        lines = allowed.read_text("utf-8").splitlines()
        self._allowed = [
            re.compile(re.escape(line.strip()).replace(r"\*", ".*"), re.DOTALL)
            for line in lines
            if line.strip() and not line.startswith("#")
        ]
        self._name = allowed.name
        self._refused: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._check(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._check(report)

    def _check(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        # (file, line, "Skipped: the reason")
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        if not any(allowed.fullmatch(reason) for allowed in self._allowed):
            self._refused.append(f"{report.nodeid}: {reason}")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._refused and session.exitstatus in (
            pytest.ExitCode.OK,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        ):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._refused:
            terminalreporter.section(f"skipped, and not allowed by {self._name}", red=True)
            for line in self._refused:
                terminalreporter.line(line)


@pytest.fixture(scope="session", autouse=True)
def _what_failed_is_told_once() -> Iterator[None]:
    """Mutes TensorStore's threads, as the command does (see ``pipelines.c4_main``).

    When a save or restore has failed, as tests want it to, other arrays of it end later: in some
    other test, which would fail by this.
    """
    tell = sys.unraisablehook  # pytest's

    def hook(unraisable: "sys.UnraisableHookArgs") -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            tell(unraisable)

    sys.unraisablehook = hook
    yield
    sys.unraisablehook = tell


@pytest.fixture
def google_cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGoogleCloud]:
    """A Google Cloud project on loopback, which ``gs://`` paths of this process lead to."""
    pytest.importorskip("google.cloud.storage", reason="needs the extra gcp")
    pytest.importorskip("obstore", reason="needs the extra gcp")
    monkeypatch.setenv("NO_GCE_CHECK", "true")  # of Beam's client, which stages Dataflow's files
    with fake_google_cloud(page_size=7) as cloud:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", cloud.address)
        yield cloud
        assert cloud.refused == []
