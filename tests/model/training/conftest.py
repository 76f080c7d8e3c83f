"""What runs of a training command need."""

from tests.model.training.material import material, quick_xla, start_run, uninterrupted

__all__ = ["material", "quick_xla", "start_run", "uninterrupted"]
