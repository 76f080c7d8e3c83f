"""The jar that is made of many, and what `fetch` says when it cannot fetch."""

import fnmatch
import pathlib
import re
import zipfile

import pytest

from scripts import flink_packages


def jar(path: pathlib.Path, **entries: str) -> pathlib.Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in entries.items():
            archive.writestr(name.replace("__", "/"), text)
    return path


def test_jars_become_one(tmp_path: pathlib.Path) -> None:
    services = "META-INF__services__a.Service"
    first = jar(tmp_path / "1.jar", **{"a__A.class": "1", services: "a.A"})
    second = jar(
        tmp_path / "2.jar",
        **{
            "a__A.class": "2", "b__B.class": "2", services: "b.B",
            "META-INF__X.SF": "signed", "module-info.class": "module",
            "META-INF__MANIFEST.MF": "Main-Class: b.B",
        },
    )  # fmt: skip
    flink_packages.merge_jars([first, second], tmp_path / "all.jar")
    with zipfile.ZipFile(tmp_path / "all.jar") as merged:
        found = {name: merged.read(name).decode() for name in merged.namelist()}
    assert "FlinkJobServerDriver" in found.pop("META-INF/MANIFEST.MF")
    assert found == {
        "a/A.class": "1",
        "b/B.class": "2",
        "META-INF/services/a.Service": "a.A\nb.B\n",
    }


def test_a_jar_of_another_digest_is_refused(tmp_path: pathlib.Path) -> None:
    listed = flink_packages._DIGESTS.read_text(encoding="ascii").splitlines()
    assert len(listed) > 100
    jars = [tmp_path / line.split()[1] for line in listed]
    for path in jars:
        path.write_bytes(b"not that")
    with pytest.raises(flink_packages.PackageError, match="digest"):
        flink_packages._check_digests(jars)
    with pytest.raises(flink_packages.PackageError, match="other jars"):
        flink_packages._check_digests(jars[1:])


@pytest.mark.slow
def test_without_network_one_line_says_so(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(flink_packages.PackageError) as failed:
        flink_packages.fetch(tmp_path / "cache")
    assert "Flink from PyPI could not be fetched" in str(failed.value)
    assert len(str(failed.value).splitlines()) == 1
    assert flink_packages.found(tmp_path / "cache") is None


def test_the_documented_jar_is_the_one_that_is_made_and_that_the_image_takes(
    tmp_path: pathlib.Path,
) -> None:
    root = pathlib.Path(__file__).resolve().parents[2]
    document = (root / "docs" / "flink.md").read_text(encoding="utf-8")
    [(source, target)] = re.findall(r"(?m)^cp ~/\.cache/colossal-c4/(\S+) (\S+)", document)
    made = flink_packages._packages(tmp_path).job_server_jar
    assert made.parent == tmp_path
    assert fnmatch.fnmatchcase(made.name, source)
    assert f"COPY {target}*.jar " in (root / "flink" / "worker.Dockerfile").read_text("utf-8")
    assert document.index("\ncp ~/.cache") < document.index("\ndocker build")
