"""deploy.sh, launch.sh and cloudbuild.yaml: what they would have gcloud and Cloud Build do."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
import yaml

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "dataflow_templates"
IMAGE = "us-central1-docker.pkg.dev/my-project/c4/c4:1"
pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


def run(script: str, *words: str, tmp_path: pathlib.Path, gcloud: bool = True) -> tuple:
    """Exit status, what gcloud was given (None: not called), and standard error."""
    tools = tmp_path / "bin"
    tools.mkdir()
    said = tmp_path / "said.json"
    for name in ("bash", "sed", "dirname"):
        (tools / name).symlink_to(shutil.which(name))
    (tools / "python3").symlink_to(sys.executable)
    if gcloud:
        (tools / "gcloud").write_text(
            f"#!{sys.executable}\nimport json, sys\n"
            f"json.dump(sys.argv[1:], open({str(said)!r}, 'w'))\n"
        )
        (tools / "gcloud").chmod(0o755)
    done = subprocess.run(
        [str(FOLDER / script), *words],
        env={"PATH": str(tools), "HOME": os.environ.get("HOME", "/")},
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    return done.returncode, json.loads(said.read_text()) if said.exists() else None, done.stderr


def test_launch_passes_parameters_whole(tmp_path: pathlib.Path) -> None:
    status, given, err = run(
        "launch.sh", "gs://b/c4.json", "us-central1", "job-1", "input=gs://b/*.gz gs://c/{1,2}.gz",
        "output=gs://b/out", "format=json,parquet", "--", "--max-workers=5", tmp_path=tmp_path,
    )  # fmt: skip
    assert status == 0, err
    assert given == [
        "dataflow", "flex-template", "run", "job-1", "--template-file-gcs-location",
        "gs://b/c4.json", "--region", "us-central1", "--parameters",
        "^~|~^input=gs://b/*.gz gs://c/{1,2}.gz~|~output=gs://b/out~|~format=json,parquet",
        "--max-workers=5",
    ]  # fmt: skip


def test_deploy_submits_the_checkout(tmp_path: pathlib.Path) -> None:
    status, given, err = run("deploy.sh", IMAGE, "gs://b/c4.json", "--async", tmp_path=tmp_path)
    assert status == 0, err
    assert given == [
        "builds", "submit", "--config", "dataflow_templates/cloudbuild.yaml", "--substitutions",
        f"_IMAGE={IMAGE},_TEMPLATE=gs://b/c4.json", "--async", ".",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        ("deploy.sh", [], "deploy.sh IMAGE TEMPLATE"),
        ("deploy.sh", ["c4:1", "gs://b/c4.json"], "spec: error: the image must be"),
        ("deploy.sh", [IMAGE, "c4.json"], "the template file must be gs://"),
        ("launch.sh", ["gs://b/c4.json", "us-central1", "job"], "launch.sh TEMPLATE REGION JOB"),
        ("launch.sh", ["gs://b/c4.json", "r", "j", "gs://b/x"], "NAME=VALUE, got 'gs://b/x'"),
    ],
)
def test_mistakes_stop_before_gcloud(
    script: str, words: list[str], message: str, tmp_path: pathlib.Path
) -> None:
    status, given, err = run(script, *words, tmp_path=tmp_path)
    assert status != 0
    assert given is None
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("script", "words"),
    [("deploy.sh", [IMAGE, "gs://b/c4.json"]), ("launch.sh", ["gs://b/c", "r", "j", "output=x"])],
)
def test_without_gcloud_one_line_says_so(
    script: str, words: list[str], tmp_path: pathlib.Path
) -> None:
    status, _, err = run(script, *words, tmp_path=tmp_path, gcloud=False)
    assert status == 1
    assert err.splitlines() == [
        f"{script[:-3]}: gcloud is not installed: cloud.google.com/sdk/docs/install"
    ]


def test_cloud_build_builds_pushes_and_then_writes_the_template() -> None:
    config = yaml.safe_load((FOLDER / "cloudbuild.yaml").read_text("utf-8"))
    steps = {step["id"]: [str(word) for word in step["args"]] for step in config["steps"]}
    assert list(steps) == ["image", "push", "spec", "template"]
    assert steps["push"] == ["push", "${_IMAGE}"]
    assert "--tag=${_IMAGE}" in steps["image"]
    assert "--build-arg=IMAGE=${_IMAGE}" in steps["image"]
    [file] = [word for word in steps["image"] if word.startswith("--file=")]
    assert (FOLDER.parent / file.removeprefix("--file=")).is_file()
    assert steps["template"][-1] == "${_TEMPLATE}"
    made = subprocess.run(
        ["bash", "-c", steps["spec"][-1].replace("${_IMAGE}", IMAGE).partition(">")[0]],
        capture_output=True,
        text=True,
        cwd=FOLDER.parent,
        env={"PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"},
        timeout=60,
    )
    assert json.loads(made.stdout)["image"] == IMAGE, made.stderr
