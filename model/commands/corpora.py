"""The options that the commands which write corpora of corpora share."""

import dataclasses

from pipelines.corpus.formats import formats_named
from pipelines.options import option


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorpusOptions:
    """Where to write, and how."""

    output: str = option("a new or empty folder", metavar="DIR")
    formats: tuple[str, ...] = option(
        "tfrecord, parquet, json, or several separated by commas (default: parquet)",
        "--format", default=("parquet",), metavar="LIST", read=formats_named,
    )  # fmt: skip
