"""Language: the fast detector is langdetect, and a page's answer depends on the page alone."""

import os
import pathlib
import random
import sys
import tomllib
import types

import pytest

from c4_filters import language
from c4_filters.language import (
    LANGUAGES,
    Language,
    detect_language,
    detector_name,
    python_detector,
    rust_detector,
)

SAMPLES = pathlib.Path(__file__).resolve().parents[2] / "samples" / "pages"
HAND_MADE = [
    "",
    " ",
    "12345 67890.",
    "...!?",
    "http://example.org/only/an/address",
    "a",
    "漢字",
    "The quick brown fox jumps over the lazy dog.",
    "Der schnelle braune Fuchs springt über den faulen Hund.",
    "Le renard brun saute. The brown fox jumps. Der Fuchs springt.",
    "これは日本語の文章です。とても短いです。",
    "这是一个中文句子。這是一個中文句子。",
    "Это предложение написано по-русски.",
    "Tiếng Việt có nhiều dấu thanh: ằ ẵ ệ ộ ữ.",
    "😀😀😀 🖕",
    "Mail someone@example.org or see https://example.org/a?b=c now, please.",
    "İstanbul'da hava çok güzel, ama ığdır'da değil.",
    "\x00\x85\u2028 control characters between English words \x1c here",
]


@pytest.fixture(scope="module")
def sample_texts():
    texts = [
        page["text"]
        for path in sorted(SAMPLES.glob("*.toml"))
        for page in tomllib.loads(path.read_text(encoding="utf-8"))["page"]
        if isinstance(page.get("text"), str)
    ]
    assert len(texts) > 30
    return HAND_MADE + texts[::2]


@pytest.fixture(scope="module")
def rust():
    pytest.importorskip("langdetect_rs", reason="the Rust wheel is missing on this platform")
    return rust_detector()


@pytest.fixture(scope="module")
def python():
    return python_detector()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("The quick brown fox jumps over the lazy dog.", "en"),
        ("Der schnelle braune Fuchs springt über den faulen Hund.", "de"),
        ("Le vieux pont a été fermé au printemps par les ingénieurs.", "fr"),
        ("Podul vechi a fost închis în primăvară de către ingineri.", "ro"),
        ("Это предложение написано по-русски.", "ru"),
        ("这是一个简单的中文句子。", "zh-cn"),
    ],
)
def test_languages_are_told(text, code):
    best = detect_language(text)
    assert best.code == code
    assert best.probability > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("text", ["", " ", "12345 67890.", "...!?", "https://example.org/page"])
def test_a_text_without_features_has_no_language(text, rust, python):
    assert detect_language(text) is rust(text) is python(text) is None


@pytest.mark.slow
def test_both_detectors_agree_to_the_last_bit_on_samples(sample_texts, rust, python):
    for text in sample_texts:
        assert rust(text) == python(text), text[:60]


def test_both_detectors_agree_to_the_last_bit_on_real_pages(real_pages, rust, python):
    languages = set()
    for page in real_pages[7::46]:
        best = rust(page.text)
        assert best == python(page.text), page.url
        languages.add(best.code if best else None)
    assert len(languages) > 10


def test_answers_do_not_depend_on_what_was_asked_before(sample_texts, rust, python):
    expected = {text: rust(text) for text in sample_texts}
    shuffled = sample_texts * 2
    random.Random(1).shuffle(shuffled)
    assert [rust(text) for text in shuffled] == [expected[text] for text in shuffled]
    fresh = rust_detector()
    assert [fresh(text) for text in reversed(sample_texts)] == [
        expected[text] for text in reversed(sample_texts)
    ]
    for text in reversed(sample_texts[:25]):
        assert python(text) == expected[text]


@pytest.mark.slow
def test_answers_do_not_depend_on_the_seeds_that_others_set(sample_texts, rust, python):
    import langdetect

    langdetect_rs = pytest.importorskip("langdetect_rs")
    texts = sample_texts[7:15]
    expected = [rust(text) for text in texts]
    undecided = "Le renard brun saute. The brown fox jumps. Der Fuchs springt."
    with pytest.MonkeyPatch.context() as patch:
        for seed in (1, 7, None):
            for module in (langdetect, langdetect_rs):
                patch.setattr(module.DetectorFactory, "seed", seed)
                module.detect_langs(undecided)
            random.seed(seed)
            assert [rust(text) for text in texts] == expected
            assert [rust_detector()(text) for text in texts[:2]] == expected[:2]
            assert [python(text) for text in texts] == expected
            assert [detect_language(text) for text in texts] == expected
        patch.setattr(langdetect.DetectorFactory, "seed", 7)
        late = python_detector()
        assert [late(text) for text in texts] == expected


def test_the_seed_is_that_of_the_reference():
    """A text on which seeds disagree: 0 is TF's choice, and must be ours."""
    import langdetect
    from langdetect.detector_factory import DetectorFactory

    text = "Le renard brun saute. The brown fox jumps. Der Fuchs springt."
    with pytest.MonkeyPatch.context() as patch:
        by_seed = []
        for seed in (0, 1, 2, 3):
            patch.setattr(DetectorFactory, "seed", seed)
            best = langdetect.detect_langs(text)[0]
            by_seed.append((best.lang, round(best.prob, 9)))
    assert len(set(by_seed)) > 1, "this text does not tell seeds apart"
    ours = detect_language(text)
    assert (ours.code, round(ours.probability, 9)) == by_seed[0]


@pytest.mark.slow
def test_the_order_of_the_profile_folder_does_not_matter(monkeypatch, sample_texts, rust, python):
    from langdetect import detector_factory

    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: sorted(listdir(folder), reverse=True))
    assert os.listdir(detector_factory.PROFILES_DIRECTORY)[0] == "zh-tw"
    other_python, other_rust = python_detector(), rust_detector()
    for text in sample_texts[:30]:
        assert other_python(text) == other_rust(text) == rust(text)


def test_the_decision_is_that_of_the_reference(c4_utils, sample_texts, real_pages):
    decided = set()
    for text in [*sample_texts[::3], *(page.text for page in real_pages[11::170])]:
        kept = bool(list(c4_utils.detect_english(c4_utils.PageFeatures(text=text))))
        ours = detect_language(text)
        assert kept == (ours is not None and ours.code == "en" and ours.probability >= 0.99)
        decided.add(kept)
    assert decided == {True, False}


def test_the_known_codes_are_those_of_the_profiles():
    from langdetect.detector_factory import PROFILES_DIRECTORY

    langdetect_rs = pytest.importorskip("langdetect_rs")
    assert set(os.listdir(PROFILES_DIRECTORY)) == LANGUAGES
    assert set(langdetect_rs._core.builtin_files()) == LANGUAGES


@pytest.fixture
def without_rust(monkeypatch):
    monkeypatch.setitem(sys.modules, "langdetect_rs", None)
    for cached in (language.detector_name, language._detector):
        cached.cache_clear()
    yield
    monkeypatch.undo()
    for cached in (language.detector_name, language._detector):
        cached.cache_clear()


def test_langdetect_answers_where_the_rust_wheel_is_missing(without_rust, monkeypatch):
    calls = types.SimpleNamespace(python=0)

    def counted():
        calls.python += 1
        return python_detector()

    monkeypatch.setattr(language, "python_detector", counted)
    assert detector_name().startswith("langdetect 1.")
    best = detect_language("The quick brown fox jumps over the lazy dog.")
    assert (type(best), best.code) == (Language, "en")
    assert detect_language("") is None
    assert calls.python == 1, "the profiles are loaded once"


def test_the_name_of_the_detector_carries_its_version(rust):
    assert detector_name().startswith("langdetect-rs 0.1")
