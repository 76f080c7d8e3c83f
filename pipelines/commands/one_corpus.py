"""What commands that take one corpus have in common."""

import dataclasses

from pipelines.options import option


@dataclasses.dataclass(frozen=True, kw_only=True)
class OneCorpus:
    """A base of a command's options: the corpus that it is about."""

    folder: str = option("folder of the corpus, local or remote", "folder", metavar="DIR")
