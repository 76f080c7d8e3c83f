import gc

import pytest

from pipelines.collector import without_collector


def test_collector_is_off_inside_and_as_before_outside() -> None:
    assert gc.isenabled()
    with without_collector():
        assert not gc.isenabled()
        with without_collector():
            assert not gc.isenabled()
        assert not gc.isenabled(), "it was off already: it stays off"
    assert gc.isenabled()


def test_collector_comes_back_after_a_failure() -> None:
    with pytest.raises(ValueError, match="no"), without_collector():
        raise ValueError("no")
    assert gc.isenabled()
