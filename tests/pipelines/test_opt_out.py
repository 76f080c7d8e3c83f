"""``c4 build --opt-out``: a takedown in a finished corpus, end to end."""

import pathlib

import pytest

from c4_filters.verdicts import PageVerdict
from pipelines import open_corpus
from testing.helpers import digests, manifest_of, run_c4

ROOT = pathlib.Path(__file__).resolve().parents[2]
INPUT = str(ROOT / "samples" / "wet" / "sample-0000?.warc.wet.gz")


def urls(folder: pathlib.Path) -> set[str]:
    corpus = open_corpus(str(folder))
    return {page.url for split in corpus.splits for page in corpus.pages(split)}


def cleaned(folder: pathlib.Path) -> dict[str, tuple[bytes, int]]:
    return {
        path.name: (path.read_bytes(), path.stat().st_mtime_ns)
        for kind in ("cleaned", "fingerprints")
        for path in (folder / kind).iterdir()
    }


@pytest.mark.slow
def test_a_takedown_rewrites_no_cleaned_file_and_needs_its_list_again(
    tmp_path: pathlib.Path,
) -> None:
    folder, listed = tmp_path / "corpus", tmp_path / "opt_out.txt"
    command = ["build", "--input", INPUT, "--output", folder]
    assert run_c4(*command, "--quiet").status == 0
    before, files, shards = urls(folder), cleaned(folder), digests(folder)
    counts = manifest_of(folder)["counts"]

    listed.write_text("\ufeff# asked by mail\nExample.COM\n*/island-line\n", encoding="utf-8")
    built = run_c4(*command, "--opt-out", listed)
    assert built.status == 0, built.err
    gone = {url for url in before if "example.com/" in url or url.endswith("/island-line")}
    assert len(gone) > 3
    assert not gone & urls(folder)
    assert cleaned(folder) == files
    made = manifest_of(folder)
    assert made["counts"]["pages_dropped"][PageVerdict.OPTED_OUT] >= len(gone)
    assert made["counts"]["pages_read"] == counts["pages_read"]
    assert "--opt-out" not in built.out  # of the command that explains a page
    assert run_c4("verify", folder).status == 0
    assert run_c4("explain", "--corpus", folder, "--url", min(gone)).out.count("opted_out")
    again = run_c4(*command, "--opt-out", listed)
    assert "complete already" in again.out

    refused = run_c4(*command)
    assert refused.status == 1
    assert "give the list (--opt-out FILE" in refused.err
    assert refused.err.count("\n") == 1
    assert digests(folder) != shards

    listed.write_text("# nobody\n", encoding="utf-8")
    lifted = run_c4(*command, "--opt-out", listed, "--quiet")
    assert lifted.status == 0
    assert f"the list {listed} has no entries (--opt-out)" in lifted.err
    assert digests(folder) == shards
    assert cleaned(folder) == files


def test_a_bad_line_stops_a_build_before_it_begins(tmp_path: pathlib.Path) -> None:
    listed = tmp_path / "opt_out.txt"
    listed.write_text("good.example\n*\n", encoding="utf-8")
    built = run_c4("build", "--input", INPUT, "--output", tmp_path / "out", "--opt-out", listed)
    assert built.status == 1
    assert built.err == f"c4: error: {listed}: line 2: '*' would leave out every page (--opt-out)\n"
    assert not (tmp_path / "out").exists()
