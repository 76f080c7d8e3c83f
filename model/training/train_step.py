"""One step of training and one of evaluation, as pure functions.

Axes of a batch's arrays: [batch, length]; the table is in ``model.data.batches``.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from model.t5.network import T5, Batch
from model.training.losses import LossSums, divisor_of, loss_sums
from model.training.optimizer import Schedule, adafactor, apply_updates, state_axes, where_trainable
from model.training.train_config import StepConfig
from model.training.trainable import Trainable


class TrainState(NamedTuple):
    """What a step changes."""

    params: Any
    optimizer: Any  #: state of the optimizer, a tree like the parameters
    step: Array  #: int32 scalar, steps done: the global step


class StepMetrics(NamedTuple):
    """The metrics of a step: float32 scalars of the whole batch on all hosts."""

    sums: LossSums
    tokens: Array  #: that encoder and decoder read, padding not counted
    learning_rate: Array
    gradient_norm: Array  #: Euclidean, of the gradient that the optimizer got
    param_norm: Array  #: after the step
    finite: Array  #: 1 when losses, gradient and new parameters are, else 0


class Learner:
    """A model with its optimizer: what makes states and steps.

    Attributes:
      model: the network.
      rate: global step to learning rate.
      config: how a step is computed.
      trainable: global step to the mask of what is trained then, as
        ``optimizer.where_trainable`` takes it; None: everything.
      optimizer: Adafactor at that rate.
    """

    def __init__(
        self,
        model: T5,
        rate: Schedule,
        config: StepConfig | None = None,
        trainable: Trainable | None = None,
    ) -> None:
        self.model, self.rate, self.config = model, rate, config or StepConfig()
        self.trainable = trainable
        self.optimizer = adafactor(rate, model.param_axes())

    def init(self, rng: Array) -> TrainState:
        """Return a state before its first step; under ``jax.eval_shape`` its shapes alone."""
        params = self.model.init(rng)
        return TrainState(params, self.optimizer.init(params), jnp.zeros((), jnp.int32))

    def axes(self) -> TrainState:
        """Return the logical axes of every array of a state."""
        axes = self.model.param_axes()
        moments = state_axes(axes, self.model.param_shapes())
        return TrainState(axes, moments, ())  # type: ignore[arg-type]

    def step(self, state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        """Do one step: a pure function of the state and the batch, to be compiled by the caller.

        The gradient is that of the losses' sum over the *whole* batch, over its divisor, however
        many microbatches it is taken in. Masks of dropout come from the seed, the step and the
        microbatch's number, so a step is the same whenever it is repeated.
        """
        config = self.config
        gradient_of = jax.grad(batch_loss(self.model, config), has_aux=True)
        seed = jax.random.key(config.seed, impl=config.prng)
        rng = jax.random.fold_in(seed, state.step)
        if config.accumulate == 1:
            gradient, sums = gradient_of(state.params, batch, rng)
        else:

            def add_microbatch(
                total: tuple[Any, LossSums], numbered: tuple[Array, Batch]
            ) -> tuple[tuple[Any, LossSums], None]:
                number, microbatch = numbered
                part = gradient_of(state.params, microbatch, jax.random.fold_in(rng, number))
                return jax.tree.map(jnp.add, total, part), None

            nothing = (
                jax.tree.map(jnp.zeros_like, state.params),
                LossSums(*(jnp.zeros(()) for _ in LossSums._fields)),
            )
            numbers = jnp.arange(config.accumulate)
            microbatches = jax.tree.map(lambda rows: _microbatches(rows, config.accumulate), batch)
            (gradient, sums), _ = jax.lax.scan(add_microbatch, nothing, (numbers, microbatches))
        divisor = divisor_of(config.loss_divisor, batch["decoder_target_tokens"].shape, sums.tokens)
        gradient = jax.tree.map(lambda array: array / divisor, gradient)
        trainable = True if self.trainable is None else self.trainable(state.step)
        gradient = where_trainable(trainable, gradient, jax.tree.map(jnp.zeros_like, gradient))
        updates, optimizer_state = self.optimizer.update(
            gradient, state.optimizer, state.params, step=state.step, trainable=trainable
        )
        params = apply_updates(state.params, updates, trainable)
        gradient_norm, param_norm = optax.tree.norm(gradient), optax.tree.norm(params)
        scalars = jnp.stack([sums.loss, sums.z_loss, gradient_norm, param_norm])
        metrics = StepMetrics(
            sums=sums,
            tokens=_tokens_read(batch),
            learning_rate=self.rate(state.step),
            gradient_norm=gradient_norm,
            param_norm=param_norm,
            finite=jnp.all(jnp.isfinite(scalars)).astype(jnp.float32),
        )
        return TrainState(params, optimizer_state, state.step + 1), metrics


def batch_loss(
    model: T5, config: StepConfig | None = None
) -> Callable[[Any, Batch, Array | None], tuple[Array, LossSums]]:
    """Return what a step differentiates: (params, batch, dropout key or None) to (loss, sums).

    The loss is the sum over the batch of cross-entropy and z-loss, not divided by anything.
    """
    config = config or StepConfig()

    def loss(params: Any, batch: Batch, rng: Array | None) -> tuple[Array, LossSums]:
        sums = loss_sums(
            model.features(params, batch, dropout_rng=rng),
            model.head(params),
            batch["decoder_target_tokens"],
            batch["loss_weights"],
            z_loss=config.z_loss,
            label_smoothing=config.label_smoothing,
        )
        return sums.loss + sums.z_loss, sums

    return loss


def make_eval_step(model: T5) -> Callable[[Any, Batch], LossSums]:
    """Return a function, not compiled: cross-entropy of a batch without dropout or z-loss."""
    loss = batch_loss(model, StepConfig(z_loss=0))

    def eval_step(params: Any, batch: Batch) -> LossSums:
        return loss(params, batch, None)[1]

    return eval_step


def _microbatches(rows: Array, count: int) -> Array:
    """Return microbatches along a new first axis: [microbatches, batch / microbatches, ...].

    Row r goes to microbatch r mod ``count``: if rows are divided over devices, each device divides
    its own, and none is sent to another device.
    """
    parts = rows.reshape(rows.shape[0] // count, count, *rows.shape[1:])
    return jnp.moveaxis(parts, 1, 0)


def _tokens_read(batch: Batch) -> Array:
    segments = [batch[name] for name in ("encoder_segments", "decoder_segments") if name in batch]
    return sum((jnp.sum(ids > 0) for ids in segments), jnp.zeros((), jnp.float32))
