"""Raw examples from files in the layouts that tasks are published in."""

import gzip
import hashlib
import io
import json
import pathlib
import re
import tarfile
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.tasks import TASKS, task
from model.tasks.sources.published import expected_files, read_published

DOWNSTREAM = pathlib.Path(__file__).resolve().parents[3].parent / "shared" / "downstream"
if not DOWNSTREAM.is_dir():
    DOWNSTREAM = pathlib.Path(__file__).resolve().parents[4] / "shared" / "downstream"
needs_downstream = pytest.mark.skipif(
    not DOWNSTREAM.is_dir(), reason="no ../shared/downstream here"
)


def read(name, path, split=None):
    """The raw examples of each split; all of them read as the task does."""
    found = {}
    for part, raw in read_published(task(name), path, split):
        assert part in task(name).splits
        assert task(name).examples(raw)
        found.setdefault(part, []).append(raw)
    return found


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return folder


def zipped(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


GLUE = {
    "glue_cola": (
        "CoLA",
        {
            "train.tsv": 'gj04\t1\t\tIt "rained.\ncj99\t0\t*\tRained it\n',
            "dev.tsv": "gj04\t1\t\tYes.\n",
            "test.tsv": "index\tsentence\n0\tNo.\n",
            "original/raw/in_domain_train.tsv": "x\t1\t\tNot this.\n",
        },
        {
            "train": [
                {"sentence": 'It "rained.', "label": 1, "idx": 0},
                {"sentence": "Rained it", "label": 0, "idx": 1},
            ],
            "validation": [{"sentence": "Yes.", "label": 1, "idx": 0}],
            "test": [{"sentence": "No.", "label": -1, "idx": 0}],
        },
    ),
    "glue_sst2": (
        "SST-2",
        {
            "train.tsv": "sentence\tlabel\na fine film \t1\n",
            "dev.tsv": "sentence\tlabel\na bad film \t0\n",
            "test.tsv": "index\tsentence\n0\tfilm\n",
        },
        {
            "train": [{"sentence": "a fine film ", "label": 1, "idx": 0}],
            "validation": [{"sentence": "a bad film ", "label": 0, "idx": 0}],
            "test": [{"sentence": "film", "label": -1, "idx": 0}],
        },
    ),
    "glue_mrpc": (
        "MRPC",
        {
            "msr_paraphrase_train.txt": "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n"
            "1\t10\t11\tA\tB\r\n0\t12\t13\tC\tD\r\n",
            "msr_paraphrase_test.txt": "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
            "1\t1\t2\tE\tF\n",
            "dev_ids.tsv": "12\t13\n",
        },
        {
            "train": [{"sentence1": "A", "sentence2": "B", "label": 1, "idx": 0}],
            "validation": [{"sentence1": "C", "sentence2": "D", "label": 0, "idx": 1}],
            "test": [{"sentence1": "E", "sentence2": "F", "label": 1, "idx": 0}],
        },
    ),
    "glue_stsb": (
        "STS-B",
        {"train.tsv": "index\tgenre\tsentence1\tsentence2\tscore\n0\tnews\tA\tB\t3.750\n"},
        {"train": [{"sentence1": "A", "sentence2": "B", "label": 3.75, "idx": 0}]},
    ),
    "glue_qqp": (
        "QQP",
        {
            "train.tsv": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
            "0\t1\t2\tA?\tB?\t1\n1\t3\t4\tcut\n2\t5\t6\tC?\tD?\t\n3\t7\t8\tE?\tF?\t0\n",
        },
        {
            "train": [  # rows that lack columns or a label are left out, as in TFDS
                {"question1": "A?", "question2": "B?", "label": 1, "idx": 0},
                {"question1": "E?", "question2": "F?", "label": 0, "idx": 3},
            ]
        },
    ),
    "glue_mnli": (
        "MNLI",
        {
            "train.tsv": "index\tsentence1\tsentence2\tgold_label\n0\tP\tH\tneutral\n",
            "dev_matched.tsv": "index\tsentence1\tsentence2\tgold_label\n0\tP\tH\tentailment\n",
            "dev_mismatched.tsv": "sentence1\tsentence2\tgold_label\nP\tH\tcontradiction\n",
            "test_matched.tsv": "index\tsentence1\tsentence2\n0\tP\tH\n",
            "test_mismatched.tsv": "index\tsentence1\tsentence2\n0\tP\tH\n",
        },
        {
            "train": [{"premise": "P", "hypothesis": "H", "label": 1, "idx": 0}],
            "validation_matched": [{"premise": "P", "hypothesis": "H", "label": 0, "idx": 0}],
            "validation_mismatched": [{"premise": "P", "hypothesis": "H", "label": 2, "idx": 0}],
            "test_matched": [{"premise": "P", "hypothesis": "H", "label": -1, "idx": 0}],
            "test_mismatched": [{"premise": "P", "hypothesis": "H", "label": -1, "idx": 0}],
        },
    ),
    "glue_qnli": (
        "QNLI",
        {"dev.tsv": "index\tquestion\tsentence\tlabel\n0\tQ\tS\tnot_entailment\n"},
        {"validation": [{"question": "Q", "sentence": "S", "label": 1, "idx": 0}]},
    ),
    "glue_rte": (
        "RTE",
        {"train.tsv": "index\tsentence1\tsentence2\tlabel\n0\tA\tB\tentailment\n"},
        {"train": [{"sentence1": "A", "sentence2": "B", "label": 0, "idx": 0}]},
    ),
    "glue_wnli": (
        "WNLI",
        {"dev.tsv": "index\tsentence1\tsentence2\tlabel\n0\tAnn saw it.\tAnn saw the hat.\t1\n"},
        {
            "validation": [
                {"sentence1": "Ann saw it.", "sentence2": "Ann saw the hat.", "label": 1, "idx": 0}
            ]
        },
    ),
    "glue_ax": (
        "AX",
        {"AX.tsv": "index\tsentence1\tsentence2\n0\tP\tH\n"},
        {"test": [{"premise": "P", "hypothesis": "H", "label": -1, "idx": 0}]},
    ),
}
PREMISE = {"premise": "P", "hypothesis": "H"}
SUPER_GLUE = {
    "super_glue_boolq": (
        "BoolQ",
        {"question": "q", "passage": "p", "idx": 4, "label": True},
        {"question": "q", "passage": "p", "idx": 4, "label": 1},
    ),
    "super_glue_cb": (
        "CB",
        PREMISE | {"label": "neutral", "idx": 0},
        PREMISE | {"label": 2, "idx": 0},
    ),
    "super_glue_copa": (
        "COPA",
        {"premise": "P", "choice1": "A", "choice2": "B", "question": "cause", "label": 1, "idx": 0},
        {"premise": "P", "choice1": "A", "choice2": "B", "question": "cause", "label": 1, "idx": 0},
    ),
    "super_glue_multirc": (
        "MultiRC",
        {
            "idx": 1,
            "passage": {
                "text": "T",
                "questions": [
                    {"question": "Q", "idx": 2, "answers": [{"text": "A", "idx": 3, "label": 0}]}
                ],
            },
        },
        {"paragraph": "T", "question": "Q", "answer": "A", "label": 0}
        | {"idx": {"paragraph": 1, "question": 2, "answer": 3}},
    ),
    "super_glue_record": (
        "ReCoRD",
        {
            "idx": 1,
            "passage": {
                "text": "Bob met Ann. Bob won.",
                "entities": [{"start": at, "end": at + 2} for at in (8, 0, 13)],
            },
            "qas": [
                {
                    "query": "@placeholder won",
                    "idx": 2,
                    "answers": [{"text": "Bob"}, {"text": "Bob"}],
                }
            ],
        },
        {"passage": "Bob met Ann. Bob won.", "query": "@placeholder won"}
        | {"entities": ["Ann", "Bob"], "answers": ["Bob"], "idx": {"passage": 1, "query": 2}},
    ),
    "super_glue_rte": (
        "RTE",
        PREMISE | {"label": "entailment", "idx": 0},
        PREMISE | {"label": 0, "idx": 0},
    ),
    "super_glue_wic": (
        "WiC",
        {"word": "w", "sentence1": "A", "sentence2": "B", "idx": 0, "label": False}
        | {"start1": 0, "start2": 1, "end1": 2, "end2": 3, "version": 1.1},
        {"word": "w", "sentence1": "A", "sentence2": "B", "idx": 0, "label": 0}
        | {"start1": 0, "start2": 1, "end1": 2, "end2": 3},
    ),
    "super_glue_wsc": (
        "WSC",
        {
            "text": "the man saw him again",
            "target": {
                "span1_text": "The man.",
                "span1_index": 0,
                "span2_text": "him",
                "span2_index": 3,
            },
            "idx": 0,
            "label": True,
        },
        {"text": "the man saw him again", "label": 1, "idx": 0}
        | {"span1_text": "the man", "span1_index": 0, "span2_text": "him", "span2_index": 3},
    ),
}


@pytest.mark.parametrize("name", GLUE)
@pytest.mark.parametrize("shape", ["zip", "folder", "folder of all"])
def test_glue_is_read_as_published(tmp_path, name, shape):
    folder, files, expected = GLUE[name]
    files = {f"{folder}/{file}": content for file, content in files.items()}
    if shape == "zip":
        files["__MACOSX/._x"] = "junk"
        path = zipped(tmp_path / f"{folder}.zip", files)
    else:
        path = write(tmp_path, files)
        if shape == "folder":
            path = path / folder
        else:
            write(tmp_path, {"Other/train.tsv": "a\tb\n", "Other/dev.tsv": "a\n"})
    assert read(name, path) == expected


@pytest.mark.parametrize("name", SUPER_GLUE)
def test_super_glue_is_read_as_published(tmp_path, name):
    folder, row, raw = SUPER_GLUE[name]
    line = json.dumps(row) + "\n"
    unlabelled = json.loads(line)
    unlabelled.pop("label", None)
    files = {
        f"{folder}/train.jsonl": line + "\n",
        f"{folder}/val.jsonl": line * 2,
        f"{folder}/test.jsonl": json.dumps(unlabelled),
    }
    found = read(name, zipped(tmp_path / f"{folder}.zip", files))
    assert found["train"] == [raw]
    assert found["validation"] == [raw] * 2
    if "label" in raw and name != "super_glue_multirc":
        assert found["test"] == [{**raw, "label": -1}]


@pytest.mark.parametrize(
    ("name", "folder", "fields"),
    [
        ("super_glue_axb", "AX-b", ("sentence1", "sentence2")),
        ("super_glue_axg", "AX-g", ("premise", "hypothesis")),
    ],
)
def test_the_diagnostics_are_read_as_published(tmp_path, name, folder, fields):
    row = dict.fromkeys(fields, "S") | {"label": "entailment", "idx": 0}
    path = zipped(tmp_path / f"{folder}.zip", {f"{folder}/{folder}.jsonl": json.dumps(row)})
    assert read(name, path) == {"test": [{**row, "label": 0}]}


def test_record_is_read_from_the_originals_document_too(tmp_path):
    row = SUPER_GLUE["super_glue_record"][1]
    document = {"version": "1.0", "data": [row, row]}
    write(tmp_path, {"dev.json": json.dumps(document)})
    first, second = read("super_glue_record", tmp_path)["validation"]
    assert first["answers"] == ["Bob"]
    assert [raw["idx"] for raw in (first, second)] == [
        {"passage": 0, "query": 0},
        {"passage": 1, "query": 1},
    ]


def test_boolq_is_read_in_its_own_layout_too(tmp_path):
    row = {"question": "q", "title": "t", "passage": "p", "answer": True}
    write(tmp_path, {"train.jsonl": json.dumps(row)})
    assert read("super_glue_boolq", tmp_path) == {
        "train": [{"question": "q", "passage": "p", "label": 1, "idx": 0}]
    }


SQUAD = {
    "data": [
        {
            "title": "T",
            "paragraphs": [
                {
                    "context": "C",
                    "qas": [
                        {"id": "1", "question": "Q", "answers": [{"text": "A", "answer_start": 0}]}
                    ],
                }
            ],
        }
    ]
}


def test_squad_groups_the_answers_of_an_id(tmp_path):
    def question(text, answer):
        return {"id": "7", "question": text, "answers": [{"text": answer, "answer_start": 0}]}

    paragraph = {"context": "C", "qas": [question("Q", "A"), question("Q", "B")]}
    document = {"data": [{"title": "T", "paragraphs": [paragraph]}]}
    write(tmp_path, {"dev-v1.1.json": json.dumps(document)})
    assert read("squad", tmp_path) == {
        "validation": [
            {"id": "7", "title": "T", "context": "C", "question": "Q"}
            | {"answers": {"text": ["A", "B"], "answer_start": [0, 0]}}
        ]
    }


def test_dpr_is_read_in_groups_of_five_lines(tmp_path):
    lines = [
        "Bob saw Tom; he left.",
        "he",
        "Bob, Tom",
        "Tom",
        "",
        "It is, it was.",
        "it",
        "A,B",
        "A",
    ]
    write(tmp_path, {"train.c.txt": "\n".join(lines)})
    assert read("dpr", tmp_path) == {
        "train": [
            {"sentence": lines[0], "pronoun": "he", "candidates": ["Bob", "Tom"], "label": 1},
            {"sentence": lines[5], "pronoun": "it", "candidates": ["A", "B"], "label": 0},
        ]
    }
    write(tmp_path, {"train.c.txt": "\n".join([*lines[:3], "Ann", ""])})
    with pytest.raises(ValueError, match=r"train.c.txt: line 4: 'Ann' is none of 'Bob, Tom'"):
        read("dpr", tmp_path)


STORY = "(CNN) Rain fell\n\nIt was wet. \n\n@highlight\n\nRain fell\n\n@highlight\n\nWet!\n"


def test_stories_are_split_by_the_lists_of_urls(tmp_path):
    urls = {"all_train.txt": "http://a", "all_val.txt": "http://b", "all_test.txt": "http://c"}
    write(tmp_path, {name: f"{url}\n" for name, url in urls.items()})
    ids = {url[-1]: hashlib.sha1(url.encode()).hexdigest() for url in urls.values()}
    write(tmp_path, {f"dailymail/stories/{ids['b']}.story": STORY, "cnn/0.story": STORY})
    with tarfile.open(tmp_path / "cnn_stories.tgz", "w:gz") as archive:
        for key, content in ((ids["a"], STORY), (ids["c"], "No highlights.\n")):
            info = tarfile.TarInfo(f"cnn/stories/{key}.story")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content.encode()))

    expected = {"article": "(CNN) Rain fell. It was wet.", "highlights": "Rain fell.\nWet!"}
    assert read("cnn_dailymail", tmp_path) == {
        "train": [expected | {"publisher": "cnn", "id": ids["a"]}],
        "validation": [expected | {"publisher": "dm", "id": ids["b"]}],
    }
    (tmp_path / "all_train.txt").unlink()
    (tmp_path / "all_val.txt").unlink()
    (tmp_path / "all_test.txt").unlink()
    with pytest.raises(ValueError, match=r"no all_train\.txt"):
        read("cnn_dailymail", tmp_path)


def test_translations_are_read_from_parallel_files(tmp_path):
    sgm = '<doc>\n<seg id="1">{}</seg>\n<seg id="2">{}</seg>\n</doc>\n'
    write(
        tmp_path,
        {
            "training/europarl-v7.de-en.de": "Eins\r\n\nDrei\rx\n",
            "training/europarl-v7.de-en.en": "One\r\nTwo\nThree\rx\n",
            "dev/newstest2013.de": "Vier\n",
            "dev/newstest2013.en": "Four\n",
            "dev/newstest2013.fr": "Quatre\n",
            "dev/newstest2014-deen-src.de.sgm": sgm.format("F\u00fcnf", "Sechs"),
            "dev/newstest2014-deen-ref.en.sgm": sgm.format("Five", "Six"),
            "dev/newstest2014-ende-src.en.sgm": sgm.format("Five", "Six"),
            "dev/newstest2014-ende-ref.de.sgm": sgm.format("F\u00fcnf", "Sechs"),
        },
    )
    (tmp_path / "commoncrawl.de-en.de.gz").write_bytes(gzip.compress(b"Sieben\n"))
    (tmp_path / "commoncrawl.de-en.en.gz").write_bytes(gzip.compress(b"Seven\n"))
    assert read("wmt_ende", tmp_path) == {
        "train": [
            {"en": "One", "de": "Eins"},
            {"en": "Three\rx", "de": "Drei\rx"},
            {"en": "Seven", "de": "Sieben"},
        ],
        "validation": [{"en": "Four", "de": "Vier"}],
        "test": [{"en": "Five", "de": "F\u00fcnf"}, {"en": "Six", "de": "Sechs"}],
    }
    write(tmp_path, {"dev/newstest2013.en": "Four\nFive\n"})
    with pytest.raises(ValueError, match=r"newstest2013\.de have not as many sentences"):
        read("wmt_ende", tmp_path)


@pytest.mark.parametrize(("name", "language"), [("wmt_enfr", "fr"), ("wmt_enro", "ro")])
def test_pairs_of_ones_own_names_are_read_as_translations(tmp_path, name, language):
    with tarfile.open(tmp_path / "pairs.tgz", "w:gz") as archive:
        for file, content in (("train.en", b"A\nB\n"), (f"train.{language}", b"C\nD\n")):
            info = tarfile.TarInfo(file)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    assert read(name, tmp_path) == {
        "train": [{"en": "A", language: "C"}, {"en": "B", language: "D"}]
    }


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        (
            "glue_rte",
            "train.tsv",
            "a\tb\n1\t2\n",
            "no column sentence1, sentence2 in ",
        ),
        ("glue_cola", "train.tsv", "just text\n", "not a file of this task"),
        ("glue_sst2", "train.tsv", "sentence\tlabel\nx\tGood!\n", "row 1: 'Good!' is no label"),
        ("glue_rte", "train.tsv", "sentence1\tsentence2\tlabel\n\udcff", "line 2: not UTF-8"),
        ("super_glue_cb", "train.jsonl", '{"premise": "p"}\n', "line 1 is no example: KeyError"),
        ("super_glue_cb", "train.jsonl", "\n[1]\n", "line 2: no JSON object"),
        ("super_glue_cb", "train.jsonl", "[" * 100_000, "line 1: no JSON object"),
        ("super_glue_record", "train.json", '{"data": [{}]}', "not in ReCoRD's layout"),
        ("squad", "train-v1.1.json", '{"data": 3}', "not in SQuAD's layout"),
        ("squad", "train-v1.1.json", "[]", "no JSON object"),
    ],
)
def test_a_file_in_another_layout_is_named(tmp_path, name, file, content, message):
    (tmp_path / file).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=f"{file}: ") as raised:
        list(read_published(task(name), tmp_path))
    assert message in str(raised.value)


def test_a_file_that_may_be_either_of_two_is_refused(tmp_path):
    write(tmp_path, {"raw/in_domain_train.tsv": "x", "tokenized/in_domain_train.tsv": "x"})
    with pytest.raises(ValueError, match="may be meant: give the folder of one"):
        read("glue_cola", tmp_path)


def test_an_empty_folder_says_what_it_should_hold(tmp_path):
    for name, entry in TASKS.items():
        with pytest.raises(ValueError, match=r"none of the task's files|no all_train"):
            read(name, tmp_path)
        assert expected_files(entry)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def replaced(draw, value):
    """A copy with something in it taken out or replaced."""
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 3)) == 0:
        return draw(JSON)
    place = draw(st.sampled_from(list(value) if isinstance(value, dict) else range(len(value))))
    if isinstance(value, dict) and draw(st.booleans()):
        return {key: entry for key, entry in value.items() if key != place}
    changed = value.copy()
    changed[place] = replaced(draw, value[place])
    return changed


@given(st.data(), st.sampled_from([*SUPER_GLUE, "squad"]))
def test_json_of_any_shape_is_read_or_named(tmp_path_factory, data, name):
    row = SUPER_GLUE[name][1] if name in SUPER_GLUE else SQUAD
    folder = tmp_path_factory.mktemp("json")
    file = "train-v1.1.json" if name == "squad" else "train.jsonl"
    write(folder, {file: json.dumps(replaced(data.draw, row))})
    message = "x.json: line 1: "
    try:
        for split, raw in read_published(task(name), folder):
            task(name).examples(raw, split)
    except ValueError as error:
        message = str(error)
    assert re.match(rf"{name}: |.*jsonl?: ", message)


@needs_downstream
@pytest.mark.parametrize(
    ("name", "folder", "sizes"),
    [
        ("glue_cola", "cola", {"train": 8551, "validation": 527}),
        ("glue_sst2", "sst2", {"train": 6920, "validation": 872, "test": 1821}),
        ("glue_mrpc", "mrpc", {"train": 3576, "validation": 500, "test": 1725}),
    ],
)
def test_real_files_are_read_whole(name, folder, sizes):
    found = read(name, DOWNSTREAM / folder)
    assert {split: len(raws) for split, raws in found.items()} == sizes
    assert {raw["label"] for raws in found.values() for raw in raws} == {0, 1}


@needs_downstream
@pytest.mark.parametrize(
    ("name", "file", "count"),
    [
        ("squad", "squad.json", 5),
        ("super_glue_record", "record.json", 2),
        ("super_glue_boolq", "boolq.jsonl", 5),
        ("glue_qqp", "quora_paraphrase.tsv", 3),
    ],
)
def test_single_real_files_are_read_for_a_split(name, file, count):
    found = read(name, DOWNSTREAM / "fixtures" / file, "validation")
    assert {split: len(raws) for split, raws in found.items()} == {"validation": count}
