"""T5 in JAX: trains on the shards that ``pipelines`` writes. Never imports Beam.

>>> import model
>>> model.load_hf  # doctest: +ELLIPSIS
<function load_hf at ...>
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.exchange.loaded_model import LoadedModel, load_hf

__all__ = ["LoadedModel", "load_hf"]


def __getattr__(name: str) -> Any:
    # JAX takes a second to import, and the processes that read data need none of it.
    if name in __all__:
        from model.exchange import loaded_model

        return getattr(loaded_model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
