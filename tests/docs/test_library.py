"""docs/library.md: every example runs as it is written; public names are listed and cheap."""

import importlib
import pathlib
import pkgutil
import re
import subprocess
import sys

import pytest

import c4_filters
import model
import pipelines
from testing.helpers import run_c4

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
PUBLIC = {
    "c4_filters": [
        "CleanPage", "ExplainedLine", "ExplainedPage", "LineVerdict", "NearDedup", "PageRules",
        "PageVerdict", "RECIPES", "RawPage", "Recipe", "RejectReason", "explain_page",
        "load_recipe", "load_rules", "normalize_url",
    ],
    "model": [
        "EvaluateConfig", "FinetuneConfig", "InputConfig", "LoadedModel", "ModelConfig",
        "Predictor", "T5", "TrainConfig", "Vocabulary", "evaluate", "finetune", "load_hf",
        "make_head", "make_mixture", "model_config", "objective",
        "open_trained", "pretrain",
    ],
    "pipelines": [
        "Answer", "BuildConfig", "BuildCorpus", "Corpus", "CorpusError", "Manifest", "Page",
        "build", "explain", "open_corpus", "why",
    ],
}  # fmt: skip


def blocks(word):
    """The examples that have a word, as they stand on the page."""
    found = [block for block in BLOCKS if word in block]
    assert found
    return found


def run_in_clone(folder, code, *options, **changes):
    """Runs code from standard input in a folder with the samples, as somebody reading would."""
    if not (folder / "samples").exists():
        (folder / "samples").symlink_to(ROOT / "samples")
    done = subprocess.run(
        [sys.executable, *options, "-"], input=code, cwd=folder, capture_output=True, text=True,
        **changes,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clone")
    [code] = blocks("made = build(")
    shown = run_in_clone(folder, code)
    assert shown.stdout.startswith("108 pages read, 68 written\n")
    return folder


def test_every_example_is_run_by_a_test():
    words = (
        "made = build(", "BuildCorpus", "corpus.pages(", "Comparison(", ".dataset(", "Page(",
        "PageRules", "pretrain(", "finetune(", "load_hf(", "evaluate(", "why(", "status(",
        'source="jsonl"', "make_mixture(",
    )  # fmt: skip
    assert sorted(block for word in words for block in blocks(word)) == sorted(BLOCKS)


@pytest.mark.slow
def test_the_examples_of_building_and_reading(clone):
    [transform], [pages], [dataset], [parts] = map(
        blocks, ("BuildCorpus", "corpus.pages(", ".dataset(", "Comparison(")
    )
    [state] = blocks("status(")
    assert run_in_clone(clone, state).stdout == "done 3 cleaned, 0 left\n"
    made = run_in_clone(clone, transform)
    assert made.stdout.strip().isdigit()
    assert "Traceback" not in made.stderr
    assert not list((clone / "mine").glob("*.tmp*"))
    shown = run_in_clone(clone, pages).stdout.splitlines()
    assert shown[0].startswith("{'train': 67, 'validation': 1} {")
    assert len(shown) == 1 + 67
    [lines], [mixture] = blocks('source="jsonl"'), blocks("make_mixture(")
    assert run_in_clone(clone, lines).stdout == "1\n"
    assert "14, " in run_in_clone(clone, mixture).stdout
    dataset = dataset.replace(".to_pandas()", "")  # pandas is no dependency
    assert "language-probability: float" in run_in_clone(clone, dataset).stdout
    [why] = blocks("why(")
    place, lines = run_in_clone(clone, why).stdout.splitlines()
    assert place.endswith("sample-00000.warc.wet.gz 1490 written kept en 1.0000")
    assert lines.endswith("'no_end_mark'] ()")
    compared = run_in_clone(clone, parts).stdout.splitlines()
    assert "'differing': 0" in compared[-2]
    assert compared[-1] == f"en 68 {clone}/by-language/en"


def test_the_examples_of_explaining(capsys):
    for block in (*blocks("Page("), *blocks("PageRules")):
        exec(block, {})
        shown = capsys.readouterr().out.splitlines()
        for line, comment in zip(
            shown, re.findall(r"^print.*?  # (.*)", block, re.M), strict=False
        ):
            assert line == comment


@pytest.mark.slow
def test_the_examples_of_training(clone, monkeypatch):
    from model.exchange.hugging_face import export_model
    from testing.tiny_t5 import V1_0, random_params

    monkeypatch.chdir(clone)
    done = run_c4("vocab", "--corpus", "corpus", "--size", 300, "--output", "corpus.model")
    assert done.status == 0, done.err
    [block] = blocks("pretrain(")
    exec(block, {})
    assert (clone / "run" / "checkpoints").is_dir()
    [block] = blocks("finetune(")
    exec(block, {})
    assert (clone / "reviews" / "best" / "own").is_dir()
    config = V1_0.replace(vocab_size=2048)
    export_model(clone / "served", config, random_params(config))
    [block] = blocks("load_hf(")
    exec(block, {})


SCRIPT = """\
print("the main module runs")
from pipelines import BuildConfig, build
made = build(BuildConfig(inputs="samples/wet/sample-0000*", output=OUT), workers=2)
print(made.counts.pages_written)
"""


@pytest.mark.slow
def test_a_script_without_a_main_guard_runs_once(clone):
    (clone / "script.py").write_text(SCRIPT.replace("OUT", "'script'"))
    done = subprocess.run([sys.executable, "script.py"], cwd=clone, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "the main module runs\n68\n"), done.stderr
    done = run_in_clone(clone, SCRIPT.replace("OUT", "'typed'"))
    assert done.stdout == "the main module runs\n68\n"
    for name in ("script", "typed"):
        for shard in (clone / "corpus").glob("*.parquet"):
            assert (clone / name / shard.name).read_bytes() == shard.read_bytes()


@pytest.mark.parametrize("package", [c4_filters, model, pipelines])
def test_the_public_names_are_listed(package):
    assert sorted(package.__all__) == sorted(PUBLIC[package.__name__])
    assert set(package.__all__) <= set(dir(package))
    for name in package.__all__:
        getattr(package, name)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        package.nothing  # noqa: B018


@pytest.mark.parametrize("package", [c4_filters, model, pipelines])
def test_no_module_has_the_name_of_a_function(package):
    modules = {module.name.lower() for module in pkgutil.iter_modules(package.__path__)}
    functions = {name for name in package.__all__ if not isinstance(getattr(package, name), type)}
    assert functions.isdisjoint(modules)
    for name in modules:  # nor does importing one hide a name
        importlib.import_module(f"{package.__name__}.{name}")
    assert all(not hasattr(getattr(package, name), "__path__") for name in package.__all__)


def test_importing_is_cheap():
    code = (
        "import sys; import c4_filters, model, pipelines; "
        "print(sorted({'apache_beam', 'jax', 'numpy', 'pyarrow', 'requests'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
