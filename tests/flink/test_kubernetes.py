"""The manifest for the Flink Kubernetes operator, against the operator's own schema."""

import copy
import gzip
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CRD = pathlib.Path(__file__).parent / "crd" / "flinkdeployments.flink.apache.org-v1.yml.gz"
TYPES = {
    "string": str, "boolean": bool, "array": list, "object": dict,
    "integer": int, "number": (int, float),
}  # fmt: skip


def faults(value: Any, schema: dict[str, Any], at: str = "") -> Iterator[str]:
    """What a Kubernetes API server with strict field validation would refuse."""
    if schema.get("x-kubernetes-int-or-string"):
        if not isinstance(value, (int, str)):
            yield f"{at}: neither number nor text"
        return
    kind = TYPES[schema["type"]]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):  # type: ignore[arg-type]
        yield f"{at}: not of type {schema['type']}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{at}: {value!r} is none of {schema['enum']}"
    if isinstance(value, list):
        for number, part in enumerate(value):
            yield from faults(part, schema["items"], f"{at}[{number}]")
    if isinstance(value, dict):
        known = schema.get("properties", {})
        for name in schema.get("required", ()):
            if name not in value:
                yield f"{at}: lacks {name}"
        for name, part in value.items():
            inner = known.get(name, schema.get("additionalProperties"))
            if isinstance(inner, dict):
                yield from faults(part, inner, f"{at}.{name}")
            elif not schema.get("x-kubernetes-preserve-unknown-fields"):
                yield f"{at}.{name}: unknown"


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    definition = yaml.safe_load(gzip.decompress(CRD.read_bytes()))
    [version] = definition["spec"]["versions"]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return found


@pytest.fixture
def manifest() -> Any:
    return yaml.safe_load((ROOT / "flink" / "session-cluster.yaml").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_the_manifest_is_what_the_operator_takes(manifest: Any, schema: dict[str, Any]) -> None:
    assert (manifest["apiVersion"], manifest["kind"]) == (
        "flink.apache.org/v1beta1", "FlinkDeployment"
    )  # fmt: skip
    assert list(faults(manifest["spec"], schema)) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("taskManager.replica", 3, "unknown"),
        ("flinkVersion", "v9", "none of"),
        ("taskManager.resource.cpu", "many", "not of type number"),
        ("flinkConfiguration", {"taskmanager.numberOfTaskSlots": 4}, "not of type string"),
    ],
)
def test_the_check_finds_mistakes(
    path: str, value: object, says: str, manifest: Any, schema: dict[str, Any]
) -> None:
    spec = copy.deepcopy(manifest["spec"])
    *parents, last = path.split(".")
    place = spec
    for name in parents:
        place = place[name]
    place[last] = value
    [found] = faults(spec, schema)
    assert says in found


def test_the_sidecar_is_a_worker_pool_where_c4_build_looks_for_it(manifest: Any) -> None:
    from pipelines import c4_main
    from pipelines.engines import flink

    containers = manifest["spec"]["taskManager"]["podTemplate"]["spec"]["containers"]
    [pool] = [container for container in containers if container["name"] == "worker-pool"]
    command, *options = pool["args"]
    assert command in c4_main._COMMANDS
    assert options == ["--port", flink.POOL.rpartition(":")[2]]
    slots = manifest["spec"]["flinkConfiguration"]["taskmanager.numberOfTaskSlots"]
    assert pool["resources"]["requests"]["cpu"] == slots, "a process a slot, a core a process"
