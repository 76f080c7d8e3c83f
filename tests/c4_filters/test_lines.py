"""The line rules: a table, a twin written from the published order, the reference, real pages."""

import dataclasses
import re
from collections import Counter
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from c4_filters import lines as line_rules
from c4_filters.lines import PAGE_DROPPING, clean_text, clean_texts, judge_line, split_lines
from c4_filters.recipes import RECIPES
from c4_filters.verdicts import LineVerdict, PageVerdict

EN = RECIPES["en"]


def cleaned(text, recipe, counts):
    """What clean_text leaves; checks that it has read every line, which ``counts`` then leaves."""
    result = clean_text(text, recipe, counts)
    assert counts.pop("lines_read", 0) == len(stripped_lines(text))
    assert result.lines == (result.text.count("\n") + 1 if result.text else 0)
    return result


def stripped_lines(text):
    return [line.strip() for line in text.splitlines() if line.strip()]


LONG = "x" * 1_000

# The reference's counters, under our names.
TF_LINE_COUNTERS = {
    "line-filtered:too_long_word": LineVerdict.LONG_WORD,
    "line-filtered:no_endmark": LineVerdict.NO_END_MARK,
    "line-filtered:too_short": LineVerdict.FEW_WORDS,
    "line-filtered:javascript": LineVerdict.JAVASCRIPT,
    "line-filtered:policy": LineVerdict.POLICY,
    "filtered:loremipsum": LineVerdict.LOREM_IPSUM,
    "filtered:squigglybracket": LineVerdict.CURLY_BRACKET,
}


@pytest.mark.parametrize(
    ("line", "verdict", "kept_as"),
    [
        # Rule 1: a word of more than 1,000 characters; before the end mark is looked at.
        (f"One word of the line is {LONG}x here.", LineVerdict.LONG_WORD, None),
        (f"One word of the line is {LONG} here.", LineVerdict.KEPT, "same"),
        (f"No end mark and the word {LONG}x", LineVerdict.LONG_WORD, None),
        (f"The mark belongs to the word {LONG[1:]}.", LineVerdict.KEPT, "same"),
        (f"The mark belongs to the word {LONG}.", LineVerdict.LONG_WORD, None),
        # Rule 2: the citations go, from lines that stay, and before ends and words are looked at.
        ("It was built in 1931[12] by two brothers.[3]", LineVerdict.KEPT,
         "It was built in 1931 by two brothers."),
        ("Early life[edit] was spent in [] Leeds[citation needed].", LineVerdict.KEPT,
         "Early life was spent in  Leeds."),
        ("[1] The first note of this chapter.", LineVerdict.KEPT,
         " The first note of this chapter."),
        ("A space stays behind the last mark. [4]", LineVerdict.NO_END_MARK, None),
        ("The letters in [a] are not a citation.", LineVerdict.KEPT, "same"),
        ("Written [Edit] this is no edit link.", LineVerdict.KEPT, "same"),
        ("Four words [1] and this.", LineVerdict.FEW_WORDS, None),
        # Rule 3: end marks.
        ("Does this line of words end well?", LineVerdict.KEPT, "same"),
        ("This line of words ends well!", LineVerdict.KEPT, "same"),
        ('She said "this line ends well"', LineVerdict.KEPT, "same"),
        ("She said ‘this line does not end well.’", LineVerdict.NO_END_MARK, None),
        ("This line has none of the marks", LineVerdict.NO_END_MARK, None),
        ("This line of words trails off...", LineVerdict.NO_END_MARK, None),
        ("This line of words stops twice..", LineVerdict.KEPT, "same"),
        ("This line of words trails off…", LineVerdict.NO_END_MARK, None),
        ("Hidden by a citation it trails off..[1].", LineVerdict.NO_END_MARK, None),
        ("这是一个完整的句子。", LineVerdict.NO_END_MARK, None),
        # Rule 4: words.
        ("Only four words here.", LineVerdict.FEW_WORDS, None),
        ("There are five words here.", LineVerdict.KEPT, "same"),
        ("Five\u00a0words\u3000between\todd  blanks.", LineVerdict.KEPT, "same"),
        # Rule 5 drops the page, in any case of letters, but not from a line already dropped.
        ("The text Lorem IPSUM stands in for another.", LineVerdict.LOREM_IPSUM, None),
        ("The words lorem and ipsum stand apart.", LineVerdict.KEPT, "same"),
        ("lorem ipsum dolor sit amet", LineVerdict.NO_END_MARK, None),
        ("Lorem ipsum dolor.", LineVerdict.FEW_WORDS, None),
        # Rule 6 drops the line, and comes before rule 7.
        ("Please enable JavaScript to see this page.", LineVerdict.JAVASCRIPT, None),
        ("This javascript {is not a reason to go}.", LineVerdict.JAVASCRIPT, None),
        ("A lorem ipsum line about javascript is here.", LineVerdict.LOREM_IPSUM, None),
        # Rule 7 drops the page, and comes before rule 8.
        ("A line with a { is taken for code.", LineVerdict.CURLY_BRACKET, None),
        ("A closing } alone is no code at all.", LineVerdict.KEPT, "same"),
        ("function main() {", LineVerdict.NO_END_MARK, None),
        ("Our privacy policy has a { in it.", LineVerdict.CURLY_BRACKET, None),
        # Rule 8.
        ("Please read the Terms of Use before you go on.", LineVerdict.POLICY, None),
        ("Our PRIVACY POLICY has changed again.", LineVerdict.POLICY, None),
        ("A cookie policy nobody reads is here.", LineVerdict.POLICY, None),
        ("This site uses cookies for the menu.", LineVerdict.POLICY, None),
        ("You agree to the use of cookies.", LineVerdict.POLICY, None),
        ("We use cookies, and so do you.", LineVerdict.POLICY, None),
        ("We like cookies, and so do you.", LineVerdict.KEPT, "same"),
        ("The Kelvin sign reads as k: use coo\u212aies.", LineVerdict.POLICY, None),
    ],
)  # fmt: skip
def test_a_line_gets_the_verdict_of_the_first_rule_that_fires(line, verdict, kept_as):
    judged, text = judge_line(line, EN)

    assert judged is verdict
    if verdict is LineVerdict.KEPT:
        assert text == (line if kept_as == "same" else kept_as)
    assert judge_line(f" \t{line}\u3000", EN) == (judged, text), "blanks at the ends do not matter"
    counts: Counter[str] = Counter()
    kept = [text] if verdict is LineVerdict.KEPT else []
    assert cleaned(line, EN, counts).text == "".join(kept)
    assert +counts == ({} if kept else {verdict: 1})


def by_the_book(lines, recipe):
    """What the published rules leave of a page, and its counts: one rule after another."""
    counts: Counter[str] = Counter()
    kept = []
    for position, line in enumerate(lines):
        verdict, line = first_rule(line, recipe)
        if verdict is None:
            kept.append(line)
            continue
        counts[verdict] += 1
        if verdict in (LineVerdict.LOREM_IPSUM, LineVerdict.CURLY_BRACKET):
            counts[LineVerdict.ON_DROPPED_PAGE] = len(kept) + len(lines[position + 1 :])
            return [], PageVerdict(verdict.value), +counts
    return kept, PageVerdict.KEPT, counts


def first_rule(line, recipe):
    """The table of line rules, row by row."""
    line = line.strip()
    for word in line.split():
        if len(word) > recipe.max_word_chars:
            return LineVerdict.LONG_WORD, line
    line = re.sub(
        r"\[[0-9]*\]", "", line.replace("[edit]", "\0").replace("[citation needed]", "\0")
    )
    line = line.replace("\0", "")
    if not any(line.endswith(mark) for mark in recipe.end_marks) or line[-3:] == "...":
        return LineVerdict.NO_END_MARK, line
    if len(line.split()) < recipe.min_words_per_line:
        return LineVerdict.FEW_WORDS, line
    if re.search("lorem ipsum", line.lower()):
        return LineVerdict.LOREM_IPSUM, line
    if re.search("javascript", line.lower()):
        return LineVerdict.JAVASCRIPT, line
    if "{" in line:
        return LineVerdict.CURLY_BRACKET, line
    policy = "terms of use|privacy policy|cookie policy|uses cookies|use of cookies|use cookies"
    if re.search(policy, line.lower()):
        return LineVerdict.POLICY, line
    return None, line


# Pieces that make and unmake every rule when put side by side, with blanks or without.
PIECES = [
    *["a", "word", "Łódź", "漢字", "Σ", "İ", "x" * 13, "x" * 12, "x" * 11, "1"],
    *[".", "?", "!", '"', "...", "..", "…", "。"],
    *["[1]", "[]", "[12]", "[edit]", "[citation needed]", "[", "]", "[1", "[a]", "[²]"],
    *["lorem ipsum", "Lorem", "ipsum", "javascript", "JavaScript", "{", "}"],
    *["Terms of Use", "privacy policy", "Cookie policy", "uses cookies", "use of cookies"],
    *["use cookies", "use coo\u212aies", "a b c d e.", "One two three four five six."],
]
BLANKS = [" ", " ", " ", "", "\t", "\u00a0", "\u3000", "\x1f"]


@st.composite
def a_line(draw):
    pieces = draw(st.lists(st.sampled_from(PIECES), min_size=1, max_size=9))
    blanks = draw(st.lists(st.sampled_from(BLANKS), min_size=len(pieces), max_size=len(pieces)))
    line = "".join(piece + blank for piece, blank in zip(pieces, blanks, strict=True))
    line = draw(st.sampled_from(["", "Five words to begin with "])) + line
    return (line + draw(st.sampled_from(["", ".", ".", ".", "[3]", "..."]))).strip() or "."


# A line for each rule, since a drawn one seldom gets past the first four.
RULE_LINES = [
    "Five words and one xxxxxxxxxxxxx.",
    "One two three four five six.",
    "One two three.",
    "One two three four five six",
    "The lorem ipsum of this page.",
    "You need to have javascript here.",
    "This line looks like { code.",
    "This is our privacy policy page.",
]
LINES = st.lists(a_line() | st.sampled_from(RULE_LINES), max_size=8)
THRESHOLDS = st.builds(
    lambda words, chars: dataclasses.replace(EN, min_words_per_line=words, max_word_chars=chars),
    st.integers(0, 6),
    st.sampled_from([12, 12, 1_000]),
)
# Of one character and of several, with the bracket that a citation ends in, with the ellipsis.
END_MARKS = st.sampled_from(
    [EN.end_marks, ("。", "."), ("]", "."), ("6.", "字", "…"), ("a]",), (".。", "!"), ("...", "x")]
)


# What stands between the lines of real pages: mostly newlines.
BREAKS = st.sampled_from(
    ["\n"] * 20 + ["\n\n", " \n\t", "\n\u00a0\n", "\r\n", "\r", "\x0b", "\x1c", "\x85", "\u2028"]
)


@st.composite
def a_text(draw):
    lines = draw(LINES)
    breaks = draw(st.lists(BREAKS, min_size=len(lines), max_size=len(lines)))
    text = "".join(line + end for line, end in zip(lines, breaks, strict=True))
    return draw(st.sampled_from(["", "", "\n", " "])) + text.removesuffix("\n")


@given(a_text(), THRESHOLDS, END_MARKS)
def test_a_page_is_cleaned_as_its_lines_are_judged_in_order(text, recipe, end_marks):
    recipe = dataclasses.replace(recipe, end_marks=end_marks)
    counts: Counter[str] = Counter()
    lines = stripped_lines(text)
    assert split_lines(text) == lines

    result = cleaned(text, recipe, counts)

    kept, page, expected = by_the_book(lines, recipe)
    assert (result.text, result.page) == ("\n".join(kept), page)
    assert +counts == expected
    assert len(lines) == len(kept) + counts.total()
    for line in lines:
        verdict, text = first_rule(line, recipe)
        assert judge_line(line, recipe) == (verdict or LineVerdict.KEPT, text)


@given(st.lists(a_text(), max_size=3), THRESHOLDS, END_MARKS, st.sampled_from([40, 1 << 17]))
@settings(max_examples=40)
@example(["Menu\nOne two.\n\nHome", "", "Top\nHere are five words more."], EN, EN.end_marks, 99)
def test_pages_are_cleaned_together_as_one_by_one(texts, recipe, end_marks, chars_at_a_time):
    recipe = dataclasses.replace(recipe, end_marks=end_marks)
    together, alone = Counter(), Counter()

    with mock.patch.object(line_rules, "_CHARS_AT_A_TIME", chars_at_a_time):
        results = list(clean_texts(texts, recipe, together))

    assert results == [clean_text(text, recipe, alone) for text in texts]
    assert together == alone


def test_blanks_and_breaks_are_those_of_str():
    every = list(map(chr, range(1 << 16)))
    assert list(line_rules._BLANKS) == list(filter(str.isspace, every))
    parts = "x".join(every).splitlines(keepends=True)[:-1]
    assert {part[-1] for part in parts} == {"\n", *line_rules._OTHER_BREAKS}


def tf_clean(c4_utils, text, recipe, min_sentences=0):
    """What the reference's clean_page yields (None: nothing), and its counters under our names."""
    counters: Counter[str] = Counter()
    pages = list(
        c4_utils.clean_page(
            c4_utils.PageFeatures(text=text),
            citation_regex=c4_utils.get_clean_page_fn().keywords["citation_regex"],
            counter_inc_fn=lambda name, amount=1: counters.update({name: amount}),
            min_words_per_line=recipe.min_words_per_line,
            min_num_sentences=min_sentences,
            max_word_length=recipe.max_word_chars,
        )
    )
    ours = Counter({ours: counters[tf] for tf, ours in TF_LINE_COUNTERS.items() if counters[tf]})
    return (pages[0].text if pages else None), ours, counters["line-passed"]


@given(LINES, THRESHOLDS)
def test_lines_and_counts_are_those_of_the_reference(c4_utils, lines, recipe):
    counts: Counter[str] = Counter()

    result = cleaned("\n".join(lines), recipe, counts)

    text, tf_counts, tf_passed = tf_clean(c4_utils, "\n".join(lines), recipe)
    on_dropped_page = counts.pop(LineVerdict.ON_DROPPED_PAGE, 0)
    assert +counts == tf_counts
    if text is None:
        assert result.page in PAGE_DROPPING.values()
        assert tf_passed <= on_dropped_page
    else:
        assert result.page is PageVerdict.KEPT
        assert result.text.strip() == text
        assert (result.lines, on_dropped_page) == (tf_passed, 0)


def test_every_rule_fires_under_the_drawn_lines():
    fired = Counter()

    @settings(derandomize=True, database=None)
    @given(LINES, THRESHOLDS)
    def count(lines, recipe):
        kept, _, counts = by_the_book(lines, recipe)
        fired.update(counts)
        fired[LineVerdict.KEPT] += len(kept)

    count()
    line_rules = set(TF_LINE_COUNTERS.values()) | {LineVerdict.KEPT, LineVerdict.ON_DROPPED_PAGE}
    assert set(+fired) == line_rules


def test_real_pages_are_cleaned_by_the_book(real_pages):
    counts, expected = Counter(), Counter()
    for page in real_pages[::6]:
        lines = stripped_lines(page.text)
        kept, verdict, page_counts = by_the_book(lines, EN)
        left = cleaned(page.text, EN, counts)
        assert (left.text, left.page) == ("\n".join(kept), verdict), page.url
        expected += page_counts
    assert +counts == expected


def test_real_pages_are_cleaned_as_the_reference_cleans_them(c4_utils, real_pages):
    for page in real_pages[::12]:
        lines = stripped_lines(page.text)
        counts: Counter[str] = Counter()
        result = cleaned(page.text, EN, counts)
        text, tf_counts, _ = tf_clean(c4_utils, "\n".join(lines), EN)
        counts.pop(LineVerdict.ON_DROPPED_PAGE, None)
        assert +counts == tf_counts, page.url
        assert (result.page is PageVerdict.KEPT) == (text is not None), page.url
        assert result.text.strip() == (text or ""), page.url
