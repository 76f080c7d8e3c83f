"""The short pages of docs/: their commands run as they are written; every page is in the index."""

import bz2
import gzip
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from testing import languages
from testing.dumps import WikiPage, dump_bytes
from testing.fake_web import fake_web
from testing.helpers import run_c4

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SAMPLE = ROOT / "samples" / "wet" / "sample-00000.warc.wet.gz"
SECONDS = 300

#: Stands in for what fetches the dumps of Wikipedia.
CURL = """\
#!/bin/sh
for last; do :; done
case $last in
    https://dumps.wikimedia.org/enwiki/*) cp "$STORE/${last##*/}" . ;;
    *) exit 22 ;;
esac
"""
#: `c4`, with a server on loopback in place of Common Crawl's.
C4 = f"""\
#!/bin/sh
case "$*" in *--crawl*) set -- "$@" --base-url "$CRAWL" ;; esac
exec {sys.executable} -m pipelines.c4_main "$@"
"""


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    found = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    assert found
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with one sample's corpus, and the command that the pages use."""
    place = tmp_path_factory.mktemp("place")
    (place / "bin").mkdir()
    (place / "store").mkdir()
    for name, script in (("curl", CURL), ("c4", C4)):
        (place / "bin" / name).write_text(script)
        (place / "bin" / name).chmod(0o755)
    shutil.copy(SAMPLE, place / SAMPLE.name)
    outcome = run_c4("build", "--input", SAMPLE, "--output", place / "corpus", "--quiet")
    assert outcome.status == 0, outcome.err
    return place


@pytest.fixture(scope="module")
def crawl() -> Iterator[str]:
    """The address of a server that has a crawl of three files."""
    folder = "crawl-data/CC-MAIN-2019-18/segments/1555578517558.8/wet/"
    paths = [f"{folder}CC-MAIN-20190418101243-20190418122248-0000{n}.warc.wet.gz" for n in range(3)]
    with fake_web() as server:
        listed = gzip.compress("\n".join(paths).encode())
        server.objects["/crawl-data/CC-MAIN-2019-18/wet.paths.gz"] = listed
        server.objects |= {f"/{path}": SAMPLE.read_bytes() for path in paths}
        yield server.address


def run(script: str, folder: pathlib.Path, place: pathlib.Path, crawl: str = "") -> str:
    environment = {
        **os.environ,
        "PATH": f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "CRAWL": crawl,
        "STORE": str(place / "store"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    done = subprocess.run(
        ["bash", "-euc", script], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_the_first_corpus(place: pathlib.Path, tmp_path: pathlib.Path, crawl: str) -> None:
    out = run("\n".join(blocks("first-corpus.md", "sh")), tmp_path, place, crawl)
    assert "pages read" in out
    assert "no problems (" in out
    assert "page few_sentences: " in out


@pytest.mark.slow
def test_crawls(place: pathlib.Path, tmp_path: pathlib.Path, crawl: str) -> None:
    out = run("\n".join(blocks("crawl.md", "sh")), tmp_path, place, crawl)
    assert "wet: 2 files fetched" in out
    assert out.count("pages read") > 2
    assert "corpus: done" in out
    assert "files: 2 of 2 cleaned, 0 failed, 0 left" in out
    assert '"state": "done"' in out
    assert 'c4_build_files{folder="' in (tmp_path / "c4_corpus.prom").read_text()


@pytest.mark.slow
def test_why_pages_were_dropped(place: pathlib.Path) -> None:
    one, sentence, verdict, file = (run(block, place, place) for block in blocks("why.md", "sh"))
    assert one.count("  page kept") == sentence.count("  page kept") == 1
    for shown in (one, sentence):
        assert "https://news.harbourside.example/2019/04/library-reopens" in shown
    assert set(re.findall(r"\n  page (\w+)", verdict)) == {"few_sentences"}
    assert file.count("\n  page ") > 30


@pytest.mark.slow
def test_the_card_and_the_opt_out_list(place: pathlib.Path, tmp_path: pathlib.Path) -> None:
    shutil.copy(SAMPLE, tmp_path / SAMPLE.name)
    [card], [listed] = blocks("card.md", "toml"), blocks("card.md", "text")
    (tmp_path / "card.toml").write_text(card, encoding="utf-8")
    (tmp_path / "opt_out.txt").write_text(listed, encoding="utf-8")
    with_card, without_pages = blocks("card.md", "sh")
    run(with_card, tmp_path, place)
    assert "# North Sea web corpus" in (tmp_path / "corpus" / "README.md").read_text("utf-8")
    assert re.search(r"\n opted_out +[1-9]", run(without_pages, tmp_path, place))


@pytest.mark.slow
def test_the_report(place: pathlib.Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra report")
    shutil.copytree(place / "corpus", place / "other", dirs_exist_ok=True)
    run("\n".join(blocks("report.md", "sh")), place, place)
    written = {path.name for path in (place / "corpus" / "report").iterdir()}
    assert written == {"report.html", "training-content-summary.json", "domains.csv"}
    assert (place / "compared.html").stat().st_size > 100_000


@pytest.mark.slow
def test_a_corpus_that_grows(place: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for month, number in (("april", 0), ("may", 1), ("june", 2)):
        (tmp_path / month).mkdir()
        sample = SAMPLE.with_name(SAMPLE.name.replace("00000", f"0000{number}"))
        shutil.copy(sample, tmp_path / month / sample.name)
    out = run("\n".join(blocks("growing.md", "sh")), tmp_path, place)
    assert out.count("root digest: ") == 3
    assert "no problems (" in out


@pytest.mark.slow
def test_imports_mixtures_and_heads(place: pathlib.Path, tmp_path: pathlib.Path) -> None:
    pytest.importorskip("mwparserfromhell", reason="needs the extra import")
    texts = languages.pages("en", 60, seed=3)
    pages = [WikiPage(f"Page {number}", text) for number, text in enumerate(texts)]
    name = "enwiki-20261101-pages-articles1.xml-p1p41242.bz2"
    (place / "store" / name).write_bytes(bz2.compress(dump_bytes(pages)))
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "one.txt").write_text(texts[0])
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines" / "a.jsonl").write_text('{"text": "One page."}\nno json\n')
    commands = "\n".join(blocks("import.md", "sh"))
    commands = commands.replace("c4 vocab", "c4 vocab --size 100").replace("2^23", "2^11")
    assert "-A 'my-corpus/1.0 (me@example.org)' -O https://dumps" in commands
    out = run(commands, tmp_path, place)
    assert "pages read    60 " in out
    assert re.search(r"wikipedia-2\^11: 2,\d+ tokens, the first \d+ pages of wikipedia", out)
    assert "times read" in out
    [reject] = (tmp_path / "lines-corpus" / "rejects").iterdir()
    [shown] = blocks("import.md", "text")
    assert json.loads(shown).keys() == json.loads(reject.read_text()).keys()


def test_counting_tokens_without_a_tokenizer(
    place: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    [by_bytes] = [block for block in blocks("reading.md", "python") if "text_bytes" in block]
    exec(by_bytes, {})
    assert re.fullmatch(r"about [\d,]+ tokens\n", capsys.readouterr().out)
    [pages] = [block for block in blocks("reading.md", "python") if '.pages("validation")' in block]
    exec(pages, {})
    assert capsys.readouterr().out.startswith("{'train': ")


@pytest.mark.slow
def test_the_examples_of_models(
    place: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from model.exchange.hugging_face import export_model
    from model.t5.config import model_config
    from model.training.model_folders import save_params
    from testing.tiny_t5 import V1_0, random_params

    monkeypatch.chdir(place)
    done = run_c4("vocab", "--corpus", "corpus", "--size", 300, "--output", "corpus.model")
    assert done.status == 0, done.err
    [tokens] = [block for block in blocks("reading.md", "python") if "Vocabulary" in block]
    exec(tokens, {})
    assert re.fullmatch(r"\d+ tokens\n", capsys.readouterr().out)

    tried, trained = blocks("sizing.md", "sh")[0].split("c4 pretrain")[1:]
    assert "the run reads the corpus " in run(f"c4 pretrain{tried}", place, place)
    assert not (place / "trial" / "checkpoints").exists()
    assert " tok/s " in run(f"c4 pretrain{trained}", place, place)
    assert (place / "trial" / "checkpoints").is_dir()

    config = model_config("tiny", vocab_size=512, d_model=32, d_ff=64, d_kv=8, num_layers=1)
    params = random_params(config)
    save_params("run", config, params, "corpus.model")
    (place / "samples").symlink_to(ROOT / "samples")
    tune = blocks("finetuning.md", "sh")[0].replace("--steps 300", "--steps 3")
    assert re.search(r"\nown +accuracy", run(tune, place, place))
    assert len((place / "answers.txt").read_text().splitlines()) == 200

    config = V1_0.replace(vocab_size=2048)
    run("\n".join(blocks("decoding.md", "sh")), place, place)
    for name in ("greedy.txt", "beams.txt"):
        assert len((place / name).read_text().splitlines()) == 2
    [library] = blocks("decoding.md", "python")
    exec(library, {})
    assert re.search(r"\['.*', '.*'\]\n", capsys.readouterr().out)

    export_model(place / "served", config, random_params(config))
    [ours] = [block for block in blocks("using-a-model.md", "python") if "load_hf" in block]
    exec(ours, {})


def test_the_index_lists_every_page_and_links_lead_somewhere() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    pages = {path.name for path in DOCS.glob("*.md")} - {"README.md"}
    assert set(re.findall(r"\(([\w-]+\.md)\)", index)) == pages
    for path in DOCS.glob("*.md"):
        text = path.read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#\s:]+)(?:#[\w-]+)?\)", text):
            assert (path.parent / link).exists(), f"{path.name}: {link}"
