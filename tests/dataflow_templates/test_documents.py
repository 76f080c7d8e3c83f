"""The commands that docs/dataflow.md, launch.sh and metadata.json show, held to one another."""

import fnmatch
import json
import pathlib
import re

import pytest

from pipelines import c4_main

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "dataflow.md").read_text(encoding="utf-8")
LAUNCH = (ROOT / "dataflow_templates" / "launch.sh").read_text(encoding="utf-8")
PARAMETERS = {
    each["name"]: each["helpText"].rpartition("Example: ")[2]
    for each in json.loads(
        (ROOT / "dataflow_templates" / "metadata.json").read_text(encoding="utf-8")
    )["parameters"]
}


def test_the_documented_number_of_shards_is_one_that_c4_plan_accepts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = re.findall(r"(?:shards=|--shards )(\d+)", DOCUMENT + LAUNCH)
    assert len(shown) == 3
    assert {*shown, PARAMETERS["shards"]} == {"2048"}
    [machine] = {
        *re.findall(r"--worker-machine-type=(\S+)", DOCUMENT),
        *re.findall(r"--machine_type=(\S+)", DOCUMENT),
    }
    [workers] = {*re.findall(r"--max-workers=(\d+)", DOCUMENT + LAUNCH)}
    [formats] = {*re.findall(r"(?:format=|--format )(\w+,\w+)", DOCUMENT)}
    words = ["plan", "--crawl", "CC-MAIN-2019-18", "--machine", machine, "--workers", workers]
    words += ["--format", formats, "--shards"]
    assert c4_main.main([*words, shown[0]]) == 0
    assert f"on {workers} x {machine}" in capsys.readouterr().out
    assert c4_main.main([*words, "1024"]) == 1  # so that the document says why
    assert "takes 4.2 GB per process" in capsys.readouterr().err


def test_what_the_transfer_writes_is_what_the_launch_reads() -> None:
    patterns = {
        *re.findall(r"(?:input=|--input )'(gs://[^']+)'", DOCUMENT + LAUNCH),
        PARAMETERS["input"],
    }
    [pattern] = patterns
    [to] = re.findall(r"gcloud transfer jobs create s3://commoncrawl (gs://\S+)", DOCUMENT)
    # A line of Common Crawl's wet.paths: names from the bucket's root.
    path = (
        "crawl-data/CC-MAIN-2019-18/segments/1555578517558.8/wet/"
        "CC-MAIN-20190418101243-20190418122248-00009.warc.wet.gz"
    )
    assert fnmatch.fnmatchcase(f"{to}/{path}", pattern)
    [made] = re.findall(r"gcloud storage cp \S+ (gs://\S+)", DOCUMENT)
    assert f"--manifest-file={made} " in DOCUMENT
