"""``c4 build`` without credentials for a cloud: one line soon, and no retries of Beam's."""

import os
import pathlib
import subprocess
import sys
import time

import pytest

from samples.make_samples import WET_DIR

pytestmark = pytest.mark.slow

#: Most of it Python's and Beam's imports on a busy machine: nothing is asked over a network.
SOON_S = 60
INPUTS = str(WET_DIR / "*.wet*")
BUILDS = {
    "gs input": (["--input", "gs://some-bucket/*.gz", "--output", "OUT"], "gs://some-bucket/"),
    "gs output": (["--input", INPUTS, "--output", "gs://some-bucket/out"], "gs://some-bucket/out"),
    "s3 input": (["--input", "s3://some-bucket/a.gz", "--output", "OUT"], "s3://some-bucket/a.gz"),
    "s3 output": (["--input", INPUTS, "--output", "s3://some-bucket/out"], "s3://some-bucket/out"),
    "Dataflow": (
        [
            *("--input", INPUTS, "--output", "OUT", "--runner=DataflowRunner", "--project=p"),
            *("--region=us-central1", "--temp_location=gs://some-bucket/tmp"),
        ],
        "no Google Cloud credentials for DataflowRunner: run gcloud auth",
    ),
}
PREFIXES = ("AWS_", "GOOGLE_", "CLOUDSDK_", "GCLOUD_", "STORAGE_EMULATOR")


@pytest.mark.parametrize("where", BUILDS)
def test_without_credentials_a_build_ends_in_one_line(where: str, tmp_path: pathlib.Path) -> None:
    if where == "Dataflow":
        pytest.importorskip("google.cloud.dataflow_v1beta3", reason="needs the extra gcp")
    else:
        pytest.importorskip("obstore", reason="needs the extra gcp")
    arguments, says = BUILDS[where]
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(PREFIXES) and name != "NO_GCE_CHECK"
    }
    nobody = "127.0.0.1:9"  # answers where a machine of a cloud would say who it is
    environment |= {
        "HOME": str(tmp_path / "home"),
        "GCE_METADATA_HOST": nobody,
        "GCE_METADATA_ROOT": nobody,
        "GCE_METADATA_IP": nobody,
    }
    began = time.monotonic()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pipelines.c4_main", "build"),
            *(word.replace("OUT", str(tmp_path / "out")) for word in arguments),
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=3 * SOON_S,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert time.monotonic() - began < SOON_S
    first, error = done.stderr.splitlines()
    assert first.startswith("c4: building a corpus in ")
    assert error.startswith("c4: error: ")
    assert says in done.stderr
    assert "credentials" in done.stderr
    assert not (tmp_path / "out").exists(), "the folder is claimed only for a build that can begin"
