"""Batches do not depend on workers or hosts, and go on exactly where they stopped."""

import dataclasses
import itertools
import json
import random

import grain
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.data.input_pipeline import (
    InputConfig,
    InputIterator,
    make_input,
    merged_states,
    validation_batches,
)
from model.data.objectives import OBJECTIVES
from model.data.rows import RowMaker
from model.data.workers import RESTARTS, WorkerError, Workers
from pipelines.corpus.errors import CorpusError
from testing.corpora import (
    CrashingVocabulary,
    NumberVocabulary,
    make_corpus,
    numbered,
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(
        tmp_path_factory.mktemp("input") / "c",
        {"train": numbered([400, 260, 200]), "validation": numbered([9], seed=7)},
        ("parquet", "tfrecord"),
    )


def config(corpus, **changes):
    options = {"vocabulary": NumberVocabulary(), "batch_size": 12, "input_length": 64, "seed": 5}
    return InputConfig(corpus=corpus, **(options | changes))


def contents(batch):
    return {name: (a.dtype.str, a.shape, a.tobytes()) for name, a in batch.items()}


def taken(iterator, count):
    return [contents(next(iterator)) for _ in range(count)]


def first_batches(settings, count, host=(0, 1)):
    iterator = make_input(settings, host)
    batches = taken(iterator, count)
    iterator.close()
    return batches


def test_it_is_a_grain_iterator_of_the_tables_arrays(corpus):
    iterator = make_input(config(corpus))
    assert isinstance(iterator, grain.DatasetIterator)
    config(corpus).batch_spec().check(next(iterator))


@pytest.mark.parametrize("batch_size", [1, 12, 100])
def test_batches_are_the_elements_rows_in_order(corpus, batch_size):
    settings = config(corpus, batch_size=batch_size)
    maker = RowMaker(settings, 1)
    elements = [maker(0, element) for element in range(4)]
    rows = {name: np.concatenate([e[name] for e in elements]) for name in elements[0]}
    batches = list(itertools.islice(make_input(settings), len(rows["loss_weights"]) // batch_size))
    assert batches
    for number, batch in enumerate(batches):
        for name, array in batch.items():
            assert np.array_equal(array, rows[name][number * batch_size :][:batch_size])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["span3", "prefix_lm"])
def test_workers_change_nothing(corpus, name):
    settings = config(corpus, objective=OBJECTIVES[name])
    here = first_batches(settings, 60)  # more than an epoch
    assert here == first_batches(config(corpus, objective=OBJECTIVES[name], workers=2), 60)
    assert len({str(batch) for batch in here}) == 60


@pytest.mark.slow
def test_nothing_is_made_twice(corpus, monkeypatch):
    asked = []
    submit = Workers.submit

    def counted(self, worker, *element):
        asked.append(element)
        return submit(self, worker, *element)

    monkeypatch.setattr(Workers, "submit", counted)
    iterator = make_input(config(corpus, workers=2))
    taken(iterator, 20)
    elements = iterator.get_state()["shards"]["0"][0]
    iterator.close()
    assert asked == [(0, element) for element in range(elements + 5)]  # two ahead for each worker


def test_formats_change_nothing(corpus):
    parquet, tfrecord = (
        first_batches(config(corpus, format=kind), 40) for kind in ("parquet", "tfrecord")
    )
    assert parquet == tfrecord


def test_the_seed_changes_everything(corpus):
    assert first_batches(config(corpus, seed=1), 1) != first_batches(config(corpus, seed=2), 1)


# --- hosts --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_hosts_change_nothing_where_input_shards_stay(corpus, workers):
    settings = config(corpus, input_shards=4, workers=workers)
    whole, *halves = (make_input(settings, host) for host in [(0, 1), (0, 2), (1, 2)])
    quarters = [make_input(settings, (host, 4)) for host in range(4)] if not workers else []
    for _ in range(25):
        batch = next(whole)
        for hosts in filter(None, [halves, quarters]):
            parts = [next(host) for host in hosts]
            for name, array in batch.items():
                assert np.array_equal(array, np.concatenate([part[name] for part in parts]))
    for iterator in (whole, *halves, *quarters):
        iterator.close()


def test_each_host_reads_pages_of_its_own(corpus):
    lm = {"objective": OBJECTIVES["causal_lm"], "architecture": "language-model"}
    seen = []
    for host in range(2):
        iterator = make_input(config(corpus, **lm), (host, 2))
        seen.append(
            {t for _ in range(30) for t in np.unique(next(iterator)["decoder_target_tokens"])}
        )
    assert len(seen[0] & seen[1]) <= 2  # padding and end of sequence
    assert min(map(len, seen)) > 300


# --- stopping and going on ----------------------------------------------------------------------


@pytest.mark.slow
def test_going_on_at_any_batch(corpus):
    straight = first_batches(config(corpus), 40)

    @settings(max_examples=15, deadline=None)
    @given(st.integers(0, 39), st.integers(0, 39), st.booleans())
    def check(stopped, gone_to, other_format):
        iterator = make_input(config(corpus))
        taken(iterator, stopped)
        state = json.loads(json.dumps(iterator.get_state()))
        other = make_input(config(corpus, format="tfrecord" if other_format else None))
        taken(other, gone_to)  # what it has under way is dropped
        other.set_state(state)
        assert other.get_state() == state
        assert taken(other, min(3, 40 - stopped)) == straight[stopped : stopped + 3]

    check()


@pytest.mark.slow
def test_going_on_with_other_workers(corpus):
    straight = first_batches(config(corpus), 30)
    with_two = make_input(config(corpus, workers=2))
    assert taken(with_two, 11) == straight[:11]
    state = with_two.get_state()
    assert state["shards"]["0"][1] > 0  # in the middle of an element
    assert taken(with_two, 8) == straight[11:19]
    with_two.set_state(state)  # back, with results under way
    assert taken(with_two, 4) == straight[11:15]
    with_two.close()
    with_three = make_input(config(corpus, workers=3))
    with_three.set_state(state)
    with_three.start_prefetch()
    assert taken(with_three, 19) == straight[11:]
    with_three.close()


def test_going_on_with_other_hosts(corpus):
    settings = config(corpus, input_shards=2)
    straight = first_batches(settings, 12)
    hosts = [make_input(settings, (host, 2)) for host in range(2)]
    for host in hosts:
        taken(host, 5)
    state = merged_states([host.get_state() for host in hosts])
    one = make_input(settings)
    one.set_state(state)
    assert taken(one, 7) == straight[5:]
    with pytest.raises(ValueError, match=r"lacks input shards \[1\]: merge the states"):
        one.set_state(hosts[0].get_state())


def test_a_state_is_small(corpus):
    iterator = make_input(config(corpus))
    taken(iterator, 30)
    assert len(json.dumps(iterator.get_state())) < 1500
    assert iterator.get_state()["shards"].keys() == {"0"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 6}, "seed is 5 there and 6 here"),
        ({"objective": OBJECTIVES["iid"]}, "objective name is 'span3' there and 'iid' here"),
        ({"input_length": 32}, "input_length is 64 there and 32 here"),
        ({"architecture": "language-model"}, "rows is 'pairs' there and 'joined by eos' here"),
        ({"max_pages": 500}, "corpus is"),
        ({"input_shards": 2}, "input_shards is 1 there and 2 here"),
        ({"vocabulary": NumberVocabulary(800)}, "vocabulary is"),
    ],
)
def test_a_state_of_another_input_is_refused(corpus, changes, message):
    state = make_input(config(corpus)).get_state()
    other = make_input(config(corpus, **changes))
    with pytest.raises(ValueError, match=message):
        other.set_state(state)
    with pytest.raises(ValueError, match="of different inputs"):
        merged_states([state, other.get_state()])


def test_a_larger_batch_may_go_on_where_a_smaller_one_stopped(corpus):
    small, large = make_input(config(corpus)), make_input(config(corpus, batch_size=24))
    first = next(small)
    large.set_state(small.get_state())
    both = [next(small), next(small)]
    for name, array in next(large).items():
        assert np.array_equal(array, np.concatenate([batch[name] for batch in both]))
    assert not np.array_equal(first["encoder_tokens"], both[0]["encoder_tokens"])


def test_a_state_of_another_version_is_refused(corpus):
    iterator = make_input(config(corpus))
    with pytest.raises(ValueError, match="must be of version 1, got 2"):
        iterator.set_state(iterator.get_state() | {"version": 2})


# --- validation ---------------------------------------------------------------------------------


def test_validation_is_the_same_in_every_run(corpus):
    one, two = (
        [contents(batch) for batch in validation_batches(settings, 3)]
        for settings in (config(corpus, seed=1), config(corpus, seed=2, workers=1, max_pages=50))
    )
    assert one == two
    assert len(one) == 3
    assert one[0] != one[1]  # nine pages fill less than a batch, and come again otherwise masked


def test_validation_is_shared_out_too(corpus):
    whole = next(validation_batches(config(corpus, input_shards=2), 1))
    parts = [next(validation_batches(config(corpus), 1, (host, 2))) for host in range(2)]
    for name, array in whole.items():
        assert np.array_equal(array, np.concatenate([part[name] for part in parts]))


def test_a_corpus_without_validation_says_so(tmp_path):
    folder = make_corpus(tmp_path / "c", {"train": numbered([20])})
    with pytest.raises(CorpusError, match="no pages in its split 'validation'; splits with pages"):
        validation_batches(config(folder), 3)


# --- what goes wrong ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_shard_is_the_same_line_with_and_without_workers(tmp_path, workers):
    folder = make_corpus(tmp_path / "c", {"train": numbered([200, 200])}, ("tfrecord",))
    path = tmp_path / "c" / "train-00001-of-00002.tfrecord"
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    iterator = make_input(config(folder, workers=workers))
    path.write_bytes(content)
    with pytest.raises(ValueError, match="record 199") as caught:
        taken(iterator, 100)
    assert str(caught.value) == f"{path}: record 199: damaged: its data fail their checksum"
    iterator.close()


@pytest.mark.slow
def test_workers_that_are_killed_change_nothing(corpus, monkeypatch, capfd):
    draw, submit, killed = random.Random(4), Workers.submit, []

    def after_a_kill(self, worker, *arguments):
        if len(killed) < RESTARTS and draw.random() < 0.3:
            killed.append(worker)
            self._processes[worker].kill()
            if draw.random() < 0.5:  # found out now, or while its results are awaited
                self._processes[worker].wait()
        return submit(self, worker, *arguments)

    monkeypatch.setattr(Workers, "submit", after_a_kill)
    settings = config(corpus, batch_size=120)
    expected = first_batches(settings, 30)
    assert first_batches(dataclasses.replace(settings, workers=2), 30) == expected
    assert len(killed) == RESTARTS
    assert 2 < capfd.readouterr().err.count("; started again\n") <= RESTARTS


@pytest.mark.slow
def test_an_error_does_not_put_later_elements_in_its_place(corpus):
    # Page 5 is in the first group of the first lane; asked again, it must not be passed over.
    iterator = make_input(
        config(corpus, workers=2, vocabulary=CrashingVocabulary(ZeroDivisionError("odd")))
    )
    element = next(e for e in range(9) if RowMaker(config(corpus), 1).order.group(0, e)[1] == 0)
    iterator.set_state(iterator.get_state() | {"shards": {"0": [element, 0]}})
    for _ in range(2):
        with pytest.raises(WorkerError, match="ZeroDivisionError: odd"):
            next(iterator)
    assert iterator.get_state()["shards"]["0"] == [element, 0]
    iterator.close()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_that_fails_takes_nothing(tmp_path, workers):
    folder = make_corpus(tmp_path / "c", {"train": numbered([200, 200])}, ("tfrecord",))
    path = tmp_path / "c" / "train-00001-of-00002.tfrecord"
    whole = path.read_bytes()
    settings = config(folder, input_shards=2, workers=workers)
    straight = first_batches(settings, 8)
    path.write_bytes(whole[:-1])
    iterator = make_input(settings)
    made = []
    with pytest.raises(ValueError, match="record 199"):
        made.extend(contents(batch) for batch in iterator)
    good = len(made)
    assert made == straight[:good]
    assert good < 8
    path.write_bytes(whole)
    again = make_input(settings)
    again.set_state(iterator.get_state())
    assert taken(again, 8 - good) == straight[good:]
    iterator.close()
    again.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corpus_of_nothing_does_not_go_on_for_ever(tmp_path, workers):
    folder = make_corpus(tmp_path / "c", {"train": [[" "] * 300]})
    iterator = make_input(config(folder, workers=workers))
    with pytest.raises(ValueError, match="no page with a token to train on"):
        next(iterator)
    iterator.close()


def test_what_cannot_be_is_refused_before_workers_start(corpus, tmp_path):
    for refused, host, message in [
        (config(str(tmp_path), workers=2), (0, 1), r"has no manifest\.json"),
        (config(corpus, workers=2), (0, 5), "batch_size must be a multiple"),
        (config(corpus, batch_size=900, workers=2), (0, 900), "too few for 900 input shards"),
    ]:
        with pytest.raises(ValueError, match=message):
            make_input(refused, host)


def test_closed_is_closed(corpus):
    for workers in (0, 1):
        iterator = make_input(config(corpus, workers=workers))
        assert isinstance(iterator, InputIterator)
        next(iterator)
        iterator.close()
        with pytest.raises(ValueError, match="closed"):
            taken(iterator, 60)


def test_repeating_little_data(corpus):
    lm = {"objective": OBJECTIVES["causal_lm"], "architecture": "language-model"}
    iterator = make_input(config(corpus, max_pages=30, **lm))
    seen = set()
    for _ in range(40):
        seen |= set(np.unique(next(iterator)["decoder_target_tokens"]).tolist())
    assert seen == {0, 1} | set(range(10, 40))  # the first thirty pages, and no more
