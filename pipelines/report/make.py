"""Make a report, or a summary, of finished corpora."""

from collections.abc import Sequence

from pipelines import storage
from pipelines.corpus import layout
from pipelines.corpus.errors import CorpusError
from pipelines.corpus.manifest import Manifest
from pipelines.corpus.reading import Corpus, open_corpus
from pipelines.report.gathered import gather
from pipelines.report.page import render
from pipelines.report.summary import domains_table, summary
from pipelines.report.written import gather_written

#: Pages to sample for each rule.
SAMPLES = 200
_FOLDER = "report"


def make_report(folders: Sequence[str], to: str | None = None, samples: int = SAMPLES) -> str:
    """Write the report on one corpus, or on two beside each other, and return its path.

    Args:
        folders: One or two folders, local or remote.
        to: The file to write; ``report/report.html`` in the first folder by default.
        samples: Pages to sample for each rule, at most.

    Raises:
        CorpusError: A folder is not a finished corpus of ``c4 build``, or a shard is damaged.
        OSError: A file cannot be read or written.
        ValueError: A kept file is damaged; the message names it.
        ModuleNotFoundError: Matplotlib is not installed.
    """
    import matplotlib  # noqa: F401  # where it is missing, say so before reading for an hour

    corpora = [_open(folder) for folder in folders]
    content = render([gather(corpus, made, samples) for corpus, made in corpora], samples)
    path = to or storage.join(corpora[0][0].folder, _FOLDER, "report.html")
    _write(path, content)
    return path


def make_summary(folder: str, to: str | None = None) -> list[str]:
    """Write the data part of the EU's training-content summary and return the paths.

    Args:
        folder: Of the corpus.
        to: The folder to write to; ``report`` in the corpus folder by default.

    Raises:
        CorpusError: The folder is not a finished corpus of ``c4 build``, or a shard is damaged.
        OSError: A file cannot be read or written.
    """
    corpus, made = _open(folder)
    written = gather_written(corpus, 0)
    try:
        table, domain_cuts = domains_table(written)
    finally:
        written.domains.close()
    into = to or storage.join(corpus.folder, _FOLDER)
    files = {
        "training-content-summary.json": summary(written, made, domain_cuts),
        "domains.csv": table,
    }
    for name, content in files.items():
        _write(storage.join(into, name), content)
    return [storage.join(into, name) for name in files]


def _open(folder: str) -> tuple[Corpus, Manifest]:
    corpus = open_corpus(layout.absolute(folder))
    if not isinstance(corpus.manifest, Manifest):
        raise CorpusError(f"{folder} holds text that c4 build did not make: it has no counts")
    return corpus, corpus.manifest


def _write(path: str, content: bytes) -> None:
    storage.write_bytes(path, content)
