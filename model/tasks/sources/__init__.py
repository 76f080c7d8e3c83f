"""Readers of task data, from published files, libraries and files of a user's own."""
