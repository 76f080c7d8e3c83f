"""Some steps of a tiny model on a mesh of any processes; as a program, one process of several.

``python -m tests.model.training.tiny_training COORDINATOR PROCESSES ID FOLDER MESH BUCKET`` trains
an encoder-decoder; all save the state to FOLDER, where the first process says how it went, and to
a bucket, from where they restore it.
"""

import json
import pathlib
import sys

import jax
import numpy as np

from model.data.batches import BatchSpec
from model.t5.config import model_config
from model.t5.network import T5
from model.training import distributed, sharding
from model.training.optimizer import constant
from model.training.processes import Processes
from model.training.sharding import parse_mesh
from model.training.train_config import StepConfig
from model.training.train_step import Learner, TrainState

# Matrices of 128 and more, so that Adafactor factors them. Compiling is what takes the time: XLA
# is asked for little, and a decoder without dropout is there for where that is enough.
CONFIG = model_config(
    "tiny", vocab_size=256, d_model=128, d_ff=128, d_kv=32, num_heads=4, dropout_rate=0.1
)
ENCODER_DECODER = (CONFIG, BatchSpec(16, 8, encoder_length=12))
WITHOUT_DROPOUT = (CONFIG.replace(dropout_rate=0.0), ENCODER_DECODER[1])
DECODER = (CONFIG.replace(architecture="language-model", dropout_rate=0.0), BatchSpec(16, 8))
STEPS = 4
# Of dropout. With seed 0 the input of a relu comes within rounding of zero: whether it passes its
# gradient on is then chance, and after four steps of this size all parameters show it.
SEED = 1


def batches(vocab_size, spec):
    for number in range(STEPS):
        rng = np.random.default_rng(number % 2)  # each batch is seen twice
        batch = {}
        for name, (shape, kind) in spec.arrays.items():
            if name == "loss_weights":
                batch[name] = np.ones(shape, kind)
            elif name.endswith("segments"):
                batch[name] = np.sort(rng.integers(1, 3, shape), axis=1).astype(kind)
            else:
                batch[name] = rng.integers(2, vocab_size, shape).astype(kind)
        yield batch


def first_state(shapes, optimizer):
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.1, leaf.shape), shapes)
    params["embedding"] *= 10
    params = jax.tree.map(np.float32, params)
    moments = jax.eval_shape(optimizer.init, params)
    moments = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), moments)
    return TrainState(params, moments, np.zeros((), np.int32))


def train(network, shape, accumulate=1, devices=None):
    """Losses of some steps on a mesh, and the state after them."""
    config, spec = network
    model = T5(config)
    learner = Learner(model, constant(0.1), StepConfig(accumulate=accumulate, seed=SEED))
    mesh = sharding.make_mesh(shape, devices or jax.devices()[: shape.devices])
    state = first_state(model.param_shapes(), learner.optimizer)
    of_state = sharding.params_shardings(mesh, learner.axes(), state)
    state = jax.tree.map(
        lambda array, where: jax.make_array_from_callback(array.shape, where, array.__getitem__),
        state,
        of_state,
    )

    def on_mesh(state, batch):
        with sharding.use_rules(mesh):
            return learner.step(state, batch)

    jitted = jax.jit(
        on_mesh,
        donate_argnums=0,
        out_shardings=(of_state, sharding.replicated(mesh)),
        compiler_options={"xla_backend_optimization_level": 0},
    )
    of_batch = sharding.batch_sharding(mesh)
    part, parts = distributed.input_part(of_batch, spec.batch_size)
    losses = []
    for batch in batches(config.vocab_size, spec):
        mine = {name: np.split(array, parts)[part] for name, array in batch.items()}
        state, metrics = jitted(state, distributed.global_batch(of_batch, mine, spec.batch_size))
        losses.append(float(metrics.sums.loss))
    return losses, state


def save_and_restore(bucket, state):
    """Whether what each process restores from a bucket is what all have saved there."""
    from model.training.remote_checkpoints import RemoteCheckpoints
    from model.training.remote_run import RemoteRun

    first = RemoteCheckpoints(RemoteRun(bucket), 1, None)
    first.save(2, state, {"input": 2})
    first.close()
    distributed.barrier("saved")
    second = RemoteCheckpoints(RemoteRun(bucket), 1, None)
    assert second.newest() == 2
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state
    )
    restored, progress = second.restore(2, like)
    assert progress == {"input": 2}
    second.close()
    mine, theirs = jax.tree.leaves(state.params), jax.tree.leaves(restored.params)
    return all(
        np.array_equal(one.data, other.data)
        for ours, others in zip(mine, theirs, strict=True)
        for one, other in zip(ours.addressable_shards, others.addressable_shards, strict=True)
    )


def main(coordinator, processes, process_id, folder, mesh, bucket):
    cluster = Processes(
        coordinator=coordinator, processes=int(processes), process_id=int(process_id)
    )
    place = distributed.initialize(cluster, timeout_seconds=60)
    assert place == (int(process_id), int(processes)), place
    distributed.require_agreement("mesh", mesh)
    refused = None
    try:
        distributed.require_agreement("number", process_id)
    except ValueError as error:
        refused = str(error)
    shape = parse_mesh(mesh, jax.device_count())
    # By twos from each process in turn, as a torus would have it: parts of a batch are not runs.
    # Sequences change places then, so there is no dropout, which tells places apart.
    apart = sorted(jax.devices(), key=lambda device: (device.id % 4 // 2, device.process_index))
    losses, state = train(WITHOUT_DROPOUT, shape, devices=apart)
    from model.training.checkpoints import Checkpoints
    from model.training.model_folders import save_params

    checkpoints = Checkpoints(folder)
    checkpoints.save(STEPS, state, {})
    checkpoints.wait()
    checkpoints.close()
    if distributed.is_first():  # as the best checkpoints of tasks are kept
        embedding = {"embedding": np.ones((2, 2), np.float32)}
        save_params(pathlib.Path(folder, "best"), CONFIG, embedding)
    assert save_and_restore(bucket, state)
    held = state.params["decoder"]["layers"]["feed_forward"]["wi"].addressable_shards
    distributed.barrier("done")
    told = {"losses": losses, "held": sorted({shard.data.shape for shard in held}),
            "refused": refused}  # fmt: skip
    if distributed.is_first():  # Gloo's C++ writes to the standard output of each
        pathlib.Path(folder, f"told-{process_id}.json").write_text(json.dumps(told))
    distributed.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
