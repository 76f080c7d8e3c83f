import argparse
import contextlib
import dataclasses
import importlib
import os
import pathlib
import re
import signal
import subprocess
import sys
from typing import Any, NoReturn

import pytest

from pipelines import builds, c4_main
from pipelines.commands import build as build_command
from pipelines.commands import explain as explain_command
from pipelines.config import BuildConfig
from pipelines.version import VERSION
from testing.helpers import run_c4, write_wet

PAGE = ("http://a.example/", "2019-04-18T10:00:00Z", "Too short to stay.")


@pytest.fixture
def wet(tmp_path: pathlib.Path) -> str:
    return write_wet(tmp_path / "a.warc.wet.gz", [PAGE])[0]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Configurations and Beam options that would have been built."""
    found: list[Any] = []

    def run_build(corpus: Any, options: Any, show: Any, _: Any) -> None:
        corpus.claim.require(now=True)
        found.append((corpus.config, options, show))

    monkeypatch.setattr(builds, "run_build", run_build)
    return found


# {out}, {dir} and {wet} are filled in.
BAD_BUILDS = [
    (["--recipe", "enn"], "unknown recipe 'enn'; did you mean 'en'?"),
    (["--recipe", "{dir}/absent.toml"], "absent.toml: No such file or directory (--recipe)"),
    (["--recipe", "{dir}/klingon.toml"], "language must name a Punkt model, got 'klingon'"),
    (["--recipe", "realnewslike"], "--domain-list FILE"),
    (["--recipe", "realnewslike", "--domain-list", "{wet}"], "is not UTF-8"),
    (["--recipe", "realnewslike", "--domain-list", "{dir}/words"], "domain list: not valid JSON"),
    (["--badwords", "en"], "--badwords wants LANG=FILE"),
    (["--badwords", "eng={dir}/words"], "'eng' is not a language code"),
    (["--badwords", "en={dir}/absent"], "cannot read the list"),
    (["--format", "parket"], "did you mean 'parquet'?"),
    (["--format", "json,json"], "name each format once"),
    (["--format", ","], "name each format once"),
    (["--shards", "many"], "--shards wants auto or a whole number from 1 to 99999, got 'many'"),
    (["--shards", "-1"], "--shards wants auto or a whole number from 1 to 99999, got '-1'"),
    (["--shards", "0"], "--shards wants auto or a whole number from 1 to 99999, got '0'"),
    (["--workers", "0"], "--workers must lie between 1 and 1024, got 0"),
    (["--direct_num_workers", "-3"], "--direct_num_workers must lie between 0 and 1024, got -3"),
    (["--workers", "2", "--runner=FlinkRunner"], "--workers is for builds on this machine"),
    (["--max-record-mb", "-1"], "1 and 1,073,741,824 MB, got -1 (--max-record-mb)"),
    (["--allow-unreadable-files", "-1"], "must be at least 0, got -1 (--allow-unreadable-files)"),
    (["--runer=FlinkRunner"], "unknown option --runer=FlinkRunner; did you mean --runner?"),
    (["--direct_num_worker", "2"], "did you mean --direct_num_workers?"),
    (["--recipes=en"], "did you mean --recipe?"),
    (["--direct_num_workers=two"], "--direct_num_workers: expected a whole number, got 'two'"),
    (["--runner=FlinkRunner"], "FlinkRunner needs a cluster: give the address"),
    (["stray"], "unknown option stray"),
    (["--input", "{dir}/none-*"], "no input file matches"),
    (["--input", "{dir}"], "is a folder"),
    (["--input", ""], "no input: give at least one"),
    (["--output", ""], "--output is empty"),
    (["--output", "{dir}"], "holds files that c4 build did not write"),
    (["--output", "{wet}"], "Not a directory"),
]


@pytest.mark.parametrize(("words", "message"), BAD_BUILDS, ids=[" ".join(w) for w, _ in BAD_BUILDS])
def test_a_bad_option_is_one_line_and_status_1(
    tmp_path: pathlib.Path, wet: str, asked: list[Any], words: list[str], message: str
) -> None:
    (tmp_path / "words").write_text("darn\n")
    (tmp_path / "klingon.toml").write_text('name = "k"\nsentence_language = "klingon"\n')
    filled = [word.format(dir=tmp_path, wet=wet) for word in words]
    outcome = run_c4("build", "--input", wet, "--output", tmp_path / "out", *filled)
    assert outcome.status == 1
    assert outcome.out == ""
    assert outcome.err.startswith("c4: error: ")
    assert outcome.err.count("\n") == 1
    assert message in outcome.err
    assert asked == []
    # Nothing was begun that a corrected command would stumble over.
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["bild"], "unknown command 'bild'; did you mean build?"),
        (["explian", "--url", "x"], "unknown command 'explian'; did you mean explain?"),
        (["qwerty"], "unknown command 'qwerty'; there are build, verify, "),
        (["build"], "the following arguments are required: --output"),
        (["build", "--outptu=x"], "--output (for --outptu, did you mean --output?)"),
        (["build", "--inptu", "a", "--output", "x"], "(for --inptu, did you mean --input?)"),
        (["build", "--output", "x"], "one of --input and --crawl is required"),
        (["fetch"], "the following arguments are required: --crawl, --to"),
        (["build", "--input", "a", "--output"], "argument --output: expected one argument"),
        (
            ["build", "--input", "a", "--output", "b", "--workers", "x"],
            "--workers: expected a whole number, got 'x'",
        ),
        (["explain"], "the following arguments are required: FILE"),
        (["explain", "a", "--runner=FlinkRunner"], "unknown argument '--runner=FlinkRunner'"),
        (["explain", "a", "b"], "unknown argument 'b'"),
        (["explain", "a", "--verd", "x"], "unknown argument '--verd', did you mean --verdict?"),
        (["plan", "--files", "9", "--wrokers=3"], "'--wrokers=3', did you mean --workers?"),
        (["status", "--jsno"], "required: DIR (for --jsno, did you mean --json?)"),
        (["diff", "a", "b", "c", "--jsno"], "'--jsno', did you mean --json?"),
        (["verify", "a", "--qwerty"], "unknown argument '--qwerty' (c4 verify --help lists"),
    ],
)
def test_wrong_usage_is_status_2(words: list[str], message: str) -> None:
    outcome = run_c4(*words)
    assert outcome.status == 2
    assert message in outcome.err
    assert outcome.err.startswith("c4: error: ")
    assert outcome.err.count("\n") == 1
    known = bool(words) and words[0] in c4_main._COMMANDS
    way_out = f"c4 {words[0]} --help lists the options" if known else "c4 --help lists the commands"
    assert outcome.err.endswith(f" ({way_out})\n")


@pytest.mark.parametrize(
    ("path", "extra"),
    [("gs://missing-client/a.gz", "gcp"), ("s3://missing-client/a.gz", "aws")],
)
@pytest.mark.parametrize("command", [["explain"], ["plan", "--input"]])
def test_a_client_that_is_not_installed_is_named_by_its_extra(
    path: str, extra: str, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("obstore", "obstore.store"):
        monkeypatch.setitem(sys.modules, name, None)
    outcome = run_c4(*command, path)
    assert outcome.status == 1
    assert outcome.err.count("\n") == 1
    assert f"needs the extra {extra}, which is not installed" in outcome.err


def test_options_arrive_in_the_configuration(
    tmp_path: pathlib.Path, wet: str, asked: list[Any]
) -> None:
    words = tmp_path / "words"
    words.write_text("darn\n")
    outcome = run_c4(
        "build", "--input", wet, tmp_path / "a.warc.*", "--input", wet,
        "--output", tmp_path / "out",
        "--recipe", "tfds", "--format", "json, tfrecord", "--shards", "3", "--quiet",
        "--badwords", f"en={words}", "--allow-unreadable-files", "4",
        "--max-record-mb", "5", "--max-file-mb", "6",
        "--runner=FnApiRunner", "--direct_num_workers", "7", "--job_name=mine",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    [(config, options, show)] = asked
    assert config.inputs == (wet, str(tmp_path / "a.warc.*"), wet)
    assert config.output == str(tmp_path / "out")
    assert config.recipe.name == "tfds"
    assert config.formats == ("json", "tfrecord")
    assert (config.shards, config.allow_unreadable_files) == (3, 4)
    assert (config.max_record_bytes, config.max_file_bytes) == (5 << 20, 6 << 20)
    assert config.badwords == (("en", str(words)),)
    given = options.get_all_options()
    assert given["direct_num_workers"] == 7
    assert given["job_name"] == "mine"
    assert given["runner"] == "FnApiRunner"
    assert show is None


def test_relative_paths_mean_this_folder(
    tmp_path: pathlib.Path, wet: str, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_c4("build", "--input", "a.warc*", "--output", "out", "--quiet").status == 0
    [(config, _, _)] = asked
    assert config.inputs == (str(tmp_path / "a.warc*"),)
    assert config.output == str(tmp_path / "out")


@pytest.mark.parametrize("command", ["build", "explain"])
def test_help_of_every_command(command: str) -> None:
    assert command in run_c4("--help").out
    outcome = run_c4(command, "--help")
    assert (outcome.status, outcome.err) == (0, "")
    for option in {"build": ["--start-over", "--workers"], "explain": ["--corpus"]}[command]:
        assert option in outcome.out
    assert "--recipe" in outcome.out


@pytest.mark.parametrize("command", ["build", "import"])
def test_options_of_a_build_are_in_groups(command: str) -> None:
    shown = run_c4(command, "--help").out
    titles = re.findall(r"^([a-z ]+):$", shown, re.MULTILINE)
    assert titles == ["options", *build_command._GROUPS, "this run"]
    options = [name for group in build_command._GROUPS.values() for name in group]
    assert len(options) == len(set(options))
    assert set(options) == {field.name for field in dataclasses.fields(BuildConfig)}
    # Those of WET files do nothing for other sources.
    assert ("--crawl" in shown, "--base-url" in shown) == (command == "build",) * 2


def test_examples_in_a_help_text_keep_their_lines() -> None:
    words = " ".join(["word"] * 30)
    epilog = f"{words}\n\n  c4 vocab --corpus A  first\n  c4 vocab --corpus B  second\n\n{words}"
    parser = argparse.ArgumentParser(formatter_class=c4_main._Paragraphs, epilog=epilog)
    shown = parser.format_help()
    assert "\n\n  c4 vocab --corpus A  first\n  c4 vocab --corpus B  second\n\nword " in shown
    assert words not in shown  # which is wrapped


def test_a_help_text_of_examples_alone_keeps_its_lines() -> None:
    epilog = "  c4 tasks list\n  c4 tasks show all    rates"
    parser = argparse.ArgumentParser(formatter_class=c4_main._Paragraphs, epilog=epilog)
    assert parser.format_help().endswith(f"\n\n{epilog}\n")
    block = f"\n        Words.\n\n          {epilog.lstrip()}\n    "
    parser.epilog = block.replace("\n  c4 tasks show", "\n          c4 tasks show")
    assert parser.format_help().endswith(f"\n\nWords.\n\n{epilog}\n")


def raising(error: BaseException) -> Any:
    def run(arguments: argparse.Namespace) -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "status", "err"),
    [
        (ValueError("a name \x1b[2J"), 1, "c4: error: a name ·[2J\n"),
        (ValueError("two\nlines"), 1, "c4: error: two lines\n"),
        (OSError(28, "No space left on device", "/out/a"), 1,
         "c4: error: /out/a: No space left on device\n"),
        (OSError("just words"), 1, "c4: error: just words\n"),
        (FileNotFoundError("no input"), 1, "c4: error: no input\n"),
        (ValueError(), 1, "c4: error: ValueError\n"),
        (KeyboardInterrupt(), 130, "\nc4: interrupted\n"),
    ],
)  # fmt: skip
def test_failures_are_one_line(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, err: str
) -> None:
    monkeypatch.delenv("C4_TRACEBACK", raising=False)
    monkeypatch.setattr(explain_command, "run", raising(error))
    assert run_c4("explain", "a") == (status, "", err)


def test_a_bug_keeps_its_traceback_and_one_can_be_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(explain_command, "run", raising(KeyError("bug")))
    with pytest.raises(KeyError):
        run_c4("explain", "a")
    monkeypatch.setattr(explain_command, "run", raising(ValueError("mine")))
    monkeypatch.setenv("C4_TRACEBACK", "1")
    with pytest.raises(ValueError, match="mine"):
        run_c4("explain", "a")


def test_an_interrupted_build_says_what_it_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_command, "run", raising(KeyboardInterrupt()))
    assert run_c4("build", "--input", "a", "--output", "b") == (
        130,
        "",
        "\nc4: interrupted; run the same command again to resume: cleaned files are kept\n",
    )


def test_training_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "model.commands.vocab", None)
    monkeypatch.setattr(c4_main, "_OURS", ())
    status, out, err = run_c4("vocab")
    assert (status, out) == (1, "")
    assert err == (
        "c4: error: c4 vocab needs model.commands.vocab, which is not installed: "
        "it comes with the extra train (in a clone: pip install -e '.[train]')\n"
    )


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("pretrain", ["--corpus", "a", "--out", "b"]),
        ("vocab", ["--corpus", "a", "--output", "b"]),
        ("import-hf", ["a", "--output", "b"]),
        ("export-hf", ["a", "--output", "b"]),
    ],
)
def test_a_command_that_runs_without_its_extra_says_so_too(
    command: str, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not every command imports its extra with its module; the first import of it may come later.
    module = importlib.import_module(c4_main._COMMANDS[command].module)
    absent = ModuleNotFoundError("No module named 'sentencepiece'", name="sentencepiece")
    monkeypatch.setattr(module, "run", raising(absent))
    status, _, err = run_c4(command, *options)
    assert status == 1
    assert err == (
        f"c4: error: c4 {command} needs sentencepiece, which is not installed: "
        "it comes with the extra train (in a clone: pip install -e '.[train]')\n"
    )


def test_a_checkout_without_its_packages_says_what_to_install() -> None:
    # -S: without site-packages, as in a clone that is not installed.
    run = subprocess.run(
        [sys.executable, "-S", "-m", "pipelines.c4_main", "build", "--input", "a", "--output", "b"],
        cwd=pathlib.Path(c4_main.__file__).parents[1],
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stdout) == (1, "")
    assert re.fullmatch(
        r"c4: error: c4 build needs \w+, which is not installed: it comes with c4 "
        r"\(in a clone: pip install -e \.\)\n",
        run.stderr,
    )


@pytest.mark.slow
def test_the_status_of_a_command_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain_command, "run", lambda arguments: 7)
    assert run_c4("explain", "a").status == 7
    # Without argv the process is the command's own: main leaves it deaf to signals.
    script = """
import atexit, gc, sys
from pipelines import c4_main
from pipelines.commands import explain as explain_command
atexit.register(lambda: print("frozen" if gc.get_freeze_count() else "walked once more"))
explain_command.run = lambda arguments: 7
sys.argv = ["c4", "explain", "a"]
sys.exit(c4_main.main())
"""
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=False)
    assert (done.returncode, done.stdout) == (7, b"frozen\n")


@pytest.mark.slow
def test_a_closed_pipe_is_quiet(tmp_path: pathlib.Path) -> None:
    text = "\n".join(f"This is line {n} of a page that is rather long." for n in range(2000))
    wet, _ = write_wet(tmp_path / "a.warc.wet.gz", [("http://a.example/", PAGE[1], text)] * 20)
    command = [sys.executable, "-m", "pipelines.c4_main", "explain", wet]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("http://a.example/")
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 0


def test_only_the_command_asked_for_is_imported() -> None:
    code = (
        "import sys\n"
        "from pipelines import c4_main\n"
        "try: c4_main.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'apache_beam', 'pyarrow', 'numpy', 'pipelines.commands.build'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("loaded: []\n")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("lines", [1, 10_000], ids=["written at the end", "written meanwhile"])
def test_a_standard_output_that_is_full_is_named(lines: int, unbuffered: str) -> None:
    code = (
        "import sys\n"
        "from pipelines import c4_main\n"
        "from pipelines.commands import explain as explain_command\n"
        f"explain_command.run = lambda arguments: print('a line\\n' * {lines}) or 0\n"
        "sys.argv[1:] = ['explain', 'a']\n"
        "sys.exit(c4_main.main())"
    )
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True,
            timeout=60, env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )  # fmt: skip
    line = "c4: error: standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, line)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_help_that_cannot_be_written_is_an_error(unbuffered: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "pipelines.c4_main", "--help"], stdout=full,
            stderr=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )  # fmt: skip
    line = b"c4: error: standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, line)


def test_a_broken_pipe_to_another_process_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain_command, "run", raising(BrokenPipeError(32, "Broken pipe")))
    assert run_c4("explain", "a") == (1, "", "c4: error: [Errno 32] Broken pipe\n")


@pytest.mark.parametrize("full", [True, False], ids=["full", "nobody reads it"])
def test_a_command_does_its_work_where_standard_error_fails(full: bool) -> None:
    code = (
        "import sys\n"
        "from pipelines import c4_main, printing\n"
        "from pipelines.commands import explain as explain_command\n"
        "def run(arguments):\n"
        "    printing.print_note('a note')\n"
        "    sys.stderr.write('x' * 100_000)\n"
        "    print('done')\n"
        "    return 3\n"
        "explain_command.run = run\n"
        "sys.argv[1:] = ['explain', 'a']\n"
        "sys.exit(c4_main.main())"
    )
    reads, writes = os.pipe()
    os.close(reads)
    with open("/dev/full", "w") if full else os.fdopen(writes, "w") as stderr:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=stderr, text=True
        )
    assert (done.returncode, done.stdout) == (3, "done\n")


def test_an_interrupt_behind_another_error_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    error = ImportError("numpy._core.multiarray failed to import")
    error.__cause__ = KeyboardInterrupt()
    monkeypatch.setattr(explain_command, "run", raising(error))
    assert run_c4("explain", "a") == (130, "", "\nc4: interrupted\n")


def test_an_interrupt_that_an_import_loses_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(arguments: object) -> NoReturn:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise ImportError("could not import module datetime")

    monkeypatch.setattr(explain_command, "run", run)
    assert run_c4("explain", "a") == (130, "", "\nc4: interrupted\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("module", "handled"),
    [
        ("argparse", False),
        ("pipelines.interruption", False),
        ("pipelines.version", False),
        ("pipelines.commands.status", True),
        ("tqdm", True),
    ],
)
def test_a_signal_during_an_import_shows_no_traceback(
    module: str, handled: bool, number: signal.Signals
) -> None:
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # background jobs ignore it
        "class Finder:\n"
        "    def find_spec(name, *_):\n"
        f"        if name == {module!r}: os.kill(os.getpid(), {int(number)})\n"
        "sys.meta_path.insert(0, Finder)\n"
        "sys.argv = ['/usr/bin/c4', 'status', 'absent']\n"
        "from pipelines.c4_main import main\n"
        "sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    ended = (130, "\nc4: interrupted\n") if handled else (-number, "")
    assert (done.returncode, done.stderr) == ended


def test_version() -> None:
    outcome = run_c4("--version")
    assert outcome.status == 0
    assert outcome.out == f"c4 {VERSION}\n"


@pytest.mark.parametrize("command", c4_main._COMMANDS)
def test_help_fits_80_columns(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    outcome = run_c4(command, "--help")
    assert outcome.status == 0
    assert "\n\n" in outcome.out
    assert [line for line in outcome.out.splitlines() if len(line) > 80] == []


def test_a_build_says_at_once_what_it_builds(tmp_path: pathlib.Path) -> None:
    """Before the imports that take long: here they fail."""
    for name in ("apache_beam", "pyarrow"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('before the first line')\n")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.c4_main", "build", "--input", "a", "--output", "b"],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr.startswith("c4: building a corpus in b\n"), done.stderr
    assert "before the first line" in done.stderr
