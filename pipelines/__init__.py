"""The corpus build: WET files in, shards out, as an Apache Beam pipeline.

>>> from pipelines import explain
>>> explain("Read more").result.verdict
<PageVerdict.FEW_SENTENCES: 'few_sentences'>
"""

from typing import TYPE_CHECKING

from c4_filters.lazy import lazy_names

if TYPE_CHECKING:
    from pipelines.builds import build as build
    from pipelines.config import BuildConfig as BuildConfig
    from pipelines.corpus.errors import CorpusError as CorpusError
    from pipelines.corpus.formats.pages import Page as Page
    from pipelines.corpus.manifest import Manifest as Manifest
    from pipelines.corpus.reading import Corpus as Corpus
    from pipelines.corpus.reading import open_corpus as open_corpus
    from pipelines.explain_text import explain as explain
    from pipelines.provenance.answers import Answer as Answer
    from pipelines.provenance.answers import why as why
    from pipelines.stages.graph import BuildCorpus as BuildCorpus

_NAMES = {
    "builds": ("build",),
    "config": ("BuildConfig",),
    "corpus.errors": ("CorpusError",),
    "corpus.formats.pages": ("Page",),
    "corpus.manifest": ("Manifest",),
    "corpus.reading": ("Corpus", "open_corpus"),
    "explain_text": ("explain",),
    "provenance.answers": ("Answer", "why"),
    "stages.graph": ("BuildCorpus",),
}
__getattr__, __dir__, __all__ = lazy_names(__name__, _NAMES)
