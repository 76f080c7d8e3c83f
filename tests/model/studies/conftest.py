"""What tests that compile searches need."""

import pytest

from testing.material import material, quick_xla

__all__ = ["material", "quick_xla"]


@pytest.fixture(autouse=True)
def _quick(request):
    if "slow" in request.keywords:
        request.getfixturevalue("quick_xla")
