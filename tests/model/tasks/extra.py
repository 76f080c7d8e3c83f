"""What tests of tasks share."""

import importlib.util

import pytest

_LIBRARIES = ("rouge_score", "sacrebleu", "scipy", "sklearn")
missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
needs_extra = pytest.mark.skipif(bool(missing), reason="needs the extra tasks")
