"""Passes over a corpus: what is said before a run is what the run does."""

import itertools

import pytest

from model.data.input_pipeline import make_input
from model.data.passes import corpus_size
from model.data.rows import InputConfig
from testing.corpora import NumberVocabulary, make_corpus, numbered


def _config(corpus, **options):
    return InputConfig(
        corpus=corpus, vocabulary=NumberVocabulary(), batch_size=4, input_length=64, **options
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("c") / "corpus", {"train": numbered([500, 400])})


def test_a_small_corpus_is_measured_whole(corpus):
    size = corpus_size(_config(corpus))
    pages = [page for shard in numbered([500, 400]) for page in shard]
    assert (size.pages, size.exact) == (900, True)
    assert size.tokens == sum(len(page.split()) for page in pages)
    assert "900 pages, " in size.described(100)
    assert "about" not in size.described(100)


def test_a_large_one_is_estimated_from_its_first_pages(corpus, monkeypatch):
    whole = corpus_size(_config(corpus))
    monkeypatch.setattr("model.data.passes._ENOUGH_TOKENS", 8000)
    part = corpus_size(_config(corpus))
    assert not part.exact
    assert part.tokens == pytest.approx(whole.tokens, rel=0.1)
    assert part.rows == pytest.approx(whole.rows, rel=0.1)
    assert part.described(100).count("about") == 2


def test_only_the_first_pages_count_where_a_run_reads_no_more(corpus):
    assert corpus_size(_config(corpus, max_pages=100)).pages == 100


@pytest.mark.parametrize("shards", [1, 2])
def test_the_epoch_rises_to_what_was_said(corpus, shards):
    config = _config(corpus, input_shards=shards)
    size = corpus_size(config, shards)
    iterator, epochs = make_input(config), [0.0]
    steps = int(2.5 * size.rows / 4)
    for _ in range(steps):
        next(iterator)
        epochs.append(iterator.epoch(iterator.get_state(), size.rows_per_element))
    assert epochs[-1] == pytest.approx(size.passes(4 * steps), rel=0.03)
    steps_up = [later - sooner for sooner, later in itertools.pairwise(epochs)]
    assert min(steps_up) >= 0
    assert max(steps_up) < 0.2
