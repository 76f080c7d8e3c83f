"""Near duplicates: shingles by hand, recall on planted pairs, and twins that try every pair."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from c4_filters import near
from c4_filters.recipes import NearDedup, Recipe, load_recipe

WORDS = [f"word{number}" for number in range(5_000)]


def planted(similarity: float, rng: random.Random, length: int) -> tuple[str, str]:
    """Two texts whose Jaccard similarity is the wanted one or a little more: their ends differ."""
    words = rng.choices(WORDS, k=length)
    shingles = length - 4
    changed = int(shingles * (1 - similarity) / (1 + similarity))
    return " ".join(words), " ".join(words[: length - changed] + rng.choices(WORDS, k=changed))


def test_shingles_are_runs_of_five_words_whatever_their_case_and_blanks():
    found = near.shingles("The old\u00a0bridge was\nclosed in SPRING.")
    assert found == {
        ("the", "old", "bridge", "was", "closed"),
        ("old", "bridge", "was", "closed", "in"),
        ("bridge", "was", "closed", "in", "spring."),
    }
    assert near.shingles("Only three words") == {("only", "three", "words")}


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("a b c d e f", "b c d e f g", 1 / 3),
        ("a b c d e", "A  B c\nd E", 1.0),
        ("a b c", "a b d", 0.0),
        ("a b c d e f g h i", "a b c d e f g h i j", 5 / 6),
    ],
)
def test_the_similarity_is_that_of_jaccard(one, other, expected):
    assert near.similarity(near.shingles(one), near.shingles(other)) == expected
    assert near.similarity(near.shingles(other), near.shingles(one), expected) == expected


@given(
    st.lists(st.sampled_from("abc"), max_size=30), st.lists(st.sampled_from("abc"), max_size=30),
    st.sampled_from([0.5, 0.8, 1.0]),
)  # fmt: skip
def test_what_cannot_reach_the_threshold_is_the_same_with_a_short_cut(one, other, least):
    pair = [near.shingles(" ".join(words)) for words in (one, other)]
    assert (near.similarity(*pair, least) >= least) == (near.similarity(*pair) >= least)


@given(st.lists(st.text("ab \n\u00e9\u3000", max_size=60), min_size=1, max_size=8))
def test_the_numbers_of_a_text_depend_on_its_shingles_alone(texts):
    bands = near.bands_for(0.8)
    numbers = near.band_hashes(texts, bands)
    assert numbers.shape == (len(texts), bands.numbers)
    for text, found in zip(texts, numbers, strict=True):
        assert (near.band_hashes([text], bands)[0] == found).all()
    for (one, first), (other, second) in itertools.combinations(
        zip(texts, numbers, strict=True), 2
    ):
        assert (first == second).all() == (near.shingles(one) == near.shingles(other))


def test_long_texts_and_many_are_hashed_in_parts(monkeypatch):
    rng = random.Random(3)
    texts = [" ".join(rng.choices(WORDS, k=rng.randrange(1, 1_500))) for _ in range(40)]
    whole = near.band_hashes(texts, near.bands_for(0.8))
    monkeypatch.setattr(near, "_BATCH_BYTES", 999)
    monkeypatch.setattr(near, "_ROWS_AT_A_TIME", 7)
    assert (near.band_hashes(texts, near.bands_for(0.8)) == whole).all()


def test_the_numbers_are_those_of_every_machine():
    [numbers] = near.band_hashes(["The same on every machine and in every year."], near.Bands(3, 2))
    assert numbers.tolist() == [527259414138320095, 8822183966290207290, 5449159971012819849]


@pytest.mark.parametrize("length", [100, 300])
@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.9])
def test_pairs_at_the_threshold_become_candidates(threshold, length):
    rng, bands = random.Random(length), near.bands_for(threshold)
    assert bands.recall(threshold) >= near.RECALL
    pairs = [planted(threshold, rng, length) for _ in range(500)]
    similar = [near.similarity(*map(near.shingles, pair)) for pair in pairs]
    assert threshold <= min(similar)
    assert np.mean(similar) < threshold + 0.03
    first, second = (near.band_hashes(texts, bands) for texts in zip(*pairs, strict=True))
    assert (first == second).any(axis=1).mean() >= 0.95
    others = np.roll(second, 1, axis=0)
    assert (first == others).any(axis=1).mean() < 0.05


def pages(ranks):
    found = np.zeros(len(ranks), near.PAGE)
    found["rank"], found["row"] = ranks, np.arange(len(ranks))
    return found


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=40, unique=True),
    st.integers(1, 6),
)
def test_candidates_are_the_pairs_of_a_number(found, hot):
    rows = np.zeros(len(found), near.BAND_ROW)
    for at, (number, rank) in enumerate(found):
        rows[at]["number"], rows[at]["rank"] = number, rank
    parts = list(near.candidate_pairs(rows, hot))
    assert all(0 < len(part.better) <= len(rows) for part in parts)
    pairs = [pair for part in parts for pair in zip(*part, strict=True)]
    expected = set()
    for number in range(6):
        ranks = sorted(rank for its, rank in found if its == number)
        best = ranks[:hot]
        expected |= {(number, one, two) for one in best for two in ranks if one < two}
    got = [
        (int(rows[one]["number"]), int(rows[one]["rank"]), int(rows[two]["rank"]))
        for one, two in pairs
    ]
    assert all(rows[one]["number"] == rows[two]["number"] for one, two in pairs)
    assert len(got) == len(set(got))
    assert set(got) == expected


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=60), st.randoms())
def test_who_goes_is_decided_as_page_by_page(edges, rng):
    edges = [tuple(sorted(edge)) for edge in edges if edge[0] != edge[1]]
    ranks = list(range(100, 113))
    every = pages(ranks)
    rng.shuffle(edges)
    better, worse = (every[[edge[side] for edge in edges]] for side in (0, 1))
    found = near.greedy(better, worse)
    kept: list[int] = []
    expected = {}
    for page in range(13):
        keeper = next((one for one in kept if (one, page) in edges), None)
        if keeper is None:
            kept.append(page)
        else:
            expected[page] = keeper
    got = dict(zip(found.pages["row"].tolist(), found.keepers["row"].tolist(), strict=True))
    assert got == expected


def test_being_similar_is_not_passed_on():
    every = pages([1, 2, 3])
    found = near.greedy(every[[0, 1]], every[[1, 2]])
    assert found.pages["row"].tolist() == [1], "3 is like 2, which is gone, and not like 1"


def test_pages_of_one_rank_have_an_order():
    every = pages([1, 1, 1])
    every["tie"], every["file"] = [5, 5, 4], [2, 1, 9]
    assert near.order_of(every).tolist() == [2, 1, 0]


@pytest.mark.parametrize("threshold", ["0.8", "true", "0.49", "1.01", "nan"])
def test_a_recipe_checks_the_threshold(threshold):
    toml = f'name = "x"\nnear_dedup = {{threshold = {threshold}}}'
    if threshold == "0.8":
        recipe = load_recipe("x.toml", toml)
        assert recipe.near_dedup == NearDedup(threshold=0.8)
        assert recipe.as_dict()["near_dedup"] == {"threshold": 0.8}
        assert Recipe.from_mapping(recipe.as_dict()) == recipe
        assert recipe.digest() != Recipe(name="x").digest()
        return
    with pytest.raises(ValueError, match=r"^x.toml: recipe x: near_dedup.threshold must "):
        load_recipe("x.toml", toml)


def test_a_recipe_names_what_it_does_not_know():
    for toml, message in {
        "near_dedup = {treshold = 0.9}": "unknown key 'treshold' in near_dedup; did you mean 'thr",
        "near_dedup = 0.8": r"near_dedup must be \{threshold = 0.8\}",
    }.items():
        with pytest.raises(ValueError, match=message):
            load_recipe("x.toml", f'name = "x"\n{toml}')
