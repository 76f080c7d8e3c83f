"""The Makefile's install of a lock, with the pip that comes with this Python, from a local folder.

The folder holds a newer release of a package that is pinned and that another pin needs with an
extra. pip 23.2.1, of Python 3.11, resolves the extra again, finds the newer release, and refuses it
as one without a hash (https://github.com/pypa/pip/issues/9644).
"""

import base64
import ensurepip
import hashlib
import io
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


def wheel(folder, name, version, *fields):
    """Makes the wheel of a package with one empty module."""
    info = f"{name}-{version}.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}", *fields]
    files = {
        f"{name}.py": "",
        f"{info}/METADATA": "\n".join(metadata) + "\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode()
        record.append(f"{path},sha256={digest.rstrip('=')},{len(text)}\n")
    files[f"{info}/RECORD"] = "".join(record) + f"{info}/RECORD,,\n"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inner, text in files.items():
            archive.writestr(inner, text)
    return path


def source(folder, name, version):
    """Makes a source distribution from before pyproject.toml, as langdetect's is."""
    path = folder / f"{name}-{version}.tar.gz"
    texts = {
        "setup.py": f"from setuptools import setup\nsetup(name={name!r}, version={version!r}, "
        f"py_modules=[{name!r}])\n",
        f"{name}.py": "",
        "PKG-INFO": f"Metadata-Version: 1.1\nName: {name}\nVersion: {version}\n",
    }
    with tarfile.open(path, "w:gz") as archive:
        for inner, text in texts.items():
            member = tarfile.TarInfo(f"{name}-{version}/{inner}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """The folder of packages, which holds the lock too."""
    folder = tmp_path_factory.mktemp("index")
    extra = "Provides-Extra: openssl\nRequires-Dist: demo_ssl>=1.0; extra == 'openssl'"
    pinned = [
        wheel(folder, "demo_client", "1.0", "Requires-Dist: demo_auth[openssl]>=1.0"),
        wheel(folder, "demo_auth", "1.0", extra),
        wheel(folder, "demo_ssl", "1.0"),
        source(folder, "demo_source", "1.0"),
    ]
    wheel(folder, "demo_auth", "2.0", extra)
    lines = [
        f"{path.name.partition('-')[0]}==1.0 "
        f"--hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"
        for path in pinned
    ]
    (folder / "train.lock").write_text("".join(lines), encoding="utf-8")
    return folder


def builder(site):
    """The folders of setuptools."""
    return [*site.glob("setuptools*"), *site.glob("_distutils_hack")]


@pytest.fixture
def venv(tmp_path):
    """A new environment with this Python's own pip, and the setuptools that builds this package."""
    base = os.path.join(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")
    folder = tmp_path / "venv"
    subprocess.run([base, "-m", "venv", folder], check=True)
    (site,) = (folder / "lib").glob("python3.*/site-packages")
    for path in builder(site):
        shutil.rmtree(path)
    for path in site.glob("distutils-precedence.pth"):  # of the setuptools removed
        path.unlink()
    for path in builder(pathlib.Path(sysconfig.get_path("purelib"))):
        (site / path.name).symlink_to(path)
    return folder


def run(command, index):
    hidden = ("PYTHONPATH", "VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)}
    return subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_make_installs_the_lock_although_there_are_newer_releases(venv, index):
    # The rule of the Makefile for one of its stamps; what comes before it is taken as made.
    before, stamp = venv / ".build", venv / ".train"
    before.touch()
    command = ("make", f"VENV={venv}", f"LOCKS={index}", "-o", str(before), str(stamp))

    made = run(command, index)

    assert made.returncode == 0, made.stdout + made.stderr
    assert stamp.exists()
    shown = run((venv / "bin" / "python", "-m", "pip", "list", "--format=freeze"), index).stdout
    names = ("client", "auth", "ssl", "source")
    assert {line.lower().replace("-", "_") for line in shown.split()} >= {
        f"demo_{name}==1.0" for name in names
    }


@pytest.mark.skipif(ensurepip.version() != "23.2.1", reason="another pip than 23.2.1")
def test_the_same_lock_with_its_dependencies_resolved_is_refused(venv, index):
    pip = (venv / "bin" / "python", "-m", "pip", "install", "--no-build-isolation")
    done = run((*pip, "--require-hashes", "-r", index / "train.lock"), index)
    assert done.returncode != 0
    assert "demo_auth[openssl]" in done.stderr.replace("-", "_")
