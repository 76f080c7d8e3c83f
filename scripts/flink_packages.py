"""Fetch what a local Flink cluster needs: Flink from PyPI, Beam's runner from Maven.

Flink's jars come from the package ``apache-flink-libraries``; pip checks the digest. Beam's runner
is its Maven module for that Flink with everything it needs; each jar's digest is checked here, and
all but Flink's own (the cluster has them) become one jar, as ``--flink_job_server_jar`` wants it.
Maven keeps what it has downloaded, so an interrupted run is simply run again.
"""

import dataclasses
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence

FLINK_VERSION = "1.19.3"
FLINK_MINOR = FLINK_VERSION.rpartition(".")[0]
#: Of Beam's Java runner: the newest whose modules are all in Maven Central for this Flink.
#: It runs the pipelines of newer Python SDKs: both speak the portability protocol.
BEAM_JAVA_VERSION = "2.62.0"

_HERE = pathlib.Path(__file__).resolve().parent
_REQUIREMENTS = _HERE / "flink_requirements.txt"
_POM = _HERE / "flink_job_server_pom.xml"
_DIGESTS = _HERE / "flink_job_server_jars.sha256"
_MANIFEST = "META-INF/MANIFEST.MF"
_MAIN_CLASS = "org.apache.beam.runners.flink.FlinkJobServerDriver"
_SIGNATURE = re.compile(r"META-INF/[^/]+\.(SF|RSA|DSA|EC)", re.IGNORECASE)
_FETCH_S = 1800


class PackageError(RuntimeError):
    """A package could not be fetched, or has another digest; the message is one line."""


@dataclasses.dataclass(frozen=True)
class FlinkPackages:
    """Where the fetched things are."""

    lib: pathlib.Path  # Flink's jars
    java_utils: pathlib.Path  # Flink's calculator of memory options
    job_server_jar: pathlib.Path


def default_cache() -> pathlib.Path:
    """Return the user's cache folder, by the rules of the XDG base directories."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return pathlib.Path(base) / "colossal-c4"


def found(cache: pathlib.Path) -> FlinkPackages | None:
    """Return what an earlier `fetch` left in ``cache``, or None if anything is missing."""
    packages = _packages(cache)
    whole = packages.lib.is_dir() and packages.java_utils.exists()
    return packages if whole and packages.job_server_jar.exists() else None


def fetch(cache: pathlib.Path) -> FlinkPackages:
    """Fetch what ``cache`` lacks. Raises PackageError."""
    packages = _packages(cache)
    cache.mkdir(parents=True, exist_ok=True)
    if not packages.lib.is_dir():
        print(f"fetching Flink {FLINK_VERSION} (230 MB)", file=sys.stderr, flush=True)
        _fetch_flink(_flink_home(cache))
    if not packages.job_server_jar.exists():
        print(f"fetching Beam's Flink runner {BEAM_JAVA_VERSION} (150 MB)", file=sys.stderr)
        _fetch_job_server(packages.job_server_jar, cache / "maven")
    return packages


def _flink_home(cache: pathlib.Path) -> pathlib.Path:
    return cache / f"flink-{FLINK_VERSION}"


def _packages(cache: pathlib.Path) -> FlinkPackages:
    home = _flink_home(cache) / "pyflink"
    jar = f"beam-runners-flink-{FLINK_MINOR}-job-server-{BEAM_JAVA_VERSION}.jar"
    return FlinkPackages(home / "lib", home / "bin" / "bash-java-utils.jar", cache / jar)


def _fetch_flink(target: pathlib.Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        command += ["--no-deps", "--no-compile", "--require-hashes", "--requirement"]
        _run([*command, str(_REQUIREMENTS), "--target", scratch], "Flink from PyPI")
        # A folder of this name is whole: it is renamed into place. The temporary folder's own name
        # must stay for its removal.
        shutil.copytree(scratch, f"{target}.part", dirs_exist_ok=True)
    os.rename(f"{target}.part", target)


def _fetch_job_server(target: pathlib.Path, repository: pathlib.Path) -> None:
    if shutil.which("mvn") is None:
        raise PackageError("fetching Beam's Flink runner needs Maven: apt-get install maven")
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        command = ["mvn", "--quiet", "--batch-mode", "--strict-checksums", "--file", str(_POM)]
        command += [f"-Dmaven.repo.local={repository}", f"-DoutputDirectory={scratch}"]
        command += [f"-Dbeam.version={BEAM_JAVA_VERSION}", f"-Dflink.minor={FLINK_MINOR}"]
        command += ["dependency:copy-dependencies", "-DincludeScope=runtime"]
        _run([*command, "-DexcludeGroupIds=org.apache.flink"], "Beam's Flink runner from Maven")
        jars = sorted(pathlib.Path(scratch).glob("*.jar"))
        _check_digests(jars)
        part = target.with_suffix(".part")
        merge_jars(jars, part)
    os.replace(part, target)


def _run(command: Sequence[str], what: str) -> None:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_FETCH_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PackageError(
            f"fetching {what} took over {_FETCH_S} s; run it again to continue"
        ) from None
    if done.returncode:
        errors = [line for line in done.stdout.splitlines() if "ERROR" in line]
        said = re.sub(r"\x1b\[[\d;]*m", "", (errors or done.stdout.splitlines() or ["?"])[0])
        raise PackageError(
            f"{what} could not be fetched: {said.strip()[:300]}; "
            "check the network and run it again: complete downloads are kept"
        )


def _check_digests(jars: Sequence[pathlib.Path]) -> None:
    wanted = dict(
        reversed(line.split()) for line in _DIGESTS.read_text(encoding="ascii").splitlines()
    )
    names = {jar.name for jar in jars}
    if names != wanted.keys():
        odd = min(names.symmetric_difference(wanted))
        raise PackageError(f"Maven gave other jars than {_DIGESTS.name} lists, such as {odd}")
    for jar in jars:
        with jar.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != wanted[jar.name]:
            raise PackageError(f"{jar.name} has digest {digest}, not the one in {_DIGESTS.name}")


def merge_jars(jars: Sequence[pathlib.Path], target: pathlib.Path) -> None:
    """Make one jar of several: the first of each name, and the lines of all service files.

    Signatures go, since they are of whole jars; so do module descriptions, of which a jar has one.
    """
    services: dict[str, list[str]] = {}
    taken = {_MANIFEST}
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as merged:
        merged.writestr(
            _MANIFEST,
            f"Manifest-Version: 1.0\nMain-Class: {_MAIN_CLASS}\n",
        )
        for jar in jars:
            with zipfile.ZipFile(jar) as source:
                for entry in source.infolist():
                    name = entry.filename
                    if name.startswith("META-INF/services/") and not entry.is_dir():
                        services.setdefault(name, []).append(source.read(entry).decode())
                    elif (
                        not entry.is_dir()
                        and name not in taken
                        and not _SIGNATURE.fullmatch(name)
                        and not name.endswith("module-info.class")
                    ):
                        taken.add(name)
                        merged.writestr(name, source.read(entry))
        for name, texts in services.items():
            merged.writestr(name, "\n".join(texts) + "\n")
