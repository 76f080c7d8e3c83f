"""From batches to checkpoints: loss, optimizer, sharding, the training loop."""
