"""Rows: every objective on every architecture, tasks beside them, packed or one by one."""

import dataclasses

import numpy as np
import pytest

from model.data.input_config import InputConfig
from model.data.objectives import OBJECTIVES, objective
from model.data.rows import RowPacker
from model.data.sequences import Sequences
from model.data.sources.task import TaskInput
from model.t5.config import ARCHITECTURES
from model.tasks.prepared import prepare
from testing.corpora import NumberVocabulary, make_corpus, numbered

PAGES = [300, 150, 61]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("rows") / "c", {"train": numbered(PAGES)})


def config(corpus, **changes):
    options = {"vocabulary": NumberVocabulary(), "batch_size": 8, "input_length": 64}
    return InputConfig(corpus=corpus, **(options | changes))


def rows_of(settings):
    """Rows of an element of the only source."""
    (source,) = settings.sources(1)
    inputs, targets = source.pairs(0, (0, 0))[0]
    return RowPacker(settings)(
        inputs, targets, np.full(len(targets), source.has_inputs), np.arange(len(targets))
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_on_every_architecture(corpus, name, architecture):
    options = {"objective": OBJECTIVES[name], "architecture": architecture}
    if name == "causal_lm" and "language-model" not in architecture:
        with pytest.raises(ValueError, match=r"an encoder nothing to read.*prefix_lm"):
            config(corpus, **options)
        return
    settings = config(corpus, **options)
    rows = rows_of(settings)
    count = len(rows["decoder_segments"])
    spec = settings.batch_spec()
    assert {key: (shape[1], kind) for key, (shape, kind) in spec.arrays.items()} == {
        key: (array.shape[1], array.dtype) for key, array in rows.items()
    }
    assert count > 5
    real = rows["decoder_segments"] > 0
    assert real.mean() > 0.5
    assert np.all(rows["loss_weights"][~real] == 0)
    assert np.all(rows["decoder_target_tokens"][real] > 0)
    assert np.all(real.any(axis=1))
    if architecture == "prefix-language-model":
        # Inputs are seen and cost nothing, but for the place that is read and predicts.
        both = (rows["prefix"] * rows["loss_weights"]).sum()
        with_inputs = rows["decoder_segments"].max(axis=1).sum() if name != "causal_lm" else 0
        assert both == with_inputs
        assert np.all((rows["prefix"] + rows["loss_weights"])[real] >= 1)
    elif architecture == "language-model":
        assert not rows["prefix"].any()
        assert np.all(rows["loss_weights"][real] == 1)
    else:
        assert (rows["encoder_segments"] > 0).mean() > 0.5
        assert np.array_equal(
            rows["encoder_segments"].max(axis=1), rows["decoder_segments"].max(axis=1)
        )


def segments_of(rows):
    for tokens, segments, *others in zip(
        rows["decoder_target_tokens"],
        rows["decoder_segments"],
        rows["prefix"],
        rows["loss_weights"],
        strict=True,
    ):
        for segment in range(1, segments.max() + 1):
            at = segments == segment
            yield tokens[at].tolist(), *(other[at].tolist() for other in others)


@pytest.mark.parametrize(("separator", "ids"), [("eos", [1]), ("target:", [3])])
def test_what_stands_between_inputs_and_targets(corpus, separator, ids):
    spans = rows_of(config(corpus, architecture="prefix-language-model", separator=separator))
    first_sentinel = NumberVocabulary().size - 1
    seen = 0
    for tokens, prefix, weights in segments_of(spans):
        end = tokens.index(ids[0])
        # The next thing said is the first sentinel again, and then what it stands for.
        assert tokens[end + 1] == first_sentinel
        assert tokens[-1] == 1
        assert prefix == [1] * (end + 2) + [0] * (len(tokens) - end - 2)
        assert weights == [0.0] * (end + 1) + [1.0] * (len(tokens) - end - 1)
        seen += 1
    assert seen > 5


@pytest.mark.parametrize(
    ("architecture", "loss_on_inputs", "share"),
    [
        ("language-model", None, "all"),
        ("language-model", False, "targets"),
        ("prefix-language-model", None, "targets"),
        ("prefix-language-model", True, "all"),
    ],
)
def test_where_the_loss_counts(corpus, architecture, loss_on_inputs, share):
    made = rows_of(config(corpus, architecture=architecture, loss_on_inputs=loss_on_inputs))
    for tokens, _, weights in segments_of(made):
        end = tokens.index(1) + 1
        assert weights == [float(share == "all")] * end + [1.0] * (len(tokens) - end)


def test_a_full_row_of_random_spans_is_filled_to_the_last_token(corpus):
    rows = rows_of(config(corpus, architecture="language-model"))
    assert rows["decoder_segments"].shape[1] == config(corpus).batch_spec().decoder_length + 64
    assert (rows["decoder_segments"] > 0).all(axis=1).mean() > 0.9


# --- lengths of the run -------------------------------------------------------------------------


PAIRS = [("5 6 7", "8"), ("9 " * 99, "10 " * 50), ("11", "")]


def packed(settings, pairs=PAIRS, with_inputs=True):
    vocabulary = settings.vocabulary
    inputs, targets = (
        Sequences.of([vocabulary.encode(text) for text in texts])
        for texts in zip(*pairs, strict=True)
    )
    return RowPacker(settings)(
        inputs, targets, np.full(len(pairs), with_inputs), np.arange(len(pairs))
    )


def test_long_pairs_are_cut_and_still_end_in_their_ids(corpus):
    rows = packed(config(corpus, target_length=20))
    assert rows["decoder_target_tokens"].shape[1] == 20
    long = rows["encoder_tokens"][rows["encoder_tokens"][:, 40] == 19][0]
    assert long.tolist() == [19] * 63 + [1]
    (target,) = (row for row in rows["decoder_target_tokens"].tolist() if 20 in row)
    assert target == [20] * 19 + [1]


@pytest.mark.parametrize("architecture", ["encoder-decoder", "language-model"])
def test_unpacked_rows_hold_one_example_each_in_their_order(corpus, architecture):
    settings = config(corpus, architecture=architecture, target_length=60, packed=False)
    rows, together = packed(settings), packed(dataclasses.replace(settings, packed=True))
    assert rows["decoder_segments"].max(axis=1).tolist() == [1, 1, 1]
    assert together["decoder_segments"].max() > 1
    lengths = (rows["decoder_segments"] > 0).sum(axis=1).tolist()
    assert lengths == ([2, 51, 1] if architecture == "encoder-decoder" else [6, 115, 3])
    assert (
        settings.identity(1)["rows"]
        != dataclasses.replace(settings, packed=True).identity(1)["rows"]
    )


def test_only_pairs_with_inputs_have_a_separator(corpus):
    settings = config(corpus, architecture="language-model", packed=False)
    alone = packed(settings, [("", "7 8")], with_inputs=False)["decoder_target_tokens"]
    after = packed(settings, [("6", "7 8")])["decoder_target_tokens"]
    assert alone[0, :4].tolist() == [17, 18, 1, 0]
    assert after[0, :6].tolist() == [16, 1, 17, 18, 1, 0]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Folder of two tasks; the longest target has 30 numbers."""
    folder = tmp_path_factory.mktemp("tasks")
    own = [{"inputs": str(n), "targets": "3 " * (30 if n == 7 else 4)} for n in range(20)]
    prepare("own", [("train", row) for row in own], folder, "x")
    return str(folder)


@pytest.mark.parametrize(
    ("changes", "lengths"),
    [
        ({"corpus": None}, (64, 31, None)),
        ({"corpus": None, "input_length": 16}, (16, 16, None)),
        ({"corpus": None, "target_length": 9}, (64, 9, None)),
        ({}, (64, 14, None)),  # the objective's
        ({"target_length": 40}, (64, 40, None)),
        ({"corpus": None, "architecture": "language-model"}, (64, 31, 64 - 1 + 1 + 31)),
        (
            {"architecture": "language-model", "objective": OBJECTIVES["causal_lm"]},
            (64, 64, 64 - 1 + 1 + 64),
        ),
        (
            {"architecture": "prefix-language-model", "objective": OBJECTIVES["prefix_lm"]},
            (64, 64, 64 - 1 + 1 + 64),
        ),
    ],
)
def test_lengths_with_tasks(corpus, tasks, changes, lengths):
    found = config(**{"corpus": corpus, "tasks": (TaskInput(data=tasks, name="own"),)} | changes)
    assert (found.lengths.inputs, found.lengths.targets, found.lengths.joined) == lengths
    assert dataclasses.replace(found, seed=3).lengths == found.lengths


def test_labels_decide_how_long_targets_are(tmp_path):
    prepare("glue_sst2", [("train", {"sentence": "a", "label": 1, "idx": 0})], tmp_path, "x")

    class Letters(NumberVocabulary):
        def encode_batch(self, texts):
            return [np.arange(len(text), dtype=np.int32) + 10 for text in texts]

    task = TaskInput(data=str(tmp_path), name="glue_sst2")
    settings = config(None, tasks=(task,), vocabulary=Letters())
    assert settings.target_length == len("negative") + 1


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "decoder"}, "architecture must be one of encoder-decoder, .*'decoder'"),
        ({"batch_size": 0}, r"batch_size must be at least 1, got 0 \(--batch-size\)"),
        ({"batch_size": 2**25}, "batch_size 33554432 at input_length 64 makes 2.*e.09 tokens"),
        ({"seed": 2**32}, r"seed must be between 0 and 4,294,967,295, got 4294967296 \(--seed\)"),
        ({"workers": 2**31}, "workers must be between 0 and 1024, got"),
        ({"max_pages": 0}, "max_pages must be at least 1, got 0"),
        ({"input_shards": 0}, "input_shards must be at least 1, got 0"),
        ({"input_length": 2**31}, "input_length must be at most 1048576, got 2147483648"),
        ({"seed": -1}, "seed must be between 0 and .*, got -1"),
        ({"workers": -1}, "workers must be between 0 and 1024, got -1"),
        ({"separator": "sep"}, "separator must be 'eos' or 'target:', got 'sep'"),
        ({"separator": "target:"}, "for models without an encoder, and encoder-decoder has one"),
        ({"loss_on_inputs": True}, "for models without an encoder"),
        ({"input_length": 3}, "input_length must be at least 4, got 3"),
        ({"target_length": 1}, "target_length must be between 2 and 1,048,576, got 1"),
        ({"corpus": None}, r"nothing to read: give a corpus or tasks \(--corpus, --tasks\)"),
        ({"corpus_rate": -1.0}, "corpus_rate must be at least 0"),
        ({"corpus_rate": 0.0}, "all rates are 0"),
        ({"tasks": (TaskInput(data="d", name="own"),) * 2}, "own must be in a mixture once"),
    ],
)
def test_configurations_that_cannot_be(corpus, changes, message):
    with pytest.raises(ValueError, match=message):
        config(**{"corpus": corpus} | changes)


@pytest.mark.parametrize(
    ("changes", "host", "message"),
    [
        ({}, (2, 2), r"host must be in 0\.\.1, got 2"),
        ({"input_shards": 3}, (0, 2), "multiple of the number of hosts, got 3 for 2 hosts"),
        ({"batch_size": 9}, (0, 2), "batch_size must be a multiple .* got 9 for 2"),
    ],
)
def test_sharing_out_that_cannot_be(corpus, changes, host, message):
    with pytest.raises(ValueError, match=message):
        config(corpus, **changes).shards_of(*host)


def test_a_row_is_as_long_as_the_objective_needs():
    vocabulary = NumberVocabulary()
    settings = InputConfig(corpus="", vocabulary=vocabulary, objective=objective("span3"))
    spec = settings.batch_spec(hosts=4)
    assert (spec.batch_size, spec.encoder_length, spec.decoder_length) == (32, 512, 114)
    assert spec.tokens == 32 * (512 + 114)
