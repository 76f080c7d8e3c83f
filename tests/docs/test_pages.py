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

import pytest

from testing import languages
from testing.dumps import WikiPage, dump_bytes
from testing.helpers import run_c4

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SAMPLE = ROOT / "samples" / "wet" / "sample-00000.warc.wet.gz"
SECONDS = 300

#: Stands in for Common Crawl: a list of one file, and that file.
CURL = """\
#!/bin/sh
for last; do :; done
name=${last##*/}
case $last in
    https://data.commoncrawl.org/crawl-data/*.warc.wet.gz | \\
    https://data.commoncrawl.org/crawl-data/*/wet.paths.gz | \\
    https://dumps.wikimedia.org/enwiki/*) cp "$STORE/$name" "$name" ;;
    *) exit 22 ;;
esac
"""
C4 = f"""\
#!/bin/sh
exec {sys.executable} -m pipelines.c4_main "$@"
"""


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    found = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    assert found
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with one sample's corpus, and the commands that the pages use."""
    place = tmp_path_factory.mktemp("place")
    (place / "bin").mkdir()
    (place / "store").mkdir()
    for name, script in (("curl", CURL), ("c4", C4)):
        (place / "bin" / name).write_text(script)
        (place / "bin" / name).chmod(0o755)
    name = "CC-MAIN-20190418101243-20190418122248-00000.warc.wet.gz"
    listed = f"crawl-data/CC-MAIN-2019-18/segments/1555578517558.8/wet/{name}\n"
    (place / "store" / "wet.paths.gz").write_bytes(gzip.compress(listed.encode() * 3))
    shutil.copy(SAMPLE, place / "store" / name)
    shutil.copy(SAMPLE, place / SAMPLE.name)
    outcome = run_c4("build", "--input", SAMPLE, "--output", place / "corpus", "--quiet")
    assert outcome.status == 0, outcome.err
    return place


def run(script: str, folder: pathlib.Path, place: pathlib.Path) -> str:
    environment = {
        **os.environ,
        "PATH": f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}",
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
def test_the_first_corpus(place: pathlib.Path, tmp_path: pathlib.Path) -> None:
    out = run("\n".join(blocks("first-corpus.md", "sh")), tmp_path, place)
    assert "pages read" in out
    assert "no problems (" in out
    assert "page few_sentences: " in out


@pytest.mark.slow
def test_why_pages_were_dropped(place: pathlib.Path) -> None:
    one, sentence, verdict, file = (run(block, place, place) for block in blocks("why.md", "sh"))
    assert one.count("  page kept") == sentence.count("  page kept") == 1
    for shown in (one, sentence):
        assert "https://news.harbourside.example/2019/04/library-reopens" in shown
    assert set(re.findall(r"\n  page (\w+)", verdict)) == {"few_sentences"}
    assert file.count("\n  page ") > 30


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
    from model.training.checkpoints import save_params
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
