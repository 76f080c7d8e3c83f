"""What Dataflow's template launcher runs in the image: the build of ``c4 build``, not waited for.

A parameter of a template is one string with an underscored name; an option of ``c4 build`` may be
a flag, or take several values. Everything else on the command line is Beam's and Dataflow's own:

    launcher.py --input='gs://b/1/*.gz gs://b/2/*.gz' --output=gs://b/corpus --start_over=true
        --runner=DataflowRunner --template_location=gs://... ...

becomes

    c4 build --input gs://b/1/*.gz gs://b/2/*.gz --output gs://b/corpus --start-over
        --runner=DataflowRunner --template_location=gs://... --no_wait_until_finish ...
"""

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence

from pipelines import c4_main, storage
from pipelines.commands import build as build_command
from pipelines.engines.options import beam_parser

#: Set in the image to the image's own name: what workers must run too.
IMAGE_VARIABLE = "C4_IMAGE"
_ONLY_HERE = {"workers", "quiet"}  # local processes; what a terminal shows
_SWITCH = {"true": True, "false": False}


def template_options() -> dict[str, argparse.Action]:
    """Return the option of ``c4 build`` that each parameter sets, by its name.

    >>> template_options()["max_record_mb"].option_strings
    ['--max-record-mb']
    """
    parser = argparse.ArgumentParser(add_help=False)
    build_command.add_arguments(parser)
    return {action.dest: action for action in parser._actions if action.dest not in _ONLY_HERE}


def build_arguments(words: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Return the arguments of ``c4 build`` for those of a template launch.

    Options of Dataflow's launcher that this Beam does not know are left out, as Beam itself does,
    with a line on standard error: the service adds some of its own.

    Raises:
        ValueError: A switch is neither true nor false, or a list has an open quotation mark.
    """
    options = template_options()
    ours: list[str] = []
    beams: list[str] = []
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if not equals or name not in options:
            beams.append(word)
        elif value.strip():  # a form sends empty fields too
            ours += _option(options[name], name, value)
    _, unknown = beam_parser().parse_known_args(beams)
    for word in unknown:
        print(f"launcher: left out {word}: not an option of this Beam", file=sys.stderr)
    beams = [word for word in beams if word not in unknown]
    given = {word.partition("=")[0] for word in beams}
    if "--runner" not in given:
        beams.append("--runner=DataflowRunner")
    if "--sdk_container_image" not in given:
        if image := environment.get(IMAGE_VARIABLE):
            beams.append(f"--sdk_container_image={image}")
        else:
            raise ValueError(
                f"workers need the image that holds this package: set {IMAGE_VARIABLE} in the "
                "image (its Dockerfile's --build-arg IMAGE), or give --sdk_container_image"
            )
    return [*ours, *beams, "--no_wait_until_finish"]


def _option(action: argparse.Action, name: str, value: str) -> list[str]:
    option = action.option_strings[0]
    if action.nargs == 0:
        try:
            return [option] if _SWITCH[value.strip().lower()] else []
        except KeyError:
            raise ValueError(f"{name} must be true or false, got {value!r}") from None
    if not isinstance(action, argparse._AppendAction | argparse._ExtendAction):
        return [f"{option}={value.strip()}"]
    try:
        values = shlex.split(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error} in {value!r}") from None
    if action.nargs == "+":
        return [option, *values]
    return [f"{option}={each}" for each in values]


def main(words: Sequence[str] | None = None) -> int:
    """Start the build; return 0 when Dataflow has, or will have, a job."""
    words = sys.argv[1:] if words is None else words
    try:
        arguments = build_arguments(words, os.environ)
        status = c4_main.main(["build", *arguments])
        template = dict(word.partition("=")[::2] for word in words).get("--template_location")
        if status == 0 and template and not storage.exists(template):
            # Otherwise Dataflow reports that it cannot open an unknown file.
            print(
                "launcher: no job to run: the corpus is complete already (same files, same "
                "settings); --start_over=true rebuilds it",
                file=sys.stderr,
            )
            return 1
    except (OSError, ValueError) as error:
        print(f"launcher: error: {error}", file=sys.stderr)
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
