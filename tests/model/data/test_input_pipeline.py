"""Batches do not depend on workers or hosts, and go on exactly where they stopped."""

import collections
import dataclasses
import itertools
import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.data.batches import concatenated
from model.data.input_config import InputConfig
from model.data.input_pipeline import (
    InputIterator,
    _InThisProcess,
    make_input,
    merged_states,
    validation_batches,
    validation_inputs,
)
from model.data.mixing import draw_block
from model.data.objectives import OBJECTIVES
from model.data.sources.task import TaskInput
from model.data.workers import RESTARTS, WorkerError, Workers
from model.tasks import TASKS
from model.tasks.prepared import prepare
from pipelines.corpus.errors import CorpusError
from testing.corpora import (
    FIRST_ID,
    NumberVocabulary,
    make_corpus,
    numbered,
)


class CrashingVocabulary(NumberVocabulary):
    """Meets what it cannot cope with on page 5."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def encode_batch(self, texts):
        if any(text.split()[:1] == [b"5"] for text in texts):
            raise self.error
        return super().encode_batch(texts)


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


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Two tasks, of 300 and of 5 examples."""
    folder = str(tmp_path_factory.mktemp("tasks"))
    own = [{"inputs": f"{n} 870 871", "targets": f"{n} {n}"} for n in range(300)]
    few = [("validation", row) for row in own[:30]]
    prepare("own", [("train", row) for row in own] + few, folder, "x")
    dpr = [
        {"sentence": f"{n} 880 it", "pronoun": "it", "candidates": ["1", "2"], "label": 1}
        for n in range(5)
    ]
    prepare("dpr", [("train", row) for row in dpr], folder, "x")
    return folder


class WordVocabulary(NumberVocabulary):
    """Other words than numbers are id 4."""

    def encode(self, text):
        return [FIRST_ID + int(word) if word.isdigit() else 4 for word in text.split()]


def mixed(corpus, tasks, **changes):
    inputs = tuple(TaskInput(data=tasks, name=n, rate=r) for n, r in [("own", 0.3), ("dpr", 0.05)])
    options = {"tasks": inputs, "corpus_rate": 0.65, "vocabulary": WordVocabulary()}
    return config(corpus, **(options | changes))


# --- what is drawn ------------------------------------------------------------------------------


def example_by_example(settings, shard, shards):
    """Rows of an input shard, by drawing and packing one example after the other."""

    def pairs_of(source):
        for epoch in itertools.count():
            for element in range(source.elements(shard)):
                yield from zip(
                    *(side.lists() for side in source.pairs(shard, (epoch, element))[0]),
                    strict=True,
                )

    lengths = settings.lengths
    streams = [pairs_of(source) for source in settings.sources(shards)]
    for block in itertools.count():
        drawn = draw_block(list(settings.rates.values()), settings.seed, shard, block)
        examples = [
            next(stream)
            for stream, count in zip(streams, drawn.counts, strict=True)
            for _ in range(count)
        ]
        rows = []
        for number in drawn.order:
            inputs, targets = examples[number]
            inputs, targets = (
                [*inputs[: lengths.inputs - 1], 1],
                [*targets[: lengths.targets - 1], 1],
            )
            for row in rows:
                if (
                    len(row[0]) + len(inputs) <= lengths.inputs
                    and len(row[1]) + len(targets) <= lengths.targets
                ):
                    break
            else:
                row = [], []
                rows.append(row)
            row[0].extend(inputs)
            row[1].extend(targets)
        yield from rows


@pytest.mark.parametrize("kind", ["corpus", "tasks", "mixture"])
@pytest.mark.parametrize("shards", [1, 2])
def test_batches_against_drawing_one_by_one(corpus, tasks, kind, shards):
    settings = {
        "corpus": config(corpus, objective=OBJECTIVES["prefix_lm"], input_shards=shards),
        "tasks": mixed(None, tasks, input_shards=shards),
        "mixture": mixed(corpus, tasks, input_shards=shards),
    }[kind]
    wanted = [example_by_example(settings, shard, shards) for shard in range(shards)]
    for batch in itertools.islice(make_input(settings), 60):
        settings.batch_spec().check(batch)
        found = [
            ([t for t in inputs if t], [t for t in targets if t])
            for inputs, targets in zip(
                batch["encoder_tokens"].tolist(),
                batch["decoder_target_tokens"].tolist(),
                strict=True,
            )
        ]
        each = [row for stream in wanted for row in itertools.islice(stream, 12 // shards)]
        assert found == each


def source_of(row, dpr=880, own=870):
    """How many examples of a row are of a task, by numbers that only one of them has."""
    tokens = row.tolist()
    return {"dpr": tokens.count(FIRST_ID + dpr), "own": tokens.count(FIRST_ID + own)}


def test_the_realised_shares(corpus, tasks):
    settings = mixed(corpus, tasks, packed=False)
    counts, drawn = collections.Counter(), 0
    for batch in itertools.islice(make_input(settings), 700):
        for row in batch["encoder_tokens"]:
            counts.update(source_of(row))
            drawn += 1
    assert counts["own"] / drawn == pytest.approx(0.3, abs=0.01)
    assert counts["dpr"] / drawn == pytest.approx(0.05, abs=0.003)


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("span3", "encoder-decoder"),
        ("prefix_lm", "prefix-language-model"),
        ("causal_lm", "language-model"),
    ],
)
def test_no_row_of_an_epoch_comes_again(tmp_path, name, architecture):
    """Ten thousand rows: a corpus of different words, so that rows tell where they were cut."""
    rng = np.random.default_rng(3)
    pages = [
        " ".join(map(str, rng.integers(0, 900, length))) for length in rng.integers(5, 120, 6000)
    ]
    folder = make_corpus(tmp_path / "c", {"train": [pages[:3000], pages[3000:]]})
    settings = config(
        folder, objective=OBJECTIVES[name], architecture=architecture, batch_size=100,
        input_length=32,
    )  # fmt: skip
    iterator = make_input(settings)
    epochs = [set(), set()]
    while iterator.epoch() < 2:
        number = int(iterator.epoch())
        batch = next(iterator)
        names = ("encoder_tokens", "decoder_target_tokens")
        for row in zip(*(batch[each] for each in names if each in batch), strict=True):
            epochs[number].add(b"".join(part.tobytes() for part in row))
    assert min(map(len, epochs)) > 10_000
    # A page alone in a row may be split in two at the same place by chance.
    assert len(epochs[0] & epochs[1]) <= (100 if name == "prefix_lm" else 0)


@pytest.mark.parametrize("batch_size", [1, 60, 700])
def test_the_size_of_a_batch_changes_no_row(corpus, batch_size):
    def rows(size):
        batches = itertools.islice(make_input(config(corpus, batch_size=size)), 1400 // size)
        return concatenated(list(batches))

    wanted = rows(7)
    for name, array in rows(batch_size).items():
        assert np.array_equal(array, wanted[name][: len(array)])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["span3", "prefix_lm", "mixture"])
def test_workers_change_nothing(corpus, tasks, kind):
    settings = (
        mixed(corpus, tasks) if kind == "mixture" else config(corpus, objective=OBJECTIVES[kind])
    )
    here = first_batches(settings, 60)  # more than an epoch
    assert here == first_batches(dataclasses.replace(settings, workers=2), 60)
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
    elements = iterator.get_state()["shards"]["0"]["sources"]["c4"][0]
    iterator.close()
    assert asked == [(0, 0, element) for element in range(len(asked))]
    assert elements + 5 <= len(asked) <= 50


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
@pytest.mark.parametrize("kind", ["corpus", "mixture"])
def test_going_on_at_any_batch(corpus, tasks, kind):
    def configured(**changes):
        return config(corpus, **changes) if kind == "corpus" else mixed(corpus, tasks, **changes)

    straight = first_batches(configured(), 130)  # of several epochs

    @settings(max_examples=15, deadline=None)
    @given(st.integers(0, 129), st.integers(0, 39), st.booleans())
    def check(stopped, gone_to, other_format):
        iterator = make_input(configured())
        taken(iterator, stopped)
        state = json.loads(json.dumps(iterator.get_state()))
        other = make_input(configured(format="tfrecord" if other_format else None))
        taken(other, gone_to)  # what it has under way is dropped
        other.set_state(state)
        assert other.get_state() == state
        assert taken(other, min(3, 130 - stopped)) == straight[stopped : stopped + 3]

    check()


@pytest.mark.slow
def test_going_on_with_other_workers(corpus):
    straight = first_batches(config(corpus), 30)
    with_two = make_input(config(corpus, workers=2))
    assert taken(with_two, 11) == straight[:11]
    state = with_two.get_state()
    assert state["shards"]["0"]["row"] > 0  # in the middle of a block
    assert taken(with_two, 8) == straight[11:19]
    with_two.set_state(state)  # back, with results under way
    assert taken(with_two, 4) == straight[11:15]
    with_two.close()
    with_three = make_input(config(corpus, workers=3))
    with_three.set_state(state)
    assert taken(with_three, 19) == straight[11:]
    with_three.close()


@pytest.mark.parametrize("kind", ["corpus", "mixture"])
@pytest.mark.parametrize("done", [5, 90])
def test_going_on_with_other_hosts(corpus, tasks, kind, done):
    settings = config(corpus) if kind == "corpus" else mixed(corpus, tasks)
    settings = dataclasses.replace(settings, input_shards=2)
    straight = first_batches(settings, done + 7)
    hosts = [make_input(settings, (host, 2)) for host in range(2)]
    for host in hosts:
        taken(host, done)
    state = merged_states([host.get_state() for host in hosts])
    one = make_input(settings)
    one.set_state(state)
    assert taken(one, 7) == straight[done:]
    assert min(one.epochs().values()) > (1 if done > 5 else 0)
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
        ({"target_length": 30}, "target_length is 14 there and 30 here"),
        ({"packed": False}, "rows is 'pairs' there and 'pairs, one example a row' here"),
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


def test_a_state_of_another_mixture_is_refused(corpus, tasks):
    state = make_input(mixed(corpus, tasks)).get_state()
    more = make_input(mixed(corpus, tasks, corpus_rate=0.8))
    with pytest.raises(ValueError, match=r"rate of c4 is 0\.65 there and 0\.69.* \(--tasks, --mix"):
        more.set_state(state)
    alone = make_input(config(corpus, vocabulary=WordVocabulary()))
    with pytest.raises(ValueError, match=r"data of own is \['train', .*--data"):
        alone.set_state(state)


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
    with pytest.raises(ValueError, match="is of version 1, and this program reads version 2"):
        iterator.set_state(iterator.get_state() | {"version": 1, "shards": {"0": [3, 1]}})


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


def test_each_source_is_evaluated_by_itself_with_the_runs_lengths(corpus, tasks):
    settings = mixed(corpus, tasks, target_length=40)
    assert validation_inputs(settings).keys() == {"c4", "own"}  # dpr has no such split
    numbers = {}
    for name in ("c4", "own"):
        batches = list(validation_batches(settings, 9, name=name))
        for batch in batches:
            settings.batch_spec().check(batch)
        numbers[name] = len(batches), set(np.unique(batches[0]["encoder_tokens"]).tolist())
    assert numbers["c4"][0] == 9
    assert numbers["own"][0] == 3  # thirty examples, twelve rows
    assert numbers["own"][1] == {0, 1, 880, 881} | set(range(10, 40))
    assert numbers["c4"][1].isdisjoint({880, 881})


def test_a_task_with_two_validation_splits_is_evaluated_on_each(tmp_path):
    sample = TASKS["glue_mnli"].sample
    rows = [(split, sample) for split in ("train", *TASKS["glue_mnli"].evaluated)]
    prepare("glue_mnli", rows, tmp_path, "x")
    settings = config(
        None, tasks=(TaskInput(data=str(tmp_path), name="glue_mnli"),), vocabulary=WordVocabulary()
    )
    inputs = validation_inputs(settings)
    assert inputs.keys() == {"glue_mnli_matched", "glue_mnli_mismatched"}


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
    # Page 5 is in one element; asked again, it must not be passed over.
    settings = config(
        corpus, workers=2, batch_size=100, vocabulary=CrashingVocabulary(ZeroDivisionError("odd"))
    )
    iterator = make_input(settings)
    with pytest.raises(WorkerError, match="ZeroDivisionError: odd"):
        taken(iterator, 60)
    state = iterator.get_state()
    with pytest.raises(WorkerError, match="ZeroDivisionError: odd"):
        next(iterator)
    assert iterator.get_state() == state
    iterator.close()


def test_damage_is_met_where_it_is_due():
    made = []

    class Maker:
        def __call__(self, source, shard, element, count=1):
            if (element <= 6 < element + count) or element > 30:
                raise ValueError("damaged")
            made.append(range(element, element + count))
            return [(element + k,) * 2 for k in range(count)]

    elements = _InThisProcess(Maker(), 4)
    assert [elements.get(0, 1, n)[0] for n in range(6)] == list(range(6))
    for _ in range(2):
        with pytest.raises(ValueError, match="damaged"):
            elements.get(0, 1, 6)
    assert [elements.get(0, 1, n)[0] for n in (8, 9, 10, 20)] == [8, 9, 10, 20]
    assert [each for each in made if len(each) > 1] == [range(1, 5), range(9, 13)]


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
    own = TaskInput(data=str(tmp_path), name="own")
    for refused, host, message in [
        (config(corpus, tasks=(own,), workers=2), (0, 1), "has no data of own"),
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
    assert seen - {0} == {1} | set(range(10, 40))  # the first thirty pages, and no more
