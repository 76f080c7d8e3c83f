"""``c4 plan`` as a user runs it, its tables, and a corpus as a model for another."""

import json
import pathlib
import re
import shutil
import socket
from typing import Any

import pytest

from pipelines import c4_main
from pipelines.corpus.cleaned import CLEANED_SCHEMA, CleanedFile, write_cleaned
from pipelines.measured_corpus import measured_corpus
from pipelines.plan import Engine
from pipelines.plan_tables import known_crawl, read_tables
from samples.make_samples import WET_DIR
from testing.helpers import run_c4

CRAWL = ("plan", "--crawl", "CC-MAIN-2019-18")
SAMPLES = f"{WET_DIR}/sample-0*"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("c4 plan must ask no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def as_json(*words: str | pathlib.Path) -> dict[str, Any]:
    done = run_c4(*words, "--json")
    assert done.status == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def refused(*words: str | pathlib.Path) -> str:
    done = run_c4("plan", *words)
    assert (done.status, done.out) == (1, "")
    [line] = done.err.splitlines()
    return line


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("plan") / "corpus"
    words = ["build", "--input", SAMPLES, "--output", str(folder), "--quiet"]
    assert c4_main.main(words) == 0
    return folder


def test_the_plan_of_the_papers_crawl() -> None:
    done = run_c4(*CRAWL, "--workers", "500", "--machine", "n2-standard-4")
    assert (done.status, done.err) == (0, "")
    assert "56,000 WET files, 7.0 TB, 2,497.8 M pages, on 500 x n2-standard-4" in done.out
    for stage in ("clean", "spans by bucket", "merge", "write", "start", "total"):
        assert re.search(rf"^{stage} ", done.out, re.M), stage
    assert "335 CPU-days" in done.out
    assert "which change" in done.out
    assert max(map(len, done.out.splitlines())) <= 120
    [days] = re.findall(r"this is (\d+\.\d)", done.out)
    assert 1 < float(days) < 34  # a tenth of the reference's


def test_json_holds_what_people_are_told() -> None:
    plan = as_json(*CRAWL, "--workers", "500")
    assert plan["files"] == 56_000
    assert plan["usd"]["total"] == pytest.approx(
        sum(usd for what, usd in plan["usd"].items() if what != "total")
    )
    assert plan["cpu_s"] == pytest.approx(sum(stage["cpu_s"] for stage in plan["stages"]))
    shown = run_c4(*CRAWL, "--workers", "500").out
    assert f"cost: ${plan['usd']['total']:,.2f}" in shown
    assert plan["prices"]["vcpu_hour"]["source"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", plan["prices"]["class_a_1000"]["date"])


def test_files_alone_are_files_like_that_crawls() -> None:
    known, files = as_json(*CRAWL), as_json("plan", "--files", "56000")
    assert files["pages"] == pytest.approx(known["pages"])
    assert files["cpu_s"] == pytest.approx(known["cpu_s"], rel=0.01)
    # 900 files and 90,000: what a first try, and a large crawl, would ask.
    assert as_json("plan", "--files", "900")["cpu_s"] < files["cpu_s"] / 50
    assert as_json("plan", "--files", "90000")["cpu_s"] > files["cpu_s"] * 1.5


def test_files_of_a_crawl_are_given_as_to_a_build() -> None:
    whole, some = as_json(*CRAWL), as_json(*CRAWL, "--files", "0:20")
    assert some["files"] == 20
    assert some["pages"] == pytest.approx(whole["pages"] * 20 / 56_000, rel=1e-5)
    assert some["stored_bytes"] == pytest.approx(whole["stored_bytes"] * 20 / 56_000, rel=1e-5)
    assert as_json(*CRAWL, "--files", "20") == as_json(*CRAWL, "--files", "30:50") == some
    assert as_json(*CRAWL, "--files", "55990:")["files"] == 10
    assert as_json(*CRAWL, "--files", "55990:99999")["files"] == 10
    assert as_json("plan", "--files", "5:25") == as_json("plan", "--files", "20")
    shown = run_c4(*CRAWL, "--files", "0:2000").out  # no measure is the whole crawl's
    assert "for that many pages" in shown


def test_what_to_plan_is_asked_for_once() -> None:
    for words in ((), ("--files", "9", "--input", "a"), (*CRAWL[1:], "--input", "a")):
        done = run_c4("plan", *words)
        assert done.status == 2
        assert "--input" in done.err


def test_input_counts_files_and_bytes(tmp_path: pathlib.Path) -> None:
    plan = as_json("plan", "--input", SAMPLES, "--workers", "1")
    paths = list(WET_DIR.glob("sample-0*"))
    listed = tmp_path / "mine.paths"
    listed.write_text("".join(f"{path.name}\n" for path in paths))
    for path in paths:
        (tmp_path / path.name).symlink_to(path)
    assert as_json("plan", "--input", f"@{listed}", "--workers", "1") == plan
    assert plan["files"] == len(paths)
    assert plan["stored_bytes"] == pytest.approx(
        sum(path.stat().st_size for path in paths), rel=0.01
    )


def test_each_option_changes_the_plan() -> None:
    base = as_json(*CRAWL)
    assert as_json(*CRAWL, "--workers", "50")["wall_s"] > base["wall_s"]
    assert as_json(*CRAWL, "--shards", "2048")["shards"] == 2048
    both = as_json(*CRAWL, "--format", "parquet,json")
    assert both["disk_bytes"]["shards"] > 2 * base["disk_bytes"]["shards"]
    slow = as_json(*CRAWL, "--cpu-factor", "2")
    assert slow["wall_s"] > base["wall_s"]
    assert slow["cpu_s"] == pytest.approx(2 * base["cpu_s"])
    assert re.search(r"this is (\d+)", run_c4(*CRAWL, "--cpu-factor", "10").out)[1] == str(
        int(base["cpu_s"] / 8_640)
    )
    assert as_json(*CRAWL, "--machine", "n2-standard-8")["wall_s"] < base["wall_s"]


@pytest.mark.slow
def test_an_older_corpus_adds_its_fingerprints(corpus: pathlib.Path) -> None:
    alone, grown = (
        as_json("plan", "--files", "3", *more) for more in ((), ("--against", str(corpus)))
    )
    files = len(list((corpus / "fingerprints").iterdir()))
    for one, other in zip(alone["stages"], grown["stages"], strict=True):
        more = files if one["name"] in ("urls of files", "spans of files") else 0
        assert other["tasks"] == one["tasks"] + more
    assert grown["cpu_s"] > alone["cpu_s"]
    assert refused("--files", "3", "--against", str(corpus.parent)).endswith(" (--against)")


def test_a_small_plan_is_in_small_units() -> None:
    out = run_c4("plan", "--files", "1", "--workers", "1", "--shards", "1").out
    first, second, *_ = out.splitlines()
    assert first == "1 WET file, 125 MB, 44,604 pages, on 1 x n2-standard-4 and an object store"
    assert second == "4 processes, 3.6 GB each"
    assert ", 1 train shard\n" in out
    assert "335" not in out  # CPU-days of a whole crawl are no measure for it
    assert not re.search(r"\b0\.0 ?[Mhs]", out)
    # Stages below an hour in seconds, also where others take hours.
    table = run_c4("plan", "--files", "999").out
    assert re.search(r"^clean .* [\d.]+h ", table, re.M)
    assert re.search(r"^removals .* [\d.]+s ", table, re.M)
    assert "335" not in table
    assert "335" in run_c4("plan", "--files", "1000").out


@pytest.mark.parametrize("files", ["1", "999", "56000", "1000000", "10000000"])
@pytest.mark.parametrize("factor", ["1", "1000"])
def test_the_table_has_80_columns(files: str, factor: str) -> None:
    words = ("--files", files, "--cpu-factor", factor, "--machine", "n2-highmem-4")
    table = run_c4("plan", *words).out
    rows = table.split("\n\n")[1].splitlines()
    assert len(rows) > 7
    assert {len(row) for row in rows} == {80}


@pytest.mark.parametrize("files", ["1", "3000000"])
def test_the_columns_of_the_table_stay_apart(files: str) -> None:
    out = run_c4("plan", "--files", files, "--machine", "n2-highmem-8").out
    rows = out.split("\n\n")[1].splitlines()
    assert len({len(row) for row in rows}) == 1
    name = max(map(len, re.findall(r"^(?:urls|spans) \w+ \w+", out, re.M)))
    for row in rows:
        assert len(row[name:].split()) == (1 if row.startswith("start") else 9)
        assert row[name] == " "


def test_no_more_shards_are_advised_than_there_can_be() -> None:
    words = ("--files", "10000000", "--machine", "n2-standard-4")
    lines = [run_c4("plan", *words, "--shards", shards).err for shards in ("99998", "99999")]
    assert "stage write" in lines[0]
    assert "stage write" in lines[1]
    assert "or more shards (--shards)" in lines[0]
    assert "--shards" not in lines[1]


def test_too_many_workers_are_told_of() -> None:
    out = run_c4(*CRAWL, "--workers", "4000").out
    [workers] = re.findall(r"([\d,]+) workers would take", out)
    assert 100 < int(workers.replace(",", "")) < 4000
    assert "would take" not in run_c4(*CRAWL, "--workers", "20").out


def test_prices_of_ones_own(tmp_path: pathlib.Path) -> None:
    table = tmp_path / "mine.toml"
    table.write_text(
        "[prices.vcpu_hour]\nusd = 1.0\ndate = 2030-01-01\n"
        "[machines]\nmine = [2, 9]\n[engine]\nstart_s = 0\n"
    )
    base = as_json(*CRAWL)
    mine = as_json(*CRAWL, "--prices", table, "--machine", "mine", "--workers", "200")
    assert mine["wall_s"] < base["wall_s"]
    assert mine["usd"]["vCPUs"] == pytest.approx(mine["paid_s"] / 3600 * 400)
    assert mine["prices"]["vcpu_hour"]["date"] == "2030-01-01"
    assert "2030-01-01" in run_c4(*CRAWL, "--prices", table).out
    # What is left out stays as it is packaged.
    assert mine["prices"]["shuffle_gb"] == base["prices"]["shuffle_gb"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--crawl", "CC-MAIN-1999-01"), ("CC-MAIN-1999-01", "--files N")),
        (("--files", "0"), ("--files",)),
        (("--files", "20:9"), ("--files", "20:9")),
        (("--files", "9:"), ("--files A:B", "--crawl")),
        (("--files", "x"), ("--files", "'x'")),
        (("--crawl", "CC-MAIN-2019-18", "--files", "56000:"), ("56,000 WET files", "--files")),
        (("--files", "9", "--workers", "0"), ("--workers",)),
        (("--files", "9", "--machine", "n2-standard-44"), ("n2-standard-4", "--machine")),
        (("--files", "9", "--shards", "many"), ("--shards",)),
        (("--files", "9", "--format", "csv"), ("csv",)),
        (("--files", "9", "--cpu-factor", "-1"), ("--cpu-factor",)),
        (("--files", "9", "--cpu-factor", "1001"), ("--cpu-factor", "1000")),
        (("--files", "10000001"), ("--files", "10,000,000")),
        (("--files", "9", "--workers", "100001"), ("--workers", "100,000")),
        (("--files", "9", "--shards", "\u0664"), ("--shards", "99999")),
        (("--files", "9", "--shards", "9" * 5000), ("--shards", "99999")),
        (("--files", "9", "--shards", "0"), ("--shards", "99999")),
        (("--input", ""), ("no input", "--input")),
        (("--input", SAMPLES, ""), ("no input", "--input")),
        (("--files", "9", "--like", ""), ("--like is empty",)),
        (("--files", "9", "--like", "nowhere"), ("nowhere", "--like")),
        (("--files", "9", "--prices", "nowhere.toml"), ("nowhere.toml",)),
        (("--input", "nowhere/*.gz"), ("nowhere",)),
        (("--crawl", "CC-MAIN-2019-18", "--machine", "n2-highcpu-4"), ("GB", "--machine")),
        (("--crawl", "CC-MAIN-2019-18", "--shards", "64"), ("GB", "--shards")),
    ],
)
def test_refusals_are_one_line_with_the_way_out(
    words: tuple[str, ...], said: tuple[str, ...]
) -> None:
    line = refused(*words)
    for part in said:
        assert part in line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[price]\n", "unknown entry price, outside of the tables; did you mean prices?"),
        ("prices = 3\n", "[prices] must be a table"),
        ("[prices.vcpu_hours]\nusd = 1\n", "did you mean vcpu_hour?"),
        ("[prices.nothing]\n", "there are vcpu_hour, memory_gb_hour"),
        ("[prices.vcpu_hour]\nabc = 2\n", "unknown entry abc in [prices.vcpu_hour]; there are usd"),
        ("[prices.vcpu_hour]\nusdd = 2\n", "did you mean usd?"),
        ("[prices.vcpu_hour]\nusd = -1\n", "usd must be a number from 0 to 1e+12, got -1"),
        ("[prices.vcpu_hour]\nusd = true\n", "usd must be a number"),
        (f"[prices.vcpu_hour]\nusd = 1{'0' * 400}\n", "usd must be a number"),
        ("[prices.vcpu_hour]\ndate = 12:30:00\n", "date must be text"),
        ("[machines]\nmine = [true, 4]\n", "machines.mine must be [vCPUs, GB of memory]"),
        ("[machines]\nmine = [2, nan]\n", "mine: GB must be a number"),
        ("[machines]\nmine = [2, 1e13]\n", "mine: GB"),
        ("[machines]\nmine = [10_000_000_000_000, 8]\n", "mine: vCPUs"),
        ("[machines]\nmine = [0, 4]\n", "mine: vCPUs"),
        ("[engine]\nstart = 3\n", "unknown entry start in [engine]"),
        ("[engine]\nlongest_task = 0.5\n", "longest_task must be a number from 1 to"),
        ("[engine]\nstart_s = inf\n", "start_s"),
        ("[engine]\nbytes_per_s = 1e-300\n", "bytes_per_s"),
        (f"[machines]\nmine = {'[' * 5000}", "nested too deep"),
        (f"# {'x' * (1 << 20)}\n", "larger than 1 MB"),
        ("[engine\n", "mine.toml: "),
        ("\xff", "not UTF-8"),
    ],
)
def test_a_bad_table_is_told_in_one_line(text: str, said: str, tmp_path: pathlib.Path) -> None:
    table = tmp_path / "mine.toml"
    table.write_bytes(text.encode("latin-1"))
    line = refused("--files", "9", "--prices", table)
    assert said in line
    assert str(table) in line
    assert line.endswith("(--prices)")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nowhere.toml", "No such file"),
        (".", "directory"),
        ("/dev/zero", "not a regular file"),
    ],
)
def test_what_is_no_file_is_no_table(path: str, said: str) -> None:
    line = refused("--files", "9", "--prices", path)
    assert path in line
    assert said in line
    assert line.endswith("(--prices)")


def test_a_table_moves_no_terminal(tmp_path: pathlib.Path) -> None:
    table = tmp_path / "mine.toml"
    table.write_text(
        '[prices.shuffle_gb]\ndate = "9\\u001b[31m"\n'
        '[prices.vcpu_hour]\ndate = "0\\u001b[32m"\n[machines]\n"a\\u001bb" = [2, 9]\n'
    )
    done = run_c4("plan", "--files", "9", "--prices", table, "--machine", "a\x1bb")
    assert done.status == 0
    assert "0·[32m to 9·[31m" in done.out
    assert "a·b" in done.out
    assert "\x1b" not in done.out


def test_the_largest_that_is_allowed_is_still_a_number(tmp_path: pathlib.Path) -> None:
    table = tmp_path / "mine.toml"
    dear = "".join(f"[prices.{name}]\nusd = 1_000_000_000_000\n" for name in read_tables().prices)
    table.write_text(
        f"{dear}[machines]\nmine = [1000, 1_000_000_000_000]\n[engine]\nstart_s = 1e12\n"
        "stage_s = 1e12\nrequest_s = 1e12\nbytes_per_s = 1\ndisk_gb = 1e12\nreserved_gb = 0\n"
        "longest_task = 1e12\n"
    )
    words = ["--files", "10000000", "--workers", "100000", "--cpu-factor", "1000"]
    words += ["--machine", "mine", "--prices", table]
    done = run_c4("plan", *words, "--json")
    assert done.status == 0, done.err
    json.loads(done.out, parse_constant=pytest.fail)  # Infinity, NaN
    assert run_c4("plan", *words).status == 0


def test_every_table_that_is_packaged_is_whole() -> None:
    tables = read_tables()
    assert tables.engine == Engine()
    assert tables.machine("n2-standard-4").vcpus == 4
    assert all(price.source and price.date for price in tables.prices.values())
    for name in ("CC-MAIN-2018-34", "CC-MAIN-2019-09", "CC-MAIN-2019-18"):
        crawl = known_crawl(name)
        assert 20_000 < crawl.pages / crawl.files < 70_000
        assert 50e6 < crawl.stored_bytes / crawl.files < 200e6


@pytest.mark.slow
def test_a_corpus_is_a_model_for_more_of_the_same(corpus: pathlib.Path) -> None:
    like = measured_corpus(str(corpus))
    made = json.loads((corpus / "manifest.json").read_text())
    plan = as_json("plan", "--input", SAMPLES, "--like", corpus, "--workers", "1")
    assert plan["pages"] == pytest.approx(made["counts"]["pages_read"], abs=1)
    clean = next(stage for stage in plan["stages"] if stage["name"] == "clean")
    requests = (clean["class_a"] + clean["class_b"]) * like.rates.request_cpu_s
    moved = (clean["read_bytes"] + clean["written_bytes"]) * like.rates.request_byte_s
    cleaning_s = made["timing"]["clean_cpu_s"]
    assert clean["cpu_s"] - requests - moved == pytest.approx(cleaning_s, rel=0.01)
    shards = sum(shard["bytes"] for shard in made["shards"])
    assert plan["disk_bytes"]["shards"] == pytest.approx(shards, rel=0.02)
    cleaned = sum(path.stat().st_size for path in (corpus / "cleaned").glob("*.arrow"))
    assert plan["disk_bytes"]["cleaned"] == pytest.approx(cleaned, rel=0.01)
    # More files of the same: in proportion.
    more = as_json("plan", "--files", "5000", "--like", corpus)
    assert more["pages"] == pytest.approx(5000 * like.pages / like.files, rel=0.01)


@pytest.mark.slow
def test_a_known_crawl_keeps_its_bytes_whatever_a_corpus_has(corpus: pathlib.Path) -> None:
    like = measured_corpus(str(corpus))
    crawl = known_crawl("CC-MAIN-2019-18")
    plan = as_json(*CRAWL, "--like", corpus)
    assert plan["stored_bytes"] == pytest.approx(crawl.stored_bytes)
    assert plan["pages"] == crawl.pages
    longer = crawl.stored_bytes / crawl.pages / like.profile.stored_bytes
    for name in ("text_bytes", "kept_bytes", "units", "written_bytes"):
        assert plan["profile"][name] == pytest.approx(getattr(like.profile, name) * longer)
    assert plan["profile"]["kept_pages"] == like.profile.kept_pages


@pytest.mark.slow
def test_a_corpus_of_much_shorter_pages_is_told_of_once(corpus: pathlib.Path) -> None:
    assert measured_corpus(str(corpus)).profile.stored_bytes < 1400  # the samples' pages are short
    done = run_c4(*CRAWL, "--like", corpus)
    assert done.status == 0
    [line] = done.err.splitlines()
    assert line.startswith("c4: note: ")
    assert "--like" in line
    assert "--like" not in done.out  # no advice to do what was done
    assert "--like CORPUS" in run_c4(*CRAWL).out
    assert run_c4("plan", "--files", "9", "--like", corpus).err == ""


DAMAGED_MANIFESTS = [
    *[("counts.pages_read", value) for value in (None, "many", 0, -5, 10**400)],
    *[("settings.formats", value) for value in ([], [["parquet"]], "parquet")],
    *[("inputs", value) for value in ({"a": 1}, [])],
    *[(name, None) for name in ("inputs.0.bytes", "settings", "shards.0.split", "timing")],
    ("counts", []),
    ("splits", 3),
    ("splits.train.text_bytes", float("nan")),
    ("inputs.0.path", 7),
    ("shards.0.bytes", "x"),
    ("timing.clean_cpu_s", float("nan")),
    ("timing.write_cpu_s", float("inf")),
]


@pytest.mark.parametrize(("place", "value"), DAMAGED_MANIFESTS)
def test_a_damaged_manifest_is_one_line(
    place: str, value: Any, corpus: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    tree = made = json.loads((corpus / "manifest.json").read_text())
    *way, last = [int(part) if part.isdigit() else part for part in place.split(".")]
    for part in way:
        tree = tree[part]
    if value is None:
        del tree[last]
    else:
        tree[last] = value
    (tmp_path / "manifest.json").write_text(json.dumps(made))
    (tmp_path / "cleaned").symlink_to(corpus / "cleaned")
    line = refused("--files", "9", "--like", tmp_path)
    assert "manifest.json" in line
    assert line.endswith("(--like)")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (None, None),
        *[("units", value) for value in (None, "many", -1, 10**20)],
        ("cpu_s", float("nan")),
        ("pages_kept", 10**9),
        ("pages_dropped", {"bad_words": 0.5}),
        ("pages_dropped", {"bad_words": -1}),
        ("colour", "red"),
    ],
)
def test_a_damaged_head_is_one_line(
    name: str | None, value: Any, corpus: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    folder = tmp_path / "corpus"
    shutil.copytree(corpus, folder)
    path = min((folder / "cleaned").glob("*.arrow"))
    with CleanedFile(str(path)) as file:
        summary = file.summary
    if name is None:
        del summary["file"]
    else:
        summary["file"][name] = value
    write_cleaned(str(path), CLEANED_SCHEMA.empty_table(), summary)
    line = refused("--files", "9", "--like", folder)
    assert path.name in line
    assert line.endswith("(--like)")


def test_a_corpus_without_cleaned_files_is_no_model(
    corpus: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "manifest.json").write_bytes((corpus / "manifest.json").read_bytes())
    assert "is gone: --like needs" in refused("--files", "9", "--like", tmp_path)
