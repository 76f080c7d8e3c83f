"""What fits is known before the first step, and what runs out later is one line."""

import errno
import types

import jax
import pytest

from model.data.input_config import InputConfig
from model.t5.config import model_config
from model.training.memory import (
    OutOfMemoryError,
    Room,
    StepMemory,
    host_memory,
    one_line_of_memory,
    require_room,
    what_needs_less,
)
from model.training.sharding import MeshShape
from model.training.train_config import StepConfig, TrainConfig
from testing.corpora import NumberVocabulary

GB = 10**9
_MEMORY = StepMemory(parameters=GB, optimizer=GB // 10, batch=0, temporaries=17 * GB)


def _config(batch_size=16, accumulate=1, **model):
    return TrainConfig(
        out="run",
        model=model_config("tiny", **model),
        data=InputConfig(corpus="c", vocabulary=NumberVocabulary(), batch_size=batch_size),
        step=StepConfig(accumulate=accumulate),
    )


def _files(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


_MEMINFO = {"proc/meminfo": "MemTotal:  9000 kB\nMemAvailable:   3000 kB\n"}
_V1, _V2 = "sys/fs/cgroup/memory/", "sys/fs/cgroup/"


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({}, 3000 * 1024),
        (  # version 2, where the limit is that of a parent
            {
                "proc/self/cgroup": "0::/slice/job\n",
                _V2 + "slice/job/memory.max": "max\n",
                _V2 + "slice/memory.max": "2000000\n",
                _V2 + "slice/memory.current": "1500000\n",
                _V2 + "slice/memory.stat": "anon 7\ninactive_file 200000\n",
            },
            700_000,
        ),
        (  # version 1, in a container: the path is that of the host
            {
                "proc/self/cgroup": "5:devices:/\n4:memory:/docker/abc\n",
                _V1 + "memory.limit_in_bytes": "2000000\n",
                _V1 + "memory.usage_in_bytes": "1500000\n",
                _V1 + "memory.stat": "inactive_file 1\ntotal_inactive_file 100000\n",
            },
            600_000,
        ),
        (  # no limit
            {
                "proc/self/cgroup": "4:cpu,memory:/\n",
                _V1 + "memory.limit_in_bytes": "9223372036854771712\n",
                _V1 + "memory.usage_in_bytes": "1500000\n",
                _V1 + "memory.stat": "",
            },
            3000 * 1024,
        ),
    ],
)
def test_the_memory_of_this_machine_or_of_its_control_group(tmp_path, files, wanted):
    _files(tmp_path, _MEMINFO | files)
    assert host_memory(str(tmp_path)) == wanted


def test_an_unknown_memory_refuses_nothing(tmp_path):
    assert host_memory(str(tmp_path)) is None
    line = require_room("the step", _MEMORY, Room(bytes=None), _config(), MeshShape())
    assert line == (
        "the step keeps 18.1 GB per device: 1.0 GB parameters, 100 MB optimizer, 17.0 GB "
        "activations and temporaries"
    )
    assert require_room("the step", None, Room(bytes=1.0), _config(), MeshShape()) is None


def test_devices_of_one_host_share_its_memory():
    room = Room(bytes=40.0 * GB, devices=2, of_host=True)
    line = require_room("the step", _MEMORY, room, _config(), MeshShape(data=2))
    assert "18.1 GB per device, 90% of the machine's free 40.0 GB for 2 devices: " in line
    room = Room(bytes=36.0 * GB, devices=2, of_host=True)
    with pytest.raises(OutOfMemoryError, match=r"18\.1 GB on each of 2 devices .* has 36\.0 GB: "):
        require_room("the step", _MEMORY, room, _config(), MeshShape(data=2))


@pytest.mark.parametrize(
    ("there", "config", "mesh", "help"),
    [
        # Of 17 GB 16 shrink; parameters, gradients, their sum and statistics are 3.1.
        (12, {}, {}, r"--accumulate 2 should fit \(about 11\.1 GB\); --remat full keeps less$"),
        (11.5, {}, {}, r"--accumulate 4 should fit \(about 7\.1 GB\)"),
        (12, {"remat": "full"}, {}, r"--accumulate 2 should fit \(about 11\.1 GB\)$"),
        (12, {"batch_size": 15}, {}, r"--accumulate 3 should fit"),
        (4, {}, {}, "--accumulate 16 is not enough, give a smaller --input-length"),
        (2, {}, {}, "parameters and gradients alone do not fit, give a smaller --size"),
        (2, {}, {"data": 4}, "--mesh fsdp=4 divides parameters"),
        (4, {"batch_size": 4}, {"data": 4}, "a smaller --batch-size, --input-length or --size"),
    ],
)
def test_the_option_that_helps_is_named(there, config, mesh, help):  # noqa: A002
    with pytest.raises(OutOfMemoryError, match=help):
        require_room(
            "the step", _MEMORY, Room(bytes=there * GB), _config(**config), MeshShape(**mesh)
        )


def _exhausted():
    raise jax.errors.JaxRuntimeError(
        "RESOURCE_EXHAUSTED: Out of memory allocating 40040000000 bytes.\nand more"
    )


def _wrapped():
    try:
        _exhausted()
    except Exception as error:
        raise ValueError("7 cannot be restored; delete it") from error


def _host():
    raise MemoryError


def _fork():
    raise OSError(errno.ENOMEM, "Cannot allocate memory")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (_exhausted, "out of memory: Out of memory allocating 40040000000 bytes; "),
        (_wrapped, "out of memory: Out of memory allocating 40040000000 bytes; "),
        (_host, "out of memory: this machine has no more; "),
        (_fork, "Cannot allocate memory; "),
    ],
)
def test_what_runs_out_is_one_line(call, said):
    with (
        pytest.raises(OutOfMemoryError) as caught,
        one_line_of_memory(lambda: what_needs_less(_config(64, accumulate=2))),
    ):
        call()
    message = str(caught.value)
    assert said in message
    assert "\n" not in message
    assert "--accumulate 4 or a smaller --batch-size, or --remat full, or a --mesh with" in message


def test_one_device_is_not_told_to_divide_parameters(monkeypatch):
    monkeypatch.setattr("jax.device_count", lambda: 1)
    with (
        pytest.raises(OutOfMemoryError, match="; a smaller --batch-size needs less"),
        one_line_of_memory(lambda: what_needs_less(_config(1, remat="full"))),
    ):
        _host()


def _other(error):
    def call():
        raise error

    return call


@pytest.mark.parametrize(
    "error",
    [
        jax.errors.JaxRuntimeError("INTERNAL: something else"),
        OSError(errno.ENOSPC, "RESOURCE_EXHAUSTED: No space left on device"),
        ValueError("RESOURCE_EXHAUSTED: Error writing: No space left on device"),
    ],
)
def test_other_failures_stay_what_they_are(error):
    with pytest.raises(type(error)) as caught, one_line_of_memory(str):
        _other(error)()
    assert caught.value is error


def test_the_analysis_of_a_compiled_step():
    found = types.SimpleNamespace(
        argument_size_in_bytes=115, output_size_in_bytes=112, alias_size_in_bytes=110,
        temp_size_in_bytes=50, generated_code_size_in_bytes=3,
    )  # fmt: skip
    compiled = types.SimpleNamespace(memory_analysis=lambda: found)
    memory = StepMemory.of(compiled, 100, 10, updates=True)
    assert memory == StepMemory(parameters=100, optimizer=10, batch=5, temporaries=55)
    assert memory.total == 170
    compiled = types.SimpleNamespace(memory_analysis=lambda: None)
    assert StepMemory.of(compiled, 100, 10, updates=True) is None
