"""What runs of a training command need."""

from tests.model.training.material import material, quick_xla

__all__ = ["material", "quick_xla"]
