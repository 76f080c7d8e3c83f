"""The sample task: its files are what its script makes, and its splits are apart."""

from model.tasks.sources.pairs import read_pairs
from samples.make_task import FOLDER, rows


def test_files_are_what_the_script_makes():
    for name, pairs in zip(("train", "validation"), rows(), strict=True):
        found = read_pairs(FOLDER / f"reviews-{name}.tsv")
        assert [(row["inputs"], row["targets"]) for row in found] == pairs


def test_splits_share_no_sentence_and_labels_are_balanced():
    train, validation = rows()
    assert not {text for text, _ in train} & {text for text, _ in validation}
    for pairs in (train, validation):
        good = sum(label == "good" for _, label in pairs)
        assert 0.4 < good / len(pairs) < 0.6
