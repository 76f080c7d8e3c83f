"""``c4 report --summary``: the EU's summary, with the cuts counted by hand."""

import csv
import io
import json
import pathlib
from collections import Counter
from typing import Any

import pytest

from c4_filters.urls import registered_domain
from pipelines import open_corpus
from pipelines.report.counting import SumsByName
from pipelines.report.summary import cuts, domains_table, largest
from pipelines.report.written import Written
from testing.fake_object_store import fake_s3
from testing.helpers import manifest_of, run_c4, write_wet

TEXT = "The ferry was late again. It rained the whole day. Nobody minded the wait at all."


def built(output: pathlib.Path, pages: list[tuple[str, str, str]]) -> pathlib.Path:
    crawl = output.parent / "crawl-data" / "CC-MAIN-2019-18"
    crawl.mkdir(parents=True)
    write_wet(crawl / "a.warc.wet.gz", pages)
    recipe = ("--recipe", "en.noclean")
    outcome = run_c4("build", "--input", crawl / "*", "--output", output, *recipe, "--quiet")
    assert outcome.status == 0, outcome.err
    return output


def rows_of(path: pathlib.Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Thirty domains; domain n has n pages, and every third page is of a sub-domain."""
    pages = []
    for n in range(1, 31):
        for page in range(n):
            host = f"news.site{n}.co.uk" if page % 3 == 2 else f"site{n}.co.uk"
            month = 3 if n < 15 else 4
            pages.append((f"https://{host}/{page}", f"2019-0{month}-01T00:00:00Z", f"{TEXT} {n}"))
    return built(tmp_path_factory.mktemp("summary") / "corpus", pages)


def test_domains_are_ranked_by_bytes_with_the_cuts(folder: pathlib.Path) -> None:
    outcome = run_c4("report", folder, "--summary")
    assert outcome.status == 0, outcome.err
    paths = [pathlib.Path(line) for line in outcome.out.splitlines()]
    assert [path.name for path in paths] == ["training-content-summary.json", "domains.csv"]
    rows = rows_of(paths[1])
    sizes: Counter[str] = Counter()
    corpus = open_corpus(str(folder))
    for split in corpus.splits:
        for page in corpus.pages(split):
            sizes[registered_domain(page.url.split("/")[2])] += len(page.text.encode())
    ranked = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
    assert [(row["domain"], int(row["bytes"])) for row in rows] == ranked
    assert [row["rank"] for row in rows[:3]] == ["1", "2", "3"]
    assert [row["top_10_percent"] for row in rows[:4]] == ["yes", "yes", "yes", "no"]
    assert [row["top_5_percent"] for row in rows[:3]] == ["yes", "yes", "no"]
    assert sum(float(row["share"]) for row in rows) == pytest.approx(1)
    assert len(rows) == len(sizes) == 30


def test_a_domain_has_one_name_in_whatever_form_an_address_is(tmp_path: pathlib.Path) -> None:
    urls = [
        "http://sea.example.org/", "HTTPS://Joe:pw@SEA.Example.ORG.:8080?x=b.com/",
        "//example.org/b", "http://example.org\\@b.com/", "file:books.jsonl#3", "javascript:b.com/",
        "http://münchen.de/", "http://xn--mnchen-3ya.de/x", "http://[::1]:80/",
    ]  # fmt: skip
    lines = [json.dumps({"url": url, "text": f"{TEXT} {n}"}) for n, url in enumerate(urls)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    out = tmp_path / "out"
    done = run_c4(
        "import", "--from", "jsonl", "--input", tmp_path / "a.jsonl", "--output", out, "--quiet"
    )
    assert done.status == 0, done.err
    assert run_c4("report", out, "--summary").status == 0
    rows = rows_of(out / "report" / "domains.csv")
    assert {row["domain"]: int(row["pages"]) for row in rows} == {
        "example.org": 4, "xn--mnchen-3ya.de": 2, "(no domain)": 2, "[::1]": 1,
    }  # fmt: skip


def test_the_summary_has_what_a_corpus_can_say(
    folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    assert run_c4("report", folder, "--summary", "--to", tmp_path).status == 0
    path = tmp_path / "training-content-summary.json"
    content: dict[str, Any] = json.loads(path.read_bytes())
    made = manifest_of(folder)
    assert content["1.3"]["size"]["bin"] == "less than 1 billion tokens"
    assert content["1.3"]["size"]["pages"] == made["counts"]["pages_written"]
    assert content["1.3"]["latest_date_of_collection"] == "04/2019"
    assert content["1.3"]["languages"][0]["language"] == "en"
    assert content["2.1"]["period_of_collection"] == ["03/2019", "04/2019"]
    assert content["2.1"]["publicly_available_data_sets"][0]["name"] == (
        "Common Crawl CC-MAIN-2019-18"
    )
    assert [file["sha256"] for file in content["2.1"]["files"]] == [
        file["sha256"] for file in made["inputs"]
    ]
    assert content["2.3"]["domains"] == {
        "domains": 30, "top_10_percent": 3, "small_firm": 2, "list": "domains.csv",
    }  # fmt: skip
    before = (tmp_path / "domains.csv").read_bytes()
    assert run_c4("report", folder, "--summary", "--to", tmp_path).status == 0
    assert (tmp_path / "domains.csv").read_bytes() == before


def test_it_takes_one_corpus(folder: pathlib.Path) -> None:
    outcome = run_c4("report", folder, folder, "--summary")
    assert outcome.status == 2
    assert "--summary takes one corpus" in outcome.err


def test_cuts_are_shares_of_the_number_of_domains() -> None:
    assert cuts(1) == {"top_10_percent": 1, "small_firm": 1}
    assert cuts(0) == {"top_10_percent": 0, "small_firm": 0}
    assert cuts(1_000_000)["small_firm"] == 1_000


def test_many_domains_need_no_memory_and_a_spreadsheet_no_trust() -> None:
    sums = SumsByName(most=50)
    for number in range(3_000):
        sums.add(f"=d{number:04}", number)
    assert [item.name for item in largest(sums, 3)] == ["=d2999", "=d2998", "=d2997"]
    written = Written(Counter(), {}, sums, Counter(), Counter(), 0, 3_000, 1, [])
    table, numbers = domains_table(written)
    lines = table.decode().splitlines()
    assert numbers == {"domains": 3_000, "top_10_percent": 300, "small_firm": 150}
    assert len(lines) == 1_001  # the list that a small firm may give, at least
    assert lines[1].startswith("1,'=d2999,1,2999,")
    sums.close()


@pytest.mark.slow
def test_a_corpus_in_a_bucket(
    folder: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("obstore", reason="needs the extra aws")
    with fake_s3() as store:
        monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ENDPOINT_URL", store.address)
        for path in folder.rglob("*"):
            if path.is_file():
                name = path.relative_to(folder).as_posix()
                store.objects[f"s3://bucket/c/{name}"] = path.read_bytes()
        outcome = run_c4("report", "s3://bucket/c")
        assert (outcome.status, outcome.out) == (0, "s3://bucket/c/report/report.html\n")
        assert run_c4("report", folder, "--to", tmp_path / "local.html").status == 0
        remote = store.objects["s3://bucket/c/report/report.html"].decode()
        local = (tmp_path / "local.html").read_text(encoding="utf-8")
        assert remote == local.replace(str(folder), "s3://bucket/c")
