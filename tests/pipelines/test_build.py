"""The shipped command line, end to end: sample pages, parity, determinism, folders, options."""

import collections
import gzip
import json
import pathlib
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable

import pytest

from c4_filters.urls import normalize_url, page_key, split_of
from samples.make_samples import WET_DIR, SamplePage, read_pages
from testing.helpers import Outcome, digests, manifest_of, read_corpus, run_c4, write_wet

SAMPLES = str(WET_DIR / "*")
SHARED = pathlib.Path(__file__).resolve().parents[2] / ".." / "shared"
ONE_WORKER = ("--workers", "1")


def build(output: pathlib.Path, *arguments: str, inputs: Iterable[str] = (SAMPLES,)) -> Outcome:
    return run_c4("build", "--input", *inputs, "--output", str(output), *arguments)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A corpus of the sample pages under recipe ``en``."""
    output = tmp_path_factory.mktemp("samples") / "out"
    outcome = build(output, "--format", "parquet,json", "--shards", "3", *ONE_WORKER)
    assert outcome.status == 0, outcome.err
    return output


class TestSamplePages:
    @pytest.mark.slow
    def test_each_page_meets_the_fate_written_beside_it(self, samples: pathlib.Path) -> None:
        corpus = read_corpus(samples)
        texts = {
            (split, page["url"], page["timestamp"]): page["text"]
            for split, pages in corpus.items()
            for page in pages
        }
        wrong = []
        copies = collections.Counter()
        for page in read_pages():
            text = texts.pop((page.split, page.url, page.date), None)
            if page.copies:
                copies[page.copies] += text is not None
                continue
            if (text is not None) != (page.expect == "kept"):
                wrong.append(f"{page.name}: expected {page.expect}, {page.shows}")
            if text is not None:
                wrong += [f"{page.name} lost {part!r}" for part in page.keeps if part not in text]
                wrong += [f"{page.name} kept {part!r}" for part in page.loses if part in text]
        assert wrong == []
        assert set(copies.values()) == {1}, "of pages that are copies exactly one stays"
        assert texts == {}, "pages that no source knows"

    @pytest.mark.slow
    def test_reasons_add_up_to_those_expected(self, samples: pathlib.Path) -> None:
        counts = manifest_of(samples)["counts"]
        expected = collections.Counter(_expected_drops(read_pages()))
        assert counts["pages_dropped"] | counts["records_rejected_by_reason"] == dict(expected)

    @pytest.mark.slow
    def test_pages_and_lines_balance(self, samples: pathlib.Path) -> None:
        counts = manifest_of(samples)["counts"]
        for what in ("pages", "lines"):
            dropped = sum(counts[f"{what}_dropped"].values())
            assert counts[f"{what}_read"] == counts[f"{what}_written"] + dropped
            assert dropped > 0
        written = sum(map(len, read_corpus(samples).values()))
        assert counts["pages_written"] == written

    def test_shards_stand_in_hash_order_and_hold_their_split(self, samples: pathlib.Path) -> None:
        for split, pages in read_corpus(samples).items():
            keys = [page_key(normalize_url(page["url"])) for page in pages]
            assert keys == sorted(keys)
            assert pages
            assert {split_of(normalize_url(page["url"])) for page in pages} == {split}

    def test_manifest_names_every_shard_as_it_is(self, samples: pathlib.Path) -> None:
        shards = manifest_of(samples)["shards"]
        assert {shard["name"]: shard["sha256"] for shard in shards} == digests(samples)
        for shard in shards:
            assert shard["bytes"] == (samples / shard["name"]).stat().st_size
        json_pages = sum(
            len(gzip.decompress(path.read_bytes()).splitlines())
            for path in samples.glob("*.json.gz")
        )
        assert json_pages == manifest_of(samples)["counts"]["pages_written"]

    def test_rejects_name_file_and_offset(self, samples: pathlib.Path) -> None:
        rejects = [
            json.loads(line)
            for path in (samples / "rejects").iterdir()
            for line in path.read_text(encoding="utf-8").splitlines()
        ]
        assert len(rejects) == manifest_of(samples)["counts"]["records_rejected"]
        for reject in rejects:
            stored = pathlib.Path(reject["file"]).read_bytes()
            begins = b"\x1f\x8b" if reject["file"].endswith(".gz") else b"WARC/1.0"
            assert stored[reject["offset"] :].startswith(begins), reject


def _expected_drops(pages: Iterable[SamplePage]) -> Iterable[str]:
    kept_of = set()
    for page in sorted(pages, key=lambda page: page_key(normalize_url(page.url or ""))):
        if page.copies and page.copies not in kept_of:
            kept_of.add(page.copies)  # the smallest page key of a set of copies stays
        elif page.expect != "kept":
            yield page.expect


class TestOtherRecipes:
    @pytest.mark.slow
    @pytest.mark.parametrize("recipe", ["en.noblocklist", "en.paper_v3", "multilingual", "de"])
    def test_sample_pages_under(self, recipe: str, tmp_path: pathlib.Path) -> None:
        told = [page for page in read_pages() if recipe in page.also]
        assert told
        outcome = build(tmp_path / "out", "--recipe", recipe, *ONE_WORKER)
        assert outcome.status == 0, outcome.err
        urls = {page["url"] for pages in read_corpus(tmp_path / "out").values() for page in pages}
        for page in told:
            assert (page.url in urls) == (page.also[recipe] == "kept"), page.name

    @pytest.mark.slow
    def test_domain_list_decides(self, tmp_path: pathlib.Path) -> None:
        domains = tmp_path / "domains.json"
        domains.write_text('{"example.net": true, "example.org": ["beekeeping"]}', "utf-8")
        outcome = build(
            tmp_path / "out", "--recipe", "realnewslike", "--domain-list", str(domains), *ONE_WORKER
        )
        assert outcome.status == 0, outcome.err
        pages = [page for pages in read_corpus(tmp_path / "out").values() for page in pages]
        hosts = {page["url"].split("/")[2].removeprefix("www.") for page in pages}
        assert "beekeeping.example.org" in hosts
        assert all(
            host.endswith("example.net") or host == "beekeeping.example.org" for host in hosts
        )

    @pytest.mark.slow
    def test_own_list_of_bad_words_replaces_the_packaged_one(self, tmp_path: pathlib.Path) -> None:
        words = tmp_path / "words.txt"
        words.write_text("yeast\n\n# bread is fine\n", "utf-8")
        outcome = build(tmp_path / "out", "--badwords", f"en={words}", *ONE_WORKER)
        assert outcome.status == 0, outcome.err
        texts = [page["text"] for pages in read_corpus(tmp_path / "out").values() for page in pages]
        assert len(texts) > 50
        assert not any(" yeast " in text.lower() for text in texts)


class TestDeterminism:
    @pytest.mark.slow
    def test_two_workers_give_the_same_bytes(
        self, samples: pathlib.Path, tmp_path: pathlib.Path
    ) -> None:
        arguments = ("--format", "parquet,json", "--shards", "3", "--workers", "2")
        assert build(tmp_path / "out", *arguments).status == 0
        assert digests(tmp_path / "out") == digests(samples)

    @pytest.mark.slow
    def test_repeated_bundles_give_the_same_bytes(
        self, samples: pathlib.Path, tmp_path: pathlib.Path
    ) -> None:
        # Every element is processed twice, as an engine that retries would.
        arguments = ("--format", "parquet,json", "--shards", "3", *ONE_WORKER)
        outcome = build(tmp_path / "out", *arguments, "--direct_runner_bundle_repeat=1")
        assert outcome.status == 0, outcome.err
        assert digests(tmp_path / "out") == digests(samples)

    @pytest.mark.slow
    def test_pages_spread_over_other_files_give_the_same_bytes(
        self, samples: pathlib.Path, tmp_path: pathlib.Path
    ) -> None:
        # One gzip member a record: members can be dealt out to files anew, in any order.
        members = [
            b"\x1f\x8b\x08" + member
            for path in sorted(WET_DIR.glob("sample-0*.gz"))
            for member in path.read_bytes().split(b"\x1f\x8b\x08")[1:]
        ]
        (tmp_path / "one").mkdir()
        (tmp_path / "many").mkdir()
        (tmp_path / "one" / "all.warc.wet.gz").write_bytes(b"".join(reversed(members)))
        for number in range(7):
            part = b"".join(members[number::7])
            (tmp_path / "many" / f"{9 - number}.warc.wet.gz").write_bytes(part)
        for folder in ("one", "many"):
            inputs = [str(tmp_path / folder / "*.gz")]
            outcome = build(tmp_path / f"{folder}-out", "--shards", "3", *ONE_WORKER, inputs=inputs)
            assert outcome.status == 0, outcome.err
        assert digests(tmp_path / "one-out") == digests(tmp_path / "many-out")

    @pytest.mark.slow
    def test_the_number_of_shards_changes_no_page(
        self, samples: pathlib.Path, tmp_path: pathlib.Path
    ) -> None:
        assert build(tmp_path / "out", "--shards", "1", *ONE_WORKER).status == 0
        assert read_corpus(tmp_path / "out") == read_corpus(samples)


class TestFolder:
    def test_finished_build_is_left_alone(self, samples: pathlib.Path) -> None:
        before = (samples / "manifest.json").stat().st_mtime_ns
        outcome = build(samples, "--format", "parquet,json", "--shards", "3")
        assert outcome.status == 0
        assert "complete already" in outcome.out
        assert (samples / "manifest.json").stat().st_mtime_ns == before

    @pytest.mark.slow
    def test_missing_shard_is_made_again(
        self, samples: pathlib.Path, tmp_path: pathlib.Path
    ) -> None:
        output = tmp_path / "out"
        shutil.copytree(samples, output)
        (output / "train-00001-of-00003.parquet").unlink()
        outcome = build(output, "--format", "parquet,json", "--shards", "3", *ONE_WORKER)
        assert outcome.status == 0, outcome.err
        assert digests(output) == digests(samples)
        made = manifest_of(output)
        assert made["timing"]["files_resumed"] == len(made["inputs"]), "nothing is cleaned twice"

    @pytest.mark.slow
    @pytest.mark.parametrize("left", [slice(0, 0), slice(0, 3), slice(2, None)])
    def test_manifest_that_lacks_shards_is_made_again(
        self, samples: pathlib.Path, tmp_path: pathlib.Path, left: slice
    ) -> None:
        output = tmp_path / "out"
        shutil.copytree(samples, output)
        made = manifest_of(output)
        made["shards"] = made["shards"][left]
        (output / "manifest.json").write_text(json.dumps(made))
        outcome = build(output, "--format", "parquet,json", "--shards", "3", *ONE_WORKER)
        assert outcome.status == 0, outcome.err
        assert "complete already" not in outcome.out
        assert manifest_of(output)["shards"] == manifest_of(samples)["shards"]

    @pytest.mark.slow
    def test_new_input_file_is_cleaned_and_the_rest_resumed(self, tmp_path: pathlib.Path) -> None:
        wet = tmp_path / "wet"
        wet.mkdir()
        for name in ("sample-00000", "sample-00001"):
            shutil.copy(WET_DIR / f"{name}.warc.wet.gz", wet)
        inputs = [str(wet / "*.gz")]
        assert build(tmp_path / "out", *ONE_WORKER, inputs=inputs).status == 0
        shutil.copy(WET_DIR / "sample-00002.warc.wet.gz", wet)
        assert build(tmp_path / "out", *ONE_WORKER, inputs=inputs).status == 0
        made = manifest_of(tmp_path / "out")
        assert (made["timing"]["files_resumed"], len(made["inputs"])) == (2, 3)
        assert build(tmp_path / "fresh", *ONE_WORKER, inputs=inputs).status == 0
        assert digests(tmp_path / "out") == digests(tmp_path / "fresh")

    def test_other_settings_are_refused_by_name(self, samples: pathlib.Path) -> None:
        before = digests(samples)
        outcome = build(samples, "--format", "parquet,json", "--shards", "4")
        assert outcome.status == 1
        assert "shards is 3 there and 4 now" in outcome.err
        assert digests(samples) == before

    @pytest.mark.slow
    def test_start_over_removes_the_old_build(
        self, samples: pathlib.Path, tmp_path: pathlib.Path
    ) -> None:
        output = tmp_path / "out"
        shutil.copytree(samples, output)
        (output / "notes.txt").write_text("mine", "utf-8")
        outcome = build(output, "--shards", "1", "--start-over", *ONE_WORKER)
        assert outcome.status == 0, outcome.err
        assert list(digests(output)) == [
            "train-00000-of-00001.parquet",
            "validation-00000-of-00001.parquet",
        ]
        assert (output / "notes.txt").read_text("utf-8") == "mine"


class TestOutput:
    @pytest.mark.slow
    def test_balance_shards_and_a_kept_page_are_printed(self, tmp_path: pathlib.Path) -> None:
        outcome = build(tmp_path / "out", *ONE_WORKER)
        assert "pages read" in outcome.out
        assert "few_sentences" in outcome.out
        assert "train-*-of-00001.parquet" in outcome.out
        assert "one kept page: https://" in outcome.out
        assert "records rejected" in outcome.out
        assert "Traceback" not in outcome.err

    @pytest.mark.slow
    def test_a_process_of_its_own_writes_nothing_but_ours(self, tmp_path: pathlib.Path) -> None:
        # Beam and its workers have much to say; none of it is for the user of a good run.
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pipelines.c4_main", "build", "--workers", "2"),
                *("--input", SAMPLES, "--output", str(tmp_path / "out")),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        first, *lines = done.stderr.splitlines()
        assert first == f"c4: building a corpus in {tmp_path / 'out'}"
        assert all(line.startswith(("clean:", "dedup:", "write:")) for line in lines), lines

    @pytest.mark.slow
    def test_quiet_says_nothing(self, tmp_path: pathlib.Path) -> None:
        outcome = build(tmp_path / "out", "--quiet", *ONE_WORKER)
        assert (outcome.status, outcome.out, outcome.err) == (0, "", "")

    @pytest.mark.slow
    def test_nothing_kept_is_a_corpus_of_no_pages(self, tmp_path: pathlib.Path) -> None:
        write_wet(tmp_path / "a.warc.wet.gz", [("http://a.example/", "2019-01-01T00:00:00Z", "No")])
        inputs = [str(tmp_path / "a.warc.wet.gz")]
        for formats in ("parquet", "tfrecord,json"):
            output = tmp_path / formats
            outcome = build(output, "--format", formats, *ONE_WORKER, inputs=inputs)
            assert outcome.status == 0, outcome.err
            assert manifest_of(output)["counts"]["pages_written"] == 0


class TestNobodyWaits:
    """As on Dataflow: the job must say what the exit status would have said."""

    @pytest.mark.slow
    @pytest.mark.parametrize(("allowed", "status"), [("0", 1), ("1", 0)])
    def test_a_job_fails_when_too_many_files_are_unreadable(
        self, allowed: str, status: int, tmp_path: pathlib.Path
    ) -> None:
        good, _ = write_wet(
            tmp_path / "good.warc.wet.gz", [("http://a.example/", "2019-01-01T00:00:00Z", "No")]
        )
        bad = tmp_path / "bad.warc.wet.gz"
        bad.write_bytes(b"no gzip at all")
        arguments = ("--no_wait_until_finish", "--allow-unreadable-files", allowed, *ONE_WORKER)
        outcome = build(tmp_path / "out", *arguments, inputs=[good, str(bad)])
        assert outcome.status == status, outcome.err
        message = f"1 of 2 files could not be read, such as {bad}: "
        assert (message in outcome.err) == bool(status)
        assert (tmp_path / "out" / "manifest.json").exists(), "built from the others all the same"


class TestNetwork:
    @pytest.mark.slow
    def test_nothing_is_downloaded(
        self, samples: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise AssertionError("a build must not use the network")

        monkeypatch.setattr(socket.socket, "connect", refuse)
        monkeypatch.setattr(socket, "getaddrinfo", refuse)
        outcome = build(tmp_path / "out", "--shards", "3", *ONE_WORKER)
        assert outcome.status == 0, outcome.err
        assert read_corpus(tmp_path / "out") == read_corpus(samples)


needs_wet = pytest.mark.skipif(not (SHARED / "wet").is_dir(), reason="no ../shared/wet here")


@needs_wet
class TestRealPages:
    def test_recipe_tfds_equals_the_reference_byte_for_byte(self, tmp_path: pathlib.Path) -> None:
        path = SHARED / "golden" / "tfds_c4" / "en.jsonl.gz"
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            reference_pages = [json.loads(line) for line in lines]
        assert len(reference_pages) > 3000
        inputs = [str(SHARED / "wet" / "*.warc.wet.gz")]
        outcome = build(tmp_path / "out", "--recipe", "tfds", "--workers", "2", inputs=inputs)
        assert outcome.status == 0, outcome.err
        fields = reference_pages[0].keys()
        ours = [
            {field: page[field] for field in fields}
            for pages in read_corpus(tmp_path / "out").values()
            for page in pages
        ]

        def key(page: dict[str, str]) -> str:
            return json.dumps(page, sort_keys=True)

        assert sorted(map(key, ours)) == sorted(map(key, reference_pages))

    def test_workers_change_no_byte(self, tmp_path: pathlib.Path) -> None:
        inputs = [str(SHARED / "wet" / "orig-*.warc.wet.gz")]
        for workers in ("1", "2"):
            arguments = ("--workers", workers, "--shards", "4", "--format", "tfrecord,parquet")
            assert build(tmp_path / workers, *arguments, inputs=inputs).status == 0
        assert digests(tmp_path / "1") == digests(tmp_path / "2")
        assert sum(len(pages) for pages in read_corpus(tmp_path / "1").values()) > 100
