"""What a build prints while its runner works, and after it was interrupted."""

import logging

import pytest

from pipelines.engines.run import _quiet_loggers

DATA_PLANE = logging.getLogger("apache_beam.runners.worker.data_plane")


@pytest.fixture
def levels():
    loggers = [logging.getLogger(), logging.getLogger("apache_beam")]
    before = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


def test_levels_return_after_a_build(levels):
    before = DATA_PLANE.getEffectiveLevel()
    with _quiet_loggers():
        assert DATA_PLANE.getEffectiveLevel() == logging.CRITICAL
    assert DATA_PLANE.getEffectiveLevel() == before


def test_threads_of_an_interrupted_runner_stay_quiet(levels):
    root = logging.getLogger().level
    with pytest.raises(KeyboardInterrupt), _quiet_loggers():
        raise KeyboardInterrupt
    assert DATA_PLANE.getEffectiveLevel() == logging.CRITICAL
    assert logging.getLogger().level == root
