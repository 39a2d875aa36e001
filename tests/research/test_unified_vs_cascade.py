"""One model against two of half its size: equal sizes in all, and each measured on the same turns."""

from dataclasses import replace

import pytest
import torch

from csm.evaluation.core.metric import Scores
from csm.model import CSMModel
from csm.research.equal_sizes import of_size, parameters_of
from csm.research.turns_of_both import heard, latencies, lines_of, spoken
from csm.research.unified_vs_cascade import CASCADE, HEARING, SPEAKING, UNIFIED, UnifiedVsCascade


class SaysWords:
    """A recogniser that always recognises the same words."""

    evaluator = "always the same words"

    def transcribe(self, waveform, sample_rate) -> str:
        assert waveform.ndim == 1 and len(waveform) > 100
        return "say a few words"


@pytest.fixture
def base(small):
    """Returns a base that is wide enough to be halved."""
    return replace(small.base, model=replace(small.base.model, d_model=64))


def test_two_models_have_the_size_of_one_and_each_its_own_task(base) -> None:
    arms = UnifiedVsCascade().arms(base)
    sizes = {arm: parameters_of(run.model) for arm, run in arms.items()}
    assert sizes[SPEAKING] + sizes[HEARING] == pytest.approx(sizes[UNIFIED], rel=0.12)
    assert sizes[UNIFIED] == sum(p.numel() for p in CSMModel(base.model).parameters())
    shares = {arm: run.data.transcribe_share for arm, run in arms.items()}
    assert shares == {UNIFIED: base.data.transcribe_share, SPEAKING: 0.0, HEARING: 1.0}
    assert arms[HEARING].model.letters_per_frame and not arms[SPEAKING].model.letters_per_frame
    with pytest.raises(ValueError, match=r"data\.transcribe_share=0\.3"):
        UnifiedVsCascade().arms(replace(base, data=replace(base.data, transcribe_share=0.0)))
    with pytest.raises(ValueError, match=r"raise model\.d_model"):
        of_size(base.model, 100)


def test_nats_errors_and_times_are_of_the_same_turns(base, small, tmp_path) -> None:
    folders = {}
    for arm, recipe in UnifiedVsCascade().arms(base).items():
        torch.manual_seed(1)
        folders[arm] = tmp_path / arm
        CSMModel(recipe.model).save_pretrained(folders[arm])
    material = replace(small.material(), recipe=base)
    found = {(m.arm, m.scores.info.name): m.scores for m in UnifiedVsCascade().measure(material, folders)}
    names = ("codebook0", "semantic", "acoustic")
    expected = {(arm, name) for arm in (UNIFIED, SPEAKING) for name in names}
    assert set(found) == expected | {
        (arm, name) for arm in (UNIFIED, HEARING) for name in ("text", "letters")
    }

    lines = lines_of(replace(material, lines=3))
    assert len(lines) == 3
    models = {arm: CSMModel.from_pretrained(folder) for arm, folder in folders.items()}
    recogniser = SaysWords()
    rows: dict[str, Scores] = {
        "heard": heard(models[UNIFIED], lines),
        "recognised": heard(recogniser, lines, material),
        "spoken": spoken(material, models[SPEAKING], lines, recogniser),
        CASCADE: latencies(material, models[HEARING], models[SPEAKING], lines),
        "one": latencies(material, models[UNIFIED], models[UNIFIED], lines),
    }
    for scores in rows.values():
        assert [score.clip for score in scores.scores] == [line.turn.id for line in lines]
        assert all(score.value is not None for score in scores.scores)
    for row in ("recognised", "spoken"):
        right = [line.turn.text == "say a few words" for line in lines]
        assert [score.value == 0 for score in rows[row].scores] == right and any(right)
