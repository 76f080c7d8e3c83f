"""The tokenizer we write, in the library that it is for: the same ids as ours."""

import json

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from model.data.vocabulary import Vocabulary, VocabularyError
from model.exchange import tokenizer_files
from tests.model.data.test_vocabulary import SENTENCES, train

tokenizers = pytest.importorskip("tokenizers", reason="the dev extra is not installed")
transformers = pytest.importorskip("transformers", reason="the dev extra is not installed")


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    return Vocabulary(train(tmp_path_factory.mktemp("vocabulary") / "vocab.model"))


@pytest.fixture(scope="module")
def folder(vocabulary, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer_files.write(folder, vocabulary)
    (folder / "config.json").write_text('{"model_type": "t5"}')  # tells AutoTokenizer whose it is
    return folder


@pytest.fixture(scope="module")
def theirs(folder):
    return transformers.AutoTokenizer.from_pretrained(folder)


def test_it_is_their_t5_tokenizer_with_our_special_ids(theirs, vocabulary):
    assert isinstance(theirs, transformers.T5Tokenizer)
    assert len(theirs) == vocabulary.size
    assert (theirs.pad_token_id, theirs.eos_token_id, theirs.unk_token_id) == (0, 1, 2)
    names = [f"<extra_id_{index}>" for index in range(vocabulary.extra_ids)]
    ids = [vocabulary.sentinel(index) for index in range(vocabulary.extra_ids)]
    assert theirs.convert_tokens_to_ids(names) == ids
    assert set(names) < set(theirs.all_special_tokens)


@pytest.mark.parametrize(
    "text",
    [
        *SENTENCES,
        "  blanks \t around, and  inside ",
        "ﬁne liga­tures, ½ and ＦＵＬＬ width: NFKC folds them",
        "unknown: 汉字 and 🙂",
        "",
        # Sentinels of a prompt, as people write them.
        "The <extra_id_0> opens her shop <extra_id_1>",
        "<extra_id_99> path leads<extra_id_2> from the harbour",
    ],
)
def test_ids_equal_ours(theirs, folder, vocabulary, text):
    ids = [*vocabulary.encode(text, parse_sentinels=True), vocabulary.eos_id]
    assert theirs(text).input_ids == ids
    # Their class makes most of the tokenizer anew; other programs run the file as it is.
    assert tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids == ids


@given(words=st.lists(st.sampled_from(sorted({w for s in SENTENCES for w in s.split()}))))
def test_ids_and_texts_of_any_words_equal_ours(theirs, vocabulary, words):
    text = " ".join(words)
    ids = vocabulary.encode(text)
    assert theirs(text, add_special_tokens=False).input_ids == ids
    assert theirs.decode(ids) == vocabulary.decode(ids) == text


def test_pairs_end_twice(theirs, vocabulary):
    first, second = SENTENCES[:2]
    ids = [*vocabulary.encode(first), 1, *vocabulary.encode(second), 1]
    assert theirs(first, second).input_ids == ids


def test_the_model_is_read_as_sentencepiece_reads_it(tmp_path):
    path = train(tmp_path / "v.model", user_defined_symbols="<sep>,ö", byte_fallback=False)
    peer = sentencepiece.SentencePieceProcessor(model_file=str(path))

    model = tokenizer_files.read_model(path.read_bytes())

    ids = range(peer.get_piece_size())
    assert model.pieces == [(peer.id_to_piece(i), peer.get_score(i)) for i in ids]
    assert model.user_defined == [peer.piece_to_id("<sep>"), peer.piece_to_id("ö")]
    assert (model.unigram, model.byte_fallback) == (True, False)
    assert len(model.charsmap) > 10_000  # NFKC's table


def test_pieces_that_users_defined_come_first_in_theirs_too(tmp_path):
    vocabulary = Vocabulary(train(tmp_path / "v.model", user_defined_symbols="<sep>"))
    (tmp_path / "folder").mkdir()
    tokenizer_files.write(tmp_path / "folder", vocabulary)
    theirs = transformers.T5Tokenizer.from_pretrained(tmp_path / "folder")
    sep = vocabulary.encode("<sep>")[-1]
    assert vocabulary.decode([sep]) == "<sep>"
    assert theirs("A<sep>B").input_ids.count(sep) == 1


def test_a_model_without_normaliser_has_none_in_theirs(tmp_path):
    vocabulary = Vocabulary(
        train(tmp_path / "v.model", normalization_rule_name="identity", vocab_size=90)
    )
    (tmp_path / "folder").mkdir()
    tokenizer_files.write(tmp_path / "folder", vocabulary)
    written = json.loads((tmp_path / "folder" / "tokenizer.json").read_text(encoding="utf-8"))
    assert written["normalizer"] is None
    theirs = transformers.T5Tokenizer.from_pretrained(tmp_path / "folder")
    assert theirs(SENTENCES[0]).input_ids == [*vocabulary.encode(SENTENCES[0]), 1]


def test_another_kind_of_model_is_refused(tmp_path):
    vocabulary = Vocabulary(train(tmp_path / "v.model", model_type="bpe"))
    with pytest.raises(VocabularyError, match=r"v\.model: T5's tokenizer is made from a unigram"):
        tokenizer_files.write(tmp_path, vocabulary)
