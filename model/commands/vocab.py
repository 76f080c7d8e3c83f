"""``c4 vocab``: train a SentencePiece vocabulary on corpora, and report on it."""

import argparse
import dataclasses
import json
import os
import pathlib
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import IO, Any

import sentencepiece
from tqdm import tqdm

from model.data import text_sample, train_vocabulary
from model.data.sentencepiece_model import Notes, with_notes
from model.data.text_sample import Sample, TextSource
from model.data.train_vocabulary import VocabularyOptions
from model.data.vocabulary import EXTRA_IDS, Vocabulary
from model.small_files import naming_option, require_local
from model.text_table import text_table
from pipelines.corpus.reading import open_corpus
from pipelines.options import add_options, check_bounds, given_values, option
from pipelines.printing import fitted, print_lines, print_note

_MEASURED_CHARACTERS = 2_000_000  # of each language, for characters per piece
_SOURCE = re.compile(
    r"(?:(?P<name>[A-Za-z][A-Za-z0-9_-]*)=)?(?P<folder>.+?)(?::(?P<weight>[0-9.]+))?", re.DOTALL
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``c4 vocab``."""
    parser.epilog = (
        "The paper's vocabulary, from corpora of four languages at 10:1:1:1:\n\n"
        "  c4 vocab --corpus en=EN:10 --corpus de=DE --corpus fr=FR --corpus ro=RO \\\n"
        "    --output vocab.model\n\n"
        "The same corpora and options give the same file, on any machine."
    )
    add_options(parser, _Options, "corpora", "output")
    add_options(parser, VocabularyOptions, "size")
    add_options(parser, _Options, "extra_ids", "sample_characters")
    add_options(parser, VocabularyOptions, "character_coverage")
    add_options(parser, _Options, "seed", "overwrite")


def parse_source(text: str) -> TextSource:
    """Return the corpus that ``[NAME=]DIR[:WEIGHT]`` names.

    Raises ValueError for a weight that is not a number, or a folder without a finished corpus.
    """
    match = _SOURCE.fullmatch(text)
    if match is None:
        raise ValueError(f"a corpus is given as [NAME=]DIR[:WEIGHT], got {text!r} (--corpus)")
    try:
        weight = float(match["weight"] or 1)
    except ValueError:
        raise ValueError(
            f"a weight must be a number, got {match['weight']!r} in {text!r} (--corpus)"
        ) from None
    folder = match["folder"]
    name = match["name"] or folder.rstrip("/").rpartition("/")[2]
    with naming_option("--corpus"):
        corpus = open_corpus(folder)
    return TextSource(name, corpus.split(), weight)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options:
    """What to train on, and where to write."""

    corpora: Sequence[TextSource] = option(
        "what c4 build wrote, the name of its language and its weight in the sample, by "
        "characters (default: the folder's name, 1); repeat for more corpora",
        "--corpus", metavar="[NAME=]DIR[:WEIGHT]", action="append",
        read=lambda texts: [parse_source(text) for text in texts],
    )  # fmt: skip
    output: str = option("file to write, with a report FILE.json", metavar="FILE")
    extra_ids: int = option(
        "sentinels above the pieces: as many as a text may have noise spans",
        default=EXTRA_IDS, metavar="N", least=0, most=100_000,
    )  # fmt: skip
    sample_characters: int = option(
        "how much text to train on, all corpora together", default=100_000_000, metavar="N", least=1
    )
    seed: int = option("seed of the sample", default=0, least=0)
    overwrite: bool = option("replace FILE and its report if they exist", default=False)

    def __post_init__(self) -> None:
        check_bounds(self)
        require_local(self.output, "--output")


def run(arguments: argparse.Namespace) -> int:
    """Draw the sample, train, write the model and its report, and print the report."""
    options = VocabularyOptions(**given_values(arguments, VocabularyOptions))
    asked = _Options(**given_values(arguments, _Options))
    output = pathlib.Path(asked.output).absolute()
    report_path = output.with_name(output.name + ".json")
    for path in (output, report_path):
        if path.exists() and not (asked.overwrite and path.is_file()):  # a device stays, too
            raise ValueError(f"{path} exists already: give another file, or --overwrite (--output)")
    output.parent.mkdir(parents=True, exist_ok=True)
    # Beside the output: what cannot be written there is found now, not after training.
    with tempfile.TemporaryDirectory(
        dir=output.parent, prefix=f".{output.name}.", suffix=".tmp", ignore_cleanup_errors=True
    ) as folder:
        work = pathlib.Path(folder)
        with _Progress("sample", asked.sample_characters, " characters") as shown:
            samples = text_sample.draw(
                asked.corpora, asked.sample_characters, asked.seed, work, shown.add
            )
        _print_shortage(samples, asked.sample_characters)
        began = time.monotonic()
        with _Progress("train", 100, "%") as shown:
            content = train_vocabulary.train(
                samples, options, work, lambda stage, done: shown.at(100 * done, stage)
            )
        trained_s = time.monotonic() - began
        model = work / "vocab.model"
        usual = asked.extra_ids == EXTRA_IDS
        model.write_bytes(
            content if usual else with_notes(content, Notes(extra_ids=asked.extra_ids))
        )
        vocabulary = Vocabulary(model)
        report = {
            "pieces": vocabulary.pieces,
            "sentinels": vocabulary.extra_ids,
            "embedding_rows": vocabulary.padded_size,
            "sha256": vocabulary.sha256,
            "seed": asked.seed,
            "character_coverage": options.character_coverage,
            "sentencepiece": sentencepiece.__version__,
            "training_s": round(trained_s, 1),
            "corpora": {sample.source.name: _measured(sample, vocabulary) for sample in samples},
        }
        written = work / "report.json"
        written.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")
        os.replace(model, output)
        os.replace(written, report_path)
    _print_report(str(asked.output), report)
    return 0


def _print_shortage(samples: Sequence[Sample], wanted: int) -> None:
    characters = sum(sample.characters for sample in samples)
    if characters >= wanted - len(samples):  # shares are rounded
        return
    shortest = min(samples, key=lambda sample: sample.found / sample.source.weight)
    why = ", to keep the weights" if len(samples) > 1 else ""
    print_note(
        f"{shortest.source.name} has {shortest.found:,} characters, all of which are used; the "
        f"sample is {characters:,} of the {wanted:,} characters asked for{why}"
    )


def _measured(sample: Sample, vocabulary: Vocabulary) -> dict[str, Any]:
    lines = list(sample.lines(_MEASURED_CHARACTERS))
    characters = sum(len(line) for line in lines)
    ids = vocabulary.encode_batch(lines)
    pieces = sum(len(line) for line in ids)
    unknown = sum(int((line == vocabulary.unk_id).sum()) for line in ids)
    return {
        "folder": sample.source.corpus.folder,
        "pages": sample.source.corpus.page_count,
        "digest": sample.source.corpus.digest,
        "weight": sample.source.weight,
        "characters": sample.characters,
        "characters_per_piece": round(characters / max(1, pieces), 4),
        "unknown_pieces_per_million": round(1e6 * unknown / max(1, pieces), 1),
        "measured_on_characters": characters,
    }


def _print_report(path: str, report: dict[str, Any]) -> None:
    print_lines(
        f"{path}: {report['pieces']:,} pieces and {report['sentinels']} sentinels, "
        f"{report['embedding_rows']:,} embedding rows"
    )
    rows = [("corpus", "weight", "characters", "characters per piece", "unknown per million")]
    for name, corpus in report["corpora"].items():
        rows.append(
            (
                name,
                f"{corpus['weight']:g}",
                f"{corpus['characters']:,}",
                f"{corpus['characters_per_piece']:.3f}",
                f"{corpus['unknown_pieces_per_million']:,.1f}",
            )
        )
    print(*(f"  {line}" for line in text_table(rows, right=range(1, 5))), sep="\n")


class _Progress:
    """A bar on a terminal, a line every ten seconds in a log; on standard error."""

    def __init__(self, what: str, total: int, unit: str, stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stderr
        self._what, self._total, self._unit = what, total, unit
        self._done, self._stage = 0.0, ""
        self._began = self._printed = time.monotonic()
        self._bar: tqdm[None] | None = None
        if self._stream.isatty():
            percent = unit == "%"
            self._bar = tqdm(
                total=total,
                desc=what,
                unit=unit,
                unit_scale=not percent,
                bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
                if percent
                else None,
                file=self._stream,
                dynamic_ncols=True,
            )

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        elif kind is None:
            self._print(f"done in {tqdm.format_interval(time.monotonic() - self._began)}")

    def add(self, count: int) -> None:
        """Add to what is done."""
        self.at(self._done + count)

    def at(self, done: float, stage: str = "") -> None:
        """Set how much is done, and the name of the current stage."""
        step = done - self._done
        self._done, self._stage = done, stage
        if self._bar is not None:
            if stage:
                self._bar.set_postfix_str(stage, refresh=False)
            self._bar.update(step)
        elif time.monotonic() - self._printed >= 10:
            elapsed = time.monotonic() - self._began
            left = elapsed * (self._total - done) / done if done > 0 else 0
            more = f", about {tqdm.format_interval(left)} left" if done > 0 else ""
            self._print(f"{100 * done / self._total:.0f} %{', ' if stage else ''}{stage}{more}")

    def _print(self, text: str) -> None:
        self._printed = time.monotonic()
        print(fitted(f"{self._what}: {text}", stream=self._stream), file=self._stream, flush=True)
