import functools
import itertools
import pathlib
import subprocess
import sys
import time

import punkt
import pytest
import regex
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.sentences import kept_text, nltk_line_starts, nltk_spans, read_texts
from c4_filters import sentences
from c4_filters.sentences import PUNKT_MODEL, SentenceSplitter, sentence_splitter

WET = pathlib.Path(__file__).resolve().parents[2] / ".." / "shared" / "wet"
LANGUAGES = punkt.available_languages()


def assert_same(text: str, language: str = "english") -> None:
    """Ours and NLTK's boundaries agree, on the text whole and on each of its lines."""
    splitter = sentence_splitter(language)
    expected = nltk_spans(language, text)
    assert splitter.spans(text) == expected
    assert splitter.count(text) == len(expected)
    assert splitter.line_starts(text) == nltk_line_starts(language, text)


# Sentences as they stand in the text, between bars; a blank next to a bar belongs to no sentence.
CASES = {
    "plain": "It rained. |We left.",
    "question and exclamation": "Why? |Because! |Fine.",
    "no mark": "No mark at all",
    "no blank after the mark": "one.two.Three",
    "abbreviation before a name": "Dr. Smith came. |He sat.",
    "abbreviation before a starter": "He works at Acme Inc. |However, he left.",
    "abbreviation before a word capitalised inside sentences": "Acme Inc. Access came.",
    "abbreviation before a comma": "Acme Inc. , they say.",
    "hyphenated abbreviation": "The vice-pres.-gen. Smith spoke.",
    "capitals do not hide one": "MR. Jones came.",
    "initial before a name": "J. Smith came.",
    "initial before a starter": "Vitamin B. |However, not C.",
    "two initials": "J. R. R. Tolkien wrote. |He did.",
    "number before lower case": "On the 5. day it rained.",
    "number before upper case": "It was 2015. |The rain fell.",
    "number before a word it goes with": "Page 12. Business news. |Page 13. |The rest.",
    "ellipsis before lower case": "Well ... maybe not. |No.",
    "ellipsis before upper case": "Well... |The end.",
    "spaced dots": "Well . |. |. |maybe. |Yes.",
    "quote moves back": 'He said "No." |She said "Yes."',
    "curly quote moves back": "“No.” |“Yes.”",
    "guillemet moves back": "« Non. » |Oui.",
    "bracket moves back": "(It rained.) |We left.",
    "several closers move back": "(He said 'No.') |She left.",
    "quote after a blank moves back": 'He said no. " |She left.',
    "opening quote stays": 'He said no. |"Yes" came next.',
    "quote before a dash moves back": 'He said "No."|--and left.',
    "bracket that abuts a word stays": "It rained.|(We left.",
    "marks in a row count once": "What?!! |I see.",
    "marks that end a line part": "What?!|!",
    "three lone marks part twice": "So ?|?|?",
    "one blank before lone marks": " ??|?",
    "colon after the mark": "He asked why?|: nobody knew.",
    "no-break space parts words": "It rained.\u00a0|We left.",
    "marks joined by no-break space": "One.\u00a0Two. |Three.",
    "row of dots over a blank": "So .\u00a0|. . |it went.",
    "ideographic space": "One.\u3000|Two.",
    "file separator is no blank": "One.\x1cTwo.",
    "file separator as a word": "One. |\x1c Two.",
    "file separator alone on the next line": "One.\n\x1c",
    "file separators alone on the last line": "Dr.\n\x1c\nNo. |One.\n\x1c\nb",
    "two lines": "One.\n|Two.",
    "sentence over two lines": "One\ntwo. |Three.",
    "leading and trailing blanks": "  One. |Two.  ",
    "lone quote at the end": 'One. "',
    "email": "Write to a.b@c.org. |Thanks.",
    "break inside the next word": "Mr. |end.|)x",
}


@pytest.mark.parametrize("marked", CASES.values(), ids=CASES.keys())
def test_hand_cases(marked):
    text = marked.replace("|", "")
    expected = []
    position = 0
    for piece in marked.split("|"):
        sentence = piece.rstrip()
        expected.append((position, position + len(sentence)))
        position += len(piece)
    assert sentence_splitter().spans(text) == expected
    assert_same(text)


@pytest.mark.parametrize("text", ["", " ", "\n", " \n\t\x1c\u3000", "\x1c"])
def test_blank_text_has_no_sentence(text):
    assert sentence_splitter().spans(text) == []
    assert sentence_splitter().line_starts(text) == []
    assert_same(text)


def test_lines_know_nothing_of_each_other():
    text = "Dr.\nSmith came. He sat.\n\n \nA \n. b"
    assert sentence_splitter().line_starts(text) == [0, 4, 16, 27, 30, 32]
    assert sentence_splitter().spans(text) == [(0, 15), (16, 23), (27, 31), (32, 33)]
    assert_same(text)


BLANKS = [" "] * 8 + [*"\n\t\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2003\u2028\u3000\u200b"]
BLANKS += ["  ", " \n", "\xa0 "]
MARKS = [*"....???!!!\"'()[]{}:;,-*@&#`“”‘’«»…¿"]
MARKS += ["--", "...", "..", ". . .", "?!", ".)", '?"', '."', ".'", "!)"]
# Letters and digits whose case, or whose being one at all, depends on whom you ask.
LETTERS = "abAZiIéÉßµ1²Ⅷⓐα_٣漢İǅ%$\u0301\u200d\U0001f150\u1c89\U0001e4f0\U00010d40\U00013460"
NUMBERS = ["1", "2015", "3.5", "-7", "1,000", "12th", ".5", "5-", "1.2.3", "١٢", "\U0001e4f0."]


@functools.cache
def texts_in(language: str) -> st.SearchStrategy[str]:
    """Texts made of what the model of a language knows, and of what is hard to split."""
    model = punkt.load_model(language)
    blanks, marks = st.sampled_from(BLANKS), st.sampled_from(MARKS)
    number = st.sampled_from(NUMBERS)

    def known(words):
        return st.sampled_from(sorted(words) or ["word"])

    def with_stop(words):
        return words.map(lambda word: word + ".")

    collocation = st.tuples(known(model.collocations | {("x", "y")}), blanks).map(
        lambda pair: f"{pair[0][0]}.{pair[1]}{pair[0][1]}".replace("##number##", "1985")
    )
    word = st.one_of(
        with_stop(known(model.abbrev_types)),
        known(model.sent_starters),
        known(model.ortho_context),
        with_stop(known(model.ortho_context)),
        with_stop(st.sampled_from(LETTERS)),
        st.text(LETTERS, min_size=1, max_size=3),
        number,
        with_stop(number),
        collocation,
        marks,
        st.text(max_size=2),
    )
    cased = st.builds(
        lambda word, case: case(word),
        word,
        st.sampled_from([str, str, str.capitalize, str.upper]),
    )
    hyphenated = known(model.abbrev_types).map(lambda word: word + "-")
    piece = st.builds(
        lambda *parts: "".join(parts),
        st.one_of(st.just(""), st.just(""), marks, hyphenated),
        cased,
        st.one_of(st.just(""), st.just(""), marks),
        st.one_of(blanks, blanks, blanks, st.just("")),
    )
    return st.lists(piece, max_size=9).map("".join)


THOROUGH = settings(
    deadline=None, database=None, suppress_health_check=list(HealthCheck), max_examples=250
)


@pytest.mark.slow
@pytest.mark.parametrize("language", ["english", "german", "french"])
def test_same_as_nltk_on_hard_texts(language):
    @THOROUGH
    @given(texts_in(language))
    def check(text):
        assert_same(text, language)

    check()


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
def test_same_as_nltk_with_every_model(language):
    @settings(THOROUGH, max_examples=25)
    @given(texts_in(language))
    def check(text):
        assert_same(text, language)

    check()


@settings(THOROUGH, max_examples=600)
@given(st.text(".?!\"')-, \xa0\n\x1caA1", max_size=14))
def test_same_as_nltk_on_dense_marks(text):
    assert_same(text)


def test_same_as_nltk_on_every_short_text():
    for length in range(1, 6):
        for chars in itertools.product('.? \n"a', repeat=length):
            text = "".join(chars)
            splitter = sentence_splitter()
            assert splitter.spans(text) == nltk_spans("english", text), repr(text)


def test_letters_newer_than_pythons_are_known():
    # The ends of each range: an initial before lower case ends no sentence, a symbol does.
    ends = [chr(int(end, 16)) for end in sentences._NEW_LETTERS.replace("-", " ").split()]
    around = [chr(ord(char) + step) for char in ends for step in (-1, 0, 1)]
    assert len(around) > 400
    for char in [*around, *"\u200b\u200c\u200d\u200eⒶⓩ⓪²½ⅷ_‿\u0300\u0903🄰🅩🆊"]:
        assert_same(f"So {char}. the end. {char}5. the {char}.")


@pytest.fixture(scope="module")
def real_texts():
    if not WET.is_dir():
        pytest.skip("real pages are not here: ../shared/wet")
    names = ("orig-04-CC-MAIN-2013-2014-2015-2024", "conv-08-warc-responses")
    paths = [str(WET / f"{name}.warc.wet.gz") for name in names]
    texts = list(read_texts(paths))
    assert len(texts) > 100
    return texts


def test_same_as_nltk_on_real_pages(real_texts):
    kept = [page for text in real_texts if (page := kept_text(text))]
    assert sum(page.count("\n") + 1 for page in kept) > 2000
    for text in kept:
        assert_same(text)


def test_same_as_nltk_on_real_unfiltered_texts(real_texts):
    for text in real_texts[::4]:
        assert_same(text)


def test_what_is_remembered_changes_no_verdict(real_texts, monkeypatch):
    expected = [sentence_splitter().line_starts(text) for text in real_texts]
    monkeypatch.setattr(sentences, "_MAX_REMEMBERED", 3)
    forgetful = SentenceSplitter()
    assert [forgetful.line_starts(text) for text in real_texts] == expected
    for table in (forgetful._ends_always, forgetful._before, forgetful._after):
        assert len(table) <= 3


def test_hostile_text_fills_no_memory():
    splitter = SentenceSplitter()
    for first in range(0, 80_000, 1000):
        words = [f"w{number}." for number in range(first, first + 1000)]
        splitter.line_starts(" Go ".join(words) + " x" * 1000 + ". Go Dr. " + "y" * 1000)
    tables = (splitter._ends_always, splitter._before, splitter._after)
    assert any(tables)
    for table in tables:
        assert len(table) <= sentences._MAX_REMEMBERED
        assert all(len(word) <= sentences._MAX_REMEMBERED_CHARS for word in table)


HOSTILE = {
    "dots": ".",
    "dots and blanks": ". ",
    "dots and no-break spaces": ".\xa0",
    "four dots and no-break spaces": ".\xa0.\xa0. ",
    "brackets": ".)",
    "closing brackets": ")",
    "opening brackets": "(",
    "quotes and marks": '?"',
    "quotes, marks and blanks": '." ',
    "one word": "a",
    "one word with dots": "a.",
    "abbreviations": "Dr.\xa0",
    "initials": "A. ",
    "numbers": "1.",
    "dashes": "-",
    "dashes and dots": "-.",
    "commas": ",",
    "blanks": " ",
    "blank lines": " \n",
    "file separators": ".\x1c",
    "file separators and blanks": ". \x1c",
    "quote, blank": '." \x1c',
}


@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE.keys())
def test_time_grows_with_the_text_and_no_faster(unit):
    def seconds(length):
        body = (unit * length)[:length]
        best = float("inf")
        for _ in range(2):
            splitter = SentenceSplitter()
            began = time.process_time()
            # The same in one line between ordinary ends, and after an abbreviation.
            splitter.line_starts(f"One. {body}Two. Dr. {body} x")
            splitter.spans(f"One. {body}Two. Dr. {body} x")
            best = min(best, time.process_time() - began)
        return best

    short, long = seconds(5_000), seconds(40_000)
    # Eight times the text: eight times the time, not sixty-four.
    assert long < 24 * short + 0.05
    assert_same(f"One. {(unit * 60)[:60]}Two. Dr. {(unit * 60)[:60]} x")


def test_unknown_language_names_the_nearest():
    with pytest.raises(ValueError, match=r"language must name a Punkt model, got 'germn'.*german"):
        SentenceSplitter("germn")
    with pytest.raises(ValueError, match="'sv': nearest are swedish"):
        SentenceSplitter("sv")


def test_a_process_has_one_splitter_a_language():
    assert sentence_splitter("french") is sentence_splitter("french")
    assert sentence_splitter("french") is not sentence_splitter("german")


def test_every_model_of_the_package_has_its_code():
    # english_web is a second English model, learned from web text; C4's is the first.
    assert set(PUNKT_MODEL.values()) == set(LANGUAGES) - {"english_web"}
    for code, name in {"en": "english", "de": "german", "no": "norwegian", "el": "greek"}.items():
        assert PUNKT_MODEL[code] == name


def test_neither_nltk_nor_regex_is_imported():
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, c4_filters.sentences as s; s.sentence_splitter().count('A. B.');"
            "print(sorted({'nltk', 'regex', 'apache_beam', 'numpy'} & set(sys.modules)))",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "[]"


def words_of_each_context(language: str) -> list[str]:
    """A word for every set of orthographic contexts that a model has seen a word in."""
    words: dict[tuple[int, bool], str] = {}
    for word, context in sorted(punkt.load_model(language).ortho_context.items()):
        if word.isalpha() and len(word) > 1:
            words.setdefault((context, len(word) > 3), word)
    return list(words.values())


@pytest.mark.parametrize(
    "language",
    [
        pytest.param(language, marks=pytest.mark.slow) if language == "english_web" else language
        for language in LANGUAGES
    ],
)
def test_every_orthographic_context_after_every_kind_of_token(language):
    model = punkt.load_model(language)
    abbreviation = next((word for word in sorted(model.abbrev_types) if len(word) > 1), "x")
    befores = (f"{abbreviation}.", "J.", "5.", "3.14.", "...", "..", "Ended.")
    text = "\n".join(
        f"So {before} {cased} it"
        for word in [*words_of_each_context(language), *sorted(model.sent_starters)[:9], "zzxq"]
        for cased in (word, word.capitalize())
        for before in befores
    )
    assert_same(text, language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_collocations_end_no_sentence(language):
    pairs = sorted(punkt.load_model(language).collocations)
    text = "\n".join(
        f"So {before.replace('##number##', '1985')}. {case(after.replace('##number##', '1985'))} it"
        for before, after in [*pairs, ("x", "y")]
        for case in (str, str.capitalize)
    )
    assert_same(text, language)


@pytest.mark.slow
def test_every_digit_is_one_where_python_does_not_know_it():
    digits = [chr(code) for code in range(sys.maxunicode) if regex.fullmatch(r"\d", chr(code))]
    assert len(digits) > 700
    text = "\n".join(f"So {digit}. the {digit}{digit}. The -{digit}.5. end." for digit in digits)
    assert_same(text)


def test_long_words_are_not_remembered():
    splitter = SentenceSplitter()
    limit = sentences._MAX_REMEMBERED_CHARS
    for size in range(limit - 2, limit + 3):
        for letter, case in itertools.product("abz", (str, str.upper)):
            word = case(letter * (size - 1)) + "."
            splitter.line_starts(f"So {word} it went. Dr. {letter * size} it went.")
            assert (word in splitter._before) == (len(word) <= limit)
            assert (word[-2::-1] in splitter._ends_always) == (len(word) <= limit)
            assert (letter * size in splitter._after) == (size <= limit)


def test_dots_joined_by_a_no_break_space_before_what_abuts():
    befores = ["Dr.", "J.", "5.", "it.", "U.S.", "...", ".", "a-b.", "(x.", "?.", "Dr.\xa0Dr."]
    afters = ["", ")", '"', "'", "]", "”", ":", "*", "(", "[", "-", "--", "x", ".", "..", "!", "5"]
    afters += [")?x", "(!x", "x?x", ")end.)x"]
    for before, blank, after in itertools.product(befores, "\xa0\u2003\u3000", afters):
        for rest in ("It went.", "it went."):
            assert_same(f"So {before}{blank}.{after} {rest}\n{before}{blank}.{blank}.{after}{rest}")


def test_marks_end_sentences_besides_those_of_the_model():
    marks = frozenset("。！")
    splitter = sentence_splitter("german", marks)
    assert splitter.language == "german"
    assert splitter is sentence_splitter("german", marks)
    assert splitter is not sentence_splitter("german")
    text = "Das ist z.B. gut. Ja。」Nein！！\n雨。\n\n」雪。 。x ？y"
    pieces = ["Das ist z.B. gut. ", "Ja。」", "Nein！！\n", "雨。\n\n", "」雪。 ", "。", "x ？y"]
    starts = splitter.line_starts(text)
    assert [text[a:b] for a, b in itertools.pairwise([*starts, len(text)])] == pieces
    assert [text[a:b] for a, b in splitter.spans(text)] == [piece.rstrip() for piece in pieces]
    assert splitter.count(text) == 7
    for line in ("好！！", "好。」", "好！。」』 "):  # a line's end is the end of one sentence
        assert splitter.line_starts(f"{line}\n{line}") == [0, len(line) + 1]
        assert splitter.count(line) == 1
