"""``README.md``: the card as Hugging Face reads it, by which ``datasets.load_dataset(OUT)`` works.

Fields and their values: huggingface/hub-docs, datasetcard.md. Without a card, ``load_dataset``
takes every file below the folder whose name has a word such as "train", "test" or "dev" for a
shard, and it cannot open a split of no examples at all; the card lists neither.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from pipelines.corpus.card.facts import Facts
from pipelines.corpus.dataset_info import with_examples
from pipelines.corpus.formats import shard_file_name
from pipelines.corpus.layout import shards_in_split

_SIZES = (  # below so many pages
    (1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"),
    (10_000_000_000, "1B<n<10B"), (100_000_000_000, "10B<n<100B"),
    (1_000_000_000_000, "100B<n<1T"),
)  # fmt: skip
_SHOWN_LANGUAGES = 20
_BAD_IN_CONFIG = re.compile(r"[<>:/\\|?*]")  # refused by datasets.BuilderConfig
_KINDS = {"language-probability": "float32", "source-offset": "int64"}  # of other than text


def pattern_of(split: str, shards: int, format: str) -> str:  # noqa: A002
    """Return the pattern of the shards of a split."""
    return shards_in_split(shard_file_name(split, 0, shards, format))[0]


def dataset_card(facts: Facts) -> str:
    """Return the content of ``README.md``."""
    # JSON is YAML, and needs no YAML library to be quoted right.
    header = [f"{key}: {_yaml(value)}" for key, value in _header(facts).items()]
    return "\n".join(["---", *header, "---", *_body(facts), ""])


def _yaml(value: Any) -> str:
    """Return a JSON value as YAML, which refuses or changes some signs that JSON allows."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(
        sign
        if sign.isprintable()
        else f"\\U{ord(sign):08x}"
        if sign > "\uffff"
        else f"\\u{ord(sign):04x}"
        for sign in text
    )


def _header(facts: Facts) -> dict[str, Any]:
    licence = facts.licence
    header: dict[str, Any] = {"pretty_name": facts.name}
    codes = list(dict.fromkeys(code.split("-")[0] for code in facts.languages))
    if codes:
        header["language"] = codes
        header["multilinguality"] = ["monolingual" if len(codes) == 1 else "multilingual"]
    header["license"] = licence.name if licence.is_known else "other"
    if not licence.is_known:
        header |= {"license_name": licence.name, "license_link": licence.url}
    header |= {
        "task_categories": ["text-generation", "fill-mask"],
        "task_ids": ["language-modeling", "masked-language-modeling"],
        "source_datasets": ["original"],
        "annotations_creators": ["no-annotation"],
        "language_creators": ["found"],
        "size_categories": [_size(facts.pages)],
    }
    if facts.owner.keywords:
        header["tags"] = list(facts.owner.keywords)
    kind, filled = facts.read_by_others, with_examples(facts.splits)
    if kind is None or not filled:
        return header
    files = [
        {"split": split, "path": pattern_of(split, len(shards), kind)}
        for split, shards in filled.items()
    ]
    config_name = _BAD_IN_CONFIG.sub("-", facts.config_name)
    header["configs"] = [{"config_name": config_name, "data_files": files}]
    info: dict[str, Any] = {
        "config_name": config_name,
        "features": [{"name": name, "dtype": _KINDS.get(name, "string")} for name in facts.columns],
    }
    if facts.sums:
        info["splits"] = [
            {
                "name": split,
                "num_bytes": facts.sums[split].text_bytes,
                "num_examples": facts.sums[split].pages,
            }
            for split in filled
        ]
        info["dataset_size"] = facts.text_bytes
    header["dataset_info"] = info
    return header


def _size(pages: int) -> str:
    return next((name for most, name in _SIZES if pages < most), "n>1T")


def _body(facts: Facts) -> Iterator[str]:
    owner, origin = facts.owner, facts.origin
    yield from (f"# {facts.name}", "", facts.text, "")
    yield from ("| split | pages |", "|---|---|")
    for split, shards in facts.splits.items():
        yield f"| {split} | {sum(n for _, n, _ in shards):,} |"
    yield from ("", "```python")
    if "tfrecord" in facts.formats:
        yield "import tensorflow_datasets as tfds"
        yield 'tfds.builder_from_directory("PATH/OF/THIS/FOLDER").as_dataset(split="train")'
    if facts.read_by_others is not None:
        yield from ("import datasets", 'datasets.load_dataset("PATH/OF/THIS/FOLDER")')
    yield from ("```", "", "## Where the text comes from", "")
    yield f"- Source: {facts.where}. `manifest.json` lists each file with its SHA-256."
    if facts.newest:
        yield f"- Pages are dated from {facts.oldest} to {facts.newest}."
    if facts.sums:
        yield (
            f"- {facts.pages_read:,} pages were read and {facts.pages:,} kept, with "
            f"{facts.text_bytes:,} bytes of text. `manifest.json` counts what each rule dropped."
        )
    if facts.languages:
        yield f"- Pages by language: {_languages(facts)}."
    made_by = f" of colossal-c4 {facts.version}" if facts.version else ""
    yield (
        f"- Made with the recipe `{facts.config_name}`{made_by}, whose rules are in "
        "`manifest.json`; C4 is described in Raffel et al., JMLR 21(140), 2020."
    )
    if facts.opt_out:
        yield f"- Pages on an opt-out list (SHA-256 {facts.opt_out}) were left out."
    yield from ("", "## Licence", "")
    licence = facts.licence
    what = "The corpus as a database" if not owner.license else "The corpus"
    if licence.url:
        yield f"{what} is under [{licence.name}]({licence.url})."
    else:
        yield "The owner has not named a licence (`--card`)."
    if origin.terms:
        yield f"[{origin.terms_name}]({origin.terms}) apply too."
    yield "Each page remains its author's."
    yield from ("", "## Personal data", "")
    yield (
        "Pages are as their authors published them: names, addresses and other personal data in "
        "them were not removed."
    )
    if owner.creator or owner.contact or owner.url:
        yield from ("", "## Contact", "")
        by = f"[{owner.creator}]({owner.creator_url})" if owner.creator_url else owner.creator
        yield from (f"- {part}" for part in (by, owner.contact, owner.url) if part)
    if owner.citation:
        yield from ("", "## Citation", "", *(f"    {line}" for line in owner.citation.split("\n")))


def _languages(facts: Facts) -> str:
    ordered = sorted(facts.languages.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{code} {pages:,}" for code, pages in ordered[:_SHOWN_LANGUAGES]]
    rest = ordered[_SHOWN_LANGUAGES:]
    more = [f"{len(rest)} others {sum(pages for _, pages in rest):,}"] if rest else []
    return ", ".join([*shown, *more])
