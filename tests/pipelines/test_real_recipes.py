"""Each recipe on the real pages of two crawls; what stays and what goes was checked by eye."""

import json
import pathlib
from collections import Counter

import pytest

from pipelines import open_corpus
from testing.helpers import manifest_of, read_corpus, run_c4

pytestmark = pytest.mark.slow

SHARED = pathlib.Path(__file__).resolve().parents[2] / ".." / "shared" / "wet"
CRAWLS = ["orig-01-CC-MAIN-2020-50", "orig-02-CC-MAIN-2026-12"]
PAGES = 438
#: Pages that the rules before the language's drop, whatever the language: menus, code, filler.
UNFIT = {"curly_bracket": 2, "few_sentences": 217, "lorem_ipsum": 16}


class Built:
    """A corpus of both crawls."""

    def __init__(self, output: pathlib.Path, recipe: str, *options: str | pathlib.Path) -> None:
        paths = [SHARED / f"{name}.warc.wet.gz" for name in CRAWLS]
        if not all(path.exists() for path in paths):
            pytest.skip("no ../shared/wet here")
        done = run_c4(
            "build", "--input", *paths, "--output", output, "--recipe", recipe,
            "--workers", "1", "--quiet", *options,
        )  # fmt: skip
        assert done.status == 0, done.err
        self.pages = [page for pages in read_corpus(output).values() for page in pages]
        self.texts = {page["url"]: page["text"] for page in self.pages}
        self.made = manifest_of(output)
        self.dropped = self.made["counts"]["pages_dropped"]
        assert self.made["counts"]["pages_read"] == PAGES


def test_german_pages(tmp_path: pathlib.Path) -> None:
    built = Built(tmp_path / "out", "de")
    assert built.dropped == UNFIT | {"low_confidence": 16, "other_language": 179}
    assert set(built.texts) == {
        "http://blog.itsth.de/2014/02/",
        "http://australien.andreg.de/tag/luxus",
        "http://australien.andreg.de/tag/pedestrian",
        "http://agi-treff-ruhr.de/Links/",
        "http://de.knowledgr.com/00444056/ErieRailroad",
        "http://4a.oyili.com.cn/g9f6ilzomy.xml",  # a German company's text on a hijacked domain
        "http://adines.de/hoodie_1_front/",
        "http://caritativus.com/Zulassung-KSV/",
    }
    # Menus, and the line that ends in "Cookie-Richtlinie", are gone.
    assert built.texts["http://adines.de/hoodie_1_front/"] == (
        "Deine E-Mail-Adresse wird nicht veröffentlicht. "
        "Erforderliche Felder sind mit * markiert.\n"
        "Benachrichtige mich über neue Beiträge via E-Mail.\n"
        "Datenschutz & Cookies: Diese Website verwendet Cookies. Wenn du die Website weiterhin "
        "nutzt, stimmst du der Verwendung von Cookies zu.\n"
        "Copyright © All rights reserved.\n"
        "Boston Business By Creativ Themes."
    )


def test_french_pages(tmp_path: pathlib.Path) -> None:
    built = Built(tmp_path / "out", "fr")
    assert built.dropped == UNFIT | {"low_confidence": 16, "other_language": 180}
    assert set(built.texts) == {
        "http://e-cartegrise.net/category/sugar-daddies-usa-reviews-2/",
        "http://delikacia.23restorany.ua/manual/fr/platform/netware.html",  # Apache's manual
        "http://afigeo.devpixup.com/les-actualites/Les-premiers-grands-temoins/32",
        "http://3g.192lmdi.cn/8586z21ieh.xml",
        "http://amgns54.blogspot.com/2019/11/hommage-aux-soldats-francais-morts-au.html",
        "http://af-lu.org/img_4868/",
        "http://aideadomicilecoaticook.com/aide-financiere/",
    }
    text = built.texts["http://aideadomicilecoaticook.com/aide-financiere/"]
    assert text.startswith(
        "Le gouvernement du Québec offre à tous les citoyens une aide financière "
    )
    assert text.endswith("créée par des gens du milieu pour les gens du milieu.")
    assert text.count("\n") == 7


def test_romanian_pages(tmp_path: pathlib.Path) -> None:
    built = Built(tmp_path / "out", "ro")
    assert built.dropped == UNFIT | {"low_confidence": 16, "other_language": 186}
    # Of the three pages in Romanian one is a menu, another has 15 characters.
    [(url, text)] = built.texts.items()
    assert url == "http://agropensiuneamaria.eu/index.php/2018/02/15/restaurant/"
    assert text.splitlines()[0].startswith("Restaurantul nostru va ofera in principal mancaruri")
    # English in a form's last line: languages are of pages, not of lines.
    assert text.splitlines()[-1].startswith("Save my name, email, and website in this browser")
    assert text.count("\n") == 7


def test_news_pages(tmp_path: pathlib.Path) -> None:
    domains = tmp_path / "domains.json"
    domains.write_text(
        json.dumps(
            {
                "knowledgr.com": True,
                "poteaudailynews.com": True,  # the page is on its subdomain "business"
                "blogspot.com": ["bristoleatingadventures", "amgns54"],  # the second is in French
                "nationbuilder.com": ["another"],
                "oyili.com.cn": True,
            }
        )
    )
    built = Built(tmp_path / "out", "realnewslike", "--domain-list", domains)
    assert set(built.texts) == {
        "http://bristoleatingadventures.blogspot.com/2012/03/mini-post-about-boston-tea-party.html",
        "http://business.poteaudailynews.com/poteaudailynews/quote?Symbol=537%3A2578304953",
    }
    assert built.dropped == {"domain": 433, "other_language": 3}
    sources = {source["of"]: source for source in built.made["sources"]}
    assert "3.4" in sources["rules"]["name"]
    assert "rowanz/grover" in sources["--domain-list"]["url"]
    assert list(built.made["settings"]["lists"]) == ["--domain-list"]


def test_pages_of_listed_urls_in_several_crawls(tmp_path: pathlib.Path) -> None:
    listed = tmp_path / "urls.txt"
    listed.write_text(
        "https://www.7abibomri.com/valuable-lessons-ive-learned-about-4\n"  # crawl 2020-50
        "http://blog.daveblackonline.com/2024/02/building-muscle-as-we-age.html?utm_source=feed\n"
        "http://agi-treff-ruhr.de/Links/\n"  # in German
        "http://350bayarea.nationbuilder.com/\n"  # the front page, which no crawl has here
    )
    built = Built(tmp_path / "out", "webtextlike", "--url-list", listed)
    assert {page["url"]: page["timestamp"][:4] for page in built.pages} == {
        "http://7abibomri.com/valuable-lessons-ive-learned-about-4/": "2020",
        "http://blog.daveblackonline.com/2024/02/building-muscle-as-we-age.html": "2026",
    }
    assert built.dropped == {"other_language": 1, "url_not_listed": 435}
    assert [source["of"] for source in built.made["sources"]] == [
        "rules",
        "--badwords",
        "--url-list",
    ]
    assert "2018-34 to 2019-30" in built.made["sources"][0]["name"]


def test_pages_in_every_language(tmp_path: pathlib.Path) -> None:
    built = Built(tmp_path / "out", "multilingual")
    assert built.dropped == {"bad_words": 11, "few_paragraphs": 327, "low_confidence": 17}
    languages = Counter(page["language"] for page in built.pages)
    assert languages == {
        "en": 33, "ru": 12, "de": 5, "es": 5, "zh-cn": 4, "fr": 3, "pl": 3, "pt": 3, "it": 2,
        "ja": 2, "tr": 2, "ca": 1, "el": 1, "fi": 1, "he": 1, "id": 1, "ko": 1, "ml": 1, "no": 1,
        "uk": 1,
    }  # fmt: skip
    # No line rule: titles and menus stay, as in mC4; three long paragraphs made it a page.
    text = built.texts["http://chokou.jp/kaichoaisatu.html"]
    assert text.startswith("長崎工業高等学校野球部OB会\n長工野球部\n野球部の沿革\n")
    assert sum(len(line) >= 200 for line in text.splitlines()) >= 3
    assert "mC4" in built.made["sources"][0]["name"]

    done = run_c4("split", tmp_path / "out")
    assert done.status == 0, done.err
    assert {line.split()[0]: int(line.split()[1]) for line in done.out.splitlines()} == languages
    [german, *_] = open_corpus(str(tmp_path / "out" / "de")).pages()
    assert german.url in built.texts
    assert {page["url"] for page in read_corpus(tmp_path / "out" / "de")["train"]} == {
        "http://australien.andreg.de/tag/luxus",
        "http://agi-treff-ruhr.de/Links/",
        "http://de.knowledgr.com/00444056/ErieRailroad",
        "http://bernies-garage.com/2025/01",
        "http://caritativus.com/Zulassung-KSV/",
    }
