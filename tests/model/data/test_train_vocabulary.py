"""Training: the paper's numbering, the same bytes each time, errors that say what to do."""

import multiprocessing
import time

import pytest
import sentencepiece

from model.data import text_sample, train_vocabulary
from model.data.text_sample import TextSource
from model.data.train_vocabulary import TrainingError, VocabularyOptions, train
from pipelines.corpus.reading import open_corpus
from testing import languages


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    sources = [
        TextSource(name, open_corpus(languages.corpus(folder / name, name, 100)).split(), 1)
        for name in ("en", "de", "fr", "ro")
    ]
    return text_sample.draw(sources, 80_000, 0, folder)


def test_pieces_are_numbered_as_the_papers(samples, tmp_path):
    told = []
    content = train(samples, VocabularyOptions(size=300), tmp_path, lambda *at: told.append(at))
    model = sentencepiece.SentencePieceProcessor(model_proto=content)

    assert model.get_piece_size() == 300
    assert [model.id_to_piece(index) for index in range(3)] == ["<pad>", "</s>", "<unk>"]
    assert (model.pad_id(), model.eos_id(), model.unk_id(), model.bos_id()) == (0, 1, 2, -1)
    # Unigram: pieces in the order of their probabilities. Normalised by NFKC; no byte pieces.
    scores = [model.get_score(index) for index in range(3, 300)]
    assert scores == sorted(scores, reverse=True)
    assert model.normalize("ﬁ\u00a0½") == "▁fi▁1⁄2"
    assert not any(model.is_byte(index) for index in range(300))
    for word in ("bridge", "Brücke", "rivière", "șapte"):
        assert model.unk_id() not in model.encode(word)
    # Progress never goes back and begins at the beginning.
    done = [part for _, part in told]
    assert done == sorted(done)
    assert 0 <= done[0] <= done[-1] <= 1


def test_the_same_sample_gives_the_same_bytes(samples, tmp_path):
    options = VocabularyOptions(size=250)
    contents = []
    for name in "ab":
        (tmp_path / name).mkdir()
        contents.append(train(samples, options, tmp_path / name))
    assert contents[0] == contents[1]
    # What differs from machine to machine is not in the file.
    assert str(tmp_path).encode() not in contents[0]


def test_what_the_file_holds_depends_on_the_threads_which_are_always_as_many(
    samples, tmp_path, monkeypatch
):
    options = VocabularyOptions(size=250)
    assert options.trainer_arguments()["num_threads"] == 16
    first = train(samples, options, tmp_path)
    monkeypatch.setattr(train_vocabulary, "_THREADS", 1)
    (tmp_path / "other").mkdir()
    assert train(samples, options, tmp_path / "other") != first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 30_000}, r"80,000 characters of text give at most ([\d,]+) pieces and 30,000"),
        ({"size": 20, "character_coverage": 1.0}, "larger --size or a smaller"),
    ],
)
def test_a_size_that_the_text_has_not_is_told_with_one_that_it_has(
    samples, tmp_path, options, message
):
    with pytest.raises(TrainingError, match=message) as caught:
        train(samples, VocabularyOptions(**options), tmp_path)
    if "--size" in str(caught.value).rpartition(" or ")[2]:
        most = int(str(caught.value).rpartition("--size ")[2])
        (tmp_path / "again").mkdir()
        content = train(samples, VocabularyOptions(size=most), tmp_path / "again")
        assert sentencepiece.SentencePieceProcessor(model_proto=content).get_piece_size() == most


def test_an_interrupt_ends_the_training_process(samples, tmp_path, monkeypatch):
    monkeypatch.setattr(train_vocabulary, "_POLL_S", 0.001)  # so little text is done in 0.2 s

    def interrupt(stage, done):
        raise KeyboardInterrupt

    before = multiprocessing.active_children()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        train(samples, VocabularyOptions(size=250), tmp_path, interrupt)
    assert multiprocessing.active_children() == before
    assert time.monotonic() - began < 10
    assert not (tmp_path / "model").exists()


def test_a_training_that_is_killed_is_told(samples, tmp_path, monkeypatch):
    monkeypatch.setattr(train_vocabulary, "_POLL_S", 0.001)

    def kill(stage, done):
        (child,) = multiprocessing.active_children()
        child.kill()
        child.join()

    with pytest.raises(TrainingError, match=r"ended by signal 9, .* smaller --sample-characters"):
        train(samples, VocabularyOptions(size=250), tmp_path, kill)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 2**31}, "size must be between 4 and 10,000,000, got 2147483648"),
        ({"size": 3}, "size must be between 4 and 10,000,000, got 3"),
        ({"character_coverage": 0.5}, "between 0.98 and 1, got 0.5"),
        ({"character_coverage": 1.1}, "between 0.98 and 1, got 1.1"),
    ],
)
def test_options_that_no_vocabulary_has_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        VocabularyOptions(**options)
