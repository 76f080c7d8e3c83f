"""Global arrays, positions that follow what was returned, threads that end."""

import dataclasses
import threading
import time

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from model.data.device_batches import DeviceBatches
from model.data.input_config import InputConfig
from model.data.input_pipeline import make_input
from testing.corpora import NumberVocabulary, make_corpus, numbered


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    corpus = make_corpus(tmp_path_factory.mktemp("device") / "c", {"train": numbered([300, 200])})
    return InputConfig(
        corpus=corpus, vocabulary=NumberVocabulary(), batch_size=8, input_length=32, seed=5
    )


@pytest.fixture
def sharding():
    mesh = Mesh(np.array(jax.devices()).reshape(-1), ("data",))
    return NamedSharding(mesh, PartitionSpec("data", None))


@pytest.fixture
def batches(config, sharding):
    made = DeviceBatches(make_input(config), config.batch_spec(), sharding)
    yield made
    made.close()


def host_batches(config, count):
    iterator = make_input(config)
    return [next(iterator) for _ in range(count)]


def assert_same(on_device, on_host):
    assert on_device.keys() == on_host.keys()
    for name, array in on_host.items():
        assert np.array_equal(np.asarray(on_device[name]), array)


def test_the_same_batches_sharded_over_the_devices(config, sharding, batches):
    for on_host in host_batches(config, 20):
        on_device = next(batches)
        config.batch_spec().check(on_device)
        assert_same(on_device, on_host)
        assert all(array.sharding == sharding for array in on_device.values())
    assert len(jax.devices()) == len(on_device["encoder_tokens"].addressable_shards)


def test_a_position_is_that_of_the_batch_returned_last(config, batches):
    wanted = host_batches(config, 12)
    states = [batches.get_state()]
    for _ in range(6):
        next(batches)
        states.append(batches.get_state())
    for number in (3, 0, 6):
        batches.set_state(states[number])
        assert batches.get_state() == states[number]
        for on_host in wanted[number : number + 5]:
            assert_same(next(batches), on_host)


def test_batches_are_made_ahead_of_their_time_and_no_further(config, sharding):
    inner = make_input(config)
    made = []

    class Watched:
        def __next__(self):
            made.append(1)
            return next(inner)

        def __getattr__(self, name):
            return getattr(inner, name)

    batches = DeviceBatches(Watched(), config.batch_spec(), sharding, ahead=2)
    assert not made
    batches.start()
    deadline = time.monotonic() + 10
    while len(made) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    assert len(made) == 3  # two ready, one in hand
    next(batches)
    batches.close()
    assert len(made) <= 5


def test_an_error_comes_out_where_the_batch_would_have(config, sharding):
    class Failing:
        def __init__(self):
            self.position = 0

        def get_state(self):
            return {"position": self.position}

        def set_state(self, state):
            self.position = state["position"]

        def __next__(self):
            if self.position == 2:
                raise ValueError("damaged")
            self.position += 1
            return host_batches(config, 1)[0]

        def epoch(self):
            return self.position / 2

        def close(self):
            self.position = -1

    batches = DeviceBatches(Failing(), config.batch_spec(), sharding)
    next(batches)
    next(batches)
    for _ in range(2):
        with pytest.raises(ValueError, match="damaged"):
            next(batches)
    assert batches.get_state() == {"position": 2}
    assert batches.epoch() == 1.0
    batches.close()


def threads():
    return [t for t in threading.enumerate() if t.name == "device-batches"]


def test_threads_end(config, sharding):
    batches = DeviceBatches(make_input(config), config.batch_spec(), sharding)
    next(batches)
    assert len(threads()) == 1
    batches.close()
    batches.close()
    assert not threads()
    forgotten = DeviceBatches(make_input(config), config.batch_spec(), sharding)
    next(forgotten)
    del forgotten
    assert not threads()


def test_a_sharding_by_name(config, sharding):
    shardings = dict.fromkeys(config.batch_spec().arrays, sharding)
    everywhere = NamedSharding(sharding.mesh, PartitionSpec())
    shardings["loss_weights"] = everywhere
    batches = DeviceBatches(make_input(config), config.batch_spec(), shardings)
    batch = next(batches)
    assert batch["loss_weights"].sharding == everywhere
    assert batch["encoder_tokens"].sharding == sharding
    batches.close()


def test_what_cannot_be(config, sharding):
    with pytest.raises(ValueError, match="ahead must be at least 1, got 0"):
        DeviceBatches(make_input(config), config.batch_spec(), sharding, ahead=0)
    twelve = dataclasses.replace(config, batch_size=12)
    with pytest.raises(ValueError, match="dimension size is 12"):
        DeviceBatches(make_input(twelve), twelve.batch_spec(), sharding)
