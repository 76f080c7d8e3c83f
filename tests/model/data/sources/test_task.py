"""A task as a source: every example once an epoch, in another order, whatever the shards."""

import collections
import itertools

import pytest

from model.data.sources.task import TaskInput, TaskSource
from model.tasks import TASKS
from model.tasks.prepared import prepare
from testing.corpora import NumberVocabulary

EXAMPLES = 700


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    rows = [{"inputs": f"{n} 7", "targets": str(n)} for n in range(EXAMPLES)]
    few = [("validation", row) for row in rows[:3]]
    prepare("own", [("train", row) for row in rows] + few, folder, "x")
    return str(folder)


def source(data, shards=1, seed=0, **changes):
    task = TaskInput(**({"data": data, "name": "own"} | changes))
    return TaskSource(task, NumberVocabulary(), seed, shards)


def order_of(made, epoch, shard=0):
    return [
        targets[0] - 10
        for element in range(made.elements(shard))
        for targets in made.pairs(shard, (epoch, element))[0][1].lists()
    ]


@pytest.mark.parametrize("shards", [1, 3, 64])
def test_every_example_once_an_epoch(data, shards):
    made = source(data, shards)
    epochs = [
        list(itertools.chain(*(order_of(made, epoch, shard) for shard in range(shards))))
        for epoch in range(3)
    ]
    assert [sorted(epoch) for epoch in epochs] == [list(range(EXAMPLES))] * 3
    assert len(set(map(tuple, epochs))) == 3
    sizes = [
        len(made.pairs(shard, (0, element))[0][1])
        for shard in range(shards)
        for element in range(made.elements(shard))
    ]
    assert max(sizes) <= 128
    assert max(sizes) - min(sizes) <= 1


def test_inputs_and_targets_belong_together(data):
    inputs, targets = source(data).pairs(0, (4, 2))[0]
    assert [[*target, 17] for target in targets.lists()] == inputs.lists()


def test_fewer_examples_than_shards_go_to_each_in_its_own_order(data):
    made = source(data, shards=8, split="validation")
    orders = [tuple(order_of(made, epoch, shard)) for epoch in range(9) for shard in range(8)]
    assert {tuple(sorted(order)) for order in orders} == {(0, 1, 2)}
    assert len(set(orders)) == 6


def test_an_element_depends_on_its_numbers_alone(data):
    def places(seed=0, shards=2, place=(1, 2, 0)):
        shard, epoch, element = place
        return source(data, shards, seed)._places(shard, epoch, [element])[0].tolist()

    assert places() == places()
    others = [places(seed=1), places(place=(0, 2, 0)), places(place=(1, 3, 0))]
    assert places() not in others


def test_an_order_is_close_to_random(data):
    made = source(data)
    firsts = collections.Counter(
        int(made._places(0, epoch, [0])[0][0]) * 7 // 700 for epoch in range(700)
    )
    assert max(firsts.values()) < 150
    assert min(firsts.values()) > 60


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "test"}, "own has no examples in its split 'test': train, validation"),
        ({"name": "glue_cola"}, "has no data of glue_cola: c4 tasks prepare glue_cola"),
        ({"rate": -1.0}, "the rate of own must be at least 0"),
        ({"rate": float("nan")}, "the rate of own must be at least 0"),
    ],
)
def test_tasks_that_cannot_be_drawn_from(data, changes, message):
    with pytest.raises(ValueError, match=message):
        source(data, **changes)


def test_a_form_and_a_split_make_other_pairs(tmp_path):
    sample = TASKS["super_glue_copa"].sample
    prepare("super_glue_copa", [("train", sample), ("validation", sample)], tmp_path, "x")
    made = [
        source(str(tmp_path), name="super_glue_copa", **changes).identity()
        for changes in ({}, {"form": "paper"}, {"split": "validation"})
    ]
    assert len(set(map(str, made))) == 3


@pytest.mark.parametrize(
    ("keep_bytes", "again"), [(1 << 20, 0), (9000, EXAMPLES - 34), (0, EXAMPLES)]
)
def test_ids_that_are_kept_are_not_made_again(data, keep_bytes, again):
    texts = []

    class Counting(NumberVocabulary):
        def encode_batch(self, batch):
            texts.extend(batch)
            return super().encode_batch(batch)

    task = TaskInput(data=data, name="own")
    made = TaskSource(task, Counting(), 0, 1, keep_bytes)
    epochs = [order_of(made, epoch) for epoch in (0, 1, 1)]
    assert epochs == [order_of(source(data), epoch) for epoch in (0, 1, 1)]
    assert len(texts) == 2 * (EXAMPLES + 2 * again)


def test_elements_made_together_are_those_made_alone(data):
    places = [(0, 4), (0, 5), (1, 0), (1, 1)]
    together = source(data, seed=3).pairs(0, *places)
    alone = [source(data, seed=3).pairs(0, place)[0] for place in places]
    assert [[side.lists() for side in pairs] for pairs in together] == [
        [side.lists() for side in pairs] for pairs in alone
    ]
