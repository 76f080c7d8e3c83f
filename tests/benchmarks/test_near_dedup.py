"""The benchmark of near deduplication, on a few pages."""

import random

import pytest

from benchmarks import measure, near_dedup
from c4_filters import near

WORDS = [f"word{number}" for number in range(300)]


@pytest.fixture
def texts() -> list[str]:
    rng = random.Random(1)
    return [" ".join(rng.choices(WORDS, k=rng.randrange(40, 200))) for _ in range(30)]


def test_planted_copies_are_just_at_the_threshold(texts: list[str]) -> None:
    rng = random.Random(2)
    for text in texts:
        copy = near_dedup.planted_copy(text, 0.8, rng)
        found = near.similarity(near.shingles(text), near.shingles(copy))
        assert 0.8 <= found < 1.0


def test_recall_counts_planted_pairs(texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert near_dedup.recall(texts, 0.8, 60) > 0.9
    monkeypatch.setattr(near, "bands_for", lambda threshold: near.Bands(1, 40))
    assert near_dedup.recall(texts, 0.8, 60) < 0.5


def test_the_peers_are_measured_if_they_are_there(
    texts: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near_dedup, "peers", lambda hashes: {"a peer": lambda texts: None})
    for s_of_peer, passes in ((2.0, True), (0.5, False)):
        costs = {"ours": [1.0], "a peer": [s_of_peer]}
        monkeypatch.setattr(measure, "in_turn", lambda works, repeats, costs=costs: costs)
        assert near_dedup.measure(texts) is passes
    assert "a peer" in capsys.readouterr().out
