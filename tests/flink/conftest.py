"""A Flink cluster for the tests here, where one can be had."""

import os
import pathlib
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator

import pytest

from scripts import flink_packages
from scripts.flink_cluster import ClusterConfig, FlinkCluster
from testing.helpers import digests
from tests.flink import builds, faulty_pool

_HOW = "run scripts/flink_cluster.sh fetch once"


@pytest.fixture(scope="session")
def faults(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder that tells workers where to stop or die; see faulty_pool."""
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="session")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, faults: pathlib.Path
) -> Iterator[FlinkCluster]:
    """A running cluster. The packages are not fetched by a test: they are 400 MB."""
    if shutil.which("java") is None:
        pytest.skip("no Java here")
    cache = pathlib.Path(os.environ.get("C4_FLINK_CACHE") or flink_packages.default_cache())
    if flink_packages.found(cache) is None:
        pytest.skip(f"no Flink in {cache}: {_HOW}")
    config = ClusterConfig(tmp_path_factory.mktemp("flink"), cache)
    cluster = FlinkCluster(
        config, ("-m", "tests.flink.faulty_pool"), {faulty_pool.VARIABLE: str(faults)}
    )
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()


@pytest.fixture
def idle(cluster: FlinkCluster) -> Iterator[FlinkCluster]:
    """The cluster, whole and without a job; what a failed test has left is cancelled after it."""
    cluster.up()
    yield cluster
    cluster.up()
    for job in cluster.rest("/jobs/overview")["jobs"]:
        if job["state"] not in ("FINISHED", "FAILED", "CANCELED"):
            address = f"http://{cluster.rest_address}/jobs/{job['jid']}?mode=cancel"
            urllib.request.urlopen(urllib.request.Request(address, method="PATCH")).close()


@pytest.fixture(scope="session")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests of the shards of an undisturbed local build."""
    output = tmp_path_factory.mktemp("local") / "out"
    subprocess.run(builds.command(output, ["--quiet", "--workers", "1"]), check=True, timeout=180)
    return digests(output)


@pytest.fixture(autouse=True)
def no_faults_left(faults: pathlib.Path) -> Iterator[None]:
    """Takes the faults of a test away before the next."""
    yield
    for path in faults.iterdir():
        path.unlink()
