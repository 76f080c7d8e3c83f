"""What examples of each task read as, and what predictions are read as."""

import json
import math
import pathlib
import pickle
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.tasks import TASKS, own_task, task
from tests.model.tasks.extra import needs_extra

# Computed with t5 0.9.4 (text-to-text-transfer-transformer), made-up text.
ROWS = pathlib.Path(__file__).parent / "reference_rows.jsonl"
REFERENCE = [json.loads(line) for line in ROWS.read_text("utf-8").splitlines()]
ALL = list(TASKS)
LABELLED = [name for name, entry in TASKS.items() if entry.labels]
PREMISE = {"premise": "P", "hypothesis": "H"}
PAIR = {"sentence1": "A", "sentence2": "B"}
# Formats of the paper's Appendix D and of the released code: task, raw example, inputs, targets.
FORMATS = [
    ("glue_cola", {"sentence": "S", "label": 0}, "cola sentence: S", "unacceptable"),
    ("glue_cola", {"sentence": "S", "label": 1}, "cola sentence: S", "acceptable"),
    ("glue_sst2", {"sentence": "S", "label": 0}, "sst2 sentence: S", "negative"),
    ("glue_sst2", {"sentence": "S", "label": 1}, "sst2 sentence: S", "positive"),
    ("glue_mrpc", PAIR | {"label": 0}, "mrpc sentence1: A sentence2: B", "not_equivalent"),
    ("glue_mrpc", PAIR | {"label": 1}, "mrpc sentence1: A sentence2: B", "equivalent"),
    ("glue_stsb", PAIR | {"label": 3.75}, "stsb sentence1: A sentence2: B", "3.8"),
    ("glue_stsb", PAIR | {"label": 2.5}, "stsb sentence1: A sentence2: B", "2.4"),
    ("glue_stsb", PAIR | {"label": 0.0}, "stsb sentence1: A sentence2: B", "0.0"),
    ("glue_stsb", PAIR, "stsb sentence1: A sentence2: B", "-1.0"),
    (
        "glue_qqp",
        {"question1": "A", "question2": "B", "label": 1},
        "qqp question1: A question2: B",
        "duplicate",
    ),
    ("glue_mnli", PREMISE | {"label": 0}, "mnli hypothesis: H premise: P", "entailment"),
    ("glue_mnli", PREMISE | {"label": 1}, "mnli hypothesis: H premise: P", "neutral"),
    ("glue_mnli", PREMISE | {"label": 2}, "mnli hypothesis: H premise: P", "contradiction"),
    (
        "glue_qnli",
        {"question": "Q", "sentence": "S", "label": 1},
        "qnli question: Q sentence: S",
        "not_entailment",
    ),
    ("glue_rte", PAIR | {"label": 0}, "rte sentence1: A sentence2: B", "entailment"),
    ("glue_ax", PREMISE | {"label": -1}, "mnli hypothesis: H premise: P", "<unk>"),
    (
        "super_glue_boolq",
        {"question": "Q", "passage": "P", "label": True},
        "boolq passage: P question: Q",
        "True",
    ),
    ("super_glue_cb", PREMISE | {"label": 1}, "cb hypothesis: H premise: P", "contradiction"),
    ("super_glue_cb", PREMISE | {"label": 2}, "cb hypothesis: H premise: P", "neutral"),
    (
        "super_glue_copa",
        {"premise": "P", "choice1": "A", "choice2": "B", "question": "cause", "label": 1},
        "copa choice1: A choice2: B premise: P question: cause",
        "choice2",
    ),
    (
        "super_glue_multirc",
        {"paragraph": "<b>Sent 1: </b>P<br>R", "question": "Q", "answer": "A", "label": 0},
        "multirc question: Q answer: A paragraph: Sent 1: P R",
        "False",
    ),
    ("super_glue_rte", PREMISE | {"label": 1}, "rte hypothesis: H premise: P", "not_entailment"),
    (
        "super_glue_wic",
        PAIR | {"word": "W", "start1": 0, "label": 1},
        "wic sentence1: A sentence2: B word: W",
        "True",
    ),
    ("super_glue_axb", PAIR | {"label": 1}, "rte hypothesis: B premise: A", "not_entailment"),
    ("super_glue_axg", PREMISE | {"label": 0}, "rte hypothesis: H premise: P", "entailment"),
    (
        "super_glue_wsc",
        {"text": "Ann saw it, then left", "span1_text": "Ann", "span2_text": "it,"}
        | {"span2_index": 2, "label": 0},
        "wsc: Ann saw *it,* then left",
        "Ann",
    ),
    (
        "glue_wnli",
        {"sentence1": "The jar fell off the shelf because it was wobbly."}
        | {"sentence2": "The shelf was wobbly.", "label": 1},
        "wsc: The jar fell off the shelf because *it* was wobbly.",
        "The shelf",
    ),
    (
        "glue_wnli",
        {"sentence1": "Bob put the hat on it.", "sentence2": "Bob put the hat on the hook."},
        "wsc: Bob put the hat on *it* .",
        "the hook",
    ),
    (
        "dpr",
        {"sentence": "Bob saw that he won, he said.", "pronoun": "he"}
        | {"candidates": ["Bob", "Tom"], "label": 0},
        "wsc: Bob saw that *he* won, he said.",
        "Bob",
    ),
    (
        "squad",
        {"question": "Where's  U.S.?", "context": "Caf\u00e9 (x)\n\u00a0y_z"}
        | {"answers": {"text": ["U.S.", "x"]}},
        "question: Where ' s U . S . ? context: Caf\u00e9 ( x ) \u00a0y _ z",
        "U . S . ",
    ),
    (
        "cnn_dailymail",
        {"article": "Some News.", "highlights": "One .\nTwo ."},
        "summarize: Some News.",
        "One .\nTwo .",
    ),
    ("wmt_ende", {"en": "Hi.", "de": "Hallo."}, "translate English to German: Hi.", "Hallo."),
    ("wmt_enfr", {"en": "Hi.", "fr": "Salut."}, "translate English to French: Hi.", "Salut."),
    ("wmt_enro", {"en": "Hi.", "ro": "Salut."}, "translate English to Romanian: Hi.", "Salut."),
]


@pytest.mark.parametrize(("name", "raw", "inputs", "targets"), FORMATS)
def test_a_task_reads_as_the_paper_prints_it(name, raw, inputs, targets):
    assert task(name).examples(raw) == [(inputs, targets)]


def test_record_has_a_pair_for_each_answer():
    raw = {
        "passage": "One.\n@highlight\nTwo\n@highlight\nThree",
        "query": "@placeholder won",
        "entities": ["Ann", "Bob"],
        "answers": ["Ann", "Bob"],
    }
    inputs = "record query: @placeholder won entities: Ann, Bob passage: One. Two. Three"
    record = task("super_glue_record")

    assert record.examples(raw) == [(inputs, "Ann"), (inputs, "Bob")]
    assert record.examples(raw | {"answers": []}) == [(inputs, "<unk>")]


def test_every_format_is_in_the_table():
    assert {name for name, *_ in FORMATS} | {"super_glue_record"} == set(TASKS)


@pytest.mark.parametrize(
    "row",
    [row for row in REFERENCE if row["kind"] != "score"],
    ids=lambda row: f"{row['task']}-{row['kind']}",
)
def test_examples_and_parsing_equal_the_reference(row):
    entry = task(row["task"])
    if row["kind"] == "examples":
        assert entry.examples(row["raw"], row["split"]) == [tuple(p) for p in row["expected"]]
        return
    found = entry.parse(row["prediction"], row["raw"])
    assert found == row["expected"] or (math.isnan(found) and math.isnan(row["expected"]))


@needs_extra
@pytest.mark.parametrize(
    "row", [row for row in REFERENCE if row["kind"] == "score"], ids=lambda row: row["task"]
)
def test_scores_equal_the_reference(row):
    found = task(row["task"]).score(row["raws"], row["predictions"])
    # ROUGE is the median of a bootstrap, whose seed the reference does not fix.
    assert found == pytest.approx(row["expected"], abs=row["tolerance"], nan_ok=True)


def test_bytes_and_arrays_are_read_as_tfds_gives_them():
    raw = {
        "passage": b"P",
        "query": b"Q",
        "entities": np.array([b"A", b"B"], object),
        "answers": np.array([b"A"], object),
        "idx": {"passage": np.int32(1), "query": np.int32(2)},
    }
    [(inputs, targets)] = task("super_glue_record").examples(raw)
    assert (inputs, targets) == ("record query: Q entities: A, B passage: P", "A")
    raw = {"sentence": b"S", "label": np.int64(1)}
    assert task("glue_cola").examples(raw) == [("cola sentence: S", "acceptable")]


def test_training_leaves_out_negatives_of_wsc_and_all_of_wnli():
    wsc = task("super_glue_wsc")
    for label, pairs in ((1, 1), (0, 0), (-1, 0)):
        assert len(wsc.examples({**wsc.sample, "label": label}, split="train")) == pairs
        assert len(wsc.examples({**wsc.sample, "label": label})) == 1
    wnli = task("glue_wnli")
    assert wnli.examples(wnli.sample, split="train") == []


@pytest.mark.parametrize("name", LABELLED)
def test_each_label_word_is_read_as_its_index_and_nothing_else_is(name):
    entry = task(name)
    for index, label in enumerate(entry.labels):
        [(_, targets)] = entry.examples({**entry.sample, "label": index})
        assert entry.parse(targets, entry.sample) == index
        assert targets == label
        for junk in (label.upper(), f" {label}", f"{label} ", label[:-1], f"{label}."):
            assert entry.parse(junk, entry.sample) == -1
    assert entry.parse("", entry.sample) == entry.parse("<unk>", entry.sample) == -1


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [("3.8", 3.8), (" 2 ", 2.0), ("", -1.0), ("3,8", -1.0), ("positive", -1.0), ("-2", -2.0)],
)
def test_a_similarity_is_a_number_or_minus_one(prediction, expected):
    assert task("glue_stsb").parse(prediction) == expected


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        ("Tom", 1), ("the tom", 1), ("his Tom", 1), ("Tom Jones", 1), ("Bob", 0), ("Tom's", 0),
        ("Tom,", 0), ("", -1), ("the", -1), ("  ", -1),
    ],
)  # fmt: skip
def test_a_referent_is_named_without_case_and_determiners(prediction, expected):
    wsc = task("super_glue_wsc")
    assert wsc.parse(prediction, wsc.sample) == expected


@pytest.mark.parametrize(
    ("text", "pronoun", "marked"),
    [
        (
            "The boy continued to whip the pony , and eventually the pony threw him over. John "
            'laughed out quite loud. "Good for him," he said. ',
            "him",
            '"Good for *him* ," he said.',
        ),
        (
            "When they had eventually calmed down a bit , and had gotten home, Mr. Farley put the "
            "magic pebble in an iron safe . Some day they might want to use it , but really for "
            "now, what more could they wish for?",
            "it",
            "to use *it* , but really for now, what more could they wish for?",
        ),
    ],
)
def test_the_two_misplaced_pronouns_of_wsc_are_patched(text, pronoun, marked):
    raw = {"text": text, "span1_text": "X", "span2_text": pronoun, "span2_index": 1, "label": 1}
    [(inputs, _)] = task("super_glue_wsc").examples(raw)
    assert inputs.endswith(marked)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("glue_cola", {"label": 2}, "label 2 is none of unacceptable, acceptable"),
        ("glue_cola", {"label": "good"}, "label 'good' is none of"),
        ("glue_cola", {"sentence": 3}, "field 'sentence' must be text, got int"),
        ("super_glue_wsc", {"span2_index": 0}, "span2_index 0 is not the place of 'he'"),
        ("super_glue_wsc", {"span2_index": 99}, "is not the place of 'he'"),
        ("super_glue_wsc", {"span2_index": 2}, "is not the place of 'he'"),
        ("glue_stsb", {"label": float("nan")}, "label nan is no finite number"),
        ("dpr", {"label": 2}, "label 2 is no index of the 2 candidates"),
        ("glue_wnli", {"sentence1": "No such word."}, "no pronoun in 'No such word.'"),
        ("squad", {"answers": "x"}, "has no field 'answers/text'"),
    ],
)
def test_a_damaged_example_is_named(name, changes, message):
    entry = task(name)
    with pytest.raises(ValueError, match=f"^{name}: ") as raised:
        entry.examples({**entry.sample, **changes})
    assert message in str(raised.value)


def test_a_damaged_label_is_named_where_training_chooses_by_it():
    wsc = task("super_glue_wsc")
    with pytest.raises(ValueError, match=r"^super_glue_wsc: label \[\] is none of False, True"):
        wsc.examples({**wsc.sample, "label": []}, split="train")


@pytest.mark.parametrize("name", ALL)
def test_a_missing_field_is_named(name):
    with pytest.raises(ValueError, match=f"{name}: an example has no field "):
        task(name).examples({"label": 0})


@pytest.mark.parametrize(
    ("name", "changes", "inputs", "targets"),
    [
        ("super_glue_copa", {}, "copa choice1: ", "False"),
        ("super_glue_wic", {"pos": "N"}, "wic pos: N sentence1: ", "False"),
        ("super_glue_multirc", {}, "multirc question: Who had tea? answer: ", "True"),
        ("glue_stsb", {"label": 0.3}, "stsb sentence1: ", "1.0"),
        ("squad", {"answers": {"text": ["na\u00efve"]}}, "question: Where is", "na \u00ef ve"),
        ("cnn_dailymail", {}, "summarize: the old bridge", "old bridge reopens . hundreds come ."),
        ("glue_cola", {}, "cola sentence: ", "acceptable"),
    ],
)
def test_the_papers_form_is_an_option(name, changes, inputs, targets):
    entry = task(name, form="paper")
    [(found_inputs, found_targets)] = entry.examples({**entry.sample, **changes})
    assert found_inputs.startswith(inputs)
    assert found_targets == targets
    assert pickle.loads(pickle.dumps(entry)).examples({**entry.sample, **changes}) == [
        (found_inputs, found_targets)
    ]


def test_what_the_papers_form_reads_otherwise():
    assert (
        "<b>Sent 1: </b>"
        in task("super_glue_multirc", form="paper").examples(TASKS["super_glue_multirc"].sample)[0][
            0
        ]
    )
    assert task("glue_stsb", form="paper").parse("3.8") == 3.8
    assert task("glue_stsb", form="paper").parse("3.7") == -1.0  # none of the 21 classes
    wsc = task("super_glue_wsc", form="paper")
    assert wsc.parse("", wsc.sample) == 0
    assert task("super_glue_copa", form="paper").parse("True") == 1
    with pytest.raises(ValueError, match="no field 'pos'"):
        task("super_glue_wic", form="paper").examples(TASKS["super_glue_wic"].sample)


def test_unknown_names_and_forms_are_refused():
    with pytest.raises(ValueError, match="no task 'cola', perhaps 'glue_cola': c4 tasks list"):
        task("cola")
    with pytest.raises(ValueError, match="code or paper, got 'draft'"):
        task("glue_cola", form="draft")


def test_own_pairs_are_a_task():
    own = own_task()
    raw = {"inputs": "a", "targets": "b"}
    assert own.examples(raw) == [("a", "b")]
    assert own.parse("b") == "b"
    assert pickle.loads(pickle.dumps(own)).name == "own"


@given(st.sampled_from(ALL), st.text())
def test_junk_is_read_without_an_error(name, junk):
    entry = task(name)
    found = entry.parse(junk, entry.sample)
    if entry.labels:
        assert found == (entry.labels.index(junk) if junk in entry.labels else -1)
    elif name == "glue_stsb":
        assert isinstance(found, float)
    elif name in ("glue_wnli", "super_glue_wsc"):
        assert found in (-1, 0, 1)
    else:
        assert found == junk
    assert entry.invalid([entry.sample], [junk]) in (0, 1)


WORDS = ["the", "fish", "a", "worm", "it", "was", "he", "Bob's", ".", "tasty,", "(ate", "$", "*"]
SENTENCE = st.lists(st.sampled_from(WORDS), min_size=1).map(" ".join)


@given(SENTENCE, SENTENCE)
def test_any_premise_gives_a_pair_or_a_clear_error(premise, hypothesis):
    try:
        [(inputs, targets)] = task("glue_wnli").examples(
            {"sentence1": premise, "sentence2": hypothesis}
        )
    except ValueError as error:
        message = str(error)
    else:
        message = ""
        assert inputs.startswith("wsc: ")
        assert targets.lower() in hypothesis.lower()
    assert re.fullmatch("(glue_wnli: (no pronoun in|cannot find) .*)?", message)
