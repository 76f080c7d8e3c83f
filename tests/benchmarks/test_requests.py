"""The requests of a build on an object store: their number, and the plan's figure for them."""

import pytest

from benchmarks.requests import TEXT_BYTES, count_requests, pieces_of
from pipelines.plan import Fleet, Profile, Work, make_plan

#: Files, shards, pages of a file, merged pieces.
FEW = (40, 8, 12, 0)
LARGE = (4, 4, 5000, 0)  # of several batches, and longer than what one read of their end fetches
MERGED = (80, 32, 12, 6)


@pytest.mark.slow
@pytest.mark.parametrize("case", [FEW, LARGE, MERGED], ids=["few", "large", "merged"])
def test_requests_are_those_that_a_build_makes(case: tuple[int, int, int, int]) -> None:
    pytest.importorskip("obstore", reason="needs the extra gcp")
    files, shards, pages, pieces = case
    of_piece = files * pages * TEXT_BYTES // pieces if pieces else 1 << 40
    with pieces_of(of_piece):
        counted = count_requests(files, shards, pages)
        profile = Profile(stored_bytes=500.0, kept_pages=1.0, kept_bytes=TEXT_BYTES, units=3.0)
        plan = make_plan(Work(files, files * pages, profile), Fleet(1, 1, 16.0), shards=shards)
    assert (plan.pieces > 1) == (pieces > 1)
    # Beside what a build of any size asks for: the manifest, the card, what is in the folder.
    own = counted.of_files
    published = shards + 1  # each after a listing and a read of who owns the folder
    assert plan.total("class_b") == pytest.approx(own["GET"] + own["HEAD"] + published, rel=0.15)
    assert plan.total("class_a") == pytest.approx(own["PUT"] + published, rel=0.15)
    assert counted.total - sum(own.values()) < 140 + 2 * published
    if case == FEW:  # 2,045 before files were opened by one request, and kept open
        assert counted.total <= 620
