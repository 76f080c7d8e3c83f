"""The file that a Flex Template is launched from: its image and what it may be given.

    python -m dataflow_templates.spec --image REGION-docker.pkg.dev/PROJECT/REPOSITORY/c4:TAG

prints it. The fields are those of Dataflow's ContainerSpec
(cloud.google.com/dataflow/docs/reference/rest/v1b3/projects.templates#containerspec).
"""

import argparse
import json
import pathlib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

_METADATA = pathlib.Path(__file__).with_name("metadata.json")
_TEMPLATE_FIELDS = {"name", "description", "streaming", "parameters"}
_PARAMETER_FIELDS = {
    "name",
    "label",
    "helpText",
    "paramType",
    "isOptional",
    "defaultValue",
    "regexes",
}
# Those of ParameterType (same address) that the build has a use for.
_PARAMETER_TYPES = {"TEXT", "GCS_READ_FILE", "GCS_WRITE_FOLDER", "BOOLEAN", "NUMBER"}
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_EXAMPLE = re.compile(r"Example: (\S+)$")
# registry host / project / repository / image : tag, or @ digest
_IMAGE = re.compile(
    r"[a-z0-9.-]+(:\d+)?(/[a-z0-9._-]+){2,}(:[\w][\w.-]{0,127}|@sha256:[0-9a-f]{64})"
)


class MetadataError(ValueError):
    """The template's metadata would be refused, or would let bad values through."""


def read_metadata(path: pathlib.Path = _METADATA) -> dict[str, Any]:
    """Return the template's metadata after checking it. Raises MetadataError."""
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise MetadataError(f"{path}: not JSON: {error}") from None
    check_metadata(metadata)
    return dict(metadata)


def check_metadata(metadata: Mapping[str, Any]) -> None:
    """Check fields, types, names, and that each regex takes the example and the default.

    Raises:
        MetadataError: Naming the parameter and what is wrong with it.
    """
    if set(metadata) != _TEMPLATE_FIELDS:
        raise MetadataError(f"fields must be {sorted(_TEMPLATE_FIELDS)}, got {sorted(metadata)}")
    seen = set()
    for parameter in metadata["parameters"]:
        name = parameter.get("name", "")
        if not _NAME.fullmatch(name) or name in seen:
            raise MetadataError(f"{name!r} is not a valid name, or is used twice")
        seen.add(name)
        _check_parameter(name, parameter)


def _check_parameter(name: str, parameter: Mapping[str, Any]) -> None:
    if wrong := set(parameter).symmetric_difference(_PARAMETER_FIELDS) - {"defaultValue"}:
        raise MetadataError(f"{name}: unknown or missing fields {sorted(wrong)}")
    if parameter["paramType"] not in _PARAMETER_TYPES:
        raise MetadataError(f"{name}: unknown paramType {parameter['paramType']!r}")
    if not isinstance(parameter["isOptional"], bool):
        raise MetadataError(f"{name}: isOptional must be true or false")
    for text in ("label", "helpText"):
        if not parameter[text].strip():
            raise MetadataError(f"{name}: an empty {text}")
    if not parameter["regexes"]:
        raise MetadataError(f"{name}: no regex")
    values = [example_of(parameter)]
    if "defaultValue" in parameter:
        if not parameter["isOptional"]:
            raise MetadataError(f"{name}: a default, yet not optional")
        values.append(parameter["defaultValue"])
    for regex in parameter["regexes"]:
        try:
            pattern = re.compile(regex)
        except re.error as error:
            raise MetadataError(f"{name}: regex {regex!r}: {error}") from None
        for value in values:
            if not pattern.fullmatch(value):
                raise MetadataError(f"{name}: regex {regex!r} refuses {value!r}")


def example_of(parameter: Mapping[str, Any]) -> str:
    """Return the example that a parameter's help text ends with.

    >>> example_of({"name": "shards", "helpText": "A number. Example: 64"})
    '64'
    """
    found = _EXAMPLE.search(parameter["helpText"])
    if found is None:
        raise MetadataError(f"{parameter['name']}: the help text must end with 'Example: VALUE'")
    return found[1]


def image_spec(image: str) -> dict[str, Any]:
    """Return the template file for an image.

    Raises:
        ValueError: The image has no repository path, or neither tag nor digest: a name without
            one means another image tomorrow.
    """
    if not _IMAGE.fullmatch(image):
        raise ValueError(
            f"the image must be HOST/PROJECT/REPOSITORY/NAME:TAG or …@sha256:…, got {image!r} "
            "(--image)"
        )
    return {
        "image": image,
        "sdkInfo": {"language": "PYTHON"},
        "metadata": read_metadata(),
        # A process a core, each with some GB: Dataflow's default machine has one core and 3.75 GB.
        "defaultEnvironment": {"machineType": "n2-standard-4"},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the template file for ``--image``."""
    parser = argparse.ArgumentParser(prog="python -m dataflow_templates.spec", allow_abbrev=False)
    parser.add_argument("--image", required=True, help="name of the image, with tag or digest")
    try:
        spec = image_spec(parser.parse_args(arguments).image)
    except ValueError as error:
        print(f"spec: error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(spec, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
