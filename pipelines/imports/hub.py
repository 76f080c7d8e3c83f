"""Data sets on the Hugging Face Hub, read over HTTPS at one revision: no code of theirs is run.

``hf://datasets/OWNER/NAME[@REVISION]/PATTERN`` names files, as `huggingface_hub` writes such paths;
without a pattern, all data files of the data set.
"""

import importlib
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from pipelines.extras import missing
from pipelines.storage.paths import NoInputError
from pipelines.storage.patterns import compile_pattern

_NAME = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+)(?:@([\w./-]+?))?(?:/(.+))?")
_FILE = "https://huggingface.co/datasets/{}/resolve/{}/{}"


def file_urls(path: str, is_data: Callable[[str], bool]) -> list[str]:
    """Return the addresses of a data set's files, at the commit that its revision is now.

    Args:
        path: ``hf://datasets/…``.
        is_data: Whether a file, by its path in the data set, holds data.

    Raises:
        ValueError: The path has another form, or huggingface_hub is not installed.
        NoInputError: No file matches.
        OSError: The Hub cannot be reached, or does not know the data set.
    """
    match = _NAME.fullmatch(path)
    if match is None:
        raise ValueError(
            f"{path}: a data set of the Hub is named hf://datasets/OWNER/NAME/PATTERN, such as "
            "hf://datasets/allenai/c4/en/c4-train.*.json.gz (--input)"
        )
    name, revision, pattern = match.groups()
    try:
        hub: Any = importlib.import_module("huggingface_hub")
    except ModuleNotFoundError:
        raise ValueError(missing(path, "import")) from None
    try:
        found = hub.HfApi().dataset_info(name, revision=revision)
    except Exception as error:  # of whichever HTTP client it uses
        line = str(error).strip().split("\n", 1)[0]
        raise OSError(f"{path}: the Hub does not list this data set: {line}") from None
    wanted = compile_pattern(pattern or "**")
    files = [file.rfilename for file in found.siblings or ()]
    files = [file for file in files if wanted.fullmatch(file) and is_data(file)]
    if not files:
        raise NoInputError(f"{path}: no data file of the data set matches (--input)")
    return [_FILE.format(name, found.sha, quote(file)) for file in sorted(files)]
