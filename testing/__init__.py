"""What tests, benchmarks and fuzzing share: fakes, generators, helpers. It is not installed."""
