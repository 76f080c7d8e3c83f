"""From a corpus to batches: vocabulary, objectives, packing, the input pipeline."""
