"""smart-turn is read out of its wheel once, with its licence, and verified."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from csm.data import turn_end_model
from csm.data.packages import Package
from csm.data.turn_end_model import LICENCE, MEMBERS, MODEL, PIPECAT, smart_turn_model


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder with a small wheel of the same layout."""
    path = tmp_path / PIPECAT.file
    with zipfile.ZipFile(path, "w") as archive:
        for name, member in MEMBERS.items():
            archive.writestr(member, name)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    wheel = Package(name=PIPECAT.name, version=PIPECAT.version, file=PIPECAT.file, sha256=digest)
    monkeypatch.setattr(turn_end_model, "PIPECAT", wheel)
    monkeypatch.setattr(turn_end_model, "SMART_TURN_SHA256", hashlib.sha256(MODEL.encode()).hexdigest())
    return tmp_path


def test_the_model_and_its_licence_are_read_once(cache):
    model = smart_turn_model(cache)
    assert model.read_text() == MODEL and (model.parent / LICENCE).read_text() == LICENCE
    (cache / PIPECAT.file).unlink()
    assert smart_turn_model(cache) == model


def test_a_damaged_model_is_refused(cache):
    smart_turn_model(cache).write_text("cut off")
    with pytest.raises(ValueError, match="SHA-256 is .*delete the folder"):
        smart_turn_model(cache)


def test_another_wheel_leaves_nothing_behind(cache, monkeypatch):
    monkeypatch.setattr(turn_end_model, "PIPECAT", PIPECAT)
    with pytest.raises(ValueError, match="delete the file to fetch it again"):
        smart_turn_model(cache)
    assert [path.name for path in cache.iterdir()] == [PIPECAT.file]
