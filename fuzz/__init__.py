"""Fuzzing of what reads strangers' bytes: see docs/security.md, and ``python -m fuzz --help``."""
