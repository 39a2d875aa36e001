"""The memory's arms differ in what they read alone, and whose memory is read changes what is predicted."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from csm.evaluation.core.report import Missing
from csm.model import CSMModel
from csm.research.evicted_voice import FULL, evicted_voice, lines_of
from csm.research.memory import OTHER, Memory
from csm.research.nats import of_another


class Spectrum:
    """An embedding of a clip's mean spectrum: tones of one pitch are alike."""

    evaluator = "mean spectrum"

    def embed(self, waveform: np.ndarray) -> np.ndarray:
        size = 512
        frames = waveform[: len(waveform) // size * size].reshape(-1, size)
        mean = np.abs(np.fft.rfft(frames)).mean(axis=0)
        return mean / np.linalg.norm(mean)


@pytest.fixture
def saved(small, tmp_path):
    folders = {}
    for arm, recipe in Memory().arms(small.base).items():
        torch.manual_seed(0)
        folders[arm] = tmp_path / arm
        CSMModel(recipe.model).save_pretrained(folders[arm])
    return folders


def test_the_arms_read_other_slots_and_are_trained_alike(small) -> None:
    arms = Memory().arms(small.base)
    assert [arm for arm in arms] == ["none", "semantic", "style", "both"]
    assert arms["none"].model.memory_kinds == () and arms["style"].model.memory_kinds == ("style",)
    assert all(
        run.data.local_speaker_share == 1.0 and run.data.transcribe_share == 0 for run in arms.values()
    )
    assert len({replace(run, model=small.base.model) == arms["both"] for run in arms.values()}) == 1
    with pytest.raises(ValueError, match=r"set model\.local_speakers=4"):
        Memory().arms(replace(small.base, model=replace(small.base.model, local_speakers=0)))


def test_nats_are_of_turns_after_others_have_left_and_depend_on_whose_memory_is_read(small, saved) -> None:
    material = small.material()
    found = {(m.arm, m.scores.info.name): m.scores.scores for m in Memory().measure(material, saved)}
    assert {arm for arm, _ in found} == {"none", "semantic", "style", "both", OTHER}
    clips = [stretch.id for stretch in material.held_out(with_past=True, local=True)]
    assert all([score.clip for score in scores] == clips for scores in found.values()) and len(clips) > 3

    def values(arm):
        return [score.value for score in found[arm, "acoustic"]]

    assert values("both") != values(OTHER) and values("both") != values("none") != values("style")


def test_the_other_memory_is_never_one_of_the_own_conversation(small) -> None:
    stretches = small.material().held_out(with_past=True, local=True)
    pasts = of_another(stretches)
    by_past = {id(stretch.chunk.past): stretch.conversation for stretch in stretches}
    assert all(by_past[id(past)] != s.conversation for past, s in zip(pasts, stretches, strict=True))
    with pytest.raises(ValueError, match="one conversation"):
        of_another([one for one in stretches if one.conversation == stretches[0].conversation])


def test_a_voice_is_compared_with_the_one_that_left_the_window(small, saved) -> None:
    material = small.material(lines=2)
    loaded = {arm: CSMModel.from_pretrained(saved[arm]) for arm in ("none", "both")}
    lines = lines_of(material)
    assert lines and all(line.evicted.speaker == line.turn.speaker for line in lines)
    found = dict(evicted_voice(material, loaded, Spectrum()))
    assert list(found) == ["none", "both", FULL]
    values = {arm: [score.value for score in scores.scores] for arm, scores in found.items()}
    assert all(0 < value <= 1.000001 for row in values.values() for value in row)
    assert len(values["none"]) == len(lines)


def test_what_cannot_be_measured_is_missing_with_its_reason(small, saved) -> None:
    material = small.material()
    long = replace(material.recipe, data=replace(small.base.data, max_rows=5000, rows_per_micro_batch=5000))
    (missing,) = Memory().measure(replace(material, recipe=long), saved)
    assert isinstance(missing, Missing) and "nothing has left" in missing.reason
