import gc

import pytest

from pipelines.collector import importing, without_collector


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


def test_what_imports_leave_is_old_and_nothing_is_frozen() -> None:
    with importing():
        assert not gc.isenabled()
        kept = [[]]  # type: ignore[var-annotated]
    assert gc.isenabled()
    assert any(each is kept for each in gc.get_objects(generation=2))
    assert gc.get_freeze_count() == 0


def test_what_others_froze_stays_frozen() -> None:
    gc.freeze()
    try:
        with importing():
            pass
        assert gc.get_freeze_count()
    finally:
        gc.unfreeze()
