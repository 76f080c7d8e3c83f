"""Fine-tuning through the command: what is trained, what is kept, and what it starts from."""

import json
import re

import jax
import numpy as np
import pytest

from model.evaluation.predictor import Predictor
from model.evaluation.trained import open_trained
from model.exchange.hugging_face import export_model
from model.tasks.prepared import Prepared, prepare
from model.training.metrics import read_rows
from model.training.model_folders import load_params
from model.tuning.finetune_config import FinetuneConfig
from testing.helpers import run_c4
from testing.material import material, quick_xla
from tests.model.tuning.own_task import sentences, write_pairs

__all__ = ["material", "quick_xla"]

pytestmark = [pytest.mark.usefixtures("quick_xla"), pytest.mark.slow]

_SMALL = [
    "--batch-size", 8, "--input-length", 32, "--workers", 0, "--eval-batches", 1, "--dropout", 0,
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tuning")


@pytest.fixture
def base(material, folder):
    """A run of four steps, the last two with other statistics than zero."""
    out = folder / "base"
    if not out.exists():
        outcome = run_c4(
            "pretrain", "--corpus", material.corpus, "--vocab", material.vocab, "--out", out,
            "--size", "tiny", "--set", "d_model=32", "--set", "d_ff=64", "--set", "d_kv=8",
            "--input-length", 32, "--batch-size", 8, "--workers", 0, "--eval-every", 0,
            "--steps", 4, "--dropout", 0,
        )  # fmt: skip
        assert outcome.status == 0, outcome
    return out


@pytest.fixture
def own(folder):
    return write_pairs(folder / "own.tsv", 400)


def _finetune(source, out, *more, status=0):
    outcome = run_c4("finetune", "--from", source, "--out", out, *_SMALL, *more)
    assert outcome.status == status, outcome
    return outcome


def _flat(params):
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _same(one, other):
    return np.array_equal(np.asarray(one).view(np.uint32), np.asarray(other).view(np.uint32))


@pytest.fixture
def learned(base, own, folder):
    """A fine-tuning that learns its task by heart; what it printed is beside it."""
    out = folder / "learned"
    if not out.exists():
        outcome = _finetune(
            base, out, "--task", own, "--steps", 90, "--learning-rate", 0.02, "--eval-every", 30,
            "--batch-size", 16,
        )  # fmt: skip
        (folder / "learned.txt").write_text(outcome.out)
    return out


def test_own_pairs_are_learned_and_the_best_checkpoint_is_kept(learned, own, folder):
    rows = [row for row in read_rows(learned / "metrics.jsonl") if "validation_loss" in row]
    assert [row["step"] for row in rows] == [30, 60, 90]
    scores = {row["step"]: row["validation/own/accuracy"] for row in rows}
    kept = json.loads((learned / "best.json").read_text())["own"]
    assert kept["value"] == max(scores.values()) == kept["scores"]["accuracy"]
    assert kept["value"] >= 95
    losses = {row["step"]: row["validation_loss"] for row in rows}
    best = [step for step, score in scores.items() if score == kept["value"]]
    assert kept["step"] == min(best, key=lambda step: losses[step])
    assert kept["validation_loss"] == losses[kept["step"]]
    assert kept["metric"] == "accuracy"

    found = open_trained(learned)
    assert found.step == kept["step"]
    held_out = Prepared(learned / "data", "own").pairs("validation")
    predict = Predictor(found.config, found.vocabulary, input_length=32, max_new_tokens=8)
    predictions = predict(found.params, [inputs for inputs, _ in held_out])
    right = np.mean([p == t for p, (_, t) in zip(predictions, held_out, strict=True)])
    assert 100 * right == pytest.approx(kept["value"])

    said = (folder / "learned.txt").read_text()
    counts = Prepared(learned / "data", "own").splits
    assert sum(counts.values()) == 400
    assert 20 < counts["validation"] < 60
    assert f"{counts['train']} to train on, {counts['validation']} to validate on, a tenth" in said
    table = said.splitlines()[-2:]
    assert table[0].endswith("majority  bag of words")
    cells = table[1].split()
    assert cells[:2] == ["own", "accuracy"]
    assert [float(cell) for cell in cells[2:5]] == [kept["value"], kept["step"], scores[90]]
    assert 10 < float(cells[5]) < 70 < float(cells[6])
    assert not set(_inputs(learned, "train")) & set(_inputs(learned, "validation"))


def _inputs(run, split):
    return [inputs for inputs, _ in Prepared(run / "data", "own").pairs(split)]


def test_a_finished_run_prints_its_table_again(learned, base, own):
    options = ["--task", own, "--learning-rate", 0.02, "--batch-size", 16, "--eval-every", 30]
    outcome = _finetune(base, learned, *options, "--steps", 90)
    assert "step 90 is already done" in outcome.out
    assert re.search(r"\nown +accuracy +\d", outcome.out)
    for changed in (["--eval-limit", 3], ["--keep-best", "accuracy"], ["--validation", own]):
        refused = _finetune(base, learned, *options, "--steps", 99, *changed, status=1)
        assert f"({changed[0]}" in refused.err or changed[0] == "--validation"
        assert "was begun with" in refused.err
    with own.open("a") as file:
        file.write("nobody here sees a letter\ta boat\n")
    refused = _finetune(base, learned, *options, "--steps", 99, status=1)
    assert "--data, --task, --form)" in refused.err
    write_pairs(own, 400)
    refused = _finetune(base, learned, *options, "--steps", 99, "--unfreeze", status=1)
    assert "--adapter, --adapter-norms, --unfreeze" in refused.err


def test_adapters_alone_change_and_statistics_go_on(base, own, tmp_path):
    out = tmp_path / "run"
    said = _finetune(
        base, out, "--task", own, "--adapter", 4, "--steps", 2, "--eval-every", 2,
        "--eval-limit", 4,
    ).out  # fmt: skip
    assert "holds no statistics" not in said
    # Two blocks in each of two stacks: two kernels of 32 x 4, and a norm of 32.
    assert "adapter layers of width 4: 1,152 of " in said
    assert open_trained(out).config.adapter == 4
    settings = json.loads((out / "run.json").read_text())["settings"]
    assert (settings["first_step"], settings["trained"]) == (4, "adapters")
    before, after = (_flat(load_params(run).params) for run in (base, out))
    added = {name for name in after if "adapter" in name}
    assert set(after) - added == set(before)
    assert all(_same(after[name], before[name]) for name in before)
    exported = run_c4("export-hf", out, "--output", tmp_path / "hf")
    assert exported.status == 1
    assert "a model with adapter layers (adapter 4) cannot be exported" in exported.err
    refused = _finetune(out, tmp_path / "two", "--task", own, "--adapter", 8, status=1)
    assert "has adapter layers of width 4, got 8 (--adapter)" in refused.err


@pytest.fixture
def glue(folder):
    """CoLA and SST-2, made up, and RTE without validation data."""
    data = folder / "data"
    if not data.exists():
        rows = [
            {"sentence": text, "label": int(label == "a boat")} for text, label in sentences(60)
        ]
        for name in ("glue_cola", "glue_sst2"):
            prepare(
                name, [("train" if n < 40 else "validation", row) for n, row in enumerate(rows)],
                data, "made up",
            )  # fmt: skip
        pair = {"sentence1": "the fox sells a letter", "sentence2": "a letter", "label": 0}
        prepare("glue_rte", [("train", pair)] * 8, data, "made up")
    return data


def test_several_tasks_keep_a_best_checkpoint_each(base, glue, tmp_path):
    out = tmp_path / "run"
    options = ["--task", "glue_cola,glue_rte,glue_sst2", "--data", glue, "--eval-limit", 8]
    said = _finetune(base, out, *options, "--steps", 2, "--eval-every", 1).out
    row = read_rows(out / "metrics.jsonl")[-1]
    names = {"validation/glue_cola/matthews_corrcoef", "validation/glue_sst2/accuracy"}
    assert names <= set(row)
    record = json.loads((out / "best.json").read_text())
    assert {name: found["metric"] for name, found in record.items()} == {
        "glue_cola": "matthews_corrcoef", "glue_sst2": "accuracy",
    }  # fmt: skip
    for name, found in record.items():  # of the task, not of all
        losses = [row[f"validation/{name}/loss"] for row in read_rows(out / "metrics.jsonl")
                  if "validation_loss" in row]  # fmt: skip
        assert found["validation_loss"] == losses[found["step"] - 1]
    assert "note: no validation data of glue_rte" in said
    assert len(re.findall(r"; \d+ inputs were cut to 32 tokens \(--input-length\)", said)) == 1
    assert [line.split()[0] for line in said.splitlines()[-2:]] == ["glue_cola", "glue_sst2"]
    with pytest.raises(ValueError, match=r"choose of glue_cola, glue_sst2 \(--task\)"):
        open_trained(out)
    assert open_trained(out, "glue_sst2").step == record["glue_sst2"]["step"]
    refused = _finetune(base, tmp_path / "x", *options, "--keep-best", "accuracy", status=1)
    assert "glue_cola has no accuracy: its scores are matthews_corrcoef" in refused.err
    assert not (tmp_path / "x").exists()


def test_a_published_folder_is_tuned_and_goes_back(base, own, tmp_path):
    config, params, vocabulary = load_params(base)
    export_model(tmp_path / "hf", config, params, vocabulary, max_file_bytes=20_000)
    assert len(list((tmp_path / "hf").glob("*.safetensors"))) > 1
    out = tmp_path / "run"
    said = _finetune(
        tmp_path / "hf", out, "--task", own, "--steps", 1, "--eval-every", 1, "--eval-limit", 4,
        "--learning-rate", 1e-12,
    ).out  # fmt: skip
    assert "hf holds no statistics of the optimizer: they are new" in said
    for name, array in _flat(load_params(out).params).items():
        np.testing.assert_allclose(array, _flat(params)[name], atol=1e-8, err_msg=name)
    for source in (out, out / "best" / "own"):
        back = tmp_path / f"back-{source.name}"
        exported = run_c4("export-hf", source, "--output", back)
        assert exported.status == 0, exported
        assert (back / "tokenizer.json").exists()


def test_pre_training_carries_on_and_cools_down(material, base, tmp_path):
    run = [
        "pretrain", "--corpus", material.corpus, "--init-from", base, "--out", tmp_path / "run",
        "--input-length", 32, "--batch-size", 8, "--workers", 0, "--eval-every", 0, "--dropout", 0,
        "--optimizer-state", "keep", "--warmup", 4,
    ]  # fmt: skip
    assert run_c4(*run, "--steps", 4).status == 0
    cooled = run_c4(*run, "--steps", 8, "--cooldown", 4)
    assert cooled.status == 0, cooled
    rates = [row["learning_rate"] for row in read_rows(tmp_path / "run" / "metrics.jsonl")]
    # The base did 4 steps: this run's are the global steps 4 to 11, the last 4 of them fading.
    wanted = [max(step, 4) ** -0.5 * min(1, (12 - step) / 4) for step in range(4, 12)]
    np.testing.assert_allclose(rates, wanted, rtol=1e-6)
    refused = run_c4(*run, "--steps", 12, "--cooldown", 4)
    assert refused.status == 1
    assert "step 8 is done, and with --cooldown 4 --steps 12 it would have had another" in (
        refused.err
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--data is missing"),
        (["--task", "own.tsv", "--task", "two.tsv"], "one file of pairs at a time"),
        (["--validation", "x.tsv", "--data", "d"], "--validation is for a file of your own"),
        (["--data", "d", "--unfreeze", "--adapter", 4], "two ways to fine-tune"),
        (["--data", "d", "--random-weights", "--adapter", 4], "leave out --adapter"),
        (["--data", "d", "--size", "tiny"], "leave --size and --vocab out"),
        (["--data", "d", "--dropout", 1], "dropout_rate must be in"),
        (["--data", "d", "--adapter", 0], "adapter must be at least 1, got 0"),
        (["--data", "d", "--keep-best", ""], "--keep-best is empty"),
        (["--data", "d", "--from", ""], "--from is empty"),
        (["--data", "d", "--task", "x.tsv,own"], "own is also the name of the pairs in x.tsv"),
        (["--data", "d", "--from", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(tmp_path, options, message):
    task = [] if "--task" in options else ["--task", "glue_cola"]
    outcome = run_c4("finetune", "--from", tmp_path, "--out", tmp_path / "out", *task, *options)
    assert outcome.status == 1
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


def test_data_that_does_not_suit_is_refused(base, glue, tmp_path):
    (tmp_path / "few.tsv").write_text("inputs\ttargets\na\tb\n")
    for options, message in (
        (["--task", tmp_path / "few.tsv"], "too few pairs to hold out a tenth"),
        (["--task", tmp_path / "none.tsv"], "none.tsv: no such file (--task)"),
        (["--task", "glue_rte", "--data", glue], "glue_rte: no validation data, so no checkpoint"),
        (["--task", "glue_qqp", "--data", glue], "has no data of glue_qqp"),
        (["--task", "glue_cool", "--data", glue], "no task or mixture 'glue_cool'"),
    ):
        outcome = _finetune(base, tmp_path / "out", *options, "--steps", 1, status=1)
        assert message in outcome.err
        assert not (tmp_path / "out").exists()


def test_without_a_model_its_size_and_vocabulary_are_needed(material, own):
    words = ["finetune", "--task", own, "--out", "out"]
    for options in ([], ["--vocab", material.vocab, "--size", "tinny"], ["--size", "tiny"]):
        outcome = run_c4(*words, *options)
        assert outcome.status == 1
        assert ("perhaps 'tiny'" if "tinny" in options else "--vocab, --size") in outcome.err


def test_names_of_settings_say_what_is_trained():
    def trained(**changes):
        return FinetuneConfig(source="s", tasks=("own",), data="d", out="o", **changes).trained

    assert trained() == "all"
    assert trained(unfreeze=True) == "unfreezing"
    assert trained(adapter=8) == "adapters"
    assert trained(adapter=8, adapter_norms="all") == "adapters-and-norms"
    for name in ("dropuot_rate", "d_model"):
        with pytest.raises(ValueError, match=f"no setting '{name}' to give in others: .*dtype"):
            trained(others={name: 1})
