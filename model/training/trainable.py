"""What of a model a fine-tuning trains: masks of parameters, as functions of the step.

A mask is a tree like the parameters of booleans: one for a parameter, or [layers] where the layers
of a stack are one array. `model.training.optimizer.where_trainable` says what a mask does.
"""

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax.numpy as jnp
from flax.traverse_util import path_aware_map
from jax import Array

from model.t5.network import T5

Trainable = Callable[[Array], Any]  #: global step to mask

#: Which layer norms train with adapter layers: their own alone, as the variable filter of the
#: released code has it (``task_adapter.gin``), or all, as the paper says (section 3.5.1).
AdapterNorms = Literal["own", "all"]


def is_adapter(path: tuple[Any, ...]) -> bool:
    """Return whether a path of keys in the tree of parameters leads into an adapter layer."""
    return "adapter" in path


def adapter_mask(model: T5, norms: AdapterNorms = "own") -> Any:
    """Return the mask of the adapter layers, of plain booleans: the rest needs no gradient.

    Args:
      model: with adapter layers.
      norms: "own" trains the norms of the adapter layers alone, "all" all scales of norms.

    Raises ValueError for a model without adapter layers.
    """
    if model.config.adapter is None:
        raise ValueError("the model has no adapter layers to train: give their width (--adapter)")
    if norms not in get_args(AdapterNorms):
        raise ValueError(f"no norms {norms!r}; known: own, all (--adapter-norms)")

    def trains(path: tuple[Any, ...], _: Any) -> bool:
        return is_adapter(path) or (norms == "all" and path[-1] in ("norm", "final_norm"))

    return path_aware_map(trains, model.param_shapes())


def gradual_unfreezing(model: T5, steps: int, first: int = 0) -> Trainable:
    """Return masks that train one more block of each stack in each of equal episodes.

    Paper, section 3.5.1: as many episodes as a stack has blocks; episode n trains the top n blocks
    of the encoder and of the decoder, and the embedding (with the logits' own matrix where there
    is one) always. The paper does not say when the rest is trained: final norms are taken as part
    of the last block, so from the first step on; bias tables as part of the first block. Steps
    that do not divide into episodes belong to the last one. Of stacks of different depth, the
    deeper one gives the number of episodes.

    The mask is computed from the traced step, so all episodes are one program.

    Args:
      model: to be trained.
      steps: of the run.
      first: the global step at which the run starts.

    Raises ValueError for fewer steps than episodes.
    """
    config = model.config
    depth = {"encoder": config.num_layers, "shared": config.num_layers}
    episodes = config.decoder_layers
    if config.has_encoder:
        episodes = max(episodes, config.num_layers)
    length = steps // episodes
    if not length:
        raise ValueError(
            f"gradual unfreezing needs at least one step for each of {episodes} blocks, got "
            f"{steps} (--steps, --unfreeze)"
        )

    def mask(step: Array) -> Any:
        blocks = jnp.minimum(1 + (step - first) // length, episodes)  # that are trained, from above

        def of(path: tuple[Any, ...], _: Any) -> Any:
            layers = depth.get(path[0], config.decoder_layers)
            if path[0] not in ("encoder", "decoder", "shared") or path[1] == "final_norm":
                return True
            if path[1] == "relative_bias":
                return blocks >= layers
            return jnp.arange(layers) >= layers - blocks

        return path_aware_map(of, model.param_shapes())

    return mask
