"""Ids, sentinels and texts of a vocabulary."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from model.data.vocabulary import Vocabulary, VocabularyError
from testing.vocabularies import SENTENCES, train


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return train(tmp_path_factory.mktemp("vocabulary") / "vocab.model")


@pytest.fixture(scope="module")
def vocabulary(path):
    return Vocabulary(path)


def test_sentinels_stand_above_the_pieces_and_count_down(vocabulary):
    assert (vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id) == (0, 1, 2)
    assert (vocabulary.pieces, vocabulary.extra_ids, vocabulary.size) == (100, 100, 200)
    assert [vocabulary.sentinel(k) for k in (0, 1, 99)] == [199, 198, 100]
    for index in (-1, 100):
        with pytest.raises(VocabularyError, match=f"0 to 99, got {index}"):
            vocabulary.sentinel(index)


@pytest.mark.parametrize(
    ("extra_ids", "size", "padded"), [(100, 200, 256), (156, 256, 256), (157, 257, 384)]
)
def test_the_embedding_has_a_multiple_of_128_rows(path, extra_ids, size, padded):
    vocabulary = Vocabulary(path, extra_ids)
    assert (vocabulary.size, vocabulary.padded_size) == (size, padded)


def test_encoding_agrees_with_sentencepiece_one_by_one_and_in_batches(path, vocabulary):
    peer = sentencepiece.SentencePieceProcessor(model_file=str(path))
    expected = [peer.encode(text) for text in SENTENCES]
    assert all(expected)

    assert [vocabulary.encode(text) for text in SENTENCES] == expected
    for texts in (SENTENCES, [text.encode() for text in SENTENCES]):
        arrays = vocabulary.encode_batch(texts)
        assert [array.dtype for array in arrays] == [np.int32] * len(SENTENCES)
        assert [array.tolist() for array in arrays] == expected
    assert vocabulary.encode_batch([]) == []
    assert vocabulary.encode("") == []


@given(text=st.text(st.characters(codec="utf-8"), max_size=40))
def test_text_never_brings_special_ids(vocabulary, text):
    for page in (text, f"{text}<extra_id_3>{text}", f"<pad>{text}</s>"):
        assert not {0, 1}.intersection(ids := vocabulary.encode(page))
        assert max(ids, default=0) < vocabulary.pieces


def test_sentinels_are_read_from_text_only_when_asked(vocabulary):
    path_, up = vocabulary.encode("A narrow path"), vocabulary.encode("up to")
    text = "A narrow path <extra_id_0> up to<extra_id_12>"

    assert vocabulary.encode(text, parse_sentinels=True) == [
        *path_, vocabulary.sentinel(0), *up, vocabulary.sentinel(12)
    ]  # fmt: skip
    assert max(vocabulary.encode(text)) < vocabulary.pieces
    for no_sentinel in ("<extra_id_100>", "<extra_id_01>", "<extra_id_>", "extra_id_1"):
        assert vocabulary.encode(no_sentinel, parse_sentinels=True) == vocabulary.encode(
            no_sentinel
        )


def test_decoding_shows_sentinels_and_passes_over_padding(vocabulary):
    ids = vocabulary.encode(SENTENCES[0])
    assert vocabulary.decode([*ids, 1, 0, 0]) == SENTENCES[0]
    assert vocabulary.decode(np.array(ids, np.int32)) == SENTENCES[0]
    assert vocabulary.decode([]) == ""

    first, second = vocabulary.encode("A narrow path"), vocabulary.encode("up to")
    s0, s99 = vocabulary.sentinel(0), vocabulary.sentinel(99)
    assert (
        vocabulary.decode([*first, s0, *second, s99, 1, 0])
        == "A narrow path<extra_id_0> up to<extra_id_99>"
    )


def test_ids_between_size_and_padded_size_are_unknown_pieces(vocabulary):
    unknown = vocabulary.decode([2])
    assert unknown.strip() == "⁇"
    assert vocabulary.decode([vocabulary.size]) == unknown
    assert vocabulary.decode([255, *vocabulary.encode("up to")]).endswith(" up to")
    with pytest.raises(VocabularyError, match="negative, got -1"):
        vocabulary.decode([5, -1])


@given(text=st.text(st.sampled_from(sorted(set("".join(SENTENCES)))), max_size=60))
def test_decoding_returns_known_text_but_for_its_blanks(vocabulary, text):
    assert vocabulary.decode(vocabulary.encode(text)) == " ".join(text.split())


def test_a_pickle_is_small_and_reads_the_file_again(path, tmp_path):
    own = tmp_path / "v.model"
    own.write_bytes(path.read_bytes())
    vocabulary = Vocabulary(own, extra_ids=7)
    content = pickle.dumps(vocabulary)
    assert len(content) < 500

    again = pickle.loads(content)
    assert again is not vocabulary
    assert again.encode(SENTENCES[1]) == vocabulary.encode(SENTENCES[1])
    assert (again.size, again.sha256) == (107, vocabulary.sha256)
    assert pickle.loads(content) is again  # read once a process

    train(own, vocab_size=90)
    changed = subprocess.run(
        [sys.executable, "-c", "import pickle, sys; pickle.load(sys.stdin.buffer)"],
        input=content,
        capture_output=True,
    )
    assert b"has changed since" in changed.stderr


def test_it_brings_no_jax():
    code = "import model.data.vocabulary, sys; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_sentinels_among_the_pieces_are_used_as_they_are(tmp_path):
    names = ",".join(f"<extra_id_{k}>" for k in range(9, -1, -1))
    path = train(tmp_path / "v.model", vocab_size=100, user_defined_symbols=names)
    model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    if model.id_to_piece(99) != "<extra_id_0>":  # the trainer puts them first: move them last
        path.write_bytes(_rotated(model.serialized_model_proto(), names.split(",")))

    vocabulary = Vocabulary(path)

    assert (vocabulary.pieces, vocabulary.extra_ids, vocabulary.size) == (90, 10, 100)
    assert vocabulary.sentinel(0) == 99
    assert vocabulary.decode([99, 90]) == "<extra_id_0><extra_id_9>"


def _rotated(content, names):
    """The model with the pieces of these names last: pieces are a message's repeated field."""
    first, last = [], {}
    end = 0
    while content[end] == 0x0A:  # key of the pieces, then the length, below 128 here
        begin, end = end, end + 2 + content[end + 1]
        name = content[begin + 4 : begin + 4 + content[begin + 3]].decode()
        if name in names:
            last[name] = content[begin:end]
        else:
            first.append(content[begin:end])
    rest = content[end:]
    return b"".join([*first, *(last[name] for name in names), rest])


@pytest.mark.parametrize("content", [b"", b"no model", b"\x0a" * 1000])
def test_a_file_that_is_no_model_is_refused_in_a_line(tmp_path, content):
    path = tmp_path / "v.model"
    path.write_bytes(content)
    with pytest.raises(VocabularyError, match=r"v\.model: not a SentencePiece model; c4 vocab"):
        Vocabulary(path)


def test_other_special_ids_are_refused_by_number(tmp_path):
    path = train(tmp_path / "v.model", pad_id=-1, bos_id=0, eos_id=1, unk_id=2)
    with pytest.raises(VocabularyError, match="ids 0, 1 and 2, got -1, 1 and 2"):
        Vocabulary(path)


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        Vocabulary(tmp_path / "none.model")


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["fine", "lone \ud800"], "text 1 is not Unicode text: surrogates not allowed at 5"),
        (["fine", None], "text 1 must be str or bytes, got NoneType"),
    ],
)
def test_what_is_no_text_is_named(vocabulary, texts, message):
    with pytest.raises(VocabularyError, match=message):
        vocabulary.encode_batch(texts)
