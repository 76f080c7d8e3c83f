"""The paper's experiments as data, and comparisons of corpora: what runs, and what it shows."""
