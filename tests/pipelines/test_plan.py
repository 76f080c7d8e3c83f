"""The model of `c4 plan`: what it must get right whatever the rates are."""

import dataclasses

import pytest

from pipelines.plan import Engine, Fleet, OlderWork, Plan, Profile, Rates, Stage, Work, make_plan
from pipelines.stages.merge_files import plan_merge
from pipelines.stages.write_shards import plan_shards

CRAWL = Work(56_000, 2.5e9, Profile())
FLEET = Fleet(500, 4, 16.0)


def stage(plan: Plan, name: str) -> Stage:
    [found] = [stage for stage in plan.stages if stage.name == name]
    return found


def test_the_stages_are_those_of_the_build_in_its_order() -> None:
    plan = make_plan(CRAWL, FLEET)
    assert [stage.name for stage in plan.stages] == [
        *("clean", "urls of files", "urls by bucket", "spans of files", "spans by bucket"),
        *("removals", "merge", "write"),
    ]
    few = make_plan(Work(100, 4e6, Profile()), FLEET)
    assert [stage.name for stage in few.stages][-2:] == ["removals", "write"]
    assert few.pieces == 0
    assert few.disk_bytes["merged"] == 0


def test_shards_and_pieces_are_those_that_the_build_would_choose() -> None:
    plan = make_plan(CRAWL, FLEET, shards=1024)
    text = round(CRAWL.of("kept_bytes"))
    merge = plan_merge(56_000, text, len(plan_shards(text, 1024)))
    assert merge is not None
    assert (plan.shards, plan.pieces) == (1024, merge.groups * merge.ranges)
    assert stage(plan, "write").tasks == 1024 + 8
    assert stage(plan, "merge").tasks == plan.pieces


def test_twice_the_pages_are_twice_the_work_and_twice_the_bytes() -> None:
    """Beyond what depends on the number of buckets and shards."""
    one = make_plan(Work(1_000, 4e7, Profile()), FLEET)
    two = make_plan(Work(2_000, 8e7, Profile()), FLEET)
    for name in ("clean", "removals"):
        assert stage(two, name).cpu_s == pytest.approx(2 * stage(one, name).cpu_s)
    for folder in ("cleaned", "fingerprints", "removals", "shards"):
        assert two.disk_bytes[folder] == pytest.approx(2 * one.disk_bytes[folder])
    assert two.total("shuffle_bytes") == pytest.approx(2 * one.total("shuffle_bytes"), rel=0.02)


def test_older_corpora_cost_their_way_through_deduplication_and_nothing_else() -> None:
    alone = make_plan(CRAWL, FLEET)
    older = OlderWork(5_000, CRAWL.of("kept_pages"), CRAWL.of("units"))
    grown = make_plan(CRAWL, FLEET, older=older)
    changed = {
        one.name for one, other in zip(alone.stages, grown.stages, strict=True) if one != other
    }
    assert changed == {"urls of files", "urls by bucket", "spans of files", "spans by bucket"}
    assert stage(grown, "spans of files").tasks == 56_000 + 5_000
    assert grown.buckets == pytest.approx(2 * alone.buckets, abs=1)
    assert grown.disk_bytes == alone.disk_bytes


def test_more_workers_take_less_time_and_the_same_cpu() -> None:
    plans = [make_plan(CRAWL, Fleet(n, 4, 16.0)) for n in (50, 100, 200, 400)]
    assert len({round(plan.total("cpu_s")) for plan in plans}) == 1
    walls = [plan.wall_s for plan in plans]
    assert walls == sorted(walls, reverse=True)
    # But no plan is quicker than its start and the gaps between its stages.
    engine = FLEET.engine
    crowd = make_plan(CRAWL, Fleet(10**6, 4, 16.0))
    assert crowd.wall_s > engine.start_s + engine.stage_s * len(crowd.stages)
    assert [plan.busy for plan in plans] == sorted((plan.busy for plan in plans), reverse=True)


def test_a_stage_waits_for_its_longest_task() -> None:
    def clean(fleet: Fleet) -> Stage:
        return stage(make_plan(Work(10, 1e6, Profile()), fleet), "clean")

    engine = Engine(start_s=0, stage_s=0, longest_task=1.5)
    busy = clean(Fleet(1, 1, 16.0, engine)).busy_s
    assert clean(Fleet(1, 1, 16.0, engine)).wall_s == pytest.approx(busy * 1.05)
    assert clean(Fleet(1, 5, 16.0, engine)).wall_s == pytest.approx(busy / 4)
    # Ten tasks keep no more than ten processes busy.
    assert clean(Fleet(100, 5, 16.0, engine)).wall_s == pytest.approx(busy * 0.15)
    slow = clean(Fleet(1, 1, 16.0, engine, cpu_factor=2.0))
    assert slow.cpu_s == pytest.approx(2 * clean(Fleet(1, 1, 16.0, engine)).cpu_s)
    assert slow.busy_s == pytest.approx(busy + slow.cpu_s / 2)


def test_requests_cost_time_and_cpu_but_not_on_a_disk_of_ones_own() -> None:
    fleet = dataclasses.replace(FLEET, local=True)
    here, there = make_plan(CRAWL, fleet), make_plan(CRAWL, FLEET)
    assert here.total("class_a") == here.total("class_b") == 0
    requests = there.total("class_a") + there.total("class_b")
    assert requests > 56_000 * 10
    moved = there.total("read_bytes") + there.total("written_bytes")
    assert there.total("cpu_s") - here.total("cpu_s") == pytest.approx(
        requests * Rates().request_cpu_s + moved * Rates().request_byte_s
    )
    assert there.wall_s > here.wall_s


def test_merging_is_what_keeps_requests_down() -> None:
    plan = make_plan(CRAWL, FLEET, shards=1024)
    unmerged = 56_000 * 1_032 * 3
    assert stage(plan, "merge").class_b + stage(plan, "write").class_b < unmerged / 10


def test_larger_shards_take_more_memory() -> None:
    few, many = (make_plan(CRAWL, FLEET, shards=shards) for shards in (128, 4096))
    assert few.widest.name == "write"
    assert stage(few, "write").process_bytes > 4 * stage(many, "write").process_bytes


@pytest.mark.parametrize("rate", [field.name for field in dataclasses.fields(Rates)])
def test_every_rate_counts(rate: str) -> None:
    more = dataclasses.replace(Rates(), **{rate: 2 * getattr(Rates(), rate)})
    fleet = dataclasses.replace(FLEET, local=rate.startswith("local_"))
    assert make_plan(CRAWL, fleet, Rates()).stages != make_plan(CRAWL, fleet, more).stages


@pytest.mark.parametrize("amount", [field.name for field in dataclasses.fields(Profile)])
def test_every_amount_of_a_profile_counts(amount: str) -> None:
    profile = dataclasses.replace(Profile(), **{amount: getattr(Profile(), amount) * 1.01})
    after = make_plan(Work(56_000, 2.5e9, profile), FLEET)
    assert make_plan(CRAWL, FLEET).stages != after.stages


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Engine)])
def test_every_assumption_counts_but_the_disk_which_is_only_paid_for(name: str) -> None:
    engine = dataclasses.replace(Engine(), **{name: getattr(Engine(), name) * 1.5})
    after = dataclasses.replace(FLEET, engine=engine)
    same = make_plan(CRAWL, FLEET).paid_s == make_plan(CRAWL, after).paid_s
    same &= FLEET.process_bytes == after.process_bytes
    assert same == (name == "disk_gb")
