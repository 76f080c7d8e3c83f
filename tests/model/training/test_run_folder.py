"""A run's folder remembers what it was begun with."""

import json
import os
import sys

import pytest

from model.t5.config import model_config
from model.training.checkpoint_layout import RUN_FILE, read_model_file
from model.training.run_folder import RunFolder

_CONFIG = model_config("tiny", vocab_size=128)
_SETTINGS = {"seed": 0, "model": {"d_model": 64, "dtype": "float32"}, "pair": (1, 2)}


@pytest.fixture
def begun(tmp_path):
    vocabulary = tmp_path / "v"
    vocabulary.write_bytes(b"pieces")
    folder = RunFolder(tmp_path / "run")
    assert folder.begun_with() is None
    folder.check({"anything": 1})
    folder.begin(_SETTINGS, _CONFIG, str(vocabulary))
    return RunFolder(tmp_path / "run")


@pytest.fixture(params=["checkpoint", "metrics"])
def stepped(begun, request):
    """The same after a step, of which there is a checkpoint or a line of metrics."""
    if request.param == "checkpoint":
        (begun.checkpoints / "1").mkdir(parents=True)
    else:
        begun.metrics.write_text('{"step": 1, "loss": 2.0}\n')
    return begun


def test_a_folder_without_a_step_takes_new_settings(begun):
    (begun.checkpoints / "1.orbax-checkpoint-tmp-7").mkdir(parents=True)  # not whole
    begun.metrics.write_text('{"step": 1, "lo')
    assert begun.begun_with() is None
    begun.check({"seed": 5})
    assert begun.begin({"seed": 5}, _CONFIG, None, "cpu")
    assert json.loads((begun.path / RUN_FILE).read_text())["settings"] == {"seed": 5}
    assert not begun.begin({"seed": 5}, _CONFIG, None)
    begun.metrics.write_text('{"step": 1}\n')
    assert begun.begun_with() == {"seed": 5}
    assert begun.defaults() == "cpu"
    with pytest.raises(ValueError, match="begun with seed 5"):
        begun.begin({"seed": 6}, _CONFIG, None)


def test_a_run_of_an_earlier_version_has_the_defaults_of_the_paper(stepped):
    path = stepped.path / RUN_FILE
    content = json.loads(path.read_text())
    del content["defaults"]
    path.write_text(json.dumps(content))
    assert stepped.defaults() == "paper"


def test_the_same_settings_go_on(stepped):
    stepped.check(_SETTINGS)
    before = (stepped.path / RUN_FILE).read_text()
    assert not stepped.begin(_SETTINGS, _CONFIG, None)  # another start: nothing is written anew
    assert (stepped.path / RUN_FILE).read_text() == before
    assert stepped.changed_versions() == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({**_SETTINGS, "seed": 1}, "seed 0, now it is 1: .*--seed"),
        (
            {**_SETTINGS, "model": {"d_model": 64, "dtype": "bfloat16"}},
            "begun with dtype 'float32', .*--dtype",
        ),
        ({**_SETTINGS, "model": {"d_model": 64}}, "dtype 'float32', now it is not set"),
        ({**_SETTINGS, "z_loss": 0.1}, "z_loss not set, now it is 0.1"),
    ],
)
def test_others_are_refused_by_name(stepped, settings, message):
    with pytest.raises(ValueError, match=message):
        stepped.check(settings)


def test_versions_are_noted(begun):
    path = begun.path / RUN_FILE
    content = json.loads(path.read_text())
    content["versions"]["jax"] = "0.1"
    path.write_text(json.dumps(content))
    (line,) = begun.changed_versions()
    assert line.startswith("jax 0.1 when begun, now ")
    begun.check(_SETTINGS)


def test_a_start_mends_the_copies(begun, tmp_path):
    (begun.path / "model.json").write_bytes(b"")
    (begun.path / "vocabulary.model").unlink()
    begun.begin(_SETTINGS, _CONFIG, str(tmp_path / "v"))
    assert read_model_file(begun.path) == _CONFIG
    assert (begun.path / "vocabulary.model").read_bytes() == b"pieces"
    begun.begin(_SETTINGS, _CONFIG, str(begun.path / "vocabulary.model"))  # its own
    assert (begun.path / "vocabulary.model").read_bytes() == b"pieces"
    assert not list(begun.path.glob(".*tmp"))


@pytest.mark.parametrize(
    "content",
    ["", "{}", "[]", '{"format": 9, "settings": {}}', '{"format": 1, "settings": 5}', 10**5 * "["],
)
def test_a_file_of_another_kind(begun, content):
    (begun.path / RUN_FILE).write_text(content)
    with pytest.raises(ValueError, match="not a run of this version"):
        begun.begun_with()


def test_a_lock_goes_with_its_holder(begun):
    with begun.locked(), pytest.raises(ValueError, match="another process"), begun.locked():
        pass
    with begun.locked():
        pass


class Killed(BaseException):
    """For what ends a process at once."""


_calls_left = []


def _count(event, arguments):
    opens = event == "open" and isinstance(arguments[1], str) and "w" in arguments[1]
    if _calls_left and (opens or event in ("os.mkdir", "os.rename")):
        _calls_left[0] -= 1
        if not _calls_left[0]:
            raise Killed


def test_a_start_that_is_killed_anywhere_can_be_repeated(tmp_path):
    vocabulary = tmp_path / "v"
    vocabulary.write_bytes(b"pieces")
    sys.addaudithook(_count)  # there is no way to remove it
    for killed_at in range(1, 20):
        out = tmp_path / str(killed_at)
        _calls_left[:] = [killed_at]
        try:
            RunFolder(out).begin(_SETTINGS, _CONFIG, str(vocabulary))
            break
        except Killed:
            pass
        finally:
            _calls_left.clear()
        if (out / RUN_FILE).exists():
            (out / f".model.json.tmp-{'0' * 32}").write_text("of another start that was killed")
        again = RunFolder(out)
        again.check(_SETTINGS)
        again.begin(_SETTINGS, _CONFIG, str(vocabulary))
        assert sorted(os.listdir(out)) == ["model.json", "run.json", "vocabulary.model"]
    assert killed_at > 6  # three files, each opened and renamed


@pytest.mark.parametrize("target", ["run", "nowhere/run", "file"])
def test_links_that_lead_to_no_folder(tmp_path, target):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "run").symlink_to(target)
    with pytest.raises(ValueError, match=rf"is a link to {target}, which is not a folder; .*--out"):
        RunFolder(tmp_path / "run")


def test_a_lock_of_another_kind(begun):
    os.mkfifo(begun.path / ".lock")
    with pytest.raises(ValueError, match="lock is not a file: move it away"), begun.locked():
        pass
