"""What a run goes through, once an epoch; every objective on every architecture."""

import collections
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data.objectives import OBJECTIVES, objective
from model.data.page_groups import PageGroups
from model.data.rows import MAX_PAGE_TOKENS, InputConfig, RowMaker, RowOrder, _one_chunk
from model.t5.config import ARCHITECTURES
from pipelines.corpus.reading import CorpusSplit, Shard, open_corpus
from testing.corpora import FIRST_ID, NumberVocabulary, make_corpus, numbered

PAGES = [300, 150, 61]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("rows") / "c", {"train": numbered(PAGES)})


def config(corpus, **changes):
    options = {"vocabulary": NumberVocabulary(), "batch_size": 8, "input_length": 64}
    return InputConfig(corpus=corpus, **(options | changes))


# --- the order of groups ------------------------------------------------------------------------


@given(
    st.lists(st.integers(1, 900), min_size=1, max_size=5),
    st.integers(1, 5),
    st.integers(0, 3),
)
def test_every_page_once_an_epoch_in_any_number_of_shards(pages, shards, seed):
    listed = tuple(Shard(str(i), n, n) for i, n in enumerate(pages))
    corpus = CorpusSplit("", "train", "parquet", listed)
    if sum(pages) < shards:
        with pytest.raises(ValueError, match=r"pages in its split 'train', too few for"):
            RowOrder(corpus, shards, seed)
        return
    schedule = RowOrder(corpus, shards, seed)
    everything = collections.Counter(
        (number, page) for number, count in enumerate(pages) for page in range(count)
    )
    for epoch in range(2):
        found = collections.Counter()
        for shard in range(shards):
            n = schedule.elements(shard)
            assert n >= 1
            for element in range(epoch * n, (epoch + 1) * n):
                number, start, stop = schedule.group(shard, element)
                found.update((number, page) for page in range(start, stop))
        assert found == everything


def test_lanes_are_read_in_order_taken_in_turn_and_begin_anywhere():
    corpus = CorpusSplit("", "train", "parquet", (Shard("a", 128 * 100, 128 * 100),))
    schedule = RowOrder(corpus, 1, seed=3)
    groups = PageGroups(corpus, 128)
    numbers = {groups[i]: i for i in range(len(groups))}
    by_lane = collections.defaultdict(list)
    for element in range(2 * schedule.elements(0)):
        by_lane[schedule.lane(0, element)].append(numbers[schedule.group(0, element)])
    assert [schedule.lane(0, element) for element in range(24)] == [*range(8)] * 3
    assert sorted(map(len, by_lane.values())) == [24] * 4 + [26] * 4
    begins = []
    for visited in by_lane.values():
        for epoch in (visited[: len(visited) // 2], visited[len(visited) // 2 :]):
            low, high = min(epoch), max(epoch)
            assert sorted(epoch) == list(range(low, high + 1))  # contiguous, each once
            steps = {(b - a) % len(epoch) for a, b in itertools.pairwise(epoch)}
            assert steps == {1}
            begins.append(epoch[0] - low)
    assert len(set(begins)) > 4


def test_small_corpora_are_cut_into_smaller_groups():
    corpus = CorpusSplit("", "validation", "parquet", (Shard("a", 6, 6),))
    assert [RowOrder(corpus, 4, 0).elements(shard) for shard in range(4)] == [1, 2, 1, 2]


# --- rows ---------------------------------------------------------------------------------------


def targets_of_an_epoch(made, shards=1):
    for shard in range(shards):
        for element in range(made.order.elements(shard)):
            yield made(shard, element)["decoder_target_tokens"]


@pytest.mark.parametrize("shards", [1, 3])
def test_every_token_of_every_page_comes_once(corpus, shards):
    causal = config(corpus, objective=OBJECTIVES["causal_lm"], architecture="language-model")
    made = RowMaker(causal, shards)
    found = collections.Counter(
        np.concatenate([rows.ravel() for rows in targets_of_an_epoch(made, shards)]).tolist()
    )
    wanted = collections.Counter(
        FIRST_ID + int(word) for text in itertools.chain(*numbered(PAGES)) for word in text.split()
    )
    assert {token: n for token, n in found.items() if token >= FIRST_ID} == wanted


def test_pages_are_joined_or_kept_apart(corpus):
    def most_pages_in_a_segment(name):
        made = RowMaker(config(corpus, objective=OBJECTIVES[name]), 1)
        rows = made(0, 0)
        most = 0
        for tokens, segments in zip(
            rows["decoder_target_tokens"], rows["decoder_segments"], strict=True
        ):
            for segment in range(1, segments.max() + 1):
                of_segment = tokens[segments == segment]
                most = max(most, len(np.unique(of_segment[of_segment >= FIRST_ID])))
        return most

    assert most_pages_in_a_segment("mass") > 1
    assert most_pages_in_a_segment("deshuffle") == 1


def test_rows_are_in_a_random_order(corpus):
    causal = config(corpus, objective=OBJECTIVES["causal_lm"], architecture="language-model")
    first = RowMaker(causal, 1)(0, 0)["decoder_target_tokens"][:, 0]
    assert len(first) > 10
    assert first.tolist() != sorted(first)  # page numbers rise along the group


@pytest.mark.parametrize("name", ["span3", "bert", "prefix_lm"])
def test_an_element_depends_on_seed_shard_and_number_alone(corpus, name):
    def made(seed, shard, element, before=()):
        maker = RowMaker(config(corpus, objective=OBJECTIVES[name], seed=seed), 2)
        for other in before:
            maker(*other)
        return {key: array.tobytes() for key, array in maker(shard, element).items()}

    one = made(1, 1, 5)
    assert one == made(1, 1, 5, before=[(0, 0), (1, 6), (1, 5)])
    assert one != made(2, 1, 5)
    assert one != made(1, 0, 5)
    assert one != made(1, 1, 6)


def test_equal_pages_are_masked_differently_everywhere(tmp_path):
    folder = make_corpus(tmp_path / "c", {"train": [[" ".join(map(str, range(70)))] * 256] * 2})
    made = RowMaker(config(folder), 2)
    places = [(shard, element) for shard in range(2) for element in range(4)]
    assert len({made(*place)["encoder_tokens"].tobytes() for place in places}) == len(places)


def test_long_pages_give_one_aligned_part():
    ids = np.arange(2 * MAX_PAGE_TOKENS + 10, dtype=np.int32)
    rng = np.random.default_rng(0)
    parts = [_one_chunk(ids, rng) for _ in range(60)]
    begins = collections.Counter(int(part[0]) // MAX_PAGE_TOKENS for part in parts)
    assert begins.keys() == {0, 1, 2}
    assert {len(part) for part in parts} == {MAX_PAGE_TOKENS, 10}
    assert all(part[0] % MAX_PAGE_TOKENS == 0 for part in parts)
    assert all(np.array_equal(part, np.arange(part[0], part[0] + len(part))) for part in parts)
    short = ids[:MAX_PAGE_TOKENS]
    assert _one_chunk(short, rng) is short


# --- every objective on every architecture ------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_on_every_architecture(corpus, name, architecture):
    options = {"objective": OBJECTIVES[name], "architecture": architecture}
    if name == "causal_lm" and "language-model" not in architecture:
        with pytest.raises(ValueError, match=r"an encoder nothing to read.*prefix_lm"):
            config(corpus, **options)
        return
    settings = config(corpus, **options)
    rows = RowMaker(settings, 1)(0, 0)
    count = len(rows["decoder_segments"])
    spec = settings.batch_spec()
    assert {key: (shape[1], kind) for key, (shape, kind) in spec.arrays.items()} == {
        key: (array.shape[1], array.dtype) for key, array in rows.items()
    }
    assert count > 5
    real = rows["decoder_segments"] > 0
    assert real.mean() > 0.5
    assert np.all(rows["loss_weights"][~real] == 0)
    assert np.all(rows["decoder_target_tokens"][real] > 0)
    assert np.all(real.any(axis=1))
    if architecture == "prefix-language-model":
        # Inputs are seen and cost nothing, but for the place that is read and predicts.
        both = (rows["prefix"] * rows["loss_weights"]).sum()
        with_inputs = rows["decoder_segments"].max(axis=1).sum() if name != "causal_lm" else 0
        assert both == with_inputs
        assert np.all((rows["prefix"] + rows["loss_weights"])[real] >= 1)
    elif architecture == "language-model":
        assert not rows["prefix"].any()
        assert np.all(rows["loss_weights"][real] == 1)
    else:
        assert (rows["encoder_segments"] > 0).mean() > 0.5
        assert np.array_equal(
            rows["encoder_segments"].max(axis=1), rows["decoder_segments"].max(axis=1)
        )


def segments_of(rows):
    for tokens, segments, *others in zip(
        rows["decoder_target_tokens"],
        rows["decoder_segments"],
        rows["prefix"],
        rows["loss_weights"],
        strict=True,
    ):
        for segment in range(1, segments.max() + 1):
            at = segments == segment
            yield tokens[at].tolist(), *(other[at].tolist() for other in others)


@pytest.mark.parametrize(("separator", "ids"), [("eos", [1]), ("target:", [3])])
def test_what_stands_between_inputs_and_targets(corpus, separator, ids):
    spans = RowMaker(
        config(corpus, architecture="prefix-language-model", separator=separator), 1
    )  # fmt: skip
    first_sentinel = NumberVocabulary().size - 1
    seen = 0
    for tokens, prefix, weights in segments_of(spans(0, 0)):
        end = tokens.index(ids[0])
        # The next thing said is the first sentinel again, and then what it stands for.
        assert tokens[end + 1] == first_sentinel
        assert tokens[-1] == 1
        assert prefix == [1] * (end + 2) + [0] * (len(tokens) - end - 2)
        assert weights == [0.0] * (end + 1) + [1.0] * (len(tokens) - end - 1)
        seen += 1
    assert seen > 5


@pytest.mark.parametrize(
    ("architecture", "loss_on_inputs", "share"),
    [
        ("language-model", None, "all"),
        ("language-model", False, "targets"),
        ("prefix-language-model", None, "targets"),
        ("prefix-language-model", True, "all"),
    ],
)
def test_where_the_loss_counts(corpus, architecture, loss_on_inputs, share):
    made = RowMaker(
        config(corpus, architecture=architecture, loss_on_inputs=loss_on_inputs), 1
    )  # fmt: skip
    for tokens, _, weights in segments_of(made(0, 0)):
        end = tokens.index(1) + 1
        assert weights == [float(share == "all")] * end + [1.0] * (len(tokens) - end)


def test_a_full_row_of_random_spans_is_filled_to_the_last_token(corpus):
    made = RowMaker(config(corpus, architecture="language-model"), 1)
    rows = made(0, 0)
    assert rows["decoder_segments"].shape[1] == config(corpus).batch_spec().decoder_length + 64
    assert (rows["decoder_segments"] > 0).all(axis=1).mean() > 0.9


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "decoder"}, "architecture must be one of encoder-decoder, .*'decoder'"),
        ({"batch_size": 0}, r"batch_size must be at least 1, got 0 \(--batch-size\)"),
        ({"batch_size": 2**25}, "batch_size 33554432 at input_length 64 makes 2.*e.09 tokens"),
        ({"seed": 2**32}, r"seed must be between 0 and 4,294,967,295, got 4294967296 \(--seed\)"),
        ({"workers": 2**31}, "workers must be between 0 and 1024, got"),
        ({"max_pages": 0}, "max_pages must be at least 1, got 0"),
        ({"input_shards": 0}, "input_shards must be at least 1, got 0"),
        ({"input_length": 2**31}, "input_length must be at most 1048576, got 2147483648"),
        ({"seed": -1}, "seed must be between 0 and .*, got -1"),
        ({"workers": -1}, "workers must be between 0 and 1024, got -1"),
        ({"separator": "sep"}, "separator must be 'eos' or 'target:', got 'sep'"),
        ({"separator": "target:"}, "for models without an encoder, and encoder-decoder has one"),
        ({"loss_on_inputs": True}, "for models without an encoder"),
        ({"input_length": 3}, "input_length must be at least 4, got 3"),
    ],
)
def test_configurations_that_cannot_be(corpus, changes, message):
    with pytest.raises(ValueError, match=message):
        config(corpus, **changes)


@pytest.mark.parametrize(
    ("changes", "host", "message"),
    [
        ({}, (2, 2), r"host must be in 0\.\.1, got 2"),
        ({"input_shards": 3}, (0, 2), "multiple of the number of hosts, got 3 for 2 hosts"),
        ({"batch_size": 9}, (0, 2), "batch_size must be a multiple .* got 9 for 2"),
    ],
)
def test_sharing_out_that_cannot_be(corpus, changes, host, message):
    with pytest.raises(ValueError, match=message):
        config(corpus, **changes).shards_of(*host)


def test_a_row_is_as_long_as_the_objective_needs():
    vocabulary = NumberVocabulary()
    settings = InputConfig(corpus="", vocabulary=vocabulary, objective=objective("span3"))
    spec = settings.batch_spec(hosts=4)
    assert (spec.batch_size, spec.encoder_length, spec.decoder_length) == (32, 512, 114)
    assert spec.tokens == 32 * (512 + 114)


def test_the_corpus_is_opened_by_its_name(corpus):
    assert open_corpus(corpus).split().page_count == sum(PAGES)
