"""Verdict names are an interface: manifests, counters and reports of old builds carry them."""

import json

import pytest

from c4_filters.lines import PAGE_DROPPING
from c4_filters.verdicts import LineVerdict, PageVerdict, RejectReason

NAMES = {
    LineVerdict: """
        kept long_word no_end_mark few_words lorem_ipsum javascript curly_bracket policy
        parser_accident on_dropped_page duplicate""",
    PageVerdict: """
        kept no_text too_long domain url_not_listed few_paragraphs lorem_ipsum curly_bracket
        few_sentences no_language other_language low_confidence bad_words opted_out
        duplicate_url empty_after_dedup few_sentences_after_dedup near_duplicate""",
    RejectReason: """
        no_url no_date not_utf8 bad_header bad_length truncated corrupt_gzip too_large not_warc
        bad_json bad_text bad_markup damaged""",
}


@pytest.mark.parametrize("kind", NAMES, ids=lambda kind: kind.__name__)
def test_the_names_are_those_that_old_manifests_carry(kind):
    assert [verdict.value for verdict in kind] == NAMES[kind].split()
    for verdict in kind:
        assert verdict.name == verdict.value.upper()
        assert kind(verdict.value) is verdict


@pytest.mark.parametrize("kind", NAMES, ids=lambda kind: kind.__name__)
def test_a_verdict_is_its_name_wherever_it_is_written(kind):
    for verdict in kind:
        assert f"{verdict}" == verdict.value
        assert json.dumps({verdict: 1}) == json.dumps({verdict.value: 1})
        assert {verdict: 1}[verdict.value] == 1


def test_a_line_that_drops_its_page_gives_it_its_own_name():
    assert {line.value for line in PAGE_DROPPING} == {page.value for page in PAGE_DROPPING.values()}
    assert all(line.value == page.value for line, page in PAGE_DROPPING.items())
