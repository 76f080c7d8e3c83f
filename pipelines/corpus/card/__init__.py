"""The dataset card: README.md for people and Hugging Face, croissant.json for search engines.

Both are made from the manifest alone, so that the same corpus has the same card on every machine;
no clock is read. What only the owner of a corpus knows comes from a file (``--card``).
"""
