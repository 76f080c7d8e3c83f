"""The marks that end a line of running text, by language.

The rule is the paper's: a line stays if it ends in a full stop, an exclamation mark, a question
mark or an end quotation mark (P 3.4). The reference code has it for English, as ``.``, ``?``, ``!``
and ``"`` (TF c4_utils._END_MARKS). Which characters are these marks in other scripts: Unicode's
property Sentence_Terminal (PropList.txt, version 16) and, for end quotation marks, its general
category Pf and the closing corner brackets of Chinese and Japanese.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

ENGLISH_END_MARKS: Final = (".", "?", "!", '"')  # P, TF

_IDEOGRAPHIC = ("。", "．", "｡", "！", "？")
_DANDAS = ("।", "॥", "”")
_ARABIC = ("؟", "»", "”")

#: langdetect's code -> end marks besides those of English. Languages with the marks of English are
#: not listed. Thai does not mark the end of a sentence.
END_MARKS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "ar": _ARABIC,
        "bn": _DANDAS,
        "el": (";", "\u037e", "»", "”"),  # the Greek question mark, as typed and as Unicode has it
        "fa": _ARABIC,
        "hi": _DANDAS,
        "ja": (*_IDEOGRAPHIC, "」", "』"),
        "mr": _DANDAS,
        "ne": _DANDAS,
        "pa": _DANDAS,
        "ur": ("۔", *_ARABIC),
        "zh-cn": (*_IDEOGRAPHIC, "”", "」", "』"),
        "zh-tw": (*_IDEOGRAPHIC, "”", "」", "』"),
    }
)

#: Languages without blanks between words: a line has few words, however long it is.
UNSPACED: Final = frozenset({"ja", "th", "zh-cn", "zh-tw"})


# Unicode's Sentence_Terminal: the marks of living languages, without those of English.
_SENTENCE_ENDS = frozenset("։؝؞؟۔܀܁܂߹।॥၊။።፧፨᙮។៕᠃᠉‼⁇⁈⁉。꓿꘎꘏꩝꩞꩟꯫︒︕︖﹒﹖﹗！．？｡") | {"\u037e"}


def sentence_ends(end_marks: Iterable[str]) -> frozenset[str]:
    """Return the end marks that end a sentence but that Punkt does not know.

    >>> sorted(sentence_ends(marks_of(["ja"])))
    ['。', '！', '．', '？', '｡']
    """
    return _SENTENCE_ENDS.intersection(end_marks)


def marks_of(languages: Iterable[str]) -> tuple[str, ...]:
    """Return the end marks of these languages, each once, beginning with those of English.

    >>> marks_of(["en", "ur"])
    ('.', '?', '!', '"', '۔', '؟', '»', '”')
    """
    found = dict.fromkeys(ENGLISH_END_MARKS)
    for language in languages:
        found |= dict.fromkeys(END_MARKS.get(language, ()))
    return tuple(found)
