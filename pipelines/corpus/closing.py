"""What is closed at the end of a ``with`` block."""

import abc
from typing import Self


class Closing(abc.ABC):
    """A base: a context manager that calls `close`."""

    @abc.abstractmethod
    def close(self) -> None:
        """Free what is held. Safe to call more than once."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
