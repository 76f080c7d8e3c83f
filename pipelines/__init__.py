"""The corpus build: WET files in, shards out, as an Apache Beam pipeline."""
