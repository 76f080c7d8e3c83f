"""Mixtures and first parts of corpora: what they hold, and that every command opens them."""

import collections
import dataclasses
import json
import math
import random
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.corpora.head import make_head
from model.corpora.mix import _Draw, make_mixture
from model.corpora.sizes import Unit, unit_of, whole_power
from model.data.vocabulary import Vocabulary
from pipelines import open_corpus
from pipelines.corpus import derived, shard_files
from pipelines.corpus.errors import CorpusError
from pipelines.corpus.formats.pages import Page
from pipelines.corpus.manifest import read_manifest
from testing.corpora import make_corpus
from testing.helpers import digests, run_c4
from testing.vocabularies import SENTENCES, train


def texts(name, count, seed):
    draw = random.Random(seed)
    return [
        f"{name} {number}. {' '.join(draw.choices(SENTENCES, k=draw.randint(1, 4)))}"
        for number in range(count)
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two corpora, ``a`` of 300 pages in two shards and ``b`` of 100, and a vocabulary."""
    place = tmp_path_factory.mktemp("place")
    a, b = texts("a", 310, 1), texts("b", 104, 2)
    make_corpus(place / "a", {"train": [a[:150], a[150:300]], "validation": [a[300:]]})
    make_corpus(place / "b", {"train": [b[:100]], "validation": [b[100:]]})
    train(place / "words.model")
    return place


def pages(folder, split="train"):
    return [page.text for page in open_corpus(str(folder)).pages(split)]


def sizes(place, found):
    words = Vocabulary(place / "words.model")
    return [len(ids) for ids in words.encode_batch(found)]


def test_a_head_is_the_fewest_first_pages_with_so_many_tokens(place, tmp_path):
    out = tmp_path / "head"
    done = run_c4(
        "head", "--corpus", place / "a", "--tokens", "2^11", "--vocab", place / "words.model",
        "--output", out,
    )  # fmt: skip
    assert done.status == 0, done.err
    whole, taken = pages(place / "a"), pages(out)
    assert taken == whole[: len(taken)]
    counted = sizes(place, taken)
    assert sum(counted) >= 2048 > sum(counted[:-1])
    assert f"{sum(counted):,} tokens, the first {len(taken)} pages" in done.out
    assert pages(out, "validation") == pages(place / "a", "validation")
    assert run_c4("verify", out).status == 0
    again = run_c4(
        "head", "--corpus", place / "a", "--tokens", "2048", "--vocab", place / "words.model",
        "--output", out,
    )  # fmt: skip
    assert "complete already" in again.out


def test_the_status_of_a_mixture_counts_corpora_and_not_wet_files(place, tmp_path, monkeypatch):
    out = tmp_path / "mixture"
    mix = ["mix", "--corpus", f"{place / 'a'}=0.5", "--corpus", f"{place / 'b'}=0.5"]
    write = shard_files.write_shard_files

    def stop_after_the_first(*arguments, **options):
        write(*arguments, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shard_files, "write_shard_files", stop_after_the_first)
        assert run_c4(*mix, "--output", out).status == 130
    began = run_c4("status", out).out.splitlines()
    assert began[0].startswith(f"{out}: interrupted (c4 mix on ")
    assert began[1:] == ["write: 1 shard so far", "run the same command again"]

    assert run_c4(*mix, "--output", out).status == 0
    copied = shutil.copytree(out, tmp_path / "copied", ignore=shutil.ignore_patterns("builders"))
    ended = run_c4("status", out).out.splitlines()
    assert ended[0].startswith(f"{out}: done (c4 mix on ")
    read = derived.read_manifest(str(out)).counts.pages_read
    assert ended[1:] == ["inputs: 2", f"pages: {read} pages read", "done: 2 of 2 shards"]
    assert run_c4("status", copied).out.splitlines() == [f"{copied}: done", *ended[1:]]


def test_heads_of_one_corpus_are_parts_of_each_other(place, tmp_path):
    for tokens in (500, 4000):
        make_head(str(place / "a"), str(tmp_path / str(tokens)), tokens, str(place / "words.model"))
    small, large = pages(tmp_path / "500"), pages(tmp_path / "4000")
    assert 0 < len(small) < len(large)
    assert large[: len(small)] == small


def test_too_few_tokens_are_refused_before_anything_is_written(place, tmp_path):
    with pytest.raises(ValueError, match=r"has [\d,]+ tokens in its train split, fewer than"):
        make_head(str(place / "b"), str(tmp_path / "x"), 10**9, str(place / "words.model"))
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("vocab", [True, False])
def test_a_mixture_has_the_shares_of_its_weights_from_its_first_pages_on(place, tmp_path, vocab):
    words = str(place / "words.model") if vocab else None
    corpora = [(str(place / "a"), 7), (str(place / "b"), 3)]
    made = make_mixture(corpora, str(tmp_path / "mix"), words)
    found = pages(tmp_path / "mix")
    for name in "ab":
        of_one = [text for text in found if text.startswith(name)]
        assert of_one == pages(place / name)[: len(of_one)]
    counted = sizes(place, found) if vocab else [1] * len(found)
    longest = max(counted)
    for stop in range(50, len(found), 37):
        share = sum(s for s, t in zip(counted[:stop], found, strict=False) if t[0] == "a")
        assert abs(share - 0.7 * sum(counted[:stop])) <= longest
    assert max(part.times for part in made.parts) == 1  # until a corpus runs out
    assert collections.Counter(found).most_common(1)[0][1] == 1
    held = pages(tmp_path / "mix", "validation")
    assert {text[0] for text in held} == {"a", "b"}


def test_a_corpus_that_runs_out_is_repeated_up_to_the_total(place, tmp_path):
    corpora = [(str(place / "a"), 1), (str(place / "b"), 1)]
    made = make_mixture(corpora, str(tmp_path / "mix"), total=500)
    found = pages(tmp_path / "mix")
    assert len(found) == 500
    of_b = [text for text in found if text[0] == "b"]
    assert of_b == (pages(place / "b") * 3)[:250]
    assert [part.times for part in made.parts] == [pytest.approx(250 / 300), 2.5]


def test_the_same_corpora_and_weights_give_the_same_bytes(place, tmp_path):
    formats = ("parquet", "json", "tfrecord")
    for name, weights in (("one", (0.7, 0.3)), ("two", (7, 3))):
        corpora = list(zip([str(place / "a"), str(place / "b")], weights, strict=True))
        make_mixture(corpora, str(tmp_path / name), formats=formats)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert len(digests(tmp_path / "one")) == 6
    assert read_manifest(str(tmp_path / "one")).checksum == (
        read_manifest(str(tmp_path / "two")).checksum
    )


def test_a_mixture_is_a_corpus_for_every_command(place, tmp_path):
    out = tmp_path / "mix"
    command = ("mix", "--corpus", f"{place / 'a'}=0.7", "--corpus", f"{place / 'b'}=0.3")
    done = run_c4(*command, "--output", out)
    assert done.status == 0, done.err
    assert done.out.splitlines()[0].split() == [
        "corpus",
        "weight",
        "share",
        "pages",
        "times",
        "read",
    ]
    made = json.loads((out / "manifest.json").read_text())
    assert made["settings"]["source"] == "corpora"
    assert made["kept_page"]["text"] == pages(out)[0]
    assert [entry["path"] for entry in made["inputs"]] == [str(place / "a"), str(place / "b")]
    assert "complete already" in run_c4(*command, "--output", out).out
    assert run_c4("verify", out).status == 0
    vocab = run_c4("vocab", "--corpus", out, "--size", "80", "--output", tmp_path / "v.model")
    assert vocab.status == 0, vocab.err
    explained = run_c4("explain", "--corpus", out, "--url", "http://a.example/")
    assert explained.status == 1
    assert "was made of other corpora, by c4 mix or c4 head" in explained.err
    compared = run_c4("diff", out, out)
    assert (compared.status, compared.out) == (1, "")
    assert f"{out} was made of other corpora" in compared.err
    parts = run_c4("split", out, "--output", tmp_path / "parts")
    assert parts.status == 0, parts.err
    for line in parts.out.splitlines():
        assert run_c4("verify", tmp_path / "parts" / line.split()[0]).status == 0
    make_mixture([(str(out), 1), (str(place / "a"), 1)], str(tmp_path / "again"), total=10)
    shard = next(out.glob("train-*"))
    shard.write_bytes(shard.read_bytes()[:-1])
    assert run_c4("verify", out).status == 1
    assert run_c4(*command, "--output", out).status == 0
    assert run_c4("verify", out).status == 0


def test_what_does_not_fit_is_refused(place, tmp_path):
    a, b, out = str(place / "a"), str(place / "b"), str(tmp_path / "x")
    for corpora, why in (
        ([(a, 0)], "positive"), ([(a, math.nan)], "positive"), ([], "positive"),
        ([(a, 1e-300), (b, 1e300)], "too far apart"),
        ([(a, 1), (a, 2)], "named twice"), ([(str(tmp_path), 1)], r"manifest\.json.*--corpus\)$"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=why):
            make_mixture(corpora, out)
    assert not (tmp_path / "x").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    with pytest.raises(CorpusError, match="holds other files"):
        make_mixture([(a, 1)], str(tmp_path / "full"))
    make_mixture([(a, 1)], out, total=5)
    with pytest.raises(CorpusError, match="of other settings or inputs"):
        make_mixture([(a, 1)], out, total=6)
    built = run_c4("build", "--input", place / "a" / "manifest.json", "--output", out)
    assert "holds a build with other settings" in built.err
    for text in ("A", "A=", "=1", "A=x"):
        assert "given as DIR=WEIGHT" in run_c4("mix", "--corpus", text, "--output", out).err
    assert "from 1 to 10^18, such as 2^29, got 'many' (--tokens)" in run_c4(
        "head", "--corpus", a, "--tokens", "many", "--vocab", "v", "--output", out
    ).err  # fmt: skip


@dataclasses.dataclass
class Listed:
    """Stands in for a split of a corpus: page n has n tokens."""

    folder: str
    tokens: list[int]

    def read_pages(self):
        return (Page(str(number)) for number in self.tokens)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 5)),
        min_size=1, max_size=4,
    ),
    st.none() | st.integers(1, 200),
)  # fmt: skip
def test_a_draw_equals_its_plain_twin(corpora, total):
    splits = [Listed(str(at), tokens) for at, (tokens, _) in enumerate(corpora)]
    weights = [weight for _, weight in corpora]
    unit = Unit("tokens", lambda found: [int(text) for text in found], {}, {})
    draw = _Draw(splits, weights, unit, total)

    taken, at, expected = [0] * len(splits), [0] * len(splits), []
    while total is None or sum(taken) < total:
        least = min(range(len(splits)), key=lambda n: (taken[n] / weights[n], n))
        tokens = splits[least].tokens
        if total is None and at[least] == len(tokens):
            break
        size = tokens[at[least] % len(tokens)]
        expected.append(str(size))
        taken[least], at[least] = taken[least] + size, at[least] + 1
    assert [page.text for page in draw.plan().pages()] == expected
    assert (draw.sizes, draw.pages) == (taken, at)


def test_a_corpus_without_tokens_cannot_be_repeated():
    unit = Unit("tokens", lambda found: [0] * len(found), {}, {})
    with pytest.raises(ValueError, match="has no tokens to repeat"):
        _Draw([Listed("empty", [1])], [1.0], unit, 5)


def test_numbers_may_be_powers():
    assert [whole_power(text) for text in ("2^23", "10^6", "7")] == [2**23, 10**6, 7]
    for text in ("", "0", "-1", "2^99", "9^19", "2**3", "1e6", "1" * 30):
        with pytest.raises(ValueError, match="expected a whole number"):
            whole_power(text)


def test_pages_need_no_vocabulary():
    assert unit_of(None).measure(["a", "b"]) == [1, 1]
