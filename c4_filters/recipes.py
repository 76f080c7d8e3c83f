"""Recipes: which rules hold, with which thresholds, in which order. Data, checked when made.

Sources, cited beside each value: P = Raffel et al., JMLR 2020; TF = tensorflow_datasets/text/c4.py
and c4_utils.py, version 3.1.0 of the data set; v3 = the JMLR/arXiv v3 text of P, which swaps the
3 and the 5 of the released data.
"""

import dataclasses
import difflib
import hashlib
import json
import pathlib
import tomllib
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal, Self, get_args

from c4_filters.end_marks import END_MARKS, ENGLISH_END_MARKS, UNSPACED, marks_of
from c4_filters.language import LANGUAGES
from c4_filters.own_rules import modules_of

_LARGEST = 10**9  # of any whole number in a recipe

DedupUnit = Literal["none", "sentences", "lines"]
Order = Literal["filters_first", "dedup_first"]

#: Fields that came after version 0.2: recipes that leave them alone keep their digest.
_ABSENT_BY_DEFAULT = ("verbatim", "skip_language", "rules", "near_dedup")


@dataclasses.dataclass(frozen=True, kw_only=True)
class NearDedup:
    """Which pages are near duplicates: those of a Jaccard similarity of ``threshold`` or more."""

    threshold: float = 0.8

    def __post_init__(self) -> None:
        threshold = self.threshold
        if isinstance(threshold, bool) or not isinstance(threshold, (int, float)):
            raise ValueError(f"threshold must be a number, got {threshold!r}")
        # Below a half, most pages are candidates of each other.
        if not 0.5 <= threshold <= 1.0:
            raise ValueError(f"threshold must lie between 0.5 and 1, got {threshold!r}")
        object.__setattr__(self, "threshold", float(threshold))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every decision of a corpus build that changes its pages.

    ``order="filters_first"``: all filters, then url dedup, then text dedup, so that no span's only
    copy sits in a page that a later filter drops. ``order="dedup_first"`` is TF's: url dedup over
    all pages, line rules, text dedup, and only then language and bad words.

    >>> RECIPES["en.paper_v3"].min_words_per_line, RECIPES["en.paper_v3"].min_sentences
    (3, 5)
    """

    name: str
    description: str = ""
    order: Order = "filters_first"

    # The text of a page.
    max_page_chars: int = 190_000  # TF: is_valid_length
    drop_parser_accidents: bool = False  # TF: body lines that look like WARC headers

    # Line rules.
    line_rules: bool = True
    max_word_chars: int = 1_000  # TF: _MAX_WORD_LENGTH
    end_marks: tuple[str, ...] = ENGLISH_END_MARKS  # P, TF: _END_MARKS
    min_words_per_line: int = 5  # released data, TF; 3 in v3
    min_sentences: int = 3  # released data, TF; 5 in v3. 0: not asked for

    # mC4's paragraph rule: at least min_paragraphs lines of min_paragraph_chars characters.
    min_paragraphs: int = 0  # TF multilingual: 3
    min_paragraph_chars: int = 200  # TF multilingual

    # Page rules.
    languages: tuple[str, ...] = ("en",)  # empty: any detected language
    min_language_probability: float = 0.99  # P, TF; 0.95 for mC4
    bad_words: bool = True
    bad_words_kept_fraction: float = 0.0  # the soft filter of mC4 keeps 0.001
    domain_list: bool = False  # RealNews-like: needs a list given by the user
    url_list: bool = False  # WebText-like: needs a list given by the user

    # Deduplication.
    dedup_urls: bool = True
    dedup_unit: DedupUnit = "sentences"
    dedup_window: int = 3  # P: three-sentence spans; TF: one line
    min_sentences_after_dedup: int = 3
    sentence_language: str = "english"  # Punkt model

    # Off in most recipes here, and absent from as_dict() while they are.
    verbatim: bool = False  # the text stays as read: lines not stripped, blank ones not dropped
    skip_language: bool = False  # no language is detected, and pages have none
    rules: tuple[str, ...] = ()  # the user's own, "module:function", see c4_filters.own_rules
    near_dedup: NearDedup | None = None

    def __post_init__(self) -> None:
        if not _is_name(self.name):
            raise ValueError(f"a recipe's name must be one printable line, got {self.name!r}")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int) and not -_LARGEST <= value <= _LARGEST:
                raise ValueError(f"recipe {self.name}: {field.name} must not exceed {_LARGEST:,}")
            _check_type(self.name, field.name, value, field.default)
            if isinstance(field.default, float):  # 1 and 1.0 are one value, so one digest
                object.__setattr__(self, field.name, float(value))
        for name, rule in self._faults():
            raise ValueError(f"recipe {self.name}: {name} {rule}, got {getattr(self, name)!r}")

    def _faults(self) -> Iterator[tuple[str, str]]:
        """Yield the fields that are out of range or do not fit others, and what they must be."""
        for name in ("max_page_chars", "max_word_chars", "dedup_window"):
            if getattr(self, name) < 1:
                yield name, "must be at least 1"
        for name in (
            "min_words_per_line",
            "min_sentences",
            "min_paragraphs",
            "min_paragraph_chars",
            "min_sentences_after_dedup",
        ):
            if getattr(self, name) < 0:
                yield name, "must not be negative"
        for name in ("min_language_probability", "bad_words_kept_fraction"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                yield name, "must lie between 0 and 1"
        for name, kind in (("order", Order), ("dedup_unit", DedupUnit)):
            *others, last = (f'"{choice}"' for choice in get_args(kind))
            if getattr(self, name) not in get_args(kind):
                yield name, f"must be {', '.join(others)} or {last}"
        for language in self.languages:  # an unknown one would drop every page, hours later
            if language not in LANGUAGES:
                wanted = 'must be langdetect codes such as "en" or "zh-cn"'
                yield "languages", f"{wanted}, got {language!r}{_nearest(language, LANGUAGES)}"
        for mark in self.end_marks:  # a line ends in no blank, and a citation is cut out of it
            if not mark or any(map(str.isspace, mark)):
                yield "end_marks", f"must be characters without blanks, {mark!r} is not one"
        try:
            modules_of(self.rules)
        except ValueError as error:
            raise ValueError(f"recipe {self.name}: rules {error}") from None
        if len(set(self.rules)) != len(self.rules):
            yield "rules", "must name each rule once"
        if self.line_rules and not self.end_marks:
            yield "end_marks", "must name a mark: without one, line_rules drop every line"
        if self.skip_language and (self.languages or self.bad_words):
            rule = "must be false where languages or bad_words need the language of a page"
            yield "skip_language", rule
        changed = self.line_rules or self.drop_parser_accidents or self.dedup_unit != "none"
        if self.verbatim and changed:
            yield "verbatim", 'must be false, unless line_rules are false and dedup_unit is "none"'

    def as_dict(self) -> dict[str, Any]:
        """Return every field, as JSON-ready values; ``verbatim`` and such only if they are on."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(self).items()
            if value or key not in _ABSENT_BY_DEFAULT
        }

    def digest(self) -> str:
        """Return a short digest of every field that changes pages (all but the description)."""
        fields = {key: value for key, value in self.as_dict().items() if key != "description"}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Make a recipe of ``values``, starting from the recipe that ``base`` names, if any.

        ``end_marks`` may be one string of characters. Values that name ``languages`` and leave
        ``end_marks`` out get the marks of these languages too (see ``c4_filters.end_marks``); where
        none of the languages has blanks between words, ``min_words_per_line`` becomes 1 likewise.

        Raises ValueError for an unknown key or recipe, naming the nearest known one, and for a
        value of the wrong type or range.
        """
        values = dict(values)
        name = values.get("name")
        if not _is_name(name):
            raise ValueError('a recipe needs a name: name = "my-recipe"')
        base: dict[str, Any] = {}
        if "base" in values:
            base_name = values.pop("base")
            base = dataclasses.asdict(_named(base_name))
            base["description"] = f"{base_name}, changed"
        known = {field.name for field in dataclasses.fields(cls)}
        for key in values:
            if key not in known:
                raise ValueError(
                    f"recipe {name}: unknown key {key!r}{_nearest(key, {*known, 'base'})}"
                )
        if isinstance(values.get("near_dedup"), dict):
            values["near_dedup"] = _near_dedup(name, values["near_dedup"])
        for key in ("languages", "end_marks", "rules"):
            if isinstance(values.get(key), (list, str) if key == "end_marks" else list):
                values[key] = tuple(values[key])
        languages = values.get("languages")
        if isinstance(languages, tuple) and all(isinstance(code, str) for code in languages):
            marks = base.get("end_marks", ENGLISH_END_MARKS)
            theirs = marks_of(languages or END_MARKS)
            values.setdefault("end_marks", tuple(dict.fromkeys((*marks, *theirs))))
            if languages and UNSPACED.issuperset(languages):
                values.setdefault("min_words_per_line", 1)
        return cls(**{**base, **values})


def _near_dedup(recipe: object, values: dict[str, Any]) -> NearDedup:
    known = [field.name for field in dataclasses.fields(NearDedup)]
    for key in values:
        if key not in known:
            near = _nearest(key, known)
            raise ValueError(f"recipe {recipe}: unknown key {key!r} in near_dedup{near}")
    try:
        return NearDedup(**values)
    except ValueError as error:
        raise ValueError(f"recipe {recipe}: near_dedup.{error}") from None


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value != "" and value.isprintable()


def _check_type(recipe: str, field: str, value: object, default: object) -> None:
    if field == "near_dedup":
        fits, wanted = value is None or isinstance(value, NearDedup), "{threshold = 0.8} or so"
    elif field in ("languages", "end_marks", "rules"):
        fits = isinstance(value, tuple) and all(isinstance(item, str) for item in value)
        wanted = "a list of strings"
    elif isinstance(default, bool):
        fits, wanted = isinstance(value, bool), "true or false"
    elif isinstance(default, float):
        fits = isinstance(value, (int, float)) and not isinstance(value, bool)
        wanted = "a number"
    elif isinstance(default, int):
        fits, wanted = isinstance(value, int) and not isinstance(value, bool), "a whole number"
    else:
        fits, wanted = isinstance(value, str), "a string"
    if not fits:
        raise ValueError(f"recipe {recipe}: {field} must be {wanted}, got {value!r}")


def _nearest(word: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.0)
    return f"; did you mean {near[0]!r}?" if near else ""


def _named(name: object) -> Recipe:
    if isinstance(name, str) and name in RECIPES:
        return RECIPES[name]
    known = ", ".join(RECIPES)
    hint = _nearest(str(name), set(RECIPES))
    raise ValueError(f"unknown recipe {name!r}{hint} Known: {known}, or a path ending in .toml")


def load_recipe(name: str, toml: str | None = None) -> Recipe:
    r"""Return the recipe called ``name``, or the one written in the TOML text ``toml``.

    >>> load_recipe("mine.toml", 'name = "mine"\nbase = "en"\nmin_sentences = 4').min_sentences
    4

    Raises ValueError, in one line, for an unknown name or key and for bad TOML.
    """
    if toml is None:
        return _named(name)
    try:
        values = tomllib.loads(toml.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, 10,000 brackets
        raise ValueError(f"{name}: not valid TOML: {error}") from None
    try:
        return Recipe.from_mapping(values)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


RECIPES: dict[str, Recipe] = {
    "en": Recipe(name="en", description="The paper's C4: line rules 5/3, bad words, English, spans")
}
_PACKAGED = pathlib.Path(__file__).with_name("recipes.toml")
for _name, _changes in tomllib.loads(_PACKAGED.read_text("utf-8")).items():
    RECIPES[_name] = Recipe.from_mapping({"name": _name, "base": "en", **_changes})
