"""Parameters of a template become the arguments of ``c4 build``."""

import argparse

import pytest

from dataflow_templates import launcher
from pipelines.commands import build as build_command

IMAGE = {"C4_IMAGE": "host/project/repository/c4:1"}
ENDS_WITH = ["--runner=DataflowRunner", "--no_wait_until_finish"]


def parsed(words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser()
    build_command.add_arguments(parser)
    return parser.parse_known_args(launcher.build_arguments(words, IMAGE))


def test_each_parameter_sets_its_option() -> None:
    ours, beams = parsed(
        [
            "--input=gs://b/1/*.gz 'gs://b/two words/*'  gs://b/3",
            "--crawl=CC-MAIN-2019-18 gs://b/wet.paths.gz",
            "--files=0:20",
            "--base_url=gs://b/crawl",
            "--output=gs://b/out",
            "--recipe=de",
            "--badwords=de=gs://b/de.txt en=gs://b/en.txt",
            "--domain_list=gs://b/d",
            "--url_list=gs://b/u",
            "--against=gs://b/old  gs://b/older",
            "--format=tfrecord,json",
            "--shards=12",
            "--allow_rules=my_rules,other",
            "--allow_unreadable_files=3",
            "--max_record_mb=7",
            "--max_file_mb=9",
            "--start_over=TRUE",
            "--keep=fingerprints",
            "--verify=true",
        ]
    )
    assert ours == argparse.Namespace(
        input=["gs://b/1/*.gz", "gs://b/two words/*", "gs://b/3"],
        crawl=["CC-MAIN-2019-18", "gs://b/wet.paths.gz"],
        files="0:20",
        base_url="gs://b/crawl",
        output="gs://b/out",
        recipe="de",
        badwords=["de=gs://b/de.txt", "en=gs://b/en.txt"],
        domain_list="gs://b/d",
        url_list="gs://b/u",
        against=["gs://b/old", "gs://b/older"],
        format="tfrecord,json",
        shards="12",
        allow_rules=["my_rules,other"],
        allow_unreadable_files=3,
        max_record_mb=7,
        max_file_mb=9,
        start_over=True,
        keep="fingerprints",
        verify=True,
    )
    image = f"--sdk_container_image={IMAGE['C4_IMAGE']}"
    assert beams == ["--runner=DataflowRunner", image, "--no_wait_until_finish"]


def test_empty_fields_leave_defaults() -> None:
    ours, _ = parsed(["--input=gs://b/x", "--output=gs://b/o", "--recipe=", "--start_over=false"])
    assert vars(ours) == {"input": ["gs://b/x"], "output": "gs://b/o"}


def test_beams_options_pass_and_those_it_does_not_know_are_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    beams = ["--runner=FlinkRunner", "--max_num_workers=5", "--labels", '{"a": "b"}']
    unknown = ["--of_another_version=1", "--new_flag"]
    got = launcher.build_arguments([*beams, *unknown, "--sdk_container_image=mine"], {})
    assert got == [*beams, "--sdk_container_image=mine", "--no_wait_until_finish"]
    told = capsys.readouterr().err.splitlines()
    assert [line.split()[3].rstrip(":") for line in told] == unknown


@pytest.mark.parametrize(
    ("words", "environment", "message"),
    [
        (["--start_over=maybe"], IMAGE, "start_over must be true or false, got 'maybe'"),
        (["--input='gs://b/x"], IMAGE, "input: No closing quotation"),
        (["--input=gs://b/x"], {}, "workers need the image that holds this package"),
        (["--output=gs://b/x"], IMAGE, "--input"),
    ],
)
def test_a_bad_parameter_is_one_line(
    words: list[str],
    environment: dict[str, str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("C4_IMAGE", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    try:
        status = launcher.main(words)
    except SystemExit as stop:  # argparse: an option is missing
        status = stop.code
    assert status
    assert message in capsys.readouterr().err.splitlines()[-1]
