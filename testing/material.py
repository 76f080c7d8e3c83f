"""A corpus of made-up sentences and a vocabulary of 64 pieces, once a session."""

import os
import pathlib
import random
import subprocess
import sys
import types

import pytest

from testing import vocabularies
from testing.corpora import make_corpus

_WHO = "the fox,a grey cat,my neighbour,the old miller,her brother,nobody here,the quiet town"
_DOES = "sees,sells,carries,paints,forgets,mends,finds,likes"
_WHAT = "three apples,a wooden boat,the broken clock,some warm bread,a letter,every second word"
_WHEN = "before noon,in the evening,on a rainy day,after the long winter,every morning"


def _pages(seed, count):
    draw = random.Random(seed)
    lists = [words.split(",") for words in (_WHO, _DOES, _WHAT, _WHEN)]
    return [
        ". ".join(" ".join(map(draw.choice, lists)) for _ in range(draw.randint(5, 30))) + "."
        for _ in range(count)
    ]


@pytest.fixture(scope="session")
def material(tmp_path_factory):
    """``corpus``: folder with both splits; ``vocab``: a SentencePiece model; ``cache``: for XLA."""
    folder = tmp_path_factory.mktemp("material")
    splits = {"train": [_pages(1, 60), _pages(2, 60)], "validation": [_pages(3, 10)]}
    corpus = make_corpus(folder / "corpus", splits)
    texts = [page for pages in splits["train"] for page in pages]
    vocab = vocabularies.train(folder / "vocab.model", texts, vocab_size=64)
    return types.SimpleNamespace(corpus=corpus, vocab=str(vocab), cache=str(folder / "xla"))


@pytest.fixture
def quick_xla(material):
    """Compiles fast rather than well, and nothing twice in a session."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    settings = {  # name: for these tests, otherwise
        "jax_disable_most_optimizations": (True, False),
        "jax_compilation_cache_dir": (material.cache, None),
        "jax_persistent_cache_min_compile_time_secs": (0, 1.0),
        "jax_persistent_cache_min_entry_size_bytes": (-1, 0),
    }
    for name, (here, _) in settings.items():
        jax.config.update(name, here)
    compilation_cache.reset_cache()
    yield
    for name, (_, elsewhere) in settings.items():
        jax.config.update(name, elsewhere)
    compilation_cache.reset_cache()


_ROOT = pathlib.Path(__file__).resolve().parents[1]
# The shipped command, and at its end what it has imported that it should not.
_COMMAND = """
import sys
from pipelines.c4_main import main
status = main()
print("imported:", *sorted({"tensorflow", "apache_beam", "torch"} & set(sys.modules)))
sys.exit(status)
"""


@pytest.fixture(scope="session")
def start_run(material):
    """Starts a run of 120 steps as a process; what it says is one stream unless told otherwise."""
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "JAX_COMPILATION_CACHE_DIR": material.cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }

    def start(out, *more, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, variables=None):
        command = [
            sys.executable, "-c", _COMMAND, "pretrain",
            "--corpus", material.corpus, "--vocab", material.vocab, "--out", str(out),
            "--size", "tiny", "--set", "d_model=32", "--set", "d_ff=64", "--set", "d_kv=8",
            "--set", "num_layers=1", "--input-length", "32", "--batch-size", "4",
            "--steps", "120", "--checkpoint-every", "10", "--eval-every", "25",
            "--eval-batches", "1", "--keep-last", "2", "--workers", "0", *more,
        ]  # fmt: skip
        return subprocess.Popen(
            command,
            cwd=_ROOT,
            env={**environment, **(variables or {})},
            text=True,
            stdout=stdout,
            stderr=stderr,
        )

    return start


@pytest.fixture(scope="session")
def uninterrupted(start_run, tmp_path_factory):
    """Folder of a run of ``start_run`` that was never stopped."""
    out = tmp_path_factory.mktemp("runs") / "straight"
    run = start_run(out)
    text, _ = run.communicate(timeout=300)
    assert run.returncode == 0, text
    assert text.endswith("\nimported:\n")
    return out
