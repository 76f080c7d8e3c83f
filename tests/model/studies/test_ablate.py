"""``c4 ablate``: what is held out, what is judged on, and a planted difference."""

import contextlib
import io
import json
import pathlib
import random

import pytest

from benchmarks import ablate as proof
from model.studies import ablate as ablation
from model.studies import held_out
from model.studies.ablate import AblateConfig, Work, ablate, outcome_lines
from model.studies.folders import locked
from model.studies.held_out_pages import write_corpus
from model.tasks.prepared import prepare
from model.tasks.registry import TASKS
from pipelines import open_corpus
from pipelines.corpus.formats.pages import Page
from testing import languages
from testing.helpers import run_c4

TEXTS = languages.pages("en", 400, seed=1)


def pages(change=lambda text: text, count=400):
    return [Page(change(text), url=f"http://a.example/{n}") for n, text in enumerate(TEXTS[:count])]


def corpus(folder, change=lambda text: text, count=400):
    write_corpus(iter(pages(change, count)), folder)
    return str(folder)


def first_line_shouted(text):
    first, _, rest = text.partition("\n")
    return f"{first.upper()}\n{rest}"


def config(tmp_path, **options):
    (tmp_path / "v.model").touch()
    options = {
        "a": corpus(tmp_path / "a"), "b": corpus(tmp_path / "b", first_line_shouted),
        "out": str(tmp_path / "out"), "vocabulary": str(tmp_path / "v.model"),
    } | options  # fmt: skip
    return AblateConfig(**options)


def split(asked):
    work = Work(asked, lambda line: None)
    work.begin()
    training, texts = work.split(work.corpora())
    return training, {pathlib.Path(path).stem: lines_of(path) for path in texts}


def lines_of(path):
    with open(path) as file:
        return [json.loads(line)["text"] for line in file]


def urls(folder):
    return {page.url for page in open_corpus(folder).pages()}


def test_pages_are_held_out_of_both_by_their_url(tmp_path):
    training, texts = split(config(tmp_path, held_out_share=0.25))
    assert urls(training["a"]) == urls(training["b"])
    held = {page.url: page.text for page in pages() if page.url not in urls(training["a"])}
    assert 60 < len(held) < 140
    # Judged on the lines that both have: all but the first.
    assert list(texts) == ["both"]
    assert sorted(texts["both"]) == sorted(text.partition("\n")[2] for text in held.values())
    trained = [page.text for page in open_corpus(training["b"]).pages()]
    assert trained == [first_line_shouted(p.text) for p in pages() if p.url not in held]


def test_without_common_lines_both_corpora_are_judged_on(tmp_path):
    asked = config(tmp_path, b=corpus(tmp_path / "c", str.upper), held_out_share=0.25)
    training, texts = split(asked)
    assert set(texts) == {"a", "b"}
    assert set(texts["b"]) == {text.upper() for text in texts["a"]}
    assert not {page.text for page in open_corpus(training["b"]).pages()} & set(texts["b"])


def test_a_corpus_of_another_size_holds_out_the_same_pages(tmp_path):
    asked = config(tmp_path, b=corpus(tmp_path / "c", count=250), held_out_share=0.2)
    training, _ = split(asked)
    assert urls(training["b"]) == urls(training["a"]) & {page.url for page in pages(count=250)}


def test_text_may_be_given(tmp_path):
    asked = config(tmp_path, held_out=corpus(tmp_path / "held", str.lower, 20))
    training, texts = split(asked)
    assert training == {"a": asked.a, "b": asked.b}
    assert texts == {"given": [text.lower() for text in TEXTS[:20]]}


def test_too_little_text_is_refused(tmp_path):
    few = [corpus(tmp_path / name, count=3) for name in "ab"]
    with pytest.raises(ValueError, match="too little text to judge on"):
        split(AblateConfig(a=few[0], b=few[1], out=str(tmp_path / "out"), held_out_share=0.0001))


@pytest.fixture
def fakes(monkeypatch):
    """Stands in for training: a run's bits follow from its arm and seed."""
    ran = []

    def run(words, log, cache=None):
        ran.append(list(words))
        if words[0] == "finetune":
            out = pathlib.Path(words[words.index("--out") + 1])
            out.mkdir(parents=True)
            seed = int(words[words.index("--seed") + 1])
            task = words[words.index("--task") + 1]
            value = (80 if "b-seed" in str(out) else 70) + seed
            # A correlation with equal predictions is undefined.
            written = None if task == "glue_stsb" and seed == 1 else value
            (out / "best.json").write_text(json.dumps({task: {"value": written}}))

    def measure(module, words, log, cache=None):
        ran.append(["measure", *words])
        lines = []
        for path in words[words.index("--texts") + 2 :]:
            if path == "--whole":
                continue
            arm, seed = pathlib.Path(path).name.split("-seed-")
            bits = {"a": 1000, "b": 1100}[arm] + 10 * int(seed)
            found = {words[1]: {"bits": bits, "bytes": 500, "tokens": 100}}
            lines.append(json.dumps({"run": path, "texts": found}))
        return "\n".join(["a warning", *lines])

    monkeypatch.setattr(ablation, "run_c4", run)
    monkeypatch.setattr(ablation, "run_python", measure)
    return ran


def cola(folder):
    rows = [(split, TASKS["glue_cola"].sample) for split in ("train", "validation")]
    prepare("glue_cola", rows, folder, "x")
    return str(folder)


def kinds(ran):
    return [words[0] for words in ran]


def test_pairs_are_trained_and_compared(tmp_path, fakes):
    of_task = {"tasks": ("glue_cola",), "data": cola(tmp_path / "data")}
    asked = config(tmp_path, seeds=3, held_out_share=0.2, **of_task)
    outcome = ablate(asked)
    assert kinds(fakes) == ["pretrain"] * 6 + ["measure"] + ["finetune"] * 6
    seeds = [words[words.index("--seed") + 1] for words in fakes[:6]]
    assert seeds == ["0", "0", "1", "1", "2", "2"]
    found = outcome.comparisons["bits per byte"]
    assert (found.a, found.b) == (pytest.approx(2.02), pytest.approx(2.22))
    assert found.verdict == "A is better"
    assert outcome.comparisons["glue_cola"].verdict == "B is better"
    lines = list(outcome_lines(asked, outcome))
    assert lines[-2].split() == [
        "bits", "per", "byte", "2.0200", "2.2200", "+0.2000", "+0.2000", "to", "+0.2000",
        "A", "is", "better",
    ]  # fmt: skip
    assert "bytes of lines that both corpora have" in lines[3]

    # More pairs later; what is there stays.
    fakes.clear()
    ablate(config(tmp_path, seeds=4, held_out_share=0.2, **of_task))
    assert kinds(fakes) == ["pretrain"] * 2 + ["measure"] + ["finetune"] * 2

    # A run that reached its last step and was not measured is not trained again.
    out = pathlib.Path(asked.out)
    (out / "results.json").unlink()
    (out / "runs" / "a-seed-0" / "checkpoints" / "300").mkdir(parents=True)
    (out / "runs" / "b-seed-0" / "checkpoints" / "100").mkdir(parents=True)
    fakes.clear()
    ablate(asked)
    assert kinds(fakes) == ["pretrain"] * 5 + ["measure"]
    with pytest.raises(ValueError, match="was begun with steps 300, now it is 7"):
        ablate(config(tmp_path, steps=7, held_out_share=0.2))


def test_what_is_not_there_is_named_before_anything_is_written(tmp_path, fakes):
    data = cola(tmp_path / "data")
    for options, message in (
        ({"a": str(tmp_path / "none")}, "none"),
        ({"held_out": str(tmp_path / "none")}, "none"),
        ({"b": corpus(tmp_path / "empty", count=0)}, "has no pages in its split"),
        ({"vocabulary": "none.model"}, r"none.model: no such file \(--vocab\)"),
        ({"tasks": ("glue",), "data": data}, r"no task 'glue'.* \(--task\)"),
        ({"tasks": ("glue_rte",), "data": data}, "has no data of glue_rte"),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            ablate(config(tmp_path, **options))
        assert not (tmp_path / "out").exists()
    assert fakes == []
    ablate(config(tmp_path, seeds=2, held_out_share=0.2))  # what was refused is no hindrance


def test_a_folder_of_something_else_is_left_as_it_is(tmp_path, fakes):
    asked = config(tmp_path, out=str(tmp_path / "a"))
    before = sorted(path.name for path in (tmp_path / "a").iterdir())
    with pytest.raises(ValueError, match=r"holds something else: .* \(--out\)"):
        ablate(asked)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == before


def test_one_process_at_a_time_works_in_a_folder(tmp_path, fakes):
    asked = config(tmp_path, seeds=2, held_out_share=0.2)
    with (
        locked(pathlib.Path(asked.out), "ablate.json"),
        pytest.raises(ValueError, match=r"another process works in it.*\(--out\)"),
    ):
        ablate(asked)


def test_a_task_with_undefined_scores_is_not_compared(tmp_path, fakes, monkeypatch):
    asked = config(tmp_path, seeds=2, held_out_share=0.2, level=0.999, tasks=("glue_cola",),
                   data=cola(tmp_path / "data"))  # fmt: skip
    run = ablation.run_c4

    def without_a_score(words, log, cache=None):
        run(words, log, cache)
        if words[0] == "finetune":
            best = pathlib.Path(words[words.index("--out") + 1]) / "best.json"
            best.write_text('{"glue_cola": {"value": null}}')

    monkeypatch.setattr(ablation, "run_c4", without_a_score)
    said: list[str] = []
    lines = list(outcome_lines(asked, ablate(asked, said.append)))
    assert "99.9% interval" in lines[-2]
    assert "A is better" in lines[-1]
    assert "glue_cola: not compared: the score of 4 runs is undefined" in said


def test_recipes_are_built_first(tmp_path, fakes, monkeypatch):
    def build(words, log, cache=None):
        if words[0] == "build":
            corpus(pathlib.Path(words[words.index("--output") + 1]))
        fakes.append(list(words))

    monkeypatch.setattr(ablation, "run_c4", build)
    asked = AblateConfig(recipe_a="en", recipe_b="en.noclean", inputs="wet/*", seeds=2,
                         out=str(tmp_path / "out"), held_out_share=0.2)  # fmt: skip
    ablate(asked)
    assert kinds(fakes) == ["build", "build", "vocab", *["pretrain"] * 4, "measure"]
    assert fakes[1][fakes[1].index("--recipe") + 1] == "en.noclean"


def test_what_cannot_be_compared_is_refused(tmp_path):
    for options, message in (
        ({}, "two corpora are needed"),
        ({"a": "x"}, "two corpora are needed"),
        ({"a": "", "b": "x"}, "the name of a corpus is empty"),
        ({"a": "x", "b": "y", "inputs": "z"}, "not both"),
        ({"recipe_a": "en", "inputs": "z"}, "recipes need all of"),
        ({"a": "x", "b": "y", "tasks": ("glue_cola",)}, "--task needs --data"),
        ({"a": "x", "b": "y", "size": "tinny"}, "no size 'tinny', perhaps 'tiny'"),
        ({"a": "x", "b": "y", "objective": "span4"}, "no objective 'span4'"),
        (
            {"a": "x", "b": "y", "architecture": "encoder-decoder"},
            "objective causal_lm leaves an encoder nothing to read",
        ),
        ({"a": "x", "b": "y", "seeds": 1}, r"seeds must be between 2 and 1000, got 1 \(--seeds\)"),
    ):
        with pytest.raises(ValueError, match=message):
            AblateConfig(out=str(tmp_path), **options)


def test_undefined_scores_are_not_compared(tmp_path, fakes):
    data = str(tmp_path / "data")
    for name in ("glue_stsb", "glue_cola"):
        splits = [(split, TASKS[name].sample) for split in ("train", "validation")]
        prepare(name, splits, data, "samples")
    said = []
    asked = config(tmp_path, seeds=2, held_out_share=0.2, tasks=("glue_stsb", "glue_cola"),
                   data=data)  # fmt: skip
    outcome = ablate(asked, said.append)
    assert said[-1].startswith("fine-tuning B with seed 1 on glue_cola")
    assert "glue_stsb: not compared: the score of 2 runs is undefined" in said
    assert list(outcome.comparisons) == ["bits per byte", "glue_cola"]


def test_tasks_are_looked_at_before_anything_is_trained(tmp_path):
    sample = {"inputs": "a", "targets": "b"}
    prepare("own", [("train", sample)], tmp_path / "data", "made up")
    for task, message in (("own", "has no examples to train on and to validate on"),
                          ("glue_cola", "has no data of glue_cola")):  # fmt: skip
        asked = AblateConfig(a="x", b="y", tasks=(task,), data=str(tmp_path / "data"),
                             out=str(tmp_path / "out"))  # fmt: skip
        with pytest.raises(ValueError, match=message):
            ablate(asked)
        assert not (tmp_path / "out").exists()


# The proof in short: a coarse difference, a small model, few steps.


def in_process(words, log, cache=None):
    done = run_c4(*words)
    assert done.status == 0, done.err


def measure_in_process(module, words, log, cache=None):
    assert module == "model.studies.held_out"
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        held_out.main(words)
    return out.getvalue()


@pytest.mark.slow
def test_letters_in_disorder_make_a_worse_model(tmp_path, monkeypatch, quick_xla):
    monkeypatch.setattr(ablation, "run_c4", in_process)
    monkeypatch.setattr(ablation, "run_python", measure_in_process)
    rng = random.Random(0)

    def disordered(text):
        return "\n".join(
            line if rng.random() < 0.5 else "".join(rng.sample(line, len(line)))
            for line in text.split("\n")
        )

    asked = config(
        tmp_path, b=corpus(tmp_path / "c", disordered), vocabulary=None, vocabulary_size=300,
        held_out_share=0.2, seeds=2, steps=25, batch_size=8, input_length=64, warmup=100,
        changes=("num_layers=1", "d_model=32", "d_ff=64", "d_kv=8"),
    )  # fmt: skip
    outcome = ablate(asked)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    bits = {name: ablation.bits_per_byte(found) for name, found in results.items()}
    for seed in range(2):
        assert bits[f"b-seed-{seed}"] > bits[f"a-seed-{seed}"]
    assert outcome.comparisons["bits per byte"].difference > 0


def test_the_benchmark_judges_what_it_measures(capsys):
    rng = random.Random(0)
    a = [2 + rng.gauss(0, 0.01) for _ in range(16)]
    b = [value + 0.1 + rng.gauss(0, 0.002) for value in a[:10]]
    assert proof.report(a, b, 0.99)
    told = capsys.readouterr().out
    assert "right sign: 10 of 10\nverdicts, each of 5 pairs: A is better: 6\n" in told
    assert not proof.report(a, [*b[:9], a[9] - 0.1], 0.99)
    assert not proof.report(a, a[:10], 0.99)
    text = [Page("a b c d e f g h\ni j k l m n o p") for _ in range(50)]
    words = list(proof.shuffled_words(text, random.Random(0)))
    changed = sum(
        one != other
        for page in words
        for one, other in zip(page.text.split("\n"), text[0].text.split("\n"), strict=True)
    )
    assert 10 <= changed <= 30
    lines = list(proof.shuffled_lines(text, random.Random(0)))
    assert sorted(" ".join(p.text for p in lines)) == sorted(" ".join(p.text for p in text))
