"""The template's metadata: against its schema, against the launcher, and against bad values."""

import copy
import json
import pathlib
import re
from typing import Any

import pytest

from c4_filters.recipes import RECIPES
from dataflow_templates import spec
from dataflow_templates.launcher import template_options
from pipelines.imports.sources import SOURCES

METADATA = json.loads(pathlib.Path(spec.__file__).with_name("metadata.json").read_text("utf-8"))
PARAMETERS = {parameter["name"]: parameter for parameter in METADATA["parameters"]}
IMAGE = "us-central1-docker.pkg.dev/my-project/c4/c4:1"

GOOD = {
    "input": [
        "gs://a-b/x",
        "gs://crawl/a/*.gz gs://crawl/b/**/[12].gz",
        " gs://b0b/x\n",
        "@gs://my-bucket/wet.paths.gz gs://crawl/a.gz",
    ],
    "crawl": ["CC-MAIN-2019-18", "CC-MAIN-2019-18 CC-NEWS-2019-04", "gs://a-b/wet.paths.gz"],
    "files": ["0:20", ":5", "7:"],
    "base_url": ["gs://my-crawl", "https://data.commoncrawl.org/", "gs://a-b/c/d"],
    "output": ["gs://my.bucket_1/corpus"],
    "from": ["wet", *SOURCES],
    "recipe": [*RECIPES, "gs://bucket/mine.toml"],
    "badwords": ["de=gs://bucket/de.txt", "en=gs://bucket/en.txt zh-Hans=gs://bucket/zh.txt"],
    "domain_list": ["gs://bucket/domains.json"],
    "url_list": ["gs://bucket/urls.txt"],
    "opt_out": ["gs://bucket/opt_out.txt"],
    "card": ["gs://bucket/card.toml"],
    "against": ["gs://bucket/corpus-april", "gs://bucket/april gs://bucket/2/may/"],
    "format": ["json", "tfrecord,parquet,json"],
    "shards": ["auto", "1", "99999"],
    "allow_rules": ["my_rules", "my_rules,news.rules", "my_rules other"],
    "allow_unreadable_files": ["0", "90000"],
    "max_record_mb": ["1", "1024"],
    "max_file_mb": ["1", "100000"],
    "provenance": ["true", "false"],
    "keep": ["all", "fingerprints", "none"],
    "start_over": ["true", "false"],
    "verify": ["true", "false"],
    "verify_inputs": ["true", "false"],
}
BAD = {
    "input": ["", "crawl/*.gz", "s3://commoncrawl/x", "gs://crawl", "gs://a/x gs://b", "gs://A/x"],
    "crawl": ["", "wet.paths.gz", "CC-MAIN-2019-18,CC-MAIN-2019-22", "gs://bucket"],
    "files": ["", ":", "20", "-1:5", "a:b", "1:2:3"],
    "base_url": ["", "file:///etc", "http://a-b/c", "gs://", "gs://a-b/c d"],
    "output": ["", "gs://bucket", "gs://bucket/", "/corpus", "gs://bucket/two words"],
    "from": ["", "warc", "WET"],
    "recipe": ["", "EN", "mine.toml", "gs://bucket/mine.json", "en,de", "en\n"],
    "badwords": ["words.txt", "gs://bucket/en.txt", "english=gs://bucket/x", "en=/words"],
    "domain_list": ["domains.json", "gs://bucket", "gs://bucket/a b"],
    "url_list": ["urls.txt", "gs://bucket"],
    "opt_out": ["opt_out.txt", "gs://bucket"],
    "card": ["card.toml", "gs://bucket"],
    "against": ["", "corpus-april", "gs://bucket", "gs://bucket/april s3://bucket/may"],
    "format": ["", "csv", "parquet,", "tfrecord;json", "Parquet"],
    "shards": ["0", "-1", "100000", "1.5", "Auto", "01"],
    "allow_rules": ["", "my_rules:no_recipes", "my-rules", "1rules", ","],
    "allow_unreadable_files": ["-1", "some", ""],
    "max_record_mb": ["0", "64MB", "99999"],
    "max_file_mb": ["0", "1GB", "9999999"],
    "provenance": ["yes", "True", "1", ""],
    "keep": ["", "some", "All"],
    "start_over": ["yes", "True", "1", ""],
    "verify": ["yes", "True", "1", ""],
    "verify_inputs": ["yes", "True", "1", ""],
}


def accepts(name: str, value: str) -> bool:
    """As the service decides: every regex must match the whole value."""
    return all(re.fullmatch(regex, value) for regex in PARAMETERS[name]["regexes"])


def test_our_own_check_takes_the_metadata() -> None:
    assert spec.read_metadata() == METADATA


def test_dataflow_knows_every_field_and_type() -> None:
    types = pytest.importorskip("google.cloud.dataflow_v1beta3", reason="needs the extra gcp")
    text = json.dumps(spec.image_spec(IMAGE))
    read = types.ContainerSpec.from_json(text, ignore_unknown_fields=False)
    assert read.image == IMAGE
    assert [parameter.name for parameter in read.metadata.parameters] == list(PARAMETERS)
    assert read.metadata.parameters[0].regexes == PARAMETERS["input"]["regexes"]
    # That the check can fail at all:
    broken = text.replace('"helpText"', '"help"', 1)
    with pytest.raises(Exception, match="help"):
        types.ContainerSpec.from_json(broken, ignore_unknown_fields=False)


def test_parameters_are_the_launchers_options_in_both_directions() -> None:
    assert set(PARAMETERS) == set(template_options())


@pytest.mark.parametrize("name", PARAMETERS)
def test_optional_and_default_are_what_the_option_has(name: str) -> None:
    option, parameter = template_options()[name], PARAMETERS[name]
    assert parameter["isOptional"] == (not option.required)
    default = parameter.get("defaultValue")
    shown = re.search(r"\(default: ([\w.-]+)", option.help or "")
    if option.nargs == 0:
        assert default == "false"
    else:
        assert default == (shown and shown[1])


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in GOOD.items() for v in values])
def test_good_values_pass(name: str, value: str) -> None:
    assert accepts(name, value)


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in BAD.items() for v in values])
def test_bad_values_are_refused(name: str, value: str) -> None:
    assert not accepts(name, value)


def test_every_parameter_has_values_that_pass_and_values_that_do_not() -> None:
    assert set(GOOD) == set(BAD) == set(PARAMETERS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"regexes": ["("]}, r"regex '\('"),
        ({"regexes": ["[0-9]"]}, "refuses '2048'"),
        ({"regexes": []}, "no regex"),
        ({"defaultValue": "all"}, "refuses 'all'"),
        ({"isOptional": False}, "a default, yet not optional"),
        ({"isOptional": "yes"}, "isOptional"),
        ({"paramType": "STRING"}, "paramType 'STRING'"),
        ({"helpText": "How many."}, "must end with 'Example"),
        ({"helpText": " "}, "empty helpText"),
        ({"help": "How many."}, r"\['help'\]"),
        ({"name": "Shards"}, "'Shards' is not a valid name"),
        ({"name": "input"}, "is used twice"),
    ],
)
def test_a_mistake_in_the_metadata_is_named(changes: dict[str, Any], message: str) -> None:
    metadata = copy.deepcopy(METADATA)
    [shards] = [one for one in metadata["parameters"] if one["name"] == "shards"]
    shards |= changes
    with pytest.raises(spec.MetadataError, match=message):
        spec.check_metadata(metadata)
    with pytest.raises(spec.MetadataError, match="fields must be"):
        spec.check_metadata(METADATA | {"defaultStreamingMode": "x"})


@pytest.mark.parametrize("image", ["c4:1", "host/p/c4", "host/P/r/c4:1", "host/p/r/c4:", "", "a b"])
def test_an_image_of_no_certain_version_is_one_line(
    image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert spec.main(["--image", image]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("spec: error: ")
    assert line.endswith("(--image)")


@pytest.mark.parametrize("image", [IMAGE, "localhost:5000/p/r/c4@sha256:" + "0" * 64])
def test_the_template_file_is_printed(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert spec.main(["--image", image]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["image"] == image
    assert printed["sdkInfo"] == {"language": "PYTHON"}
    assert printed["metadata"] == METADATA
