"""Small corpora of numbered pages, and a vocabulary whose ids are the numbers in them."""

import json

import numpy as np
import pyarrow as pa

from pipelines.corpus.formats import FORMATS, shard_file_name, write_table

FIRST_ID = 10  # of the number 0


class NumberVocabulary:
    """Texts are numbers with blanks between them; number n is id 10 + n."""

    pad_id, eos_id, unk_id = 0, 1, 2

    def __init__(self, numbers=900, extra_ids=100):
        self.size = FIRST_ID + numbers + extra_ids
        self.extra_ids = extra_ids

    def encode(self, text):
        return [3 if word == "target:" else FIRST_ID + int(word) for word in text.split()]

    def encode_batch(self, texts):
        return [np.array(self.encode(text.decode()), np.int32) for text in texts]


def page_table(texts):
    n = len(texts)
    others = {
        "url": "https://example.org/",
        "timestamp": "2024-01-01T00:00:00Z",
        "content_type": "text/plain",
        "content_length": "1",
        "language": None,
    }
    columns = {name: pa.array([value] * n, pa.string()) for name, value in others.items()}
    probability = {"language_probability": pa.nulls(n, pa.float32())}
    return pa.table({"text": pa.array(texts, pa.string())} | columns | probability)


def make_corpus(folder, shards, formats=("parquet",)):
    """``shards``: split -> texts of each of its shards. The manifest is one written by hand."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = []
    for split, of_split in shards.items():
        for index, texts in enumerate(of_split):
            for kind in formats:
                name = shard_file_name(split, index, len(of_split), kind)
                assert kind in FORMATS
                with open(folder / name, "wb") as file:
                    write_table(kind, page_table(texts), file)
                listed.append({"name": name, "split": split, "format": kind, "pages": len(texts)})
    (folder / "manifest.json").write_text(json.dumps({"shards": listed}))
    return str(folder)


def numbered(counts, seed=0, longest=40):
    """Shards of ``counts`` pages; page n says n, and says it up to ``longest`` times."""
    lengths = np.random.default_rng(seed).integers(2, longest + 1, sum(counts)).tolist()
    pages = [" ".join([str(number)] * length) for number, length in enumerate(lengths)]
    ends = np.cumsum(counts).tolist()
    return [pages[end - count : end] for end, count in zip(ends, counts, strict=True)]
