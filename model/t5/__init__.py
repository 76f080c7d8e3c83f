"""The network: every architecture and size of the paper from one attention and one block."""
