"""What runs of a training command need."""

from testing.material import material, quick_xla, start_run, uninterrupted

__all__ = ["material", "quick_xla", "start_run", "uninterrupted"]
