"""Every reason to keep or drop, once: counters, manifests, reports and tests share these names."""

import enum


class LineVerdict(enum.StrEnum):
    """What became of one line of a page. Rule numbers are those of the line rules in docs/rules.md.

    >>> str(LineVerdict.NO_END_MARK)
    'no_end_mark'
    """

    KEPT = "kept"
    LONG_WORD = "long_word"  # rule 1: a word of more than max_word_chars characters
    NO_END_MARK = "no_end_mark"  # rule 3: does not end in an end mark (. ? ! "), or ends in ...
    FEW_WORDS = "few_words"  # rule 4: fewer than min_words_per_line words
    LOREM_IPSUM = "lorem_ipsum"  # rule 5: drops the whole page
    JAVASCRIPT = "javascript"  # rule 6
    CURLY_BRACKET = "curly_bracket"  # rule 7: drops the whole page
    POLICY = "policy"  # rule 8: terms of use, cookie and privacy notices
    PARSER_ACCIDENT = "parser_accident"  # TF only: body line that looks like a WARC header
    ON_DROPPED_PAGE = "on_dropped_page"  # judged fine, or never judged: its page was dropped
    DUPLICATE = "duplicate"  # removed by span or line deduplication


class PageVerdict(enum.StrEnum):
    """What became of one page."""

    KEPT = "kept"
    NO_TEXT = "no_text"
    TOO_LONG = "too_long"  # more than max_page_chars characters
    DOMAIN = "domain"  # RealNews-like: domain or subdomain not listed
    URL_NOT_LISTED = "url_not_listed"  # WebText-like: url not listed
    FEW_PARAGRAPHS = "few_paragraphs"  # mC4: too few long lines
    LOREM_IPSUM = "lorem_ipsum"
    CURLY_BRACKET = "curly_bracket"
    FEW_SENTENCES = "few_sentences"
    NO_LANGUAGE = "no_language"  # the detector found no features in the text
    OTHER_LANGUAGE = "other_language"
    LOW_CONFIDENCE = "low_confidence"  # best language below the wanted probability
    BAD_WORDS = "bad_words"
    OPTED_OUT = "opted_out"  # its address is on the list of those who asked to be left out
    DUPLICATE_URL = "duplicate_url"  # a newer page has the same normalised url
    EMPTY_AFTER_DEDUP = "empty_after_dedup"
    FEW_SENTENCES_AFTER_DEDUP = "few_sentences_after_dedup"
    NEAR_DUPLICATE = "near_duplicate"  # most of its word sequences are on one page that stays


#: Of pages whose lines no rule looked at.
BEFORE_LINES = (
    PageVerdict.NO_TEXT, PageVerdict.TOO_LONG, PageVerdict.DOMAIN, PageVerdict.URL_NOT_LISTED,
    PageVerdict.FEW_PARAGRAPHS,
)  # fmt: skip


class RejectReason(enum.StrEnum):
    """Why a record never became a page; each one is kept with its file and place."""

    NO_URL = "no_url"
    NO_DATE = "no_date"  # WARC-Date absent, or no date
    NOT_UTF8 = "not_utf8"
    BAD_HEADER = "bad_header"
    BAD_LENGTH = "bad_length"  # Content-Length absent or not a number, or disagrees with the record
    TRUNCATED = "truncated"  # the file ends inside the record
    CORRUPT_GZIP = "corrupt_gzip"
    TOO_LARGE = "too_large"  # larger than the reader's bound on one record
    NOT_WARC = "not_warc"  # bytes between records, or a whole file, that are not a record
    # Of other sources than WET files, see pipelines.imports.
    BAD_JSON = "bad_json"  # a line that is not a JSON object
    BAD_TEXT = "bad_text"  # no text, or one that is empty or not a string
    BAD_MARKUP = "bad_markup"  # wikitext that cannot be parsed
    DAMAGED = "damaged"  # the rest of a file cannot be unpacked or read


#: Names that a user's rule may not return (see c4_filters.own_rules).
RESERVED = frozenset(map(str, (*LineVerdict, *PageVerdict, *RejectReason)))


def page_verdict(name: str) -> str:
    """Return the verdict of that name: a PageVerdict, or the name itself for a user's rule.

    >>> page_verdict("bad_words"), page_verdict("a_recipe")
    (<PageVerdict.BAD_WORDS: 'bad_words'>, 'a_recipe')
    """
    try:
        return PageVerdict(name)
    except ValueError:
        return name
