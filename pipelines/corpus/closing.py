"""What is closed at the end of a ``with`` block."""

from typing import Self


class Closing:
    """A base: a context manager that calls `close`."""

    def close(self) -> None:
        """Free what is held. Safe to call more than once."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
