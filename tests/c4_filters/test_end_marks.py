"""The end marks of languages: Unicode's, known to the detector, and kept apart where they must."""

import unicodedata
from collections import Counter

import pytest

from c4_filters import end_marks
from c4_filters.end_marks import END_MARKS, ENGLISH_END_MARKS, UNSPACED, marks_of, sentence_ends
from c4_filters.language import LANGUAGES
from c4_filters.lines import judge_line
from c4_filters.pages import PageRules, RawPage
from c4_filters.recipes import RECIPES, load_recipe
from c4_filters.sentences import sentence_splitter
from c4_filters.verdicts import LineVerdict, PageVerdict

DATE = "2019-04-18T10:00:00Z"
TEXTS = {
    "zh": "委员会在星期二晚上开会，讨论了新桥的建设计划和预算。\n"
    "几位居民谈到了施工期间的噪音和灰尘问题，并要求市政府作出说明。\n"
    "我们今天去北京参观故宫博物院，这里有很多珍贵的文物！\n"
    "中国的历史非常悠久，很多游客从世界各地来到这里旅行。\n"
    "大家都同意旧路应该继续开放到那个时候，你们觉得怎么样？",
    "ja": "委員会は火曜日の夜に集まり、新しい橋の建設計画について話し合いました。\n"
    "何人かの住民は工事中の騒音とほこりについて意見を述べました。\n"
    "市長は秋までに工事をすべて終えると約束しました。",
    "hi": "समिति मंगलवार की शाम को नए पुल पर चर्चा करने के लिए मिली।\n"
    "कई निवासियों ने शोर और धूल के बारे में अपनी बात रखी।\n"
    "महापौर ने वादा किया कि काम शरद ऋतु तक पूरा हो जाएगा।",
    "ar": "اجتمعت اللجنة مساء يوم الثلاثاء لمناقشة خطة بناء الجسر الجديد.\n"
    "تحدث عدد من السكان عن الضوضاء والغبار خلال فترة العمل!\n"
    "هل سيبقى الطريق القديم مفتوحا حتى ذلك الوقت؟",
}


def test_marks_are_unicodes_sentence_ends_or_closing_quotes() -> None:
    regex = pytest.importorskip("regex")
    for marks in END_MARKS.values():
        for mark in marks:
            terminal = regex.fullmatch(r"\p{Sentence_Terminal}", mark) is not None
            quote = unicodedata.category(mark) == "Pf" or mark in "」』"
            assert terminal or quote or mark in ";\u037e", (mark, unicodedata.name(mark))
            assert (mark in end_marks._SENTENCE_ENDS) == (terminal or mark == "\u037e"), mark
    for mark in end_marks._SENTENCE_ENDS - {"\u037e"}:
        assert regex.fullmatch(r"\p{Sentence_Terminal}", mark), mark
    assert not end_marks._SENTENCE_ENDS & set(ENGLISH_END_MARKS)


def test_languages_are_those_of_the_detector() -> None:
    assert {*END_MARKS, *UNSPACED} <= set(LANGUAGES)
    assert marks_of([]) == marks_of(["en", "de", "th"]) == ENGLISH_END_MARKS == (".", "?", "!", '"')
    assert marks_of(["hi", "ne"]) == (*ENGLISH_END_MARKS, *END_MARKS["hi"])


@pytest.mark.parametrize("name", TEXTS)
def test_pages_of_these_languages_are_kept(name: str) -> None:
    rules = PageRules(RECIPES[name])
    page = RawPage(f"http://{name}.example/", DATE, "text/plain", "", TEXTS[name])
    result = rules.clean(page, Counter())
    assert (result.verdict, result.text) == (PageVerdict.KEPT, TEXTS[name])
    in_one_line = TEXTS[name].replace("\n", "" if name in ("zh", "ja") else " ")
    again = rules.clean(page._replace(text=in_one_line), Counter())
    # Not KEPT: langdetect is unsure about some Chinese texts without line breaks.
    assert again.verdict is not PageVerdict.FEW_SENTENCES, "three sentences in one line are three"
    lines = {judge_line(line, RECIPES["en"])[0] for line in TEXTS[name].splitlines()}
    assert LineVerdict.NO_END_MARK in lines


@pytest.mark.parametrize("name", TEXTS)
def test_a_recipe_that_names_languages_has_their_marks(name: str) -> None:
    languages = list(RECIPES[name].languages)
    toml = f'name = "{name}"\nbase = "en"\nlanguages = {languages}'
    mine, shipped = load_recipe("mine.toml", toml).as_dict(), RECIPES[name].as_dict()
    del mine["description"], shipped["description"]
    assert mine == shipped
    both = load_recipe("m.toml", f'name = "m"\nlanguages = {["en", *languages]}')
    assert both.end_marks == RECIPES[name].end_marks
    assert both.min_words_per_line == 5
    own = load_recipe("m.toml", f'{toml}\nend_marks = ".。"\nmin_words_per_line = 2')
    assert (own.end_marks, own.min_words_per_line) == ((".", "。"), 2)


def test_any_language_has_all_marks() -> None:
    toml = 'name = "m"\nbase = "multilingual"\nline_rules = true'
    for recipe in (load_recipe("m.toml", toml), load_recipe("m.toml", 'name = "m"\nlanguages=[]')):
        for text in TEXTS.values():
            for line in text.splitlines():
                assert line.endswith(recipe.end_marks)


def test_sentences_end_at_marks_without_a_blank() -> None:
    splitter = sentence_splitter("english", sentence_ends(marks_of(["zh-cn"])))
    text = "他说：“好。”我们走了！？ It cost 3.5 yuan. 完。\n下一行。"
    starts = splitter.line_starts(text)
    pieces = [text[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True)]
    assert pieces == ["他说：“好。”", "我们走了！？ ", "It cost 3.5 yuan. ", "完。\n", "下一行。"]
    assert splitter.count(text) == 5
    assert [text[a:b] for a, b in splitter.spans(text)] == [piece.rstrip() for piece in pieces]
    assert splitter.line_starts("。") == [0]
    assert splitter.line_starts("a。 \nb") == [0, 4]
    assert sentence_splitter("english", sentence_ends(ENGLISH_END_MARKS)) is sentence_splitter()


def test_both_ways_to_write_chinese_have_the_same_marks() -> None:
    assert END_MARKS["zh-tw"] == END_MARKS["zh-cn"]
    assert {*"。．｡！？”」』"} == {*END_MARKS["zh-cn"]}
    assert {*END_MARKS["zh-cn"]} - {"”"} == {*END_MARKS["ja"]}
