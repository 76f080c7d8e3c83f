"""Wikitext to plain text: complete sentences, no markup, and time proportional to the length."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("mwparserfromhell", reason="needs the extra import")

from pipelines.imports.wikitext import LinkNames, plain_text

#: wikitext -> its text
SENTENCES = {
    # Trap 6: what the parser's own strip_code gets wrong.
    "The pier needed {{convert|5|km}} of rope.": "The pier needed 5 km of rope.",
    "It needed {{convert|3|to|4|ft|m|0}} of it.": "It needed 3 to 4 ft of it.",
    "He is {{convert|6|ft|2|in|cm}} tall.": "He is 6 ft 2 in tall.",
    "One line.<br>Another.<br />Third.<BR/>Last.": "One line.\nAnother.\nThird.\nLast.",
    "See [[:Category:Stone bridges]] for more.": "See Stone bridges for more.",
    # Links.
    "A [[stone]] [[arch bridge|bridge]] in [[Town (county)|]]": "A stone bridge in Town (county)",
    "[[File:A.jpg|thumb|The [[bridge]] in ''1931''.]]It stood.": "It stood.",
    "[[image:A.png]][[Datei:B.jpg|mini]]It stood.[[Category:Bridges|Old]]": "It stood.",
    "It stood.\n[[de:Brücke]]\n[[zh-min-nan:X]]\n[[simple:Bridge]]": "It stood.",
    "The [[:fr:Pont|pont]] and [[wikt:arch]] of [[Wikipedia:Notes|notes]].": (
        "The pont and arch of notes."
    ),
    "The [[#History|past]] of [[Old_Bridge]]s.": "The past of Old Bridges.",
    "A [http://example.org linked word] and [http://example.org] here.": "A linked word and here.",
    # References, comments, tags.
    'It fell.<ref name="a/b">Smith {{cite book|title=A}}</ref> Then<ref name=x /> it rose.': (
        "It fell. Then it rose."
    ),
    "It<!-- not\n shown --> fell.\n<!-- alone -->\nIt rose.": "It fell. It rose.",
    "Let <math>\\frac{a}{b}</math> be <sub>n</sub>. <b>Bold</b> <span class=x>word</span>.": (
        "Let be n. Bold word."
    ),
    "Write <nowiki>[[link]] and '''bold'''</nowiki> so.": "Write [[link]] and '''bold''' so.",
    "One.\n<gallery>\nA.jpg|[[Caption]]\n</gallery>\nTwo.": "One.\nTwo.",
    "<poem>\nFirst line\nsecond line\n</poem>": "First line\nsecond line",
    "<div>One.</div><div>Two.</div>": "One.\nTwo.",
    # Tables, lists, headings.
    'One.\n{| class="wikitable"\n! a !! b\n|-\n| 1 || {{x|y}}\n|}\nTwo.': "One.\nTwo.",
    "* One\n** Two ''it''\n# Three\n: Four": "One\nTwo it\nThree\nFour",
    "Lead.\n== History ==\nPast.\n=== Empty ===\n== See ==\n{{list}}": "Lead.\nHistory\nPast.",
    "Lead.\n== References ==\n* Smith 1931.\n=== Web ===\nX.\n== Later ==\nEnd.": (
        "Lead.\nLater\nEnd."
    ),
    # Templates.
    "{{Infobox bridge\n| name = {{nowrap|Old}}\n}}\n'''Old''' is old.": "Old is old.",
    "The {{lang|fr|pont}} of {{circa|1931}}, {{nowrap|ten [[mile|miles]]}}.": (
        "The pont of c. 1931, ten miles."
    ),
    "'''Old''' ({{IPAc-en|o|l|d}}; born 1931) is{{fact}} old {{unknown|x}}.": (
        "Old (born 1931) is old."
    ),
    "Old ({{IPA|x}}) and ({{a}}, {{b}}) is old.": "Old and is old.",
    "A {{ship|HMS|Victory}}, {{frac|2|1|3}} {{ndash}} {{US$|5}}.": "A HMS Victory, 2 1/3 – US$5.",
    "{{Quote|text=It fell.|author=A}} Then {{circa}} 1931, {{as of|2020|lc=y}}.": (
        "It fell. Then c. 1931, as of 2020."
    ),
    "{{Infobox\n| name = Old\nIt stood.\n{|\n| 1 || 2\nIt fell.": "It stood.\nIt fell.",
    "It stood from {{circa|1031|1040}}.<ref>A</ref>\n.\nIt fell.": (
        "It stood from c. 1031 – c. 1040.\nIt fell."
    ),
    # Lines of a paragraph, magic words, entities, quotes.
    "The bridge\nwas built\nin 1931.\n\nIt fell.": "The bridge was built in 1931.\nIt fell.",
    "__NOTOC__It fell.__NOINDEX__ {{DEFAULTSORT:Old}}": "It fell.",
    "A&nbsp;&ndash; &lt;b&gt; &amp;amp; 5&nbsp;km": "A – <b> &amp; 5 km",
    "'''''a'' b'''": "a b",
    "L'''amour'' est ''''fort'''.": "L'amour est 'fort.",
    "{{{1|default}}} and {{{2}}}.": "default and.",
}


@pytest.mark.parametrize(("wikitext", "text"), SENTENCES.items())
def test_sentences_are_complete_and_free_of_markup(wikitext, text):
    names = LinkNames({0: "", 6: "Datei", 14: "Kategorie"})
    assert plain_text(wikitext, names) == text


def test_a_wikis_own_namespaces_are_no_text():
    names = LinkNames({6: "Datei", 14: "Kategorie", 4: "Wikipedia Diskussion"})
    text = "Sie steht.[[Datei:A.jpg|mini|Bild]][[kategorie:Brücke]] [[Wikipedia_Diskussion:B]]"
    assert plain_text(text, names) == "Sie steht. B"


PIECES = st.sampled_from(
    ["{{", "}}", "[[", "]]", "{|", "|}", "|", "'''", "''", "<ref>", "</ref>", "<b>", "</b>", "<br",
     "<!--", "-->", "<nowiki>", "</nowiki>", "\n", "==", "* ", ": ", "word", " ", ".", "(", ")",
     "{{convert|", "[http://a.b ", "]", "&lt;", "File:", "Category:", "{{{", "}}}", "\x01", "\x04",
     "__TOC__", "<math>", "<div>"]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=60).map("".join))
def test_any_wikitext_becomes_lines_without_our_marks(wikitext):
    text = plain_text(wikitext)
    assert not re.search("[\x00-\x08]", text)
    assert all(
        line == line.strip() and any(map(str.isalnum, line)) for line in text.split("\n") if text
    )


@pytest.mark.parametrize(
    "unit",
    ["{{a|", "[[a|", "{|\n", "<ref>", "<b>", " <br", "\n*[[a|", "{{a|b}", "[//a ", "[http://a ",
     "<!--", "<nowiki>", "{{a|[[b|<i>", "{{", "(", "( , ", "<div ", "\n:;", "''' ", "{{a}}",
     "//\n{||}", "|{{{|}}",
     "<!---->", "''a '''b "],
)  # fmt: skip
def test_time_is_proportional_to_the_length_of_hostile_wikitext(unit):
    wikitext = unit * (40_000 // len(unit))
    began = time.process_time()
    plain_text(wikitext)
    # Bare, the parser takes 22 s for the first; a linear pass takes 0.1 to 0.5 s.
    assert time.process_time() - began < 3


def test_tags_that_are_never_closed_go_to_their_end():
    wikitext = "".join(f"<span class=x>Line {number}.\n\n" for number in range(40))
    assert plain_text(wikitext).split("\n") == [f"Line {number}." for number in range(40)]


@pytest.mark.parametrize(("opens", "closes"), [("{{a|", "}}"), ("[[a|", "]]"), ("<b>", "</b>")])
@pytest.mark.parametrize("depth", [20, 100, 5000])
def test_marks_nested_very_deep_are_left_out(opens, closes, depth):
    text = plain_text(f"It stood. {opens * depth}x{closes * depth} It fell.")
    assert text.startswith("It stood.")
    assert text.endswith("It fell.")
    assert not set(text) & set("{}[]|<>")
