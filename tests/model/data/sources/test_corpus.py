"""A corpus as a source: every page once an epoch, in another order, cut and masked otherwise."""

import collections
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data.input_config import InputConfig
from model.data.objectives import OBJECTIVES
from model.data.sequences import Sequences
from model.data.sources.corpus import MAX_PAGE_TOKENS, PageOrder, _chunks
from pipelines.corpus.reading import CorpusSplit, Shard
from testing.corpora import FIRST_ID, NumberVocabulary, make_corpus, numbered

PAGES = [300, 150, 61]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("rows") / "c", {"train": numbered(PAGES)})


def source_of(corpus, shards=1, **changes):
    options = {"vocabulary": NumberVocabulary(), "batch_size": 8, "input_length": 64}
    (source,) = InputConfig(corpus=corpus, **(options | changes)).sources(shards)
    return source


def split_of(pages):
    return CorpusSplit("", "train", "parquet", (Shard("a", pages, pages),))


def pages_of(order, shard, epoch, element):
    return [p for run in order.ranges(shard, epoch, element) for p in range(*run)]


# --- the order of pages -------------------------------------------------------------------------


@given(st.integers(1, 6000), st.integers(1, 5), st.integers(0, 3))
def test_every_page_once_an_epoch_in_any_number_of_shards(pages, shards, seed):
    if pages < shards:
        with pytest.raises(ValueError, match=r"pages in its split 'train', too few for"):
            PageOrder(split_of(pages), shards, seed)
        return
    order = PageOrder(split_of(pages), shards, seed)
    for epoch in range(2):
        found = []
        for shard in range(shards):
            elements = order.elements(shard)
            assert elements >= 1
            made = [pages_of(order, shard, epoch, element) for element in range(elements)]
            assert all(1 <= len(each) <= 128 for each in made)
            assert max(map(len, made)) <= min(map(len, made)) + 2
            of_shard = sorted(itertools.chain(*made))
            assert of_shard == list(range(of_shard[0], of_shard[-1] + 1))
            found += of_shard
        assert sorted(found) == list(range(pages))


def test_lanes_are_read_in_order_taken_in_turn_and_begin_anywhere():
    order = PageOrder(split_of(128 * 100 + 5), 1, seed=3)
    begins = collections.defaultdict(list)
    for epoch in range(3):
        by_lane = collections.defaultdict(list)
        for element in range(order.elements(0)):
            by_lane[order.lane(0, element)] += pages_of(order, 0, epoch, element)
        assert [order.lane(0, element) for element in range(24)] == [*range(8)] * 3
        for lane, visited in by_lane.items():
            assert {(b - a) % len(visited) for a, b in itertools.pairwise(visited)} == {1}
            begins[lane].append(visited[0])
    assert all(len(set(of_lane)) == 3 for of_lane in begins.values())


def test_each_lane_has_an_element_at_least():
    lanes = {pages: PageOrder(split_of(pages), 1, 0).lanes(0) for pages in (1, 128, 129, 9999)}
    assert lanes == {1: 1, 128: 1, 129: 2, 9999: 8}


# --- pairs --------------------------------------------------------------------------------------


CAUSAL = {"objective": OBJECTIVES["causal_lm"], "architecture": "language-model"}


@pytest.mark.parametrize("shards", [1, 3])
def test_every_token_of_every_page_comes_once(corpus, shards):
    source = source_of(corpus, shards, **CAUSAL)
    wanted = collections.Counter(
        FIRST_ID + int(word) for text in itertools.chain(*numbered(PAGES)) for word in text.split()
    )
    for epoch in range(2):
        found = collections.Counter()
        for shard in range(shards):
            for element in range(source.elements(shard)):
                found.update(source.pairs(shard, (epoch, element))[0][1].tokens.tolist())
        assert found == wanted


def test_pages_are_joined_or_kept_apart(corpus):
    def most_pages_in_a_target(name):
        _, targets = source_of(corpus, objective=OBJECTIVES[name]).pairs(0, (0, 0))[0]
        return max(len(set(tokens)) for tokens in targets.lists())

    assert most_pages_in_a_target("mass") > 1
    assert most_pages_in_a_target("deshuffle") == 1


def test_pages_of_an_element_are_in_a_random_order(corpus):
    _, targets = source_of(corpus, **CAUSAL).pairs(0, (0, 0))[0]
    pages = [page for page, _ in itertools.groupby(targets.tokens.tolist())]
    assert len(pages) > 50
    assert sum(a > b for a, b in itertools.pairwise(pages)) > 20


@pytest.mark.parametrize("name", ["span3", "bert", "prefix_lm"])
def test_an_element_depends_on_its_numbers_alone(corpus, name):
    def made(seed, *place, before=()):
        source = source_of(corpus, 2, objective=OBJECTIVES[name], seed=seed)
        for other in before:
            source.pairs(other[0], other[1:])
        return [side.lists() for side in source.pairs(place[0], place[1:])[0]]

    one = made(1, 1, 2, 1)
    assert one == made(1, 1, 2, 1, before=[(0, 0, 0), (1, 3, 0), (1, 2, 1)])
    source = source_of(corpus, 2, objective=OBJECTIVES[name], seed=1)
    together = source.pairs(1, (2, 0), (2, 1), (3, 0))[1]
    assert one == [side.lists() for side in together]
    others = [made(2, 1, 2, 1), made(1, 0, 2, 1), made(1, 1, 3, 1), made(1, 1, 2, 0)]
    assert all(one != other for other in others)


def test_equal_pages_are_masked_differently_everywhere(tmp_path):
    folder = make_corpus(tmp_path / "c", {"train": [[" ".join(map(str, range(70)))] * 256] * 2})
    source = source_of(folder, 2)
    places = list(itertools.product(range(2), range(2), range(2)))
    made = {source.pairs(place[0], place[1:])[0][0].tokens.tobytes() for place in places}
    assert len(made) == len(places)


def test_long_pages_give_one_aligned_part_another_in_another_epoch(tmp_path):
    ids = np.arange(2 * MAX_PAGE_TOKENS + 10, dtype=np.int32)
    rng = np.random.default_rng(0)
    chunks = _chunks(Sequences.of([ids, ids[:7]] * 60), rng)
    parts = np.split(chunks.tokens, chunks.ends[:-1])
    assert all(np.array_equal(part, ids[:7]) for part in parts[1::2])
    parts = parts[::2]
    begins = collections.Counter(int(part[0]) // MAX_PAGE_TOKENS for part in parts)
    assert begins.keys() == {0, 1, 2}
    assert {len(part) for part in parts} == {MAX_PAGE_TOKENS, 10}
    assert all(part[0] % MAX_PAGE_TOKENS == 0 for part in parts)
    assert all(np.array_equal(part, np.arange(part[0], part[0] + len(part))) for part in parts)
    short = Sequences.of([ids[:MAX_PAGE_TOKENS]])
    assert _chunks(short, rng) is short

    page = " ".join(["1"] * MAX_PAGE_TOKENS + ["2"] * MAX_PAGE_TOKENS)
    source = source_of(make_corpus(tmp_path / "c", {"train": [[page]]}), **CAUSAL)
    taken = [set(source.pairs(0, (epoch, 0))[0][1].tokens.tolist()) for epoch in range(9)]
    assert {11} in taken
    assert {12} in taken


@pytest.mark.parametrize("name", ["span3", "bert"])
def test_no_pair_of_an_epoch_comes_in_the_next(corpus, name):
    source = source_of(corpus, objective=OBJECTIVES[name])
    epochs = [
        {
            (tuple(inputs), tuple(targets))
            for element in range(source.elements(0))
            for inputs, targets in zip(
                *(side.lists() for side in source.pairs(0, (epoch, element))[0]), strict=True
            )
        }
        for epoch in range(2)
    ]
    assert not epochs[0] & epochs[1]


def test_long_pages_are_cut_elsewhere_in_each_epoch(tmp_path):
    page = " ".join(map(str, range(900)))
    folder = make_corpus(tmp_path / "c", {"train": [[page]]})
    source = source_of(folder, objective=OBJECTIVES["prefix_lm"])
    begins = []
    for epoch in range(4):
        inputs, targets = source.pairs(0, (epoch, 0))[0]
        assert np.all(inputs.lengths + targets.lengths <= 63)
        begins.append(tuple(part[0] for part in inputs.lists()))
        pairs = zip(inputs.lists(), targets.lists(), strict=True)
        tokens = list(itertools.chain(*itertools.chain(*pairs)))
        assert tokens == list(range(10, 910))[: len(tokens)]
        assert len(tokens) >= 899  # a last piece of one token has no two parts
    assert len(set(begins)) == 4
