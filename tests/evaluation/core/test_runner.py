"""Metrics run in parallel, repeatably, and without an evaluator the others are still measured."""

import pytest

from csm.evaluation.core.clips import Clip, ClipSet, ClipSets
from csm.evaluation.core.evaluators import NotMeasurable, optional_import
from csm.evaluation.core.metric import Metric, MetricInfo, Pooled, Scores, score_each
from csm.evaluation.core.runner import RunnerOptions, run_metrics

INFO = {"title": "T", "area": "a", "unit": "u", "direction": "higher", "evaluator": "e", "definition": "d"}


class Duration(Metric):
    """Seconds of each clip, and of all of them."""

    def measure(self, clips, recording):
        assert recording is not None and recording.condition == "recording"
        self.details.setdefault("seen", []).append(clips.condition)
        scores = score_each(clips.clips, lambda clip: clip.duration)
        yield Scores(info=MetricInfo(name="duration", **INFO), scores=scores)
        groups = [clip.duration for clip in clips.clips]
        yield Pooled(info=MetricInfo(name="whole", **INFO), groups=groups, statistic=sum, n_in=len(groups))


class Absent(Metric):
    def __init__(self):
        optional_import("no_such_evaluator", package="no-such-evaluator", metric="a metric")


class TooSmall(Metric):
    def choose(self, sets):
        raise NotMeasurable("two clips are too few")


class Silent(Metric):
    def measure(self, clips, recording):
        self.missing.append("no scores here")
        yield Scores(info=MetricInfo(name="silent", **INFO), scores=[])


ROWS = {"duration": Duration, "absent": Absent, "too small": TooSmall, "silent": Silent}


@pytest.fixture
def sets(real_clips):
    clips = tuple(real_clips["JOE"][:3])
    lost = (Clip(id=clips[0].id, conversation="x", reason="file missing"), *clips[1:])
    return ClipSets(
        sets=(
            ClipSet(group="lines", condition="recording", clips=clips),
            ClipSet(group="lines", condition="generated", clips=lost, generated=True),
            ClipSet(group="talks", condition="recording", clips=clips[:1], kind="dialogues"),
        )
    )


def test_every_set_of_single_utterances_is_measured_and_counted(sets):
    results = run_metrics(ROWS, sets, RunnerOptions(repeats=20))
    assert [(e.name, e.condition) for e in results.entries] == [
        ("duration", "recording"),
        ("whole", "recording"),
        ("duration", "generated"),
        ("whole", "generated"),
    ]
    assert all(entry.n_ok + entry.n_failed == entry.n_in for entry in results.entries)
    assert results.entries[2].failures == {"file missing": 1} and results.entries[2].mean is None
    assert results.details == {"seen": ["recording", "generated"]}


def test_what_cannot_be_measured_is_listed_with_its_reason_and_the_rest_is_there(sets):
    said = []
    missing = run_metrics(ROWS, sets, RunnerOptions(repeats=5), said.append).missing
    assert [one.section for one in missing] == ["absent", "too small", "silent", "silent"]
    assert "no-such-evaluator" in missing[0].reason and "pip install" in missing[0].reason
    assert missing[1].reason == "two clips are too few"
    assert sorted(said) == ["absent: missing", "duration: done", "silent: done", "too small: missing"]


def test_another_number_of_workers_changes_nothing(sets):
    one = run_metrics(ROWS, sets, RunnerOptions(repeats=20, workers=1))
    assert one == run_metrics(ROWS, sets, RunnerOptions(repeats=20, workers=3))


@pytest.mark.parametrize("bad", [{"repeats": 0}, {"workers": 0}, {"seed": -1}])
def test_options_that_cannot_be_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        RunnerOptions(**bad)
