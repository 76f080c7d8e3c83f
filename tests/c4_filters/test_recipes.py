"""Recipes: the published table, TOML files, errors of one line, digests."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c4_filters.recipes import RECIPES, NearDedup, Recipe, load_recipe
from c4_filters.sentences import sentence_splitter

# The thresholds of the released data, each with the place it was read from.
EN = {
    "order": "filters_first",
    "max_page_chars": 190_000,  # c4_utils.is_valid_length
    "drop_parser_accidents": False,
    "line_rules": True,
    "max_word_chars": 1_000,  # c4_utils._MAX_WORD_LENGTH
    "end_marks": [".", "?", "!", '"'],  # c4_utils._END_MARKS
    "min_words_per_line": 5,  # c4_utils._MIN_WORDS_PER_LINE
    "min_sentences": 3,  # c4_utils._MIN_NUM_SENTENCES
    "min_paragraphs": 0,
    "min_paragraph_chars": 200,  # c4_utils.paragraph_filter
    "languages": ["en"],
    "min_language_probability": 0.99,  # c4_utils.detect_english
    "bad_words": True,
    "bad_words_kept_fraction": 0.0,  # c4.py: badwords_filter_fraction=1.0
    "domain_list": False,
    "url_list": False,
    "dedup_urls": True,
    "dedup_unit": "sentences",
    "dedup_window": 3,
    "min_sentences_after_dedup": 3,
    "sentence_language": "english",
}
# What each recipe changes.
TABLE = {
    "en": {},
    "en.noblocklist": {"bad_words": False},
    "en.noclean": {
        "line_rules": False,
        "min_sentences": 0,
        "bad_words": False,
        "dedup_unit": "none",
        "min_sentences_after_dedup": 0,
    },
    "en.paper_v3": {"min_words_per_line": 3, "min_sentences": 5, "min_sentences_after_dedup": 5},
    "realnewslike": {"domain_list": True},
    "webtextlike": {"url_list": True},
    "de": {"languages": ["de"], "sentence_language": "german"},
    "fr": {"languages": ["fr"], "sentence_language": "french"},
    "ro": {"languages": ["ro"], "sentence_language": "english"},
    "ar": {"languages": ["ar"], "end_marks": [*'.?!"؟»”']},
    "hi": {"languages": ["hi"], "end_marks": [*'.?!"।॥”']},
    "ja": {"languages": ["ja"], "end_marks": [*'.?!"。．｡！？」』'], "min_words_per_line": 1},
    "zh": {
        "languages": ["zh-cn", "zh-tw"],
        "end_marks": [*'.?!"。．｡！？”」』'],
        "min_words_per_line": 1,
    },
    "multilingual": {
        "line_rules": False,
        "end_marks": [*'.?!"؟»”।॥;\u037e。．｡！？」』۔'],
        "min_sentences": 0,
        "min_paragraphs": 3,
        "languages": [],
        "min_language_probability": 0.95,  # c4_utils.detect_languages
        "bad_words_kept_fraction": 0.001,  # c4.py: badwords_filter_fraction=0.999
        "dedup_unit": "lines",
        "dedup_window": 1,
        "min_sentences_after_dedup": 0,
    },
    "tfds": {
        "order": "dedup_first",
        "drop_parser_accidents": True,
        "dedup_unit": "lines",
        "dedup_window": 1,
    },
    "as_is": {
        "max_page_chars": 10**9,
        "line_rules": False,
        "min_sentences": 0,
        "languages": [],
        "bad_words": False,
        "dedup_urls": False,
        "dedup_unit": "none",
        "min_sentences_after_dedup": 0,
        "verbatim": True,
        "skip_language": True,
    },
}


def test_the_table_names_every_recipe():
    assert list(RECIPES) == list(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_a_recipe_is_its_row_of_the_table(name):
    values = RECIPES[name].as_dict()
    description = values.pop("description")

    assert values == {"name": name, **EN, **TABLE[name]}
    assert description
    assert load_recipe(name) is RECIPES[name]


@pytest.mark.parametrize("name", TABLE)
def test_a_recipe_names_a_sentence_model_that_is_installed(name):
    assert sentence_splitter(RECIPES[name].sentence_language).count("A. B.") >= 1


def test_thresholds_are_those_of_the_reference(c4_utils):
    en, multilingual = RECIPES["en"], RECIPES["multilingual"]
    assert en.end_marks == c4_utils._END_MARKS
    assert en.min_words_per_line == c4_utils._MIN_WORDS_PER_LINE
    assert en.min_sentences == en.min_sentences_after_dedup == c4_utils._MIN_NUM_SENTENCES
    assert en.max_word_chars == c4_utils._MAX_WORD_LENGTH
    assert (en.max_page_chars,) == c4_utils.is_valid_length.__defaults__
    assert (en.min_language_probability,) == c4_utils.detect_english.__defaults__
    assert (
        multilingual.min_paragraphs,
        multilingual.min_paragraph_chars,
    ) == c4_utils.paragraph_filter.__defaults__[:2]


def test_the_soft_filter_is_that_of_the_reference(c4_utils):
    c4 = pytest.importorskip("tensorflow_datasets.text.c4")
    fractions = {config.name: config.badwords_filter_fraction for config in c4.C4.BUILDER_CONFIGS}
    assert 1.0 - RECIPES["multilingual"].bad_words_kept_fraction == fractions["multilingual"]
    assert 1.0 - RECIPES["en"].bad_words_kept_fraction == fractions["en"]
    assert RECIPES["en.noclean"].bad_words == (fractions["en.noclean"] > 0)


FIELDS = dataclasses.fields(Recipe)
OTHER_VALUES = {
    "name": "other",
    "order": "dedup_first",
    "languages": ("en", "de"),
    "end_marks": (".", "。"),
    "dedup_unit": "lines",
    "sentence_language": "german",
    "min_language_probability": 0.5,
    "bad_words_kept_fraction": 0.5,
    "rules": ("my_rules:no_recipes",),
    "near_dedup": NearDedup(),
}


def other_value(field):
    value = getattr(RECIPES["en"], field.name)
    if field.name in ("verbatim", "skip_language"):
        return value  # of en, and other than as_is has
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else OTHER_VALUES[field.name]


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_the_digest_tells_every_field_but_the_description(field):
    # Some fields fit no rule of en.
    en = RECIPES["as_is" if field.name in ("verbatim", "skip_language") else "en"]
    if field.name == "description":
        assert dataclasses.replace(en, description="other").digest() == en.digest()
        return
    changed = dataclasses.replace(en, **{field.name: other_value(field)})
    assert changed.digest() != en.digest()
    assert dataclasses.replace(changed, **{field.name: getattr(en, field.name)}) == en


def test_the_digest_is_the_same_on_every_machine():
    assert RECIPES["en"].digest() == "ab1565842ff3000c"
    assert len({recipe.digest() for recipe in RECIPES.values()}) == len(RECIPES)


def test_equal_numbers_have_one_digest():
    whole, real = (
        load_recipe("x", f'name = "x"\nmin_language_probability = {value}')
        for value in ("1", "1.0")
    )
    assert whole == real
    assert whole.digest() == real.digest()
    assert json.dumps(whole.as_dict()) == json.dumps(real.as_dict())


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_a_recipe_is_frozen(field):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(RECIPES["en"], field.name, getattr(RECIPES["en"], field.name))


# -------------------------------------------------------------------------------------- TOML


def toml_of(values):
    """TOML of values as JSON writes them: the two agree on strings, numbers, booleans, lists."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


@pytest.mark.parametrize("name", TABLE)
def test_a_recipe_comes_back_from_its_own_values(name):
    recipe = RECIPES[name]
    assert load_recipe("file.toml", toml_of(recipe.as_dict())) == recipe
    assert hash(recipe) == hash(load_recipe("file.toml", toml_of(recipe.as_dict())))


def test_a_base_is_changed_only_where_it_is_said():
    recipe = load_recipe("s.toml", 'name = "strict"\nbase = "en.paper_v3"\nmin_sentences = 9')
    assert recipe == dataclasses.replace(
        RECIPES["en.paper_v3"],
        name="strict",
        description="en.paper_v3, changed",
        min_sentences=9,
    )


def test_without_a_base_the_defaults_hold_and_they_are_those_of_en():
    assert dataclasses.replace(load_recipe("m.toml", 'name = "mine"'), name="en", description=(
        RECIPES["en"].description
    )) == RECIPES["en"]  # fmt: skip


def test_languages_may_be_several_or_any():
    recipe = load_recipe("n.toml", 'name = "n"\nlanguages = ["no", "sv", "da", "zh-cn"]')
    assert recipe.languages == ("no", "sv", "da", "zh-cn")
    assert load_recipe("n.toml", 'name = "n"\nlanguages = []').languages == ()


ERRORS = {
    "unknown key": (
        "min_sentence = 3",
        "unknown key 'min_sentence'; did you mean 'min_sentences'?",
    ),
    "unknown key, base": ('bse = "en"', "unknown key 'bse'; did you mean 'base'?"),
    "far-off key": ("zzzz = 1", "unknown key 'zzzz'; did you mean '"),
    "unknown base": (
        'base = "en.noblock"',
        "unknown recipe 'en.noblock'; did you mean 'en.noblocklist'?",
    ),
    "base of another type": ("base = 3", "unknown recipe 3; did you mean"),
    "text for a number": ('min_sentences = "3"', "min_sentences must be a whole number, got '3'"),
    "real for a whole number": (
        "min_sentences = 3.0",
        "min_sentences must be a whole number, got 3.0",
    ),
    "truth for a number": (
        "min_sentences = true",
        "min_sentences must be a whole number, got True",
    ),
    "truth for a real": (
        "min_language_probability = true",
        "min_language_probability must be a number, got True",
    ),
    "number for truth": ("bad_words = 1", "bad_words must be true or false, got 1"),
    "number for text": ("description = 1", "description must be a string, got 1"),
    "table for text": ("order = {a = 1}", "order must be a string, got {'a': 1}"),
    "text for a list": ('languages = "en"', "languages must be a list of strings, got 'en'"),
    "numbers in a list": ("languages = [1]", "languages must be a list of strings, got (1,)"),
    "upper case": ('languages = ["EN"]', "languages must be langdetect codes"),
    "a code of no language": ('languages = ["en", "xx"]', "got 'xx'; did you mean"),
    "Chinese, undivided": ('languages = ["zh"]', "got 'zh'; did you mean 'zh-"),
    "no page": ("max_page_chars = 0", "max_page_chars must be at least 1, got 0"),
    "no word": ("max_word_chars = 0", "max_word_chars must be at least 1, got 0"),
    "no window": ("dedup_window = 0", "dedup_window must be at least 1, got 0"),
    "negative words": (
        "min_words_per_line = -1",
        "min_words_per_line must not be negative, got -1",
    ),
    "negative sentences": ("min_sentences = -1", "min_sentences must not be negative, got -1"),
    "negative late": (
        "min_sentences_after_dedup = -1",
        "min_sentences_after_dedup must not be negative",
    ),
    "negative paragraphs": ("min_paragraphs = -1", "min_paragraphs must not be negative, got -1"),
    "negative length": (
        "min_paragraph_chars = -1",
        "min_paragraph_chars must not be negative, got -1",
    ),
    "probability": (
        "min_language_probability = 1.01",
        "min_language_probability must lie between 0 and 1, got 1.01",
    ),
    "not a number": ("min_language_probability = nan", "must lie between 0 and 1, got nan"),
    "fraction": (
        "bad_words_kept_fraction = -0.1",
        "bad_words_kept_fraction must lie between 0 and 1, got -0.1",
    ),
    "order": ('order = "first"', 'order must be "filters_first" or "dedup_first", got \'first\''),
    "unit": (
        'dedup_unit = "words"',
        'dedup_unit must be "none", "sentences" or "lines", got \'words\'',
    ),
    "not TOML": ("min_sentences = ", "not valid TOML: "),
    "twice": ("min_sentences = 1\nmin_sentences = 2", "not valid TOML: "),
}


@pytest.mark.parametrize("case", ERRORS)
def test_a_bad_file_is_refused_in_one_line_that_names_file_rule_and_value(case):
    line, message = ERRORS[case]
    with pytest.raises(ValueError, match=r"^mine\.toml: ") as caught:
        load_recipe("mine.toml", f'name = "mine"\n{line}\n')
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", 'base = "en"', "name = 3", 'name = ""', 'name = "a\\nb"'])
def test_a_recipe_needs_a_name(text):
    with pytest.raises(ValueError, match=r'mine\.toml: a recipe needs a name: name = "my-recipe"'):
        load_recipe("mine.toml", text)


def test_an_unknown_name_is_refused_with_the_nearest_and_all_the_others():
    with pytest.raises(ValueError, match="unknown recipe 'realnews'; did you mean 'realnewslike'"):
        load_recipe("realnews")
    with pytest.raises(
        ValueError, match=r"Known: en, en\.noblocklist, .*, or a path ending in \.toml"
    ):
        load_recipe("realnews")


def test_a_name_is_one_line():
    with pytest.raises(
        ValueError, match=r"a recipe's name must be one printable line, got 'a\\nb'"
    ):
        Recipe(name="a\nb")


@pytest.mark.parametrize(
    "changes", [{"min_sentences": -1}, {"languages": ["en"]}, {"order": None}, {"bad_words": None}]
)
def test_a_recipe_made_in_python_is_checked_too(changes):
    with pytest.raises(ValueError, match=f"recipe mine: {next(iter(changes))} must"):
        dataclasses.replace(RECIPES["en"], name="mine", **changes)


@given(st.dictionaries(st.sampled_from([f.name for f in FIELDS]), st.none() | st.integers() | (
    st.floats() | st.booleans() | st.text(max_size=5) | st.lists(st.text(max_size=3), max_size=2)
), max_size=3))  # fmt: skip
def test_any_values_make_a_recipe_or_an_error_of_one_line(values):
    problem = ""
    try:
        recipe = Recipe.from_mapping({"name": "mine", **values})
    except ValueError as error:
        problem = str(error)
    if problem:
        assert len(problem.splitlines()) == 1
    else:
        assert Recipe.from_mapping(recipe.as_dict()) == recipe


@pytest.mark.parametrize(
    "toml",
    [
        'name = "x"\ndedup_window = 9223372036854775807',
        'name = "x"\nmin_language_probability = 1' + "0" * 400,
        'name = "x"\nmin_words_per_line = 1' + "0" * 5_001,
        'name = "x"\ny = ' + "[" * 100_000,
    ],
    ids=["window", "probability", "digits", "brackets"],
)
def test_values_beyond_reason_are_one_line(toml):
    with pytest.raises(ValueError, match=r"^mine.toml: .*") as error:
        load_recipe("mine.toml", toml)
    assert "\n" not in str(error.value)


def test_byte_order_mark_of_an_editor_is_no_error():
    assert load_recipe("mine.toml", '\ufeffname = "x"\nbase = "en"').name == "x"


def test_end_marks_are_a_list_or_one_string_of_characters():
    for written in ('".?"', '[".", "?"]'):
        recipe = load_recipe("x.toml", f'name = "x"\nend_marks = {written}')
        assert recipe.end_marks == (".", "?")
    assert load_recipe("x.toml", 'name = "x"\nend_marks = ["..", "?!"]').end_marks == ("..", "?!")
    for mark in ("", " ", ". .", " .", ".\n"):
        with pytest.raises(ValueError, match="end_marks must be characters without blanks, "):
            Recipe(name="x", end_marks=(".", mark))


def test_line_rules_need_an_end_mark():
    assert Recipe(name="x", end_marks=(), line_rules=False).end_marks == ()
    with pytest.raises(ValueError, match="end_marks must name a mark"):
        Recipe(name="x", end_marks=())


@pytest.mark.parametrize("written", ['[["en"]]', "[1]", "[{}]", '"en"', "1"])
def test_languages_are_a_list_of_strings(written):
    with pytest.raises(ValueError, match=r"recipe x: languages must be a list of strings, got"):
        load_recipe("x.toml", f'name = "x"\nlanguages = {written}')
