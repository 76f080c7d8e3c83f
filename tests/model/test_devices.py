"""What is passed over, and when."""

import importlib.util
import types

import jax
import pytest

from model import devices


@pytest.fixture
def machine(monkeypatch):
    """A machine of which the test says what is installed; gives the platforms that JAX is told."""
    told = []
    config = types.SimpleNamespace(jax_platforms=None, update=lambda _, value: told.append(value))
    monkeypatch.setattr(jax, "config", config)
    monkeypatch.delenv("JAX_PLATFORMS")

    def with_packages(*packages, tpu=False):
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: name if name in packages else None
        )
        monkeypatch.setattr(devices, "has_tpu", lambda: tpu)
        return told

    return with_packages


def test_libtpu_without_a_tpu_is_not_asked(machine):
    told = machine("libtpu")
    devices.pass_over_absent_tpus()
    assert told == ["cpu"]


def test_what_there_may_be_is_not_passed_over(machine, monkeypatch):
    for told in (machine(), machine("libtpu", tpu=True), machine("libtpu", "jax_cuda12_plugin")):
        devices.pass_over_absent_tpus()
        assert told == []
    machine("libtpu")
    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    devices.pass_over_absent_tpus()
    assert told == []


def test_this_machine():
    assert devices.has_tpu() in (True, False)
    if importlib.util.find_spec("libtpu") is None:
        assert not devices.has_tpu()
