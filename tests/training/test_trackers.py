"""Metrics and clips reach the tracker that the options name, or the run is refused at its start."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from csm.training.trackers import open_tracker, require_tracker


def test_a_tracker_that_is_not_installed_is_refused_with_its_command(monkeypatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in ("wandb", "tensorboard") else found(name)
    )
    for name in ("wandb", "tensorboard"):
        with pytest.raises(ValueError, match=f"training.tracker is '{name}': .*pip install {name}"):
            require_tracker(name)
    for name in ("auto", "none"):
        require_tracker(name)


def test_none_tracks_nothing(tmp_path: Path) -> None:
    assert open_tracker("none", tmp_path, done=0) is None and not list(tmp_path.iterdir())


def test_tensorboard_gets_scalars_and_clips(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker = open_tracker("auto", tmp_path, done=0)
    assert tracker is not None
    tracker.scalars(0, {"validation/loss": 3.5})
    tracker.scalars(5, {"validation/loss": 2.5})
    tone = 0.3 * torch.sin(torch.arange(800) * 0.3)[None]
    tracker.clips(5, {"samples/line": (tone, 8000)})
    tracker.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("validation/loss")] == [(0, 3.5), (5, 2.5)]
    (clip,) = events.Audio("samples/line")
    assert (clip.step, clip.sample_rate, clip.length_frames) == (5, 8000.0, 800)
    assert clip.encoded_audio_string.startswith(b"RIFF")


def test_a_resumed_run_hides_what_was_tracked_after_its_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for done, values in ((0, {1: 1.0, 2: 2.0, 3: 3.0}), (2, {3: 4.0})):
        tracker = open_tracker("tensorboard", tmp_path, done=done)
        assert tracker is not None
        for step, value in values.items():
            tracker.scalars(step, {"loss": value})
        tracker.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 1.0), (2, 2.0), (3, 4.0)]
