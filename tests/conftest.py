"""What holds for every test."""

import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.fake_google_cloud import FakeGoogleCloud, fake_google_cloud

# A shared machine may be busy: slowness is no failure here, the run's own time limit guards that.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

# Before any test module is collected: whoever imports JAX first decides. Eight devices of the CPU,
# also for the commands that tests start.
os.environ["JAX_PLATFORMS"] = "cpu"
_DEVICES = "--xla_force_host_platform_device_count=8"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_DEVICES}".strip()


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
