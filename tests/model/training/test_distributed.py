"""Finding other processes, dividing a batch among them, and training in two as in one."""

import json
import os

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.training import distributed, sharding
from model.training.checkpoints import Checkpoints
from model.training.distributed import detect_cluster
from model.training.processes import Processes
from model.training.remote_checkpoints import RemoteCheckpoints
from model.training.remote_run import RemoteRun, whole_steps
from model.training.sharding import MeshShape
from testing.two_processes import run_two_processes
from tests.model.training import tiny_training


@pytest.mark.parametrize(
    ("options", "telling"),
    [
        ({"coordinator": "host:1"}, "missing: --processes, --process-id"),
        ({"processes": 2, "process_id": 0}, "missing: --coordinator"),
        ({"coordinator": "host", "processes": 2, "process_id": 0}, "HOST:PORT"),
        ({"coordinator": ":80", "processes": 2, "process_id": 0}, "HOST:PORT"),
        (
            {"coordinator": "host:1", "processes": 0, "process_id": 0},
            "processes must be at least 1",
        ),
        ({"coordinator": "host:1", "processes": 2, "process_id": 2}, "from 0 to 1"),
        (
            {"coordinator": "host:1", "processes": 2, "process_id": -1},
            "process_id must be at least 0",
        ),
    ],
)
def test_half_a_cluster_is_refused(options, telling):
    with pytest.raises(ValueError, match=telling):
        Processes(**options)


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, None),
        ({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "4"}, "slurm"),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, None),
        ({"SLURM_NTASKS": "4"}, None),  # a batch script, nobody called srun
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "openmpi"),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, None),
    ],
)
def test_what_started_several_processes(environ, found):
    assert detect_cluster({**environ, "JAX_PLATFORMS": "cpu"}) == found


def test_a_process_that_is_alone_needs_nothing(monkeypatch, capsys):
    for name in list(os.environ):
        if name.startswith(("SLURM_", "OMPI_")):
            monkeypatch.delenv(name)
    assert distributed.initialize(Processes()) == (0, 1)
    distributed.barrier("nobody else")
    distributed.require_agreement("anything", "x")
    distributed.print_first("told")
    assert capsys.readouterr().out == "told\n"
    distributed.shutdown()


@given(
    st.sampled_from([1, 2, 4, 8]),  # processes
    st.sampled_from([(8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 2, 4), (1, 1, 8), (4, 1, 2)]),
    st.booleans(),
)
def test_parts_of_a_batch_are_what_the_devices_hold(processes, shape, interleaved):
    """Devices as make_mesh lays them, or each process's apart; each has the same number."""
    held = {}
    for device in range(8):
        span = device // shape[2]  # tensor is innermost
        process = device % processes if interleaved else device * processes // 8
        held.setdefault(process, set()).add((span, span + 1))
    parts = [distributed._part(held, number) for number in range(processes)]
    (count,) = {count for _, count in parts}
    of_part = {}
    for (part, _), runs in zip(parts, (held[number] for number in range(processes)), strict=True):
        assert of_part.setdefault(part, runs) == runs
    assert set(of_part) == set(range(count))
    assert sorted(run for runs in of_part.values() for run in runs) == [
        (span, span + 1) for span in range(shape[0] * shape[1])
    ]


@pytest.mark.parametrize(
    "rows", [{0: {(0, 2), (2, 4)}, 1: {(2, 4), (4, 6)}}, {0: {(0, 2), (2, 4)}, 1: {(4, 6)}}]
)
def test_meshes_that_tear_a_batch_are_refused(rows):
    with pytest.raises(ValueError, match="hold some sequences of a batch together"):
        distributed._part(rows, 0)


def test_a_batch_that_does_not_divide_is_told():
    where = sharding.batch_sharding(sharding.make_mesh(MeshShape(data=4, tensor=2)))
    assert distributed.input_part(where, 8) == (0, 1)
    with pytest.raises(ValueError, match="6 sequences does not divide over 4 devices"):
        distributed.input_part(where, 6)


def test_a_global_batch_has_the_rows_where_they_belong():
    where = sharding.batch_sharding(sharding.make_mesh(MeshShape(data=4, tensor=2)))
    rows = {"tokens": np.arange(24, dtype=np.int32).reshape(8, 3)}
    made = distributed.global_batch(where, rows, 8)["tokens"]
    np.testing.assert_array_equal(made, rows["tokens"])
    assert {shard.data.shape for shard in made.addressable_shards} == {(2, 3)}


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path, cloud):
    """Two of four devices each, over the loopback.

    Parameters are divided across the two, and neither holds neighbouring sequences of a batch.
    """
    folder, bucket = tmp_path / "state", "gs://bucket/two"
    run_two_processes(
        "tests.model.training.tiny_training",
        lambda where, number: [
            where,
            "2",
            str(number),
            str(folder),
            "data=2,fsdp=2,tensor=2",
            bucket,
        ],
        devices=4,
        timeout_s=150,
    )
    (said,) = folder.glob("told-*.json")  # by one process
    told = json.loads(said.read_text())
    assert "number of process 1 differs from that of process 0" in told["refused"]
    losses, state = tiny_training.train(tiny_training.WITHOUT_DROPOUT, MeshShape())
    assert losses[2] < 0.99 * losses[0]
    np.testing.assert_allclose(told["losses"], losses, rtol=2e-5)
    assert told["held"] == [[2, 64, 64]]  # of [2, 128, 128]
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state
    )
    checkpoints = Checkpoints(folder)
    assert checkpoints.newest() == tiny_training.STEPS
    saved, _ = checkpoints.restore(tiny_training.STEPS, like)
    checkpoints.close()
    assert whole_steps(bucket) == [2]
    in_bucket = RemoteCheckpoints(RemoteRun(bucket), 1, None)
    alone, _ = in_bucket.restore(2, like)
    in_bucket.close()
    jax.tree.map(np.testing.assert_array_equal, alone.params, saved.params)
    jax.tree.map(np.testing.assert_array_equal, alone.optimizer, saved.optimizer)
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=3e-4),
        jax.device_get(saved),
        jax.device_get(state),
    )
