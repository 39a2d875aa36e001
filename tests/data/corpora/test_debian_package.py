"""Debian packages: fetched once by a pinned SHA-256, read in part; changed and broken ones are refused."""

import dataclasses
import hashlib
import http.server
import threading
from functools import partial

import pytest

from csm.data.corpora import debian_package
from csm.data.corpora.debian_package import DebianPackage
from tests.data.small_game import make_package

FILES = {"usr/share/a/speech.raw": b"speech", "usr/share/a/music.raw": b"music", "usr/share/doc/a": b"text"}


@pytest.fixture
def package(tmp_path) -> DebianPackage:
    """A package whose .deb is on a mirror in `tmp_path / "mirror"`."""
    fields = {"name": "a", "version": "1+2-3", "pool": "pool/a", "unpacked_bytes": 100}
    unpinned = DebianPackage(**fields, sha256="")
    (tmp_path / "mirror/pool/a").mkdir(parents=True)
    path = tmp_path / "mirror/pool/a" / unpinned.file_name
    make_package(path, FILES)
    return dataclasses.replace(unpinned, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "mirror"))
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(debian_package, "MIRROR", f"http://127.0.0.1:{server.server_port}")
        yield server
        server.shutdown()


def test_a_package_is_downloaded_once_and_read_in_part(package, mirror, tmp_path) -> None:
    for _ in range(2):
        found = package.read(tmp_path / "here", lambda path: path.endswith("speech.raw"))
        assert found == {"usr/share/a/speech.raw": b"speech"}
        (tmp_path / "mirror/pool/a" / package.file_name).unlink(missing_ok=True)
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["a_1+2-3_all.deb"]


def test_another_package_of_that_name_is_refused(package, mirror, tmp_path) -> None:
    make_package(tmp_path / "mirror/pool/a" / package.file_name, {"usr/other": b"x"})
    with pytest.raises(ValueError, match="SHA-256 is .*: expected"):
        package.read(tmp_path / "here", lambda path: True)
    assert not list((tmp_path / "here").iterdir())


def test_a_package_with_more_bytes_than_stated_is_refused(package, mirror, tmp_path) -> None:
    small = dataclasses.replace(package, unpacked_bytes=10)
    with pytest.raises(ValueError, match="more than 10 bytes"):
        small.read(tmp_path / "here", lambda path: True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: b"PK" + content, "header of a .deb"),
        (lambda content: content[: content.rindex(b"7zXZ") + 40], "cannot be read"),
        (lambda content: content[:8], "lacks data.tar.xz"),
    ],
)
def test_a_broken_package_is_refused(package, tmp_path, change, message: str) -> None:
    content = change((tmp_path / "mirror/pool/a" / package.file_name).read_bytes())
    (tmp_path / package.file_name).write_bytes(content)
    broken = dataclasses.replace(package, sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(ValueError, match=message):
        broken.read(tmp_path, lambda path: True)
