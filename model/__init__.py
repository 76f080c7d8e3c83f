"""T5 in JAX: trains on the shards that ``pipelines`` writes. Never imports Beam."""
