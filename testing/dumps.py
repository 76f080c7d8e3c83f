"""Small dumps of a wiki, in the form of mediawiki.org/xml/export-0.11."""

import bz2
from typing import NamedTuple
from xml.sax.saxutils import escape

NAMESPACES = {0: "", 1: "Talk", 6: "File", 10: "Template", 14: "Category"}


class WikiPage(NamedTuple):
    """A page of a wiki."""

    title: str
    text: str
    namespace: int = 0
    redirect: str = ""
    model: str = "wikitext"


def dump_head(namespaces=NAMESPACES, base="https://en.wikipedia.org/wiki/Main_Page"):
    listed = "".join(
        f'<namespace key="{key}" case="first-letter">{escape(name)}</namespace>'
        for key, name in namespaces.items()
    )
    return (
        '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" '
        f'xml:lang="en">\n<siteinfo><dbname>enwiki</dbname><base>{base}</base>'
        f"<namespaces>{listed}</namespaces></siteinfo>\n"
    )


def dump_page(page, number=1):
    redirect = f'<redirect title="{escape(page.redirect)}" />' if page.redirect else ""
    return (
        f"<page><title>{escape(page.title)}</title><ns>{page.namespace}</ns><id>{number}</id>"
        f"{redirect}<revision><id>{number}</id><timestamp>2024-01-02T03:04:05Z</timestamp>"
        f"<contributor><username>A</username><id>7</id></contributor><comment>title</comment>"
        f"<model>{page.model}</model><format>text/x-wiki</format>"
        f'<text bytes="1" xml:space="preserve">{escape(page.text)}</text><sha1>x</sha1>'
        "</revision></page>\n"
    )


def dump_bytes(pages, head=None):
    """A dump, not compressed."""
    body = "".join(dump_page(page, number) for number, page in enumerate(pages, 1))
    return f"{head or dump_head()}{body}</mediawiki>\n".encode()


def multistream(pages, per_stream=2):
    """A dump as many bzip2 streams in one file, as Wikimedia's multistream dumps are."""
    shown = [dump_page(page, number) for number, page in enumerate(pages, 1)]
    parts = [
        dump_head(),
        *("".join(shown[at : at + per_stream]) for at in range(0, len(shown), per_stream)),
        "</mediawiki>\n",
    ]
    return b"".join(bz2.compress(part.encode()) for part in parts)
