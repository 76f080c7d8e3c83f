"""The tokenizer we write, in the library that it is for: the same ids as ours."""

import json
import pickle

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from model.data.sentencepiece_model import USER_DEFINED
from model.data.vocabulary import Vocabulary, VocabularyError
from model.exchange import tokenizer_files
from testing.vocabularies import SENTENCES, train

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


@pytest.mark.slow
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


@pytest.mark.slow
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
    assert model.of_type(USER_DEFINED) == [peer.piece_to_id("<sep>"), peer.piece_to_id("ö")]
    assert (model.model_type, model.byte_fallback) == ("unigram", False)
    assert len(model.charsmap) > 10_000  # NFKC's table


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"model_type": "bpe"}, "model_type is bpe"),
        ({"model_type": "char"}, "model_type is char"),
        ({"byte_fallback": True, "vocab_size": 350}, "byte_fallback is on"),
        ({"add_dummy_prefix": False}, "add_dummy_prefix is off"),
        ({"remove_extra_whitespaces": False}, "remove_extra_whitespaces is off"),
        ({"treat_whitespace_as_suffix": True}, "treat_whitespace_as_suffix is on"),
        ({"user_defined_symbols": "<sep>"}, "user_defined_symbols has '<sep>'"),
        ({"normalization_rule_name": "identity", "vocab_size": 90}, "normalization_rule_name"),
        ({"normalization_rule_name": "nfkc"}, "normalization_rule_name"),
    ],
)
def test_models_that_theirs_would_give_other_ids_are_refused_by_property(tmp_path, options, name):
    vocabulary = Vocabulary(train(tmp_path / "v.model", **options))
    assert vocabulary.obstacle.startswith(name)
    (tmp_path / "folder").mkdir()
    with pytest.raises(VocabularyError, match=rf"v\.model: {name}"):
        tokenizer_files.write(tmp_path / "folder", vocabulary)
    assert list((tmp_path / "folder").iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [
        {"normalization_rule_name": "nmt_nfkc_cf"},
        {"control_symbols": "<cls>,<mask>"},
        {"split_by_number": False, "split_digits": True},
        {"character_coverage": 0.98},
        {"bos_id": 3},
        {"unk_surface": " [?] "},
    ],
    ids=str,
)
def test_other_models_keep_their_ids_in_theirs(tmp_path, options):
    vocabulary = Vocabulary(train(tmp_path / "v.model", **options))
    assert vocabulary.obstacle is None
    (tmp_path / "folder").mkdir()
    tokenizer_files.write(tmp_path / "folder", vocabulary)
    theirs = transformers.T5Tokenizer.from_pretrained(tmp_path / "folder")
    for text in (*SENTENCES, "A\tB\u00a0 C\u3000D\n\nE 2019 汉字 Ｆ"):
        assert theirs(text).input_ids == [*vocabulary.encode(text), 1]


# Folders of others


TEXTS = [*SENTENCES, "A\tB  C\n", "The <extra_id_0> opens <extra_id_1>.", "<sep> a <sep>b<sep>", ""]


def saved(folder, spiece, **options):
    """A folder as a user of Transformers saves it, and its tokenizer."""
    vocab = [(piece, score) for piece, score in tokenizer_files.read_model(spiece).pieces]
    count = options.get("extra_ids", 100)
    added = options.pop("added", ())
    made = transformers.T5Tokenizer(
        vocab=vocab + [(f"<extra_id_{k}>", 0.0) for k in range(count - 1, -1, -1)],
        _spm_precompiled_charsmap=tokenizer_files.read_model(spiece).charsmap,
        **options,
    )
    made.add_tokens(list(added))
    made.save_pretrained(folder)
    return made


def imported(folder, into):
    content = tokenizer_files.read_vocabulary(folder)
    into.write_bytes(content)
    return Vocabulary(into)


def assert_same_ids(vocabulary, theirs):
    for text in TEXTS:
        ids = [*vocabulary.encode(text, parse_sentinels=True), 1]
        assert theirs(text).input_ids == ids, text
    for index in range(vocabulary.extra_ids):
        assert theirs.convert_tokens_to_ids(f"<extra_id_{index}>") == vocabulary.sentinel(index)
    for token in vocabulary.added:
        assert theirs.convert_tokens_to_ids(token.content) == token.id
        assert vocabulary.decode([token.id]) == token.content


@pytest.mark.parametrize("count", [0, 1, 100, 300])
def test_what_transformers_saves_is_read_with_its_sentinels(tmp_path, count):
    spiece = train(tmp_path / "v.model").read_bytes()
    theirs = saved(tmp_path / "theirs", spiece, extra_ids=count)
    assert (tmp_path / "theirs" / "tokenizer.json").exists()
    assert not (tmp_path / "theirs" / "spiece.model").exists()

    vocabulary = imported(tmp_path / "theirs", tmp_path / "ours.model")

    assert (vocabulary.pieces, vocabulary.extra_ids) == (100, count)
    assert_same_ids(vocabulary, theirs)
    # And out again, to the same.
    (tmp_path / "out").mkdir()
    tokenizer_files.write(tmp_path / "out", vocabulary)
    assert_same_ids(vocabulary, transformers.T5Tokenizer.from_pretrained(tmp_path / "out"))
    assert imported(tmp_path / "out", tmp_path / "again.model").same_as(vocabulary)


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        (None, 100),
        ({"extra_ids": 0}, 0),
        ({"extra_ids": 300}, 300),
        ({"additional_special_tokens": [f"<extra_id_{k}>" for k in range(7)]}, 7),
    ],
)
def test_sentinels_beside_a_sentencepiece_model_are_as_many_as_the_settings_say(
    tmp_path, settings, count
):
    folder = tmp_path / "theirs"
    folder.mkdir()
    spiece = train(folder / "spiece.model").read_bytes()
    if settings is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    vocabulary = imported(folder, tmp_path / "v.model")
    assert vocabulary.extra_ids == count
    assert vocabulary.size == 100 + count
    if count == 100:
        assert vocabulary.content == spiece  # byte for byte


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("normalized", [False, True])
def test_added_tokens_keep_their_ids_on_the_way_in_and_out(tmp_path, special, normalized):
    spiece = train(tmp_path / "v.model").read_bytes()
    token = transformers.AddedToken("<sep>", special=special, normalized=normalized)
    theirs = saved(tmp_path / "theirs", spiece, extra_ids=10, added=[token, "{"])
    vocabulary = imported(tmp_path / "theirs", tmp_path / "ours.model")
    assert [(t.content, t.id) for t in vocabulary.added] == [("<sep>", 110), ("{", 111)]
    assert (vocabulary.size, vocabulary.id_count) == (110, 112)
    assert vocabulary.sentinel(0) == 109
    assert_same_ids(vocabulary, theirs)
    # Marks are for prompts; other added tokens are text.
    batch = vocabulary.encode_batch(["a <sep>{b"])[0].tolist()
    assert (110 in batch, 111 in batch) == (not special, True)
    (tmp_path / "out").mkdir()
    tokenizer_files.write(tmp_path / "out", vocabulary)
    again = transformers.T5Tokenizer.from_pretrained(tmp_path / "out")
    assert_same_ids(vocabulary, again)
    assert imported(tmp_path / "out", tmp_path / "again.model").same_as(vocabulary)
    assert pickle.loads(pickle.dumps(vocabulary)).same_as(vocabulary)


def test_added_tokens_of_older_files_are_read(tmp_path):
    train(tmp_path / "spiece.model")
    (tmp_path / "added_tokens.json").write_text('{"<sep>": 200, "<end>": 201}')
    (tmp_path / "special_tokens_map.json").write_text('{"additional_special_tokens": ["<end>"]}')
    vocabulary = imported(tmp_path, tmp_path / "v.model")
    assert [(t.content, t.id, t.special) for t in vocabulary.added] == [
        ("<sep>", 200, False), ("<end>", 201, True)
    ]  # fmt: skip


def test_a_tokenizer_without_a_table_folds_white_space_all_the_same(tmp_path):
    spiece = train(tmp_path / "v.model", normalization_rule_name="nfkc").read_bytes()
    pieces = tokenizer_files.read_model(spiece).pieces
    theirs = transformers.T5Tokenizer(vocab=pieces, extra_ids=0)
    theirs.save_pretrained(tmp_path / "theirs")
    vocabulary = imported(tmp_path / "theirs", tmp_path / "ours.model")
    assert vocabulary.obstacle is None
    for text in (*SENTENCES, "A\tB\u00a0 C\u3000D\n\nE"):
        assert theirs(text).input_ids == [*vocabulary.encode(text), 1]


def _changed(name, change):
    def damage(folder):
        path = folder / name
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        change(content)
        path.write_text(json.dumps(content))

    return damage


def _model(**changes):
    return _changed("tokenizer.json", lambda raw: raw["model"].update(changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_model(type="BPE"), r"tokenizer\.json: model\.type is 'BPE'"),
        (_model(byte_fallback=True), r"model\.byte_fallback is True"),
        (_model(unk_id=0), r"model\.unk_id is 0"),
        (
            _changed("tokenizer.json", lambda raw: raw.update(normalizer={"type": "NFC"})),
            "normalizer is NFC",
        ),
        (
            _changed("tokenizer.json", lambda raw: raw.update(pre_tokenizer={"type": "ByteLevel"})),
            "pre_tokenizer is ByteLevel",
        ),
        (
            _changed(
                "tokenizer.json",
                lambda raw: raw["pre_tokenizer"]["pretokenizers"][1].update(prepend_scheme="never"),
            ),
            "pre_tokenizer Metaspace is",
        ),
        (
            _changed(
                "tokenizer.json",
                lambda raw: raw["added_tokens"].append(
                    {"id": 110, "content": "<sep>", "single_word": True}
                ),
            ),
            "added token '<sep>' is single_word",
        ),
        (
            _changed(
                "tokenizer.json",
                lambda raw: raw["added_tokens"].append({"id": 150, "content": "X"}),
            ),
            "added token 'X' has the id 150, and the first id that is free is 110",
        ),
        (
            _changed(
                "tokenizer.json",
                lambda raw: raw["model"].update(
                    vocab=raw["model"]["vocab"][:100] + raw["model"]["vocab"][:99:-1],
                    _=raw.update(added_tokens=raw["added_tokens"][:3]),
                ),
            ),
            "<extra_id_0> has the id 100; 10 sentinels behind 100 pieces must be numbered downw",
        ),
        (
            _changed(
                "tokenizer_config.json", lambda raw: raw.update(tokenizer_class="ByT5Tokenizer")
            ),
            "tokenizer_class is 'ByT5Tokenizer'",
        ),
        (
            _changed("tokenizer_config.json", lambda raw: raw.update(eos_token="<end>")),
            "eos_token is '<end>', and piece 1 is '</s>'",
        ),
        (lambda folder: (folder / "tokenizer.json").write_text("[]"), "damaged: no JSON object"),
        (_changed("tokenizer.json", lambda raw: raw.pop("model")), "damaged: KeyError"),
    ],
)
def test_tokenizers_that_ours_cannot_be_are_refused_by_property(tmp_path, damage, message):
    spiece = train(tmp_path / "v.model").read_bytes()
    saved(tmp_path / "theirs", spiece, extra_ids=10)
    damage(tmp_path / "theirs")
    with pytest.raises(ValueError, match=message) as caught:
        tokenizer_files.read_vocabulary(tmp_path / "theirs")
    assert "\n" not in str(caught.value)
    assert "c4 vocab" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"extra_ids": -1}, "extra_ids must be a number, got -1"),
        (
            {"extra_ids": 100, "additional_special_tokens": ["<extra_id_0>"]},
            "extra_ids is 100, and additional_special_tokens lists 1 sentinels",
        ),
        (
            {"extra_ids": 2, "added_tokens_decoder": {"100": {"content": "<extra_id_0>"}}},
            "id 100 is '<extra_id_0>', and '<extra_id_1>' by extra_ids",
        ),
    ],
)
def test_settings_that_contradict_themselves_are_refused(tmp_path, settings, message):
    train(tmp_path / "spiece.model")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(VocabularyError, match=message):
        tokenizer_files.read_vocabulary(tmp_path)


def test_two_vocabularies_in_one_folder_are_refused(tmp_path):
    saved(tmp_path / "theirs", train(tmp_path / "v.model").read_bytes())
    train(tmp_path / "theirs" / "spiece.model", vocab_size=90)
    with pytest.raises(VocabularyError, match="are of different vocabularies"):
        tokenizer_files.read_vocabulary(tmp_path / "theirs")


def test_a_folder_without_tokenizer_has_no_vocabulary(tmp_path):
    assert tokenizer_files.read_vocabulary(tmp_path) is None
