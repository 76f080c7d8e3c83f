"""TPU pods without a TPU: the training step compiled for a topology, and what it would take."""
