"""The paper's experiments as data, their plans, and their tables."""

import json
import pathlib

import pytest

from model.data.objectives import OBJECTIVES
from model.evaluation.published import published
from model.studies import run as running
from model.studies.experiments import CORPORA, EXPERIMENTS, FineTune, Mixing, Pretrain, experiment
from model.studies.plan import MissingError, Study, plan_row
from model.studies.run import StudyConfig, _read_corpora, run_study, study_names
from model.studies.scales import SCALES
from model.studies.table import described, read_scores, study_table
from model.tasks import TASKS, mixture
from model.tasks.prepared import prepare

GLUE_AND_SQUAD = ("glue_cola", "glue_rte", "squad")


def row_of(table, title):
    (found,) = [row for row in experiment(table).rows if row.title == title]
    return found


# What the paper trains


def test_every_row_of_the_paper_s_table_16_is_an_experiment():
    rows = [row for entry in EXPERIMENTS.values() for row in entry.rows]
    assert {row.paper for row in rows} == set(published()) - {"baseline_std", "test_previous_best"}
    assert [entry.name for entry in EXPERIMENTS.values()] == [
        f"table{number}" for number in (1, 2, *range(4, 16))
    ]
    for entry in EXPERIMENTS.values():
        assert len({row.title for row in entry.rows}) == len(entry.rows)
        for row in entry.rows:
            in_table = published()[row.paper].table
            of_another = row.paper in ("baseline", "objective_bert_style", "proportional_K_2e19")
            assert entry.name == f"table{in_table}" or of_another, row
            assert described(row)
    used = {row.pretrain.corpus for row in rows if row.pretrain}
    assert used == set(CORPORA)
    assert {row.pretrain.objective for row in rows if row.pretrain} <= set(OBJECTIVES)


def test_the_baseline_is_the_paper_s():
    baseline = row_of("table1", "baseline")
    assert baseline.pretrain == Pretrain(
        corpus="c4", architecture="encoder-decoder", objective="iid", size="base",
        steps=524_288, batch_size=128,
    )  # fmt: skip
    assert baseline.finetune == FineTune(steps=262_144, batch_size=128)
    assert SCALES["paper"].tokens(baseline.pretrain) == 2**35
    others = [row for entry in EXPERIMENTS.values() for row in entry.rows
              if row.paper == "baseline"]  # fmt: skip
    assert len(others) == 12
    assert all(row.pretrain == baseline.pretrain for row in others)


def test_single_rows_are_the_paper_s():
    shared = row_of("table2", "enc-dec, shared, LM").pretrain
    assert (shared.architecture, shared.objective) == ("shared-encoder-decoder", "prefix_lm")
    causal = row_of("table2", "language model, LM").pretrain
    assert (causal.architecture, causal.objective) == ("language-model", "causal_lm")
    assert row_of("table9", "2^25 tokens, 1,024 times").pretrain.repeats == 1024
    assert row_of("table10", "adapter layers, d = 512").finetune.adapter == 512
    multi = row_of("table11", "examples-proportional, K = 2^16")
    assert multi.pretrain.steps == 786_432
    assert multi.finetune is None
    hot = row_of("table11", "temperature-scaled, T = 4").pretrain.mixing
    assert (hot.limit, hot.temperature) == (2**21, 4.0)
    large = row_of("table13", "2x size, 2x training steps")
    assert (large.pretrain.size, large.pretrain.steps) == ("2x", 2**20)
    assert large.finetune.steps == 2**19
    assert row_of("table13", "1x size, 4x batch size").pretrain.batch_size == 512
    final = row_of("table14", "T5-3B")
    assert final.pretrain.batch_size * 512 == 2**20
    assert final.pretrain.mixing.unsupervised_size == 33_500_000
    assert final.finetune.beams == 4
    assert not final.finetune.together


def test_what_cannot_be_a_row_is_refused():
    with pytest.raises(ValueError, match="no objective 'spans'"):
        Pretrain(objective="spans")
    with pytest.raises(ValueError, match="adapter's width"):
        FineTune(trained="adapters")
    with pytest.raises(ValueError, match="no experiment 'table3': table1, table2, table4"):
        experiment("table3")
    assert study_names("all") == tuple(EXPERIMENTS)
    assert study_names("table4,table2,table4") == ("table4", "table2")


# Plans


def study(scale="tiny", tasks=GLUE_AND_SQUAD, **options):
    options = {"corpora": {"c4": "C4"}, "data": "DATA", "vocabulary": "VOCAB"} | options
    return Study(SCALES[scale], tasks=tasks, **options)


def jobs(plan):
    found = {}
    for last in plan.evaluations:
        for job in last.in_order():
            found.setdefault(job.kind, {})[job.name] = job
    return found


def words_of(job):
    return " ".join(job.command("OUT"))


def test_rows_share_their_pretraining():
    names = set()
    for title in ("all parameters", "adapter layers, d = 32", "gradual unfreezing"):
        found = jobs(plan_row(study(), row_of("table10", title), 0))
        assert len(found["finetune"]) == 2  # GLUE's tasks together, and SQuAD
        names |= set(found["pretrain"])
    assert len(names) == 1
    other = jobs(plan_row(study(), row_of("table10", "all parameters"), 1))
    assert not names & set(other["pretrain"])


def test_the_commands_of_the_baseline():
    found = jobs(plan_row(study("paper"), row_of("table1", "baseline"), 3))
    (pretrain,) = found["pretrain"].values()
    assert words_of(pretrain) == (
        "pretrain --vocab VOCAB --seed 3 --size base --architecture encoder-decoder "
        "--objective iid --steps 524288 --batch-size 128 --input-length 512 "
        "--checkpoint-every 5000 --quiet --corpus C4 "
        f"--out OUT/{pretrain.name}"
    )
    glue, squad = found["finetune"].values()
    assert words_of(glue) == (
        "finetune --task glue_cola,glue_rte --data DATA --seed 3 --steps 262144 --batch-size 128 "
        "--input-length 512 --checkpoint-every 5000 --eval-every 5000 --quiet "
        f"--from OUT/{pretrain.name} --out OUT/{glue.name}"
    )
    _, evaluation = found["evaluate"].values()
    assert words_of(evaluation) == (
        "evaluate --task squad --data DATA --resamples 0 --input-length 512 "
        "--max-new-tokens 512 "
        f"--from OUT/{squad.name} --json OUT/{evaluation.name}.json"
    )


def test_mixtures_become_options():
    for title, wanted in (
        ("equal", "--equal"),
        ("examples-proportional, K = 2^17", "--mixing-limit 131072"),
        ("temperature-scaled, T = 8", "--mixing-limit 2097152 --temperature 8"),
    ):
        found = jobs(plan_row(study(), row_of("table11", title), 0))
        assert "finetune" not in found
        (pretrain,) = found["pretrain"].values()
        mixed = "--tasks glue_cola,glue_rte,squad --data DATA "
        assert f"--corpus C4 {mixed}{wanted} --out" in words_of(pretrain)
        assert len(found["evaluate"]) == 2

    supervised = row_of("table12", "supervised multi-task pre-training")
    (pretrain,) = jobs(plan_row(study(corpora={}), supervised, 0))["pretrain"].values()
    assert "--corpus" not in pretrain.words


def test_leave_one_out_pretrains_for_each_group():
    found = jobs(plan_row(study(), row_of("table12", "leave-one-out multi-task training"), 0))
    tasks = {words_of(job).split("--tasks ")[1].split()[0] for job in found["pretrain"].values()}
    assert tasks == {"squad", "glue_cola,glue_rte"}
    # With a single task nothing is left to mix.
    alone = jobs(plan_row(study(tasks=("squad",)),
                          row_of("table12", "leave-one-out multi-task training"), 0))  # fmt: skip
    (pretrain,) = alone["pretrain"].values()
    assert "--tasks" not in pretrain.words


def test_ensembles_have_four_members():
    apart = jobs(plan_row(study(tasks=("squad",)), row_of("table13", "4x ensembled"), 0))
    assert [len(apart[kind]) for kind in ("pretrain", "finetune", "evaluate")] == [4, 4, 1]
    (evaluation,) = apart["evaluate"].values()
    assert evaluation.words.count("--from") == 4
    row = row_of("table13", "4x ensembled, fine-tune only")
    together = jobs(plan_row(study(tasks=("squad",)), row, 0))
    assert [len(together[kind]) for kind in ("pretrain", "finetune", "evaluate")] == [1, 4, 1]
    # The first member is the baseline.
    baseline = jobs(plan_row(study(tasks=("squad",)), row_of("table13", "baseline"), 0))
    assert set(baseline["finetune"]) < set(together["finetune"])


def test_the_final_models_are_tuned_for_each_task_and_search_with_beams():
    tasks = ("glue_cola", "glue_rte", "super_glue_boolq", "dpr", "cnn_dailymail")
    found = jobs(plan_row(study("paper", tasks), row_of("table15", "T5-Base"), 0))
    by_task = {job.words[2]: words_of(job) for job in found["finetune"].values()}
    assert set(by_task) == set(tasks) - {"dpr"}  # which has no validation set
    assert "--batch-size 8 " in by_task["glue_cola"]
    assert "--batch-size 128 " in by_task["cnn_dailymail"]
    beams = [job.words[2] for job in found["evaluate"].values() if "--beams" in job.words]
    assert beams == ["cnn_dailymail"]


def test_no_pretraining_takes_the_baseline_s_model_without_its_parameters():
    none = jobs(plan_row(study(), row_of("table1", "no pre-training"), 0))
    baseline = jobs(plan_row(study(), row_of("table1", "baseline"), 0))
    assert set(none["pretrain"]) == set(baseline["pretrain"])
    assert all("--random-weights" in job.words for job in none["finetune"].values())
    assert not set(none["finetune"]) & set(baseline["finetune"])


def test_dpr_is_tuned_on_with_super_glue():
    found = jobs(plan_row(study(tasks=("super_glue_wsc", "dpr")), row_of("table1", "baseline"), 0))
    (finetune,), (evaluation,) = found["finetune"].values(), found["evaluate"].values()
    assert finetune.words[2] == "super_glue_wsc,dpr"
    assert evaluation.words[2] == "super_glue_wsc"


def test_repeated_data_is_as_many_pages_as_hold_it():
    row = row_of("table9", "2^29 tokens, 64 times")
    plan = plan_row(study("paper", tokens_per_page={"c4": 500.0}), row, 0)
    (pretrain,) = jobs(plan)["pretrain"].values()
    assert f"--max-pages {round(2**29 / 500)} " in words_of(pretrain)


def test_a_corpus_that_was_not_given_is_named():
    with pytest.raises(
        MissingError, match=r"corpus wikipedia \(English Wikipedia\): give --corpus"
    ):
        plan_row(study(), row_of("table8", "Wikipedia"), 0)


def test_tiny_keeps_the_ratios_of_the_paper():
    tiny, paper = SCALES["tiny"], SCALES["paper"]
    long = row_of("table13", "1x size, 4x training steps").pretrain
    assert tiny.pretrain_steps(long) == 4 * tiny.pretrain_steps(Pretrain())
    assert paper.pretrain_steps(long) == 2**21
    wide = row_of("table13", "1x size, 4x batch size").pretrain
    assert tiny.tokens(wide) == 4 * tiny.tokens(Pretrain())
    adapters = [tiny.finetune_options(row_of("table10", f"adapter layers, d = {d}").finetune, True)
                for d in (32, 2048)]  # fmt: skip
    assert [found[found.index("--adapter") + 1] for found in adapters] == ["2", "128"]
    assert {found[found.index("--adapter-norms") + 1] for found in adapters} == {"all"}
    assert paper.finetune_options(FineTune(glue_batch_size=8), True)[3] == "8"
    assert mixture("all").limit == Mixing().limit


# Runs, with commands that do nothing


@pytest.fixture
def data(tmp_path):
    for name in ("glue_cola", "squad"):
        splits = ("train", "validation")
        prepare(name, [(split, TASKS[name].sample) for split in splits], tmp_path / "data", "x")
    return str(tmp_path / "data")


@pytest.fixture
def commands(monkeypatch):
    """Stands in for ``c4``: keeps the commands, and writes scores."""
    ran = []

    def run_c4(words, log, cache=None):
        ran.append(list(words))
        if "--objective mass" in " ".join(words):
            raise ValueError("out of luck")
        if words[0] == "evaluate":
            target = pathlib.Path(words[words.index("--json") + 1])
            seed = len([w for w in ran if w[0] == "evaluate"])
            columns = {"cola_mcc": 50.0 + seed} if "glue_cola" in words else {"squad_em": 81.0}
            target.write_text(json.dumps({"columns": columns | {"qnli_acc": None}}))
        if words[0] == "vocab":
            pathlib.Path(words[words.index("--output") + 1]).touch()

    monkeypatch.setattr(running, "run_c4", run_c4)
    return ran


def config(tmp_path, data, names="table5", **options):
    options = {"corpora": {"c4": "C4"}, "scale": "tiny", "data": data} | options
    return StudyConfig(names=study_names(names), out=str(tmp_path / "out"), **options)


def test_a_failed_run_fails_its_rows_and_no_other(tmp_path, data, commands):
    results = run_study(config(tmp_path, data))
    assert [(result.row.title, result.failed) for result in results] == [
        ("BERT-style", None),
        ("MASS-style", "pretrain: out of luck"),
        ("replace corrupted spans", None),
        ("drop corrupted tokens", None),
    ]
    kinds = [words[0] for words in commands]
    assert kinds.count("vocab") == 1
    assert kinds.count("pretrain") == 4
    assert kinds.count("finetune") == kinds.count("evaluate") == 6

    # Again: only what failed.
    commands.clear()
    run_study(config(tmp_path, data))
    assert [words[0] for words in commands] == ["pretrain"]

    # Another table: BERT-style is there.
    commands.clear()
    run_study(config(tmp_path, data, "table4"))
    assert [words[0] for words in commands].count("pretrain") == 2


def test_rows_without_a_corpus_are_missing(tmp_path, data, commands):
    results = run_study(config(tmp_path, data, "table8"))
    assert [bool(result.missing) for result in results] == [False, *[True] * 5]
    assert "--corpus wikipedia=DIR" in results[4].missing


def test_a_dry_run_says_every_command_once(tmp_path, data, commands):
    said = []
    run_study(config(tmp_path, data, "table10"), said.append, dry_run=True)
    assert commands == []
    assert not (tmp_path / "out").exists()
    assert [line.split()[1] for line in said].count("pretrain") == 1
    assert len(said) == len(set(said)) == 1 + 1 + 12 + 12


def test_the_folder_of_another_study_is_refused(tmp_path, data, commands):
    run_study(config(tmp_path, data))
    with pytest.raises(ValueError, match="was begun with scale 'tiny', now it is 'paper'"):
        run_study(config(tmp_path, data, scale="paper", vocabulary="v.model"))
    with pytest.raises(
        ValueError, match="was begun with vocabulary 'made from C4', now it is 'made"
    ):
        run_study(config(tmp_path, data, corpora={"c4": "another"}))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    other = StudyConfig(names=("table4",), out=str(tmp_path / "other"), data=data,
                        corpora={"c4": "C4"}, scale="tiny")  # fmt: skip
    with pytest.raises(ValueError, match="holds something else"):
        run_study(other)


def test_a_refused_start_leaves_no_study(tmp_path, data, commands):
    with pytest.raises(ValueError, match="has no training data"):
        run_study(config(tmp_path, str(tmp_path / "none")))
    with pytest.raises(ValueError, match=r"none.model: no such file \(--vocab\)"):
        run_study(config(tmp_path, data, vocabulary=str(tmp_path / "none.model")))
    run_study(config(tmp_path, data))


def test_what_cannot_be_run_is_refused(tmp_path, data):
    with pytest.raises(ValueError, match=r"no experiment has a corpus C4; .*\(--corpus\)"):
        config(tmp_path, data, corpora={"c4": "x", "C4": "y"})
    with pytest.raises(ValueError, match="c4= is given twice, as x and y"):
        _read_corpora(["c4=x", "c4=y"])
    with pytest.raises(ValueError, match="--vocab is missing"):
        config(tmp_path, data, scale="paper")
    with pytest.raises(ValueError, match=r"no scale 'big': tiny, paper \(--scale\)"):
        config(tmp_path, data, scale="big")
    with pytest.raises(ValueError, match="--corpus c4=DIR"):
        config(tmp_path, data, corpora={})
    with pytest.raises(
        ValueError, match=r"no experiment has a corpus c5; they have c4, .*--corpus"
    ):
        config(tmp_path, data, corpora={"c4": "C4", "c5": "C5"})
    prepare("own", [("train", TASKS["dpr"].sample | {"inputs": "a", "targets": "b"})],
            tmp_path / "own", "x")  # fmt: skip
    with pytest.raises(ValueError, match="no training data of the paper's tasks"):
        run_study(config(tmp_path, str(tmp_path / "own")))


# Tables


def lines_of(tmp_path, name):
    return list(study_table(experiment(name), read_scores(str(tmp_path / "out"))))


def test_the_table_has_ours_beside_the_paper_s(tmp_path, data, commands):
    run_study(config(tmp_path, data, seeds=2))
    lines = lines_of(tmp_path, "table5")
    header = lines[2].split()
    assert header[:8] == ["GLUE", "CNNDM", "SQuAD", "SGLUE", "EnDe", "EnFr", "EnRo", "CoLA"]
    ours = next(line for line in lines if line.startswith("replace corrupted spans"))
    assert "ours, 2 seeds" in ours
    assert "81.00 ± 0.00" in ours
    assert "56.00 ± 1.41" in ours  # of 55 and 57
    mass = next(line for line in lines if line.startswith("MASS-style"))
    assert "paper" in mass  # the row failed, and has the paper's scores alone
    assert "82.32*" in mass
    assert any("2 seeds of our baseline" in line for line in lines)


def test_differences_beyond_two_standard_deviations_are_marked(tmp_path, data, commands):
    run_study(config(tmp_path, data, "table5"))
    lines = lines_of(tmp_path, "table5")
    # Table 1's for a single seed: 1.111 of CoLA.
    baseline = next(line for line in lines if line.startswith("replace corrupted spans"))
    assert baseline.split()[-1] == "53.00"
    assert "81.00 " in baseline
    assert "standard deviations: for ours, Table 1; for the paper's, Table 1" in lines
    rows = json.loads((tmp_path / "out" / "rows.json").read_text())
    (glue, _) = rows["table5"]["BERT-style"]["0"]
    (tmp_path / "out" / glue).write_text(json.dumps({"columns": {"cola_mcc": 10.0}}))
    assert "10.00*!" in "\n".join(lines_of(tmp_path, "table5"))


def test_without_runs_the_table_is_the_paper_s():
    for entry in EXPERIMENTS.values():
        lines = list(study_table(entry, {}))
        assert sum(" paper " in line for line in lines) == len(entry.rows)
        assert not any("ours" in line for line in lines)
    table = "\n".join(study_table(experiment("table10"), {}))
    assert "80.52*  15.08*  79.32*" in table


def test_a_folder_that_is_no_study_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"not a folder of c4 study run \(--runs\)"):
        read_scores(str(tmp_path))
