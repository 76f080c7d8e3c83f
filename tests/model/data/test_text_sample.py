"""Samples: exact shares, whole corpora at most, the same for the same seed."""

import collections

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.data import text_sample
from model.data.text_sample import LINE_CHARACTERS, TextSource
from pipelines.corpus.reading import open_corpus
from testing import languages
from testing.corpora import make_corpus


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpora")
    counts = {"en": 300, "de": 60, "fr": 60, "ro": 60}
    return {
        name: open_corpus(languages.corpus(folder / name, name, count)).split()
        for name, count in counts.items()
    }


def draw(sources, characters, folder, seed=0):
    folder.mkdir()
    return {
        sample.source.name: sample for sample in text_sample.draw(sources, characters, seed, folder)
    }


def lines_of(language, count):
    return [line for page in languages.pages(language, count) for line in page.split("\n")]


def test_four_languages_come_at_ten_to_one_to_one_to_one(corpora, tmp_path):
    weights = {"en": 10, "de": 1, "fr": 1, "ro": 1}
    sources = [TextSource(name, corpora[name], weight) for name, weight in weights.items()]
    samples = draw(sources, 130_000, tmp_path / "sample")

    assert {name: sample.characters for name, sample in samples.items()} == {
        "en": 100_000, "de": 10_000, "fr": 10_000, "ro": 10_000
    }  # fmt: skip
    for name, sample in samples.items():
        lines = list(sample.lines())
        assert sum(map(len, lines)) == sample.characters
        # Whole lines of that language, the last one cut, none drawn twice.
        known = collections.Counter(lines_of(name, 300 if name == "en" else 60))
        assert not collections.Counter(lines[:-1]) - known
        assert any(line.startswith(lines[-1]) for line in known)


def test_the_order_of_sources_does_not_matter_and_the_seed_does(corpora, tmp_path):
    sources = [TextSource("en", corpora["en"], 2), TextSource("de", corpora["de"], 1)]

    def content(name, sources, seed):
        samples = draw(sources, 9_000, tmp_path / name, seed)
        assert list(samples) == ["de", "en"]  # trained on in this order
        return {name: list(sample.lines()) for name, sample in samples.items()}

    first = content("a", sources, 0)
    assert content("b", sources[::-1], 0) == first
    other = content("c", sources, 5)
    assert other["en"] != first["en"]


def test_shares_shrink_together_where_a_corpus_is_small(corpora, tmp_path):
    sources = [TextSource("en", corpora["en"], 1), TextSource("ro", corpora["ro"], 1)]
    samples = draw(sources, 10_000_000, tmp_path / "sample")
    everything = sum(map(len, lines_of("ro", 60)))
    assert samples["ro"].characters == samples["ro"].found == everything
    assert samples["en"].characters == everything < samples["en"].found
    # All of the small one, each line once, wherever reading began.
    assert sorted(samples["ro"].lines()) == sorted(lines_of("ro", 60))
    assert sum(map(len, samples["en"].lines())) == everything


def test_progress_adds_up_to_what_was_read(corpora, tmp_path):
    told = []
    text_sample.draw([TextSource("fr", corpora["fr"], 3)], 5_000, 0, tmp_path, told.append)
    assert sum(told) == 5_000


@settings(max_examples=25)
@given(
    texts=st.lists(
        st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=30).map(
            lambda text: text.replace("\x1f", "\n")
        ),
        min_size=1,
        max_size=5,
    ),
    characters=st.integers(1, 200),
    formats=st.sampled_from([("parquet",), ("tfrecord",)]),
)
def test_any_text_comes_through_line_by_line(tmp_path_factory, texts, characters, formats):
    folder = tmp_path_factory.mktemp("any")
    texts.append("end")  # a corpus without any text is another test's
    corpus = open_corpus(make_corpus(folder / "c", {"train": [texts]}, formats)).split()
    expected = [line.strip() for text in texts for line in text.split("\n") if line.strip()]

    (sample,) = text_sample.draw([TextSource("x", corpus, 1)], characters, 0, folder)

    found = list(sample.lines())
    assert "".join(found) == "".join(expected)[:characters]
    assert found[:-1] == expected[: len(found) - 1]
    assert list(sample.lines(3)) == list(_cut(found, 3))


def _cut(lines, characters):
    for line in lines:
        if characters <= 0:
            return
        yield line[:characters]
        characters -= len(line)


def test_long_lines_are_cut_at_blanks_and_nothing_else_changes(tmp_path):
    words = " ".join(f"word{number}" for number in range(3_000))
    solid = "x" * (2 * LINE_CHARACTERS + 5)
    corpus = open_corpus(make_corpus(tmp_path / "c", {"train": [[words, solid]]})).split()
    (sample,) = text_sample.draw([TextSource("x", corpus, 1)], 10**6, 0, tmp_path)
    lines = list(sample.lines())
    assert max(map(len, lines)) <= LINE_CHARACTERS
    cut = next(index for index, line in enumerate(lines) if line.startswith("x"))
    assert " ".join(lines[:cut]) == words
    assert "".join(lines[cut:]) == solid
    assert len(lines[cut:]) == 3


def test_wrong_sources_are_refused(corpora, tmp_path):
    en = TextSource("en", corpora["en"], 1)
    with pytest.raises(ValueError, match="a name of its own, got en, en"):
        text_sample.draw([en, en], 100, 0, tmp_path)
    for weight in (0, -1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="weight must be positive"):
            TextSource("en", corpora["en"], weight)
    blank = open_corpus(make_corpus(tmp_path / "blank", {"train": [[" \n ", ""]]})).split()
    with pytest.raises(ValueError, match=r"blank has no text to sample \(xx\)"):
        text_sample.draw([en, TextSource("xx", blank, 1)], 100, 0, tmp_path)
