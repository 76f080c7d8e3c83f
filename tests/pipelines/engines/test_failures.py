"""A failure of a worker is one line that says what is wrong with which file."""

import traceback

import pytest

from pipelines.corpus.container import DamagedFileError, OtherVersionError
from pipelines.corpus.removals import OtherBuildError
from pipelines.engines.failures import cause


@pytest.mark.parametrize(
    "error",
    [DamagedFileError("a.bin", "it ends early"), OtherVersionError("a.bin"),
     OtherBuildError("a.bin"), ValueError("a.bin: is odd")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_what_beam_adds_hides_no_word(error: ValueError) -> None:
    first, *others = error.args  # Beam adds to the first, wherever the message has it
    raised = type(error)(f"{first} [while running 'WriteShards-ptransform-36']", *others)
    text = "".join(traceback.format_exception(raised))
    assert cause(RuntimeError(text), "out").startswith(f"{error}; cleaned files are kept")


def test_an_error_of_the_system_is_named_by_its_words_alone() -> None:
    text = "".join(traceback.format_exception(IsADirectoryError(21, "Is a directory", "a.bin")))
    assert cause(RuntimeError(text), "out").startswith("Is a directory: 'a.bin'; cleaned files")
