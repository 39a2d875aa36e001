"""Audio samples during training: clips and a page, whole or not at all, and never written twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile
import torch
from torch import Tensor, nn

from csm.audio.files import read_audio
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.training.losses import TokenizerLossConfig
from csm.training import engine as engine_file
from csm.training import samples as samples_file
from csm.training.loop import train
from csm.training.options import TrainingConfig
from csm.training.samples import Clips, write_samples
from csm.training.tokenizer_task import TokenizerTask, TrainedParts

CONFIG = {"steps": 4, "checkpoint_every": 2, "validate_every": 2, "log_every": 1, "warmup_steps": 1}


def tone(hertz: float, seconds: float = 0.3) -> tuple[Tensor, int]:
    return 0.3 * torch.sin(2 * torch.pi * hertz * torch.arange(int(seconds * 8000)) / 8000)[None], 8000


class Whistle(nn.Module):
    """A pitch in Hz that training moves."""

    def __init__(self) -> None:
        super().__init__()
        self.pitch = nn.Parameter(torch.tensor([3.0, 3.0]))


class Whistler:
    """A task that can be listened to."""

    def __init__(self, *, stop_at: int = 0) -> None:
        self.modules: dict[str, nn.Module] = {"whistle": Whistle()}
        self.learning_rate_scales: dict[str, float] = {}
        self.headline, self.watched = ("whistle/loss",), "pitch"
        self.stop_at, self.heard = stop_at, []

    def batch(self, step: int, micro_batch: int) -> dict[str, Tensor]:
        return {}

    def batch_ids(self, batch: object) -> list[str]:
        return []

    def frames(self, batch: object) -> Tensor:
        return torch.tensor(1)

    def loss(self, name: str, module: nn.Module, batch: object, step: int):
        if step == self.stop_at:
            raise RuntimeError("power cut")
        return module.pitch.square().sum(), {}

    def after_step(self, step: int) -> None: ...

    def validate(self, step: int) -> dict[str, float]:
        return {"pitch": float(self.modules["whistle"].pitch[0])}

    def originals(self) -> Clips:
        return {"A/1": tone(440), "B <2>": tone(660)}

    def samples(self, step: int) -> Clips:
        assert not self.modules["whistle"].training and not torch.is_grad_enabled()
        self.heard.append(step)
        pitch = 100 * float(self.modules["whistle"].pitch[0])
        return {"A/1": tone(pitch), "B <2>": tone(2 * pitch)}


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_file, "deepspeed_installed", lambda: False)


def run(folder: Path, task: object, **changes: object) -> Path:
    config = TrainingConfig(**{**CONFIG, **changes})
    return train(task, config, folder, run_description={"name": "whistle"}, device="cpu")


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.wav")}


def test_each_validation_leaves_its_clips_beside_the_originals(tmp_path):
    task = Whistler()
    samples = run(tmp_path, task) / "samples"
    assert task.heard == [0, 2, 4]
    names = {"A%2F1.wav", "B%20%3C2%3E.wav"}
    folders = ("original", *(f"step_0000000{step}" for step in (0, 2, 4)))
    assert files(samples).keys() == {f"{f}/{n}" for f in folders for n in names} | {"index.html"}
    heard = read_audio(samples / "original" / "A%2F1.wav", sample_rate=8000)
    torch.testing.assert_close(heard, tone(440)[0], atol=1 / 32768, rtol=0)
    assert soundfile.info(samples / "step_00000004" / "A%2F1.wav").format == "WAV"


def test_two_trainings_sound_and_look_the_same(tmp_path):
    one, two = (run(tmp_path / name / "run", Whistler()) / "samples" for name in "ab")
    assert files(one) == files(two)


def test_a_resumed_training_overwrites_nothing_and_ends_with_the_same_files(tmp_path):
    whole = run(tmp_path / "whole" / "run", Whistler(), steps=6, checkpoint_every=4)
    cut = tmp_path / "cut" / "run"
    with pytest.raises(RuntimeError, match="power cut"):
        run(cut, Whistler(stop_at=3), steps=6, checkpoint_every=4)
    # No checkpoint yet: the training starts over and passes the same validations again.
    (cut / "samples" / "step_00000004.part").mkdir()
    (cut / "samples" / "step_00000004.part" / "half.wav").write_bytes(b"RIFF")
    before = times(cut / "samples")
    run(cut, Whistler(), steps=6, checkpoint_every=4)
    after = times(cut / "samples")
    assert all(after[path] == time for path, time in before.items() if ".part" not in str(path))
    assert files(cut / "samples") == files(whole / "samples")


def test_a_clip_that_cannot_be_written_leaves_nothing_of_its_step_and_costs_no_training(
    tmp_path, monkeypatch, capsys
):
    write, written = samples_file.write_audio, []

    def full(path: Path, *rest: object) -> None:
        written.append(path)
        if len(written) == 6:
            raise OSError(28, "No space left on device")
        write(path, *rest)

    monkeypatch.setattr(samples_file, "write_audio", full)
    output = run(tmp_path, Whistler())
    assert "the samples of step 2 are not written: [Errno 28]" in capsys.readouterr().err
    assert (output / "complete.json").is_file()
    kept = {path.name for path in (output / "samples").iterdir()}
    assert kept == {"original", "step_00000000", "step_00000004", "index.html"}
    assert "step 2<" not in (output / "samples" / "index.html").read_text()


def test_a_clip_that_is_not_finite_is_refused(tmp_path):
    bad = {"a": (torch.full((1, 8), torch.nan), 8000)}
    with pytest.raises(ValueError, match="NaN"):
        write_samples(tmp_path, 1, bad, {"a": tone(440)})
    assert not (tmp_path / "samples" / "step_00000001").exists()


def test_a_task_that_makes_no_sound_leaves_no_samples(tmp_path):
    class Mute:
        """As Whistler without the two methods."""

        def __init__(self) -> None:
            self._task = Whistler()
            self.modules, self.learning_rate_scales = self._task.modules, {}
            for name in (
                "batch",
                "batch_ids",
                "frames",
                "loss",
                "after_step",
                "validate",
                "headline",
                "watched",
            ):
                setattr(self, name, getattr(self._task, name))

    output = run(tmp_path, Mute())
    assert not (output / "samples").exists()
    assert [json.loads(line)["split"] for line in (output / "metrics.jsonl").open()].count("validation") == 3


def test_the_tokenizer_is_heard_from_its_codes_alone(small_config, datasets):
    torch.manual_seed(0)
    task = TokenizerTask(
        ConversationalRVQ(small_config),
        *datasets,
        TokenizerLossConfig(),
        TrainedParts(initialise=True),
        device=torch.device("cpu"),
    )
    task.trainer.eval()
    originals, heard = task.originals(), task.samples(1)
    assert list(heard) == list(originals) and len(heard) == 4
    tokenizer = task.trainer.tokenizer
    for name, (original, rate) in originals.items():
        clip, same_rate = heard[name]
        assert rate == same_rate == 8000 and clip.shape == original.shape
        codes, _ = tokenizer.encode(original[None])
        alone = tokenizer.decode(codes)[0, :, : original.shape[1]]
        # The last frames of a clip differ by what the decoder looks ahead at: padding or nothing.
        until = (original.shape[1] // 640 - 1) * 640
        torch.testing.assert_close(clip[:, :until], alone[:, :until], atol=1e-4, rtol=1e-3)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(heard.values(), task.samples(9).values(), strict=True))
