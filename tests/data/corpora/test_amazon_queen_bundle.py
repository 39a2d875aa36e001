"""The container of the corpus: a .deb and its bundle are read, changed and broken ones refused."""

import hashlib
import subprocess

import pytest

from csm.data.corpora import amazon_queen_bundle
from csm.data.corpora.amazon_queen_bundle import get_bundle, read_bundle, read_entries
from tests.data.small_game import make_bundle


def test_a_changed_archive_is_refused(small_deb) -> None:
    small_deb.write_bytes(small_deb.read_bytes() + b"x")
    with pytest.raises(ValueError, match="SHA-256 is .*: expected"):
        read_bundle(small_deb)


def test_a_changed_bundle_is_refused(small_deb, monkeypatch) -> None:
    monkeypatch.setattr(amazon_queen_bundle, "BUNDLE_SHA256", "0" * 64)
    with pytest.raises(ValueError, match="SHA-256 of .*: expected 0000"):
        read_bundle(small_deb)


@pytest.mark.parametrize("content", [b"", b"PK no ar archive", b"!<arch>\n"])
def test_a_file_that_is_no_deb_is_refused(tmp_path, monkeypatch, content: bytes) -> None:
    (tmp_path / "a.deb").write_bytes(content)
    monkeypatch.setattr(amazon_queen_bundle, "ARCHIVE_SHA256", hashlib.sha256(content).hexdigest())
    with pytest.raises(ValueError, match=r"\.deb|data\.tar\.xz"):
        read_bundle(tmp_path / "a.deb")
    with pytest.raises(ValueError, match="apt-get download"):
        read_bundle(tmp_path / "none.deb")


@pytest.mark.parametrize(
    "bundle",
    [b"", b"RIFF" * 8, b"QTBL" + bytes(9) + b"\xff\xff", make_bundle({"A.SB": b"1234"})[:-1]],
)
def test_a_broken_table_is_refused(bundle: bytes) -> None:
    with pytest.raises(ValueError, match="bundle"):
        read_entries(bundle)


def test_the_table_locates_the_speech_clips() -> None:
    clips = {"020001P2.SB": b"abc", "C70D_243.SB": b"", "PIC.PCX": b"zz", "LONGNAME1.SB": b"defg"}
    bundle = make_bundle(clips)
    entries = read_entries(bundle)
    assert {f"{name}.SB": bundle[o : o + s] for name, (o, s) in entries.items()} == {
        name: stream for name, stream in clips.items() if name.endswith(".SB")
    }


def test_without_apt_the_error_names_another_way(monkeypatch) -> None:
    monkeypatch.setattr(amazon_queen_bundle.shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="--archive"):
        get_bundle(None)
    failed = subprocess.CompletedProcess([], 100, "", "E: Unable to locate package")
    monkeypatch.setattr(amazon_queen_bundle.shutil, "which", lambda name: "/usr/bin/apt-get")
    monkeypatch.setattr(amazon_queen_bundle.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(ValueError, match="Unable to locate package.*--archive"):
        get_bundle(None)
