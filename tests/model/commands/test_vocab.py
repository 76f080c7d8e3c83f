"""``c4 vocab``, from corpora to a vocabulary that trains and that others read."""

import errno
import hashlib
import io
import json
import os
import pathlib
import pickle
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.commands import vocab
from model.data import text_sample, train_vocabulary
from model.data.sentencepiece_model import without_notes
from model.data.vocabulary import Vocabulary
from model.exchange import tokenizer_files
from testing import languages
from testing.helpers import run_c4

COUNTS = {"en": 300, "de": 40, "fr": 40, "ro": 40}


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpora")
    return {name: languages.corpus(folder / name, name, n) for name, n in COUNTS.items()}


@pytest.fixture(scope="module")
def built(corpora, tmp_path_factory):
    output = tmp_path_factory.mktemp("built") / "deep" / "vocab.model"
    outcome = run_c4(
        "vocab", f"--corpus=en={corpora['en']}:10",
        *(f"--corpus={corpora[name]}" for name in ("de", "fr", "ro")),
        "--size=250", "--sample-characters=130000", "--output", output,
    )  # fmt: skip
    return output, outcome


def test_the_papers_mixture_becomes_a_vocabulary(built):
    output, outcome = built
    assert outcome.status == 0, outcome.err
    vocabulary = Vocabulary(output)
    assert (vocabulary.pieces, vocabulary.size, vocabulary.padded_size) == (250, 350, 384)
    assert sorted(path.name for path in output.parent.iterdir()) == [
        "vocab.model", "vocab.model.json"
    ]  # fmt: skip


def test_the_report_says_what_it_was_made_of_and_how_it_spells(built, corpora):
    output, outcome = built
    report = json.loads(output.with_name("vocab.model.json").read_text(encoding="utf-8"))

    assert report["sha256"] == hashlib.sha256(output.read_bytes()).hexdigest()
    assert (report["pieces"], report["sentinels"], report["embedding_rows"]) == (250, 100, 384)
    assert {name: of["weight"] for name, of in report["corpora"].items()} == {
        "en": 10, "de": 1, "fr": 1, "ro": 1
    }  # fmt: skip
    assert {name: of["characters"] for name, of in report["corpora"].items()} == {
        "en": 100_000, "de": 10_000, "fr": 10_000, "ro": 10_000
    }  # fmt: skip
    for name, of in report["corpora"].items():
        assert (of["folder"], of["pages"]) == (corpora[name], COUNTS[name])
        assert of["measured_on_characters"] == of["characters"]
        row = re.search(rf"^  {name} .*$", outcome.out, re.MULTILINE)[0].split()
        assert row[3] == f"{of['characters_per_piece']:.3f}"

    # The measure, taken again by hand: over all pages, which are like the sampled ones.
    vocabulary = Vocabulary(output)
    for name, count in COUNTS.items():
        lines = [line for page in languages.pages(name, count) for line in page.split("\n")]
        pieces = sum(map(len, vocabulary.encode_batch(lines)))
        measured = report["corpora"][name]["characters_per_piece"]
        assert measured == pytest.approx(sum(map(len, lines)) / pieces, rel=0.02)
    spelt = {name: of["characters_per_piece"] for name, of in report["corpora"].items()}
    assert spelt["en"] == max(spelt.values())  # ten times the text, and it shows


def test_a_log_gets_lines_and_no_bar(built):
    _, outcome = built
    assert re.fullmatch(r"sample: done in 00:\d\d\ntrain: done in 00:\d\d\n", outcome.err)


@pytest.mark.slow
@pytest.mark.parametrize("alone", [False, True], ids=["our folder", "spiece.model alone"])
def test_hugging_face_tokenizes_with_it_as_we_do(built, tmp_path, alone, monkeypatch):
    transformers = pytest.importorskip("transformers", reason="the dev extra is not installed")
    vocabulary = Vocabulary(built[0])
    if alone:
        (tmp_path / "spiece.model").write_bytes(built[0].read_bytes())
        # SentencePiece's own reader of its files needs protobuf 7, which Beam does not allow yet;
        # Transformers has another.
        from transformers import convert_slow_tokenizer
        from transformers.utils import sentencepiece_model_pb2_new

        reader = lambda: sentencepiece_model_pb2_new  # noqa: E731
        monkeypatch.setattr(convert_slow_tokenizer, "import_protobuf", reader)
    else:
        tokenizer_files.write(tmp_path, vocabulary)
    theirs = transformers.T5Tokenizer.from_pretrained(tmp_path)
    for name in COUNTS:
        for page in languages.pages(name, 5, seed=1):
            for line in page.split("\n"):
                assert theirs(line).input_ids == [*vocabulary.encode(line), 1]
    names = [f"<extra_id_{index}>" for index in range(100)]
    assert theirs.convert_tokens_to_ids(names) == [vocabulary.sentinel(k) for k in range(100)]


@pytest.mark.slow
def test_the_same_command_gives_the_same_file(corpora, tmp_path):
    common = ["--size=200", "--sample-characters=40000", "--seed=3"]
    corpora_ = [f"--corpus=de={corpora['de']}", f"--corpus=fr={corpora['fr']}:2.5"]
    assert run_c4("vocab", *corpora_, *common, "--output", tmp_path / "a").status == 0
    assert run_c4("vocab", *corpora_[::-1], *common, "--output", tmp_path / "b").status == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    # A seed that begins to read the German pages elsewhere; there are two places to begin.
    assert (
        run_c4("vocab", *corpora_, *common[:2], "--seed=8", "--output", tmp_path / "c").status == 0
    )
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


@pytest.mark.slow
def test_sentinels_of_another_number_are_noted_in_the_file(corpora, tmp_path):
    common = ["vocab", f"--corpus=de={corpora['de']}", "--size=120", "--sample-characters=20000"]
    assert run_c4(*common, "--output", tmp_path / "a").status == 0
    for count in (0, 300):
        outcome = run_c4(*common, f"--extra-ids={count}", "--output", tmp_path / f"{count}")
        assert outcome.status == 0
        assert f"120 pieces and {count} sentinels" in outcome.out
        vocabulary = Vocabulary(tmp_path / f"{count}")
        assert (vocabulary.extra_ids, vocabulary.size) == (count, 120 + count)
        assert without_notes(vocabulary.content) == (tmp_path / "a").read_bytes()
        assert pickle.loads(pickle.dumps(vocabulary)).size == 120 + count
        (tmp_path / f"folder{count}").mkdir()
        tokenizer_files.write(tmp_path / f"folder{count}", vocabulary)
        transformers = pytest.importorskip("transformers", reason="the dev extra is not installed")
        theirs = transformers.T5Tokenizer.from_pretrained(tmp_path / f"folder{count}")
        assert len(theirs) == vocabulary.size


def test_text_of_ones_own_becomes_a_vocabulary(tmp_path):
    (tmp_path / "mine").mkdir()
    pages = languages.pages("en", 60)
    pq.write_table(pa.table({"text": pages}), tmp_path / "mine" / "a.parquet")
    listed = [{"name": "a.parquet", "split": "train", "pages": len(pages)}]
    (tmp_path / "mine" / "manifest.json").write_text(json.dumps({"shards": listed}))
    outcome = run_c4(
        "vocab", "--corpus", tmp_path / "mine", "--size=100", "--output", tmp_path / "v"
    )
    assert outcome.status == 0, outcome.err
    assert Vocabulary(tmp_path / "v").pieces == 100


def test_a_corpus_short_of_its_share_is_told(corpora, tmp_path):
    outcome = run_c4(
        "vocab", f"--corpus={corpora['en']}:1", f"--corpus={corpora['ro']}:1", "--size=180",
        "--output", tmp_path / "v",
    )  # fmt: skip
    assert outcome.status == 0
    held = sum(len(line) for page in languages.pages("ro", 40) for line in page.split("\n"))
    assert (
        f"ro has {held:,} characters, all of which are used; the sample is {2 * held:,} of the "
        "100,000,000 characters asked for, to keep the weights" in outcome.err
    )


def test_an_existing_file_is_replaced_only_when_asked(corpora, tmp_path):
    command = ["vocab", f"--corpus={corpora['de']}", "--size=120", "--sample-characters=20000"]
    for name in ("v", "v.json"):
        (tmp_path / name).write_text("precious")
        refused = run_c4(*command, "--output", tmp_path / "v")
        assert refused.status == 1
        assert f"{tmp_path / name} exists already: give another file, or --ov" in refused.err
        assert (tmp_path / name).read_text() == "precious"
        if name == "v":
            (tmp_path / name).unlink()
    assert run_c4(*command, "--output", tmp_path / "v", "--overwrite").status == 0
    assert Vocabulary(tmp_path / "v").pieces == 120
    assert json.loads((tmp_path / "v.json").read_text())["pieces"] == 120


def test_only_a_file_is_replaced(corpora, tmp_path, monkeypatch):
    _no_training(monkeypatch)
    os.mkfifo(tmp_path / "pipe")
    refused = run_c4(
        "vocab", f"--corpus={corpora['de']}", "--output", tmp_path / "pipe", "--overwrite"
    )
    assert refused.status == 1
    assert refused.err.endswith("pipe is a device or a pipe: give another name (--output)\n")
    assert (tmp_path / "pipe").is_fifo()


def test_a_full_disk_is_told_with_the_file(corpora, tmp_path, monkeypatch):
    def draw(*_):
        raise OSError(errno.ENOSPC, "No space left on device")  # as of a write: no name

    monkeypatch.setattr(text_sample, "draw", draw)
    outcome = run_c4("vocab", f"--corpus={corpora['de']}", "--output", tmp_path / "v")
    assert (outcome.status, list(tmp_path.iterdir())) == (1, [])
    assert outcome.err.endswith(f"c4: error: {tmp_path / 'v'}: No space left on device\n")


def _no_training(monkeypatch):
    def train(*_):
        raise AssertionError("training began")

    monkeypatch.setattr(train_vocabulary, "train", train)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--corpus={tmp}/none"], "none has no manifest.json: it is not a corpus"),
        (
            ["--corpus={tmp}/file"],
            "a corpus is a folder; for text of your own see docs/training.md (--corpus)",
        ),
        (["--corpus={tmp}/none"], " (--corpus)"),
        (
            ["--corpus={en}", "--extra-ids=-1"],
            "extra_ids must be between 0 and 100,000, got -1 (--extra-ids)",
        ),
        (["--corpus={en}:0"], "a weight must be positive, got 0 for en"),
        (["--corpus={en}:1.2.3"], "a weight must be a number, got '1.2.3'"),
        (["--corpus="], "given as [NAME=]DIR[:WEIGHT], got ''"),
        (["--corpus={en}", "--corpus=en={de}"], "a name of its own, got en, en"),
        (["--corpus={en}", "--size=2"], "size must be between 4 and 10,000,000, got 2 (--size)"),
        (["--corpus={en}", "--character-coverage=2"], "between 0.98 and 1, got 2"),
        (
            ["--corpus={en}", "--sample-characters=0"],
            "sample_characters must be at least 1, got 0 (--sample-characters)",
        ),
        (["--corpus={en}", "--seed=-1"], "seed must be at least 0, got -1 (--seed)"),
        (["--corpus={en}", "--output={tmp}"], "exists already"),
        (["--corpus={en}", "--output={tmp}/file/v"], "{tmp}/file"),
    ],
)
def test_wrong_input_is_told_in_one_line_before_training(
    corpora, tmp_path, monkeypatch, arguments, message
):
    _no_training(monkeypatch)
    (tmp_path / "file").touch()
    names = {"tmp": tmp_path, **corpora}
    arguments = [argument.format(**names) for argument in arguments]
    if not any(argument.startswith("--output") for argument in arguments):
        arguments.append(f"--output={tmp_path}/v")
    outcome = run_c4("vocab", *arguments)
    assert outcome.status == 1
    *before, last = outcome.err.splitlines()
    assert last.startswith("c4: error: ")
    assert message.format(**names) in last
    assert all(line.startswith("sample: ") for line in before)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_too_little_text_is_told_with_the_largest_size(corpora, tmp_path):
    outcome = run_c4("vocab", f"--corpus={corpora['de']}", "--output", tmp_path / "v")
    assert outcome.status == 1
    assert re.search(r"give at most [\d,]+ pieces and 32,000 are asked for", outcome.err)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "name", "weight"),
    [
        ("{}", "en", 1),
        ("{}/", "en", 1),
        ("{}:10", "en", 10),
        ("english={}", "english", 1),
        ("pt-BR={}:0.5", "pt-BR", 0.5),
    ],
)
def test_names_and_weights_of_corpora(corpora, text, name, weight):
    source = vocab.parse_source(text.format(corpora["en"]))
    assert (source.name, source.weight) == (name, weight)
    assert pathlib.Path(source.corpus.folder) == pathlib.Path(corpora["en"])


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_bar_with_the_stage():
    stream = Terminal()
    with vocab._Progress("train", 100, "%", stream) as shown:
        shown.at(30, "choosing pieces")
        shown.at(100)
    assert "train:  30%|" in stream.getvalue() or "train: 100%|" in stream.getvalue()


def test_a_long_run_in_a_log_says_how_far_it_is(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(vocab.time, "monotonic", lambda: clock[0])
    stream = io.StringIO()
    with vocab._Progress("train", 100, "%", stream) as shown:
        for seconds, done in ((5, 10), (12, 25), (15, 30), (40, 50)):
            clock[0] = float(seconds)
            shown.at(done, "choosing pieces")
    assert stream.getvalue().splitlines() == [
        "train: 25 %, choosing pieces, about 00:36 left",
        "train: 50 %, choosing pieces, about 00:40 left",
        "train: done in 00:40",
    ]
