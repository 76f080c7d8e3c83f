"""Corpora of pages of other corpora: mixtures by weight, and first parts by tokens."""
