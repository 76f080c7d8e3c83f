"""The card that ``c4 build`` writes: README.md, croissant.json, and what the owner says of them."""

import dataclasses
import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import pytest

from pipelines.corpus.card.croissant import croissant
from pipelines.corpus.card.facts import Facts, crawls_of
from pipelines.corpus.card.hugging_face import dataset_card
from pipelines.corpus.card.owner import Owner, parse_owner
from pipelines.corpus.card.side_files import side_files
from pipelines.corpus.errors import CorpusError
from pipelines.corpus.manifest import read_manifest
from testing.helpers import manifest_of, run_c4, write_wet

ROOT = pathlib.Path(__file__).resolve().parents[4]
SAMPLES = ROOT / "samples" / "wet"
OWNER = """
name = "North Sea web — “Nordsee”"
creator = "Harbour Institute"
creator_url = "https://harbour.example/"
url = "https://harbour.example/corpus"
licence = "cc-by-4.0"
version = "2.1.0"
contact = "corpus@harbour.example"
keywords = ["sea", "weather"]
"""


def build(inputs: object, output: pathlib.Path, *more: object) -> Any:
    outcome = run_c4("build", "--input", str(inputs), "--output", output, *map(str, more))
    assert outcome.status == 0, outcome.err
    return outcome


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("card") / "corpus"
    build(SAMPLES / "sample-0000?.warc.wet.gz", folder, "--format", "parquet,json", "--quiet")
    return folder


def front_matter(card: str) -> dict[str, Any]:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    _, header, _ = card.split("---\n", 2)
    found: dict[str, Any] = yaml.safe_load(header)
    return found


def files(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_the_front_matter_has_what_hugging_face_asks_for(folder: pathlib.Path) -> None:
    header = front_matter((folder / "README.md").read_text(encoding="utf-8"))
    assert header["license"] == "odc-by"
    assert header["language"] == ["en"]
    assert header["size_categories"] == ["n<1K"]
    [config] = header["configs"]
    assert config["data_files"][0] == {"split": "train", "path": "train-*-of-00001.parquet"}
    pages = {split["name"]: split["num_examples"] for split in header["dataset_info"]["splits"]}
    assert pages == {split: sums["pages"] for split, sums in manifest_of(folder)["splits"].items()}


@pytest.mark.parametrize("name", ["a: b", "../x", 'q"|<b>?*\\', "x\x7f\x85\u2028\ufffey\U000e0001"])
def test_any_recipe_name_can_stand_in_the_front_matter(name: str) -> None:
    pages = {"train": [("train-00000-of-00001.parquet", 1, 9)]}
    facts = Facts(formats=["parquet"], splits=pages, description="d", config_name=name)
    header = front_matter(dataset_card(facts))
    assert header["pretty_name"] == f"c4/{name}"
    [config] = header["configs"]
    assert config["config_name"] == header["dataset_info"]["config_name"]
    # What `datasets` refuses in the name of a configuration.
    assert config["config_name"] == re.sub(r"[<>:/\\|?*]", "-", name)


def test_only_dates_are_called_dates() -> None:
    pages = {"train": [("train-00000-of-00001.parquet", 1, 9)]}
    for source, kind in (("wet", "sc:DateTime"), ("jsonl", "sc:Text"), ("corpora", "sc:Text")):
        facts = Facts(
            formats=["parquet"], splits=pages, description="d", config_name="x", source=source
        )
        fields = json.loads(croissant(facts))["recordSet"][1]["field"]
        [found] = [field["dataType"] for field in fields if field["name"] == "timestamp"]
        assert found == kind


def test_the_card_names_the_terms_that_bind_besides_the_licence(folder: pathlib.Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "https://commoncrawl.org/terms-of-use" in text
    assert "personal data" in text
    assert json.loads((folder / "croissant.json").read_bytes())["license"] == [
        "https://opendatacommons.org/licenses/by/1-0/",
        "https://commoncrawl.org/terms-of-use",
    ]


def test_croissant_has_what_version_1_1_requires(folder: pathlib.Path) -> None:
    content = json.loads((folder / "croissant.json").read_bytes())
    required = {"@context", "@type", "conformsTo", "description", "license", "name", "url"}
    assert required | {"creator", "datePublished", "distribution"} <= content.keys()
    assert content["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    newest = max(
        json.loads(line)["timestamp"]
        for path in folder.glob("*.json.gz")
        for line in lines_of(path)
    )
    assert content["datePublished"] == newest
    assert {part["@type"] for part in content["distribution"]} == {"cr:FileSet"}
    patterns = [name for part in content["distribution"] for name in part["includes"]]
    assert all(list(folder.glob(pattern)) for pattern in patterns)


def lines_of(path: pathlib.Path) -> Iterator[bytes]:
    import gzip

    with gzip.open(path) as file:
        yield from file


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of rdflib, in mlcroissant 1.1.1
@pytest.mark.parametrize("formats", ["parquet,json", "json"])
def test_mlcroissant_accepts_and_reads_it(
    formats: str, folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    mlcroissant = pytest.importorskip("mlcroissant", reason="mlcroissant is not installed")
    if formats == "json":
        folder = tmp_path / "corpus"
        build(SAMPLES / "sample-0000?.warc.wet.gz", folder, "--format", "json", "--quiet")
    data = mlcroissant.Dataset(jsonld=str(folder / "croissant.json"))
    assert not data.metadata.issues.errors
    assert not data.metadata.issues.warnings
    found = {(row["pages/split"].decode(), row["pages/url"]) for row in data.records("pages")}
    sums = manifest_of(folder)["splits"]
    for split in ("train", "validation"):
        assert len([url for of, url in found if of == split]) == sums[split]["pages"]


@pytest.mark.slow
def test_hugging_face_reads_a_corpus_of_json_lines(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    build(SAMPLES / "sample-0000?.warc.wet.gz", tmp_path / "corpus", "--format", "tfrecord,json")
    splits = datasets.load_dataset("corpus")
    sums = manifest_of(tmp_path / "corpus")["splits"]
    assert {name: len(split) for name, split in splits.items()} == {
        name: split["pages"] for name, split in sums.items()
    }


@pytest.mark.slow
def test_a_readme_that_was_there_before_the_first_build_stays(tmp_path: pathlib.Path) -> None:
    out = tmp_path / "corpus"
    out.mkdir()
    (out / "README.md").write_text("# Mine\n")
    done = build(SAMPLES / "sample-00000.warc.wet.gz", out)
    assert f"{out}/README.md was not written by a build" in done.err
    assert (out / "README.md").read_text() == "# Mine\n"
    assert "# c4/en" in (out / "CARD.md").read_text(encoding="utf-8")
    assert run_c4("verify", out).status == 0
    build(SAMPLES / "sample-00000.warc.wet.gz", out, "--start-over", "--quiet")
    assert (out / "README.md").read_text() == "# Mine\n"


@pytest.mark.slow
def test_the_same_corpus_has_the_same_card(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    other = tmp_path / "elsewhere"
    build(SAMPLES / "sample-0000?.warc.wet.gz", other, "--format", "parquet,json", "--workers", "2")
    for name in ("README.md", "croissant.json"):
        assert (other / name).read_bytes() == (folder / name).read_bytes()
    assert side_files(read_manifest(str(other)))["README.md"] == (other / "README.md").read_bytes()


@pytest.mark.slow
def test_the_address_is_that_of_the_newest_crawl(tmp_path: pathlib.Path) -> None:
    text = "The ferry was late. It rained all day. Nobody minded the wait at all."
    crawls = tmp_path / "crawl-data"
    for number, crawl in enumerate(["CC-MAIN-2019-18", "CC-MAIN-2019-13"]):
        (crawls / crawl).mkdir(parents=True)
        date = f"2019-0{4 - number}-19T01:02:03Z"
        write_wet(crawls / crawl / "a.warc.wet.gz", [(f"http://{number}.example/", date, text)])
    build(crawls / "*" / "a.warc.wet.gz", tmp_path / "corpus", "--recipe", "en.noclean", "--quiet")
    content = json.loads((tmp_path / "corpus" / "croissant.json").read_bytes())
    assert content["url"] == "https://data.commoncrawl.org/crawl-data/CC-MAIN-2019-18/index.html"
    assert content["datePublished"] == "2019-04-19T01:02:03Z"
    assert "CC-MAIN-2019-13, CC-MAIN-2019-18" in content["rai:dataCollection"]
    assert manifest_of(tmp_path / "corpus")["dates"][0] == "2019-03-19T01:02:03Z"


def test_crawl_ids_are_found_in_paths() -> None:
    paths = [
        "s3://commoncrawl/crawl-data/CC-MAIN-2019-18/segments/1555578517558.8/wet/CC-MAIN-"
        "20190418101243-20190418122248-00000.warc.wet.gz",
        "crawl-data/CC-NEWS/2016/08/CC-NEWS-2016-08.gz",
        "CC-MAIN-2009-2010/x",
        "CC-MAIN-20190418101243-20190418122248-00000.warc.wet.gz",
    ]
    assert crawls_of(paths) == ("CC-MAIN-2019-18", "CC-NEWS-2016-08")


# ------------------------------------------------------------------------------- the owner's file


@pytest.mark.slow
def test_the_owner_names_what_only_they_know(tmp_path: pathlib.Path) -> None:
    card, folder = tmp_path / "card.toml", tmp_path / "corpus"
    card.write_text(OWNER, encoding="utf-8")
    command = (SAMPLES / "sample-00000.warc.wet.gz", folder)
    build(*command, "--quiet")
    before = files(folder)
    outcome = build(*command, "--card", card)
    assert "complete already" in outcome.out
    now = files(folder)
    changed = {name for name in now if now[name] != before[name]}
    assert changed == {"README.md", "croissant.json", "manifest.json"}
    content = json.loads(now["croissant.json"])
    assert content["name"] == "North Sea web — “Nordsee”"
    assert content["creator"]["name"] == "Harbour Institute"
    assert content["url"] == "https://harbour.example/corpus"
    assert content["version"] == "2.1.0"
    assert content["license"][0] == "https://creativecommons.org/licenses/by/4.0/"
    readme = now["README.md"].decode()
    assert front_matter(readme)["pretty_name"] == content["name"]
    assert front_matter(readme)["license"] == "cc-by-4.0"
    assert "[Harbour Institute](https://harbour.example/)" in readme
    # It stays when the same build runs again without the file, and is no part of the settings.
    build(*command, "--quiet")
    assert files(folder) == now
    assert json.loads(now["build.json"]) == json.loads(before["build.json"])
    assert run_c4("verify", folder).status == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('nmae = "x"', "unknown key 'nmae'; did you mean name?"),
        ("name = 3", "name must be a text, got 3"),
        ('name = " "', "name is empty"),
        ('name = "a\\nb"', "name must be one line"),
        ('name = "a\\u001b[31m"', "without control characters"),
        ('name = "a\\u2028b"', "without control characters"),
        ('name = "a\\u202eb"', "without control characters"),
        ('url = "javascript:alert(1)"', "url must be an http:// or https:// address"),
        ('url = "https://"', "url must be an http:// or https:// address"),
        ('version = "1.0"', "version must be three numbers"),
        ('license = "My licence"', "give license_url too"),
        ('license_url = "https://a.example/"', "license_url needs license"),
        ('license = "a"\nlicence = "b"', "license is given twice"),
        ("keywords = [1]", "keywords must be a list of texts"),
        ("name =", "not valid TOML"),
    ],
)
def test_a_bad_card_file_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        parse_owner(text)
    assert "\n" not in str(raised.value)


def test_a_bad_card_file_stops_a_build_before_it_begins(tmp_path: pathlib.Path) -> None:
    card = tmp_path / "card.toml"
    command = ("build", "--input", SAMPLES / "*", "--output", tmp_path / "out", "--card", card)
    assert run_c4(*command).err == (
        f"c4: error: cannot read the card {card}: No such file or directory (--card)\n"
    )
    card.write_text('colour = "blue"')
    refused = run_c4(*command).err
    assert f"c4: error: the card {card}: unknown key 'colour'; there are name," in refused
    assert not (tmp_path / "out").exists()


def test_a_licence_of_ones_own_has_name_and_link() -> None:
    owner = Owner(license="Harbour licence 1", license_url="https://harbour.example/licence")
    facts = Facts(
        formats=("parquet",), splits={"train": []}, description="Pages.", config_name="en",
        owner=owner,
    )  # fmt: skip
    header = front_matter(dataset_card(facts))
    assert header["license"] == "other"
    assert header["license_name"] == "Harbour licence 1"
    assert header["license_link"] == "https://harbour.example/licence"


# ------------------------------------------------------------------------------ the user's README


@pytest.mark.slow
def test_a_readme_of_the_users_stays_and_the_card_goes_beside_it(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "corpus"
    command = (SAMPLES / "sample-00000.warc.wet.gz", folder)
    build(*command, "--quiet")
    (folder / "README.md").write_text("# Mine\n")
    outcome = build(*command, "--start-over")
    note = "README.md was not written by a build; it is left unchanged, and the card is in CARD.md"
    assert note in outcome.err
    assert (folder / "README.md").read_text() == "# Mine\n"
    assert "# c4/en" in (folder / "CARD.md").read_text(encoding="utf-8")
    assert run_c4("verify", folder).status == 0
    (folder / "CARD.md").write_text("# Mine, too\n")
    build(*command, "--start-over", "--quiet")
    assert (folder / "CARD.md").read_text() == "# Mine, too\n"
    (folder / "CARD.md").unlink()
    build(*command, "--start-over", "--quiet")
    (folder / "README.md").unlink()
    build(*command, "--quiet")
    assert "# c4/en" in (folder / "README.md").read_text(encoding="utf-8")
    assert not (folder / "CARD.md").exists()


# ------------------------------------------------------------------------------- other sources


@pytest.mark.parametrize(
    ("source", "licence", "url"),
    [
        ("wet", "odc-by", "https://commoncrawl.org/"),
        ("wikipedia", "cc-by-sa-4.0", "https://dumps.wikimedia.org/"),
        ("books", "unknown", None),
    ],
)
def test_texts_from_elsewhere_are_not_called_common_crawls(
    source: str, licence: str, url: str | None
) -> None:
    facts = Facts(
        formats=("parquet",), splits={"train": [("train-00000-of-00001.parquet", 1, 1)]},
        description="Texts.", config_name="as_is", source=source,
    )  # fmt: skip
    card = dataset_card(facts)
    assert front_matter(card)["license"] == licence
    content = json.loads(croissant(facts))
    assert content.get("url") == url
    assert content["license"]
    assert ("Common Crawl" in card) is (source == "wet")
    assert "commoncrawl" not in str(content["license"]) or source == "wet"


def test_a_damaged_card_in_a_manifest_is_named(folder: pathlib.Path) -> None:
    made = read_manifest(str(folder))
    with pytest.raises(CorpusError, match=r"manifest\.json is damaged: card: unknown key 'x'"):
        side_files(dataclasses.replace(made, card={"x": "y"}))
