"""The requests of a build on an object store: their number, and the plan's figure for them."""

import re

import pytest

from benchmarks.requests import KINDS, count_requests
from pipelines.plan import Fleet, Profile, Work, make_plan


@pytest.mark.slow
@pytest.mark.parametrize("pages", [12, 5000], ids=["small-files", "files-of-several-batches"])
def test_requests_are_those_that_a_build_makes(pages: int) -> None:
    pytest.importorskip("obstore", reason="needs the extra gcp")
    files, shards = (40, 8) if pages == 12 else (4, 4)
    counted = count_requests(files, shards, pages)
    profile = Profile(stored_bytes=500.0, kept_pages=1.0, kept_bytes=160.0, units=3.0)
    plan = make_plan(Work(files, files * pages, profile), Fleet(1, 1, 16.0), shards=shards)
    # Beside what a build of any size asks for: the manifest, the card, what is in the folder.
    of_files = re.compile(r"wet/N|out/(cleaned|fingerprints|removals)/N|out/(train|validation)-")
    own = {
        kind: sum(
            count
            for (each, place), count in counted.places.items()
            if each == kind and of_files.match(place)
        )
        for kind in KINDS
    }
    published = shards + 1  # each after a listing and a read of who owns the folder
    assert plan.total("class_b") == pytest.approx(own["GET"] + own["HEAD"] + published, rel=0.15)
    assert plan.total("class_a") == pytest.approx(own["PUT"] + published, rel=0.15)
    assert counted.total - sum(own.values()) < 140
    if pages == 12:  # 2,045 before files were opened by one request, and kept open
        assert counted.total <= 620
