"""The small Debian package with its checksums."""

import hashlib
from pathlib import Path

import pytest

from csm.data.corpora import amazon_queen_bundle
from tests.data.small_game import make_bundle, make_deb, mp3


@pytest.fixture
def small_deb(tmp_path, monkeypatch) -> Path:
    """A .deb with three clips, one of them broken; its checksums replace those of the real one."""
    clips = {"020001P2.SB": mp3(1.0), "020006J1.SB": mp3(0.5), "020006P1.SB": b"broken", "NOISE.RL": b"x"}
    bundle = make_bundle(clips)
    make_deb(tmp_path / "game.deb", bundle)
    monkeypatch.setattr(amazon_queen_bundle, "BUNDLE_BYTES", len(bundle))
    monkeypatch.setattr(amazon_queen_bundle, "BUNDLE_SHA256", hashlib.sha256(bundle).hexdigest())
    digest = hashlib.sha256((tmp_path / "game.deb").read_bytes()).hexdigest()
    monkeypatch.setattr(amazon_queen_bundle, "ARCHIVE_SHA256", digest)
    return tmp_path / "game.deb"
