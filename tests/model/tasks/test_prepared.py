"""Prepared data, a user's own pairs, and examples from libraries."""

import json
import os
import pathlib
import pickle
import tempfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.tasks import TASKS, task
from model.tasks.prepared import Prepared, prepare, prepared_tasks
from model.tasks.sources.libraries import (
    holds_hugging_face,
    read_hugging_face,
    read_hugging_face_folder,
    read_tfds,
)
from model.tasks.sources.pairs import read_pairs

RECORD = TASKS["super_glue_record"].sample
WSC = TASKS["super_glue_wsc"].sample


def test_every_sample_is_prepared_and_read_back(tmp_path):
    for name, entry in TASKS.items():
        rows = [(split, entry.sample) for split in entry.splits]
        made = prepare(name, rows, tmp_path, "samples")
        assert made.splits == dict.fromkeys(entry.splits, 1)
        for split in entry.splits:
            assert list(made.raws(split)) == [entry.sample]
            assert list(made.pairs(split)) == entry.examples(entry.sample, split)
    assert prepared_tasks(tmp_path) == list(TASKS)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(TASKS)


def test_pairs_are_indexed_where_examples_have_none_or_several(tmp_path):
    answers = [["A"], ["B", "C", "D"], ["E", "F"]]
    raws = [{**RECORD, "answers": names} for names in answers]
    record = prepare("super_glue_record", [("train", raw) for raw in raws], tmp_path, "x")
    pairs = record.pairs("train")
    assert [target for _, target in pairs] == [pairs[i][1] for i in range(6)] == list("ABCDEF")
    assert pairs[-1][1] == "F"
    assert [target for _, target in pairs[1:3]] == ["B", "C"]
    assert pickle.loads(pickle.dumps(pairs))[3] == pairs[3]
    with pytest.raises(IndexError):
        pairs[6]

    rows = [("train", {**WSC, "label": n % 2, "idx": n}) for n in range(7)]
    wsc = prepare("super_glue_wsc", rows, tmp_path, "x")
    assert len(wsc.raws("train")) == 7
    assert len(wsc.pairs("train")) == len(list(wsc.pairs("train"))) == 3
    assert wsc.raws("train")[-1]["idx"] == 6
    assert [raw["idx"] for raw in wsc.raws("train")[2:4]] == [2, 3]


def test_the_form_is_chosen_when_the_data_is_read(tmp_path):
    prepare("super_glue_copa", [("train", TASKS["super_glue_copa"].sample)], tmp_path, "x")
    assert Prepared(tmp_path, "super_glue_copa").pairs("train")[0][1] == "choice1"
    assert Prepared(tmp_path, "super_glue_copa", "paper").pairs("train")[0][1] == "False"


def test_a_limit_holds_for_each_split(tmp_path):
    rows = [(split, TASKS["squad"].sample) for split in ["train", "validation"] * 5]
    assert prepare("squad", rows, tmp_path, "x", limit=3).splits == {"train": 3, "validation": 3}


def test_a_bad_example_is_named_and_nothing_is_left(tmp_path):
    good = TASKS["glue_cola"].sample
    with pytest.raises(ValueError, match=r"^train example 1: glue_cola: label 5 is none of"):
        prepare("glue_cola", [("train", good), ("train", {**good, "label": 5})], tmp_path, "x")
    with pytest.raises(ValueError, match="no examples of glue_cola"):
        prepare("glue_cola", [], tmp_path, "x")
    assert list(tmp_path.iterdir()) == []


def test_half_a_surrogate_pair_is_no_text(tmp_path):
    rows = [("train", {"inputs": text, "targets": "x"}) for text in ("a", "\ud800")]
    with pytest.raises(ValueError, match=r"train example 1: half of a surrogate pair"):
        prepare("own", rows, tmp_path, "test")
    assert list(tmp_path.iterdir()) == []


def test_prepared_data_is_not_overwritten(tmp_path):
    rows = [("train", TASKS["glue_cola"].sample)]
    prepare("glue_cola", rows, tmp_path, "x")
    with pytest.raises(ValueError, match="exists already"):
        prepare("glue_cola", rows, tmp_path, "x")


def test_absent_and_damaged_data_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"has no data of squad: c4 tasks prepare squad"):
        Prepared(tmp_path, "squad")
    made = prepare("squad", [("train", TASKS["squad"].sample)] * 2, tmp_path, "x")
    with pytest.raises(ValueError, match="has no split 'test': train"):
        made.raws("test")
    path = tmp_path / "squad" / "train.jsonl"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"{", b"[", 1))
    with pytest.raises(ValueError, match=r"train\.jsonl: line 1 is damaged"):
        Prepared(tmp_path, "squad").raws("train")[0]
    path.write_bytes(content[:-100])
    with pytest.raises(ValueError, match="has 1 lines instead of 2: prepare the task again"):
        Prepared(tmp_path, "squad").raws("train")
    (tmp_path / "squad" / "task.json").write_text('{"splits": [1]}')
    with pytest.raises(ValueError, match=r"task\.json: damaged"):
        Prepared(tmp_path, "squad")


@settings(max_examples=30)
@given(st.lists(st.tuples(st.text(), st.text()), max_size=8))
def test_pairs_come_back_as_they_were_written(rows):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "mine.jsonl")
        lines = [json.dumps({"inputs": a, "targets": b}) + "\n" for a, b in rows]
        path.write_text("".join(lines), "utf-8")
        assert [(raw["inputs"], raw["targets"]) for raw in read_pairs(path)] == rows
        if rows:
            made = prepare("own", (("train", raw) for raw in read_pairs(path)), folder, "x")
            assert list(made.pairs("train")) == rows
            assert [made.pairs("train")[n] for n in range(len(rows))] == rows


PAIRS = [{"inputs": 'a "b', "targets": "x"}, {"inputs": "c", "targets": "y, z"}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.tsv", 'inputs\ttargets\na "b\tx\n\nc\ty, z\n'),
        ("p.tsv", '\ufefftargets\tid\tinputs\r\nx\t1\ta "b\r\ny, z\t2\tc'),
        ("p.csv", 'inputs,targets\n"a ""b",x\nc,"y, z"\n'),
        ("p.jsonl", '{"inputs": "a \\"b", "targets": "x"}\n\n{"targets": "y, z", "inputs": "c"}'),
    ],
)
def test_own_pairs_are_read_from_each_format(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content.encode())
    assert list(read_pairs(path)) == PAIRS


def test_a_csv_field_may_hold_a_line_break(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text('inputs,targets\n"two\nlines",x\n')
    assert list(read_pairs(path)) == [{"inputs": "two\nlines", "targets": "x"}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.tsv", "", r"p.tsv: the first line must be a header"),
        ("p.tsv", "a\tb\n", "a header with the columns inputs and targets"),
        ("p.tsv", "inputs\ttargets\na\tb\tc\n", r"p.tsv: row 2 has 3 columns, the header 2"),
        ("p.csv", 'inputs,targets\n"a,b\n', r"p.csv: line 2: no CSV: unexpected end"),
        ("p.jsonl", '{"inputs": "a"}\n', "row 1: an example has no field 'targets'"),
        ("p.jsonl", '{"inputs": "a", "targets": 3}\n', "row 1: field 'targets' must be text"),
        ("p.parquet", "", "read from .tsv, .csv or .jsonl files"),
    ],
)
def test_other_files_are_refused(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        list(read_pairs(path))


def hub_rows():
    entry = TASKS["wmt_ende"].sample
    return {
        "glue_cola": [TASKS["glue_cola"].sample] * 3,
        "super_glue_multirc": [TASKS["super_glue_multirc"].sample],
        "super_glue_record": [{**RECORD, "entity_spans": {"text": ["x"]}}],
        "squad": [TASKS["squad"].sample],
        "wmt_ende": [{"translation": entry}],
    }


@pytest.mark.parametrize("name", hub_rows())
def test_parquet_as_the_hub_lays_it_out_is_read(tmp_path, name):
    rows, config = hub_rows()[name], task(name).source.hub[1] or "plain_text"
    for folder in (config, "another"):
        (tmp_path / folder).mkdir()
        table = pa.Table.from_pylist(rows if folder == config else [{"x": 1}])
        pq.write_table(table, tmp_path / folder / "train-00000-of-00001.parquet")
    if not task(name).source.hub[1]:
        (tmp_path / "another" / "train-00000-of-00001.parquet").unlink()
    assert holds_hugging_face(tmp_path)
    found = list(read_hugging_face_folder(task(name), tmp_path))
    assert [split for split, _ in found] == ["train"] * len(rows)
    sample = task(name).sample
    assert [{key: raw[key] for key in sample} for _, raw in found] == [sample] * len(rows)


@pytest.mark.slow
def test_what_save_to_disk_writes_is_read(tmp_path):
    datasets = pytest.importorskip("datasets", reason="needs the extra tasks")
    columns = {key: [value] * 2 for key, value in TASKS["squad"].sample.items()}
    made = datasets.Dataset.from_dict(columns)
    datasets.DatasetDict({"train": made, "validation": made, "extra": made}).save_to_disk(tmp_path)
    found = list(read_hugging_face_folder(task("squad"), tmp_path))
    assert [split for split, _ in found] == ["train"] * 2 + ["validation"] * 2
    assert all(raw == TASKS["squad"].sample for _, raw in found)


def test_a_hugging_face_folder_without_the_split_or_damaged_is_named(tmp_path):
    path = tmp_path / "other-00000-of-00001.parquet"
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(ValueError, match="no split train or validation; found other"):
        list(read_hugging_face_folder(task("squad"), tmp_path))
    path.unlink()
    (tmp_path / "train.parquet").write_bytes(b"PAR1 junk")
    with pytest.raises(ValueError, match=r"train\.parquet: damaged: "):
        list(read_hugging_face_folder(task("squad"), tmp_path))


def test_the_hub_is_asked_by_name_and_for_data_only(monkeypatch):
    asked = []

    class FakeDatasets:
        @staticmethod
        def load_dataset(*words):
            asked.append(words)
            return {"train": [{"translation": {"en": "a", "ro": "b"}}], "unknown": []}

    monkeypatch.setitem(__import__("sys").modules, "datasets", FakeDatasets)
    assert list(read_hugging_face(task("wmt_enro"))) == [("train", {"en": "a", "ro": "b"})]
    assert asked == [("wmt/wmt16", "ro-en")]
    list(read_hugging_face(task("squad")))
    assert asked[-1] == ("rajpurkar/squad", None)


def test_a_missing_library_is_named(monkeypatch):
    for name, extra, read in (
        ("datasets", "tasks", read_hugging_face),
        ("tensorflow_datasets", "tfds", read_tfds),
    ):
        monkeypatch.setitem(__import__("sys").modules, name, None)
        with pytest.raises(ValueError, match=rf"needs {name}, .* extra {extra}"):
            list(read(task("squad")))


@pytest.mark.slow
def test_every_task_is_read_from_the_real_builders_features(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets", reason="needs the extra tfds")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name, entry in TASKS.items():
        with tfds.testing.mock_data(num_examples=2):
            rows = list(read_tfds(entry, str(tmp_path)))
        assert [split for split, _ in rows] == [split for split in entry.splits for _ in range(2)]
        for split, raw in rows:
            json.dumps(raw)
            assert set(entry.sample) == set(raw)
            if name not in ("glue_wnli", "super_glue_wsc"):  # made-up text has no pronouns
                for inputs, targets in entry.examples(raw, split):
                    assert isinstance(inputs, str)
                    assert isinstance(targets, str)
