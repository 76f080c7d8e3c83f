"""Checkpoints in the layout in which the released T5 models are published."""
