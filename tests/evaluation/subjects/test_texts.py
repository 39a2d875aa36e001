"""Texts without recordings: every voice says every line, seeds are the lines' own, failures are counted."""

import dataclasses

import numpy as np
import pytest

from csm.evaluation.core.runner import RunnerOptions
from csm.evaluation.metrics.text_normalisation import normalise_text
from csm.evaluation.subjects.texts import EVERYDAY, TextsOptions, evaluate_texts, read_lines
from csm.spelling import spell
from tests.evaluation.small_voice import cheap_evaluators, small_talker

LINES = ["You and whose army?", "", "  I had a plane to catch.  ", "Who are you?"]


@pytest.fixture
def options(tiny_model, tmp_path, monkeypatch) -> TextsOptions:
    cheap_evaluators(monkeypatch)
    small_talker(tiny_model).save_pretrained(tmp_path / "voice")
    (tmp_path / "lines.txt").write_text("\n".join(LINES), encoding="utf-8")
    return TextsOptions(
        voice=tmp_path / "voice",
        texts=tmp_path / "lines.txt",
        output=tmp_path / "out",
        runner=RunnerOptions(repeats=20),
    )


def entry(report, name, group):
    return next(one for one in report.metrics if (one.name, one.group) == (name, group))


def test_every_voice_says_every_line_with_the_lines_own_seed(options, tiny_model) -> None:
    evaluated = evaluate_texts(dataclasses.replace(options, speakers=("FAYE", "JOE")))
    assert [one.group for one in evaluated.sets] == ["FAYE", "JOE"]
    kept = [line.strip() for line in LINES if line]
    for one in evaluated.sets:
        assert [(clip.speaker, clip.text) for clip in one.clips] == [(one.group, text) for text in kept]
    own = small_talker(tiny_model).generate(kept[2], "JOE", seed=2)
    np.testing.assert_allclose(evaluated.sets.sets[1].clips[2].waveform, own.waveform[0].numpy(), atol=1e-4)
    # The recogniser of this test always writes "you and whose army": 0, 6 and 4 errors.
    assert entry(evaluated.report, "wer", "JOE").mean == pytest.approx((0 + 6 + 4) / 13)
    assert entry(evaluated.report, "wer", "JOE").conversations == 3
    assert entry(evaluated.report, "rtf", "FAYE").quantiles["n"] == 3


def test_a_second_evaluation_speaks_only_what_is_new(options) -> None:
    evaluate_texts(dataclasses.replace(options, lines=1))
    written = {path: path.stat().st_mtime_ns for path in (options.output / "speech").glob("*.wav")}
    assert len(written) == 1
    evaluated = evaluate_texts(dataclasses.replace(options, speakers=("JOE", "FAYE")))
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert sum(len(one.clips) for one in evaluated.sets) == 6
    again = evaluate_texts(dataclasses.replace(options, speakers=("JOE", "FAYE")))
    assert again.report == evaluated.report
    (options.texts).write_text("Other words.", encoding="utf-8")
    with pytest.raises(ValueError, match="holds other speech: texts_sha256"):
        evaluate_texts(options)


def test_of_several_candidates_the_best_read_one_is_the_clip(options, tiny_model) -> None:
    model = tiny_model(max_context=320, letters_per_frame=2)
    talker = small_talker(tiny_model, model=model)
    talker.save_pretrained(options.voice)
    evaluated = evaluate_texts(dataclasses.replace(options, candidates=3, reader="model"))
    for number, clip in enumerate(evaluated.sets.sets[0].clips):
        own = talker.generate(clip.text, seed=number, candidates=3, reader="model")
        np.testing.assert_allclose(clip.waveform, own.waveform[0].numpy(), atol=1e-4)
    with pytest.raises(ValueError, match="holds other speech: candidates"):
        evaluate_texts(dataclasses.replace(options, candidates=2, reader="model"))


def test_guidance_replaces_the_voices_own(options, tiny_model) -> None:
    evaluated = evaluate_texts(dataclasses.replace(options, guidance=0.7, lines=1))
    talker = small_talker(tiny_model)
    guided = dataclasses.replace(talker, sampling=dataclasses.replace(talker.sampling, guidance=0.7))
    said = [one.generate(LINES[0], "JOE", seed=0).waveform[0].numpy() for one in (talker, guided)]
    clip = evaluated.sets.sets[0].clips[0].waveform
    np.testing.assert_allclose(clip, said[1], atol=1e-4)
    assert said[0].shape != said[1].shape or np.abs(said[0] - said[1]).max() > 1e-3


def test_a_line_that_cannot_be_spoken_is_a_failure(options) -> None:
    options.texts.write_text("You and whose army?\n" + "w" * 4000, encoding="utf-8")
    wer = entry(evaluate_texts(options).report, "wer_capped", "JOE")
    assert wer.n_failed == 1 and wer.mean == pytest.approx(1 / 5)


def test_everyday_lines_are_120_that_stand_in_no_packaged_recording(excerpt) -> None:
    lines = read_lines(EVERYDAY)
    assert not {*map(normalise_text, lines)} & {normalise_text(turn.text) for turn in excerpt.turns()}
    assert len(lines) == len({*lines}) == 120
    assert all(4 <= len(line.split()) <= 14 and spell(line) for line in lines)


def test_bad_input_is_named(options, tmp_path) -> None:
    for changes, message in (
        ({"texts": tmp_path / "none.txt"}, "cannot be read"),
        ({"speakers": ("JO",)}, "did you mean"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate_texts(dataclasses.replace(options, **changes))
    options.texts.write_text(" \n\n", encoding="utf-8")
    with pytest.raises(ValueError, match="has no line"):
        evaluate_texts(options)
    for field in ("lines", "candidates"):
        with pytest.raises(ValueError, match=f"{field} is 0"):
            TextsOptions(**{field: 0})
