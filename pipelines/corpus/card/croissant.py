"""``croissant.json``: the card in Croissant 1.1, which data set search engines read.

Terms: docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html and its vocabulary for responsible
use of data (RAI). ``mlcroissant validate --jsonld croissant.json`` checks it.
"""

import json
from typing import Any

from pipelines.corpus.card.facts import Facts
from pipelines.corpus.card.hugging_face import pattern_of
from pipelines.corpus.dataset_info import with_examples
from pipelines.corpus.formats import format_named

_DEFAULT_VERSION = "1.0.0"
_CITATION = (
    "Raffel et al., Exploring the Limits of Transfer Learning with a Unified Text-to-Text "
    "Transformer, Journal of Machine Learning Research 21(140), 2020"
)
#: The context that the specification gives for version 1.1.
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_TYPES = {
    "language-probability": "sc:Float",
    "source-offset": "sc:Integer",
}
_WHAT_FIELDS_ARE = {
    "text": "The lines of the page that the rules kept.",
    "url": "The address of the page, as Common Crawl wrote it.",
    "timestamp": "When Common Crawl fetched the page (WARC-Date).",
    "content-type": "Content-Type of the WET record.",
    "content-length": "Content-Length of the WET record, as a text.",
    "language": "Code of the detected language.",
    "language-probability": "Its probability, as the detector gives it.",
    "source-file": "The WET file of the page's record.",
    "source-offset": "The byte of that file where the record's gzip member begins.",
    "record-id": "The UUID of the record (WARC-Record-ID).",
}


def croissant(facts: Facts) -> bytes:
    """Return the content of ``croissant.json``."""
    owner = facts.owner
    links = filter(None, (facts.licence.url, facts.origin.terms))
    licences = list(dict.fromkeys(links)) or [facts.licence.name]
    creator = {"@type": "sc:Organization", "name": owner.creator or "not stated (c4 build --card)"}
    if owner.creator_url:
        creator["url"] = owner.creator_url
    content: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": facts.name,
        "description": facts.text,
        "url": facts.url,
        "license": licences,
        "creator": creator,
        "version": owner.version or _DEFAULT_VERSION,
        "isLiveDataset": False,
        "keywords": list(owner.keywords) or ["C4", "Common Crawl", "language modeling"],
        "citeAs": owner.citation or _CITATION,
        "datePublished": facts.newest,
        "inLanguage": list(dict.fromkeys(code.split("-")[0] for code in facts.languages)),
        "rai:dataCollection": _collection(facts),
        "rai:dataLimitations": (
            "Rules are heuristic: some pages of another language, machine text and advertising "
            "remain, and lists of bad words drop some harmless pages."
        ),
        "rai:personalSensitiveInformation": (
            "Pages are as their authors published them; personal data was not removed."
        ),
        "distribution": [_files(facts, format_name) for format_name in facts.formats],
    }
    record_sets = _record_sets(facts)
    if record_sets:
        content["recordSet"] = record_sets
    content = {name: value for name, value in content.items() if value not in ("", [])}
    return json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n"


def _collection(facts: Facts) -> str:
    when = f" with dates from {facts.oldest} to {facts.newest}" if facts.newest else ""
    return (
        f"Pages of {facts.where}{when}, reduced by the recipe {facts.config_name} of colossal-c4 "
        f"{facts.version}, whose rules and counts are in manifest.json."
    )


def _files(facts: Facts, format_name: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": f"{format_name}-files",
        "name": f"{format_name}-files",
        "description": f"All shards as {format_name}; manifest.json has the SHA-256 of each.",
        "encodingFormat": format_named(format_name).media_type,
        "includes": [
            pattern_of(split, len(shards), format_name) for split, shards in facts.splits.items()
        ],
    }


def _record_sets(facts: Facts) -> list[dict[str, Any]]:
    kind, filled = facts.read_by_others, with_examples(facts.splits)
    if kind is None or not filled:
        return []
    files = {"@id": f"{kind}-files"}
    # The timestamps of other sources are whatever text they have.
    types = {**_TYPES, "timestamp": "sc:DateTime" if facts.has_dates else "sc:Text"}
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"pages/{name}",
            "name": name,
            "description": _WHAT_FIELDS_ARE[name],
            "dataType": types.get(name, "sc:Text"),
            "source": {"fileSet": files, "extract": {"column": name}},
        }
        for name in facts.columns
    ]
    split = {
        "@type": "cr:Field",
        "@id": "pages/split",
        "name": "split",
        "description": "The split of the page, by the name of its file.",
        "dataType": "sc:Text",
        "references": {"field": {"@id": "splits/name"}},
        "source": {
            "fileSet": files,
            "extract": {"fileProperty": "fullpath"},
            "transform": {"regex": r"(?:.*/)?(train|validation)(?:-[^/]*)?$"},
        },
    }
    splits = {
        "@type": "cr:RecordSet",
        "@id": "splits",
        "name": "splits",
        "dataType": "cr:Split",
        "key": {"@id": "splits/name"},
        "field": [
            {
                "@type": "cr:Field",
                "@id": "splits/name",
                "name": "name",
                "dataType": "sc:Text",
            }
        ],
        "data": [{"splits/name": name} for name in filled],
    }
    pages = {
        "@type": "cr:RecordSet",
        "@id": "pages",
        "name": "pages",
        "description": "The pages of all splits.",
        "field": [split, *fields],
    }
    return [splits, pages]
