"""Passes over a corpus: what is said before a run is what the run does."""

import itertools

import pytest

from model.corpora.mix import make_mixture
from model.data.input_config import InputConfig
from model.data.input_pipeline import make_input
from model.data.objectives import OBJECTIVES
from model.data.passes import input_size
from model.data.sources.task import TaskInput
from model.tasks.prepared import prepare
from testing.corpora import NumberVocabulary, make_corpus, numbered


def _config(corpus, **options):
    return InputConfig(
        corpus=corpus, vocabulary=NumberVocabulary(), batch_size=4, input_length=64, **options
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("c") / "corpus", {"train": numbered([500, 400])})


def test_a_small_corpus_is_measured_whole(corpus):
    (size,) = input_size(_config(corpus)).sources
    pages = [page for shard in numbered([500, 400]) for page in shard]
    assert (size.pages, size.exact) == (900, True)
    assert size.tokens == sum(len(page.split()) for page in pages)
    assert "900 pages, " in size.described(100)
    assert "about" not in size.described(100)


def test_a_large_one_is_estimated_from_some_pages(corpus, monkeypatch):
    (whole,) = input_size(_config(corpus)).sources
    monkeypatch.setattr("model.data.passes._ENOUGH_TOKENS", 8000)
    (part,) = input_size(_config(corpus)).sources
    assert not part.exact
    assert part.tokens == pytest.approx(whole.tokens, rel=0.1)
    assert part.examples == pytest.approx(whole.examples, rel=0.1)
    assert part.described(100).count("about") == 2


def test_pages_of_very_different_lengths_are_estimated_by_their_bytes(tmp_path, monkeypatch):
    """A quarter of the text is in one page in a hundred, of which the sample has few or many."""
    lengths = [3000 if n % 97 == 50 else 100 for n in range(1500)]
    pages = [" ".join(["7"] * length) for length in lengths]
    by_hand = make_corpus(tmp_path / "by hand", {"train": [pages]})
    made = str(tmp_path / "made")  # with the bytes of its texts in the manifest
    make_mixture([(by_hand, 1.0)], made)
    monkeypatch.setattr("model.data.passes._ENOUGH_TOKENS", 8000)
    (size,) = input_size(_config(made)).sources
    assert not size.exact
    assert size.tokens == pytest.approx(sum(lengths), rel=0.01)


def test_only_the_first_pages_count_where_a_run_reads_no_more(corpus):
    (size,) = input_size(_config(corpus, max_pages=100)).sources
    assert size.pages == 100


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("name", ["span3", "prefix_lm"])
def test_the_epoch_rises_to_what_was_said(corpus, shards, name):
    config = _config(corpus, input_shards=shards, objective=OBJECTIVES[name])
    size = input_size(config, shards)
    iterator, epochs = make_input(config), [0.0]
    steps = int(2.5 / size.passes(4)["c4"])
    for _ in range(steps):
        next(iterator)
        epochs.append(iterator.epoch())
    assert epochs[-1] == pytest.approx(size.passes(4 * steps)["c4"], rel=0.03)
    steps_up = [later - sooner for sooner, later in itertools.pairwise(epochs)]
    assert min(steps_up) >= 0
    assert max(steps_up) < 0.2


def test_passes_of_a_mixture(corpus, tmp_path):
    rows = [("train", {"inputs": f"{n} 3", "targets": "4"}) for n in range(200)]
    prepare("own", rows, tmp_path, "x")
    task = TaskInput(data=str(tmp_path), name="own", rate=0.25)
    config = _config(corpus, tasks=(task,), corpus_rate=0.75)
    size, iterator = input_size(config), make_input(config)
    assert size.mixture() == "mixture: c4 0.75, own 0.25"
    for _ in range(400):
        next(iterator)
    passes = size.passes(1600)
    assert iterator.epochs() == pytest.approx(passes, rel=0.03)
    assert iterator.epoch() == iterator.epochs()["c4"]
    assert passes["own"] > 2
    corpus_line, task_line = size.lines(1600)
    assert corpus_line.startswith("corpus: 900 pages, ")
    assert task_line == f"own: 200 examples: the run reads them {passes['own']:.2f} times"

    alone = make_input(_config(None, tasks=(task,)))
    next(alone)
    assert alone.epoch() == alone.epochs()["own"] > 0
