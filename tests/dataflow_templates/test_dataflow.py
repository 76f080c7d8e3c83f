"""The job that Dataflow would get, by Dataflow's own client: its graph and size, its workers."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from dataflow_templates import launcher
from pipelines.builders import Claim
from pipelines.config import BuildConfig
from pipelines.engines.run import run_build
from pipelines.quiet_beam import beam
from pipelines.stages.graph import BuildCorpus
from testing.fake_google_cloud import FakeGoogleCloud
from testing.helpers import run_c4, wet_bytes

pytest.importorskip("google.cloud.dataflow_v1beta3", reason="needs the extra gcp")

from apache_beam.portability.api import beam_runner_api_pb2

IMAGE = "us-central1-docker.pkg.dev/my-project/c4/c4:1"
PAGE = ("http://a.example/", "2019-04-18T10:00:00Z", "One.")
PROJECT = [
    "--runner=DataflowRunner",
    "--project=my-project",
    "--region=us-central1",
    "--temp_location=gs://staging/tmp",
    "--job_name=c4-test",
    "--no_auth",
]
WORKERS = [
    "--num_workers=3",
    "--max_num_workers=500",
    "--machine_type=n2-standard-4",
    "--disk_size_gb=40",
    "--no_use_public_ips",
    "--subnetwork=regions/us-central1/subnetworks/c4",
]


@pytest.fixture
def crawl(google_cloud: FakeGoogleCloud, monkeypatch: pytest.MonkeyPatch) -> FakeGoogleCloud:
    """A project with two WET files, seen from within the image."""
    monkeypatch.setenv("C4_IMAGE", IMAGE)
    for name in ("a", "b"):
        google_cloud.objects[f"gs://bucket/wet/{name}.warc.wet.gz"] = wet_bytes([PAGE])
    return google_cloud


BUILD = ["--input=gs://bucket/wet/*", "--output=gs://bucket/corpus", "--format=tfrecord,parquet"]


def dry_run(config: BuildConfig, options: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """What DataflowRunner made of the build: its job, which `dry_run` keeps from being sent."""
    from apache_beam.runners.dataflow import dataflow_runner

    kept = []
    original = dataflow_runner.DataflowRunner.run_pipeline

    def run_pipeline(self: Any, *arguments: Any, **named: Any) -> Any:
        result = original(self, *arguments, **named)
        kept.append(result.job)
        return result

    monkeypatch.setattr(dataflow_runner.DataflowRunner, "run_pipeline", run_pipeline)
    made = run_build(
        BuildCorpus(config, claim=Claim(config.output, 1, "run")),
        beam.options.pipeline_options.PipelineOptions(options),
        None,
    )
    assert made is None, "a dry run builds nothing"
    [job] = kept
    return job


def crawl_names(count: int) -> Iterator[str]:
    for number in range(count):
        yield f"gs://crawl/CC-MAIN-2019-18/segments/{number % 100}/wet/{number:05}.warc.wet.gz"


@pytest.mark.slow
@pytest.mark.usefixtures("google_cloud")
def test_a_graph_for_90000_files_is_as_small_as_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from c4_filters.recipes import load_recipe

    sizes = {}
    options = [*PROJECT, *WORKERS, f"--sdk_container_image={IMAGE}", "--dry_run=True"]
    for count in (1, 1_000, 90_000):
        config = BuildConfig(
            inputs=tuple(crawl_names(count)),
            output="gs://bucket/corpus",
            recipe=load_recipe("en"),
            formats=("tfrecord", "parquet"),
        )
        job = dry_run(config, options, monkeypatch)
        assert (job.proto.name, job.proto.type_.name) == ("c4-test", "JOB_TYPE_BATCH")
        graph = job.proto_pipeline
        sizes[count] = len(graph.SerializeToString()) + len(job.json())
        assert images_of(graph) == {IMAGE}
        labels = {step.unique_name for step in graph.components.transforms.values()}
        for stage in ("CleanFiles", "RepeatedSpans", "WriteShards", "WriteManifest"):
            assert any(stage in label for label in labels), stage
    assert max(sizes.values()) < 1_000_000
    assert max(sizes.values()) - min(sizes.values()) < 50, sizes


def images_of(graph: Any) -> set[str]:
    return {
        beam_runner_api_pb2.DockerPayload.FromString(environment.payload).container_image
        for environment in graph.components.environments.values()
    }


def check_workers(job: dict[str, Any]) -> None:
    """Everything asked for on the command line stands in the job that the service gets."""
    [pool] = job["environment"]["workerPools"]
    assert pool["numWorkers"] == 3
    assert pool["autoscalingSettings"]["maxNumWorkers"] == 500
    assert pool["machineType"] == "n2-standard-4"
    assert pool["diskSizeGb"] == 40
    assert pool["subnetwork"] == "regions/us-central1/subnetworks/c4"
    assert pool["ipConfiguration"] in ("WORKER_IP_PRIVATE", 2)
    assert pool["workerHarnessContainerImage"] == IMAGE
    assert [image["containerImage"] for image in pool["sdkHarnessContainerImages"]] == [IMAGE]
    staged = {package["name"] for package in pool["packages"]}
    assert staged <= {"submission_environment_dependencies.txt"}, "workers install nothing"
    assert job["environment"]["sdkPipelineOptions"]["options"]["save_main_session"] is False
    assert "use_runner_v2" in job["environment"]["experiments"]


def staged_graph(cloud: FakeGoogleCloud) -> Any:
    [path] = [path for path in cloud.names("gs://staging/") if path.endswith("pipeline.pb")]
    return beam_runner_api_pb2.Pipeline.FromString(cloud.objects[path])


@pytest.mark.slow
def test_a_launch_sends_one_job_and_does_not_wait(
    crawl: FakeGoogleCloud, capsys: pytest.CaptureFixture[str]
) -> None:
    status = launcher.main([*BUILD, *PROJECT, *WORKERS, f"--dataflow_endpoint={crawl.address}"])
    assert status == 0
    assert capsys.readouterr().out.strip() == (
        "submitted; gs://bucket/corpus/manifest.json appears when it is done"
    )
    [job] = crawl.jobs
    assert job["name"] == "c4-test"
    check_workers(job)
    assert images_of(staged_graph(crawl)) == {IMAGE}
    assert crawl.names("gs://bucket/corpus/") == [
        "gs://bucket/corpus/build.json",
        "gs://bucket/corpus/builders/00001.beat",
        "gs://bucket/corpus/builders/00001.json",
        "gs://bucket/corpus/inputs.jsonl",
    ]


@pytest.mark.slow
def test_a_template_launch_leaves_the_job_where_dataflow_looks_for_it(
    crawl: FakeGoogleCloud, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the service starts the launcher: with a place to write the job to."""
    place = "gs://staging/template_launches/1/job_object"
    arguments = [*BUILD, *PROJECT, *WORKERS, f"--template_location={place}"]
    assert launcher.main(arguments) == 0, capsys.readouterr().err
    assert crawl.jobs == [], "the service starts the job, not the launcher"
    check_workers(json.loads(crawl.objects[place]))
    assert images_of(staged_graph(crawl)) == {IMAGE}


@pytest.mark.slow
def test_the_plain_command_leaves_such_a_job_too(crawl: FakeGoogleCloud) -> None:
    place = "gs://staging/job_object"
    done = run_c4("build", *BUILD, *PROJECT, f"--template_location={place}")
    assert done.status == 0, done.err
    assert place in crawl.objects


@pytest.mark.slow
def test_a_corpus_that_is_there_already_is_no_job(
    crawl: FakeGoogleCloud, capsys: pytest.CaptureFixture[str]
) -> None:
    local = ["--workers", "1", "--quiet", "--no_auth"]
    built = run_c4("build", *BUILD, *local)
    assert built.status == 0, built.err
    place = "gs://staging/template_launches/1/job_object"
    assert launcher.main([*BUILD, *PROJECT, f"--template_location={place}"]) == 1
    [_, line] = capsys.readouterr().err.splitlines()
    assert line.startswith("launcher: no job to run: the corpus is complete")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--input=gs://bucket/none/*", "no input file matches 'gs://bucket/none/*'"),
        ("--input=gs://elsewhere/*", "gs://elsewhere/: No such file or directory"),
        ("--output=gs://elsewhere/out", "gs://elsewhere/out: No such file or directory"),
        ("--recipe=tfsd", "tfsd"),
        ("--temp_location=gs://b", "--temp_location must be gs://BUCKET/FOLDER, got 'gs://b'"),
        ("--staging_location=/tmp/x", "--staging_location must be gs://BUCKET/FOLDER"),
    ],
)
def test_a_launch_that_cannot_work_is_one_line(
    change: str, message: str, crawl: FakeGoogleCloud, capsys: pytest.CaptureFixture[str]
) -> None:
    name = change.partition("=")[0]
    arguments = [*BUILD, *PROJECT, f"--dataflow_endpoint={crawl.address}"]
    arguments = [word for word in arguments if word.partition("=")[0] != name]
    assert launcher.main([*arguments, change]) == 1
    told = capsys.readouterr().err.splitlines()
    [line] = [line for line in told if not line.startswith("c4: building")]
    assert message in line
    assert crawl.jobs == []
