"""The order of Drascula's clips: dialogues branch, a clip is in one scene, remarks stay with their role."""

import re
from collections import Counter

from csm.data.corpora.drascula import speaker_of
from csm.data.corpora.drascula_game import Option
from csm.data.corpora.drascula_scenes import CHAPTERS, CONTINUATIONS, REMARKS_PER_CONVERSATION, SCENES, order


def by_name(scenes) -> dict[str, tuple[str, ...]]:
    return {scene.name: scene.clips for scene in scenes}


def test_a_dialogue_is_followed_by_its_answers_and_alternatives_follow_each_other() -> None:
    clips = ["275", "277", "280", "282", "286", "I13", "I14", "I16", "I17", "278"]
    dialogues = {
        "OP_6": [
            Option(clip="277", text="", answer=2),
            Option(clip="280", text="", answer=3),
            Option(clip="282", text="", answer=3),
            Option(clip="286", text="", answer=None),
        ]
    }
    sequences = {"4:2": ["I16", "278"], "4:3": ["I17"], "1:3": ["I14"]}
    scenes = order({clip: speaker_of(clip) for clip in clips}, sequences, dialogues)
    assert by_name(scenes) == {
        "BARTENDER": ("I14",),
        "IGOR": ("275", "I13", "277", "I16", "278", "280", "I17", "282", "286"),
    }
    assert not any(scene.composed for scene in scenes)


def test_a_sequence_outside_of_all_scenes_is_a_conversation_of_its_own() -> None:
    assert by_name(order({"1": "A", "B1": "B"}, {"9:9": ["1", "B1"]}, {})) == {"TALK_9_9": ("1", "B1")}


def test_remarks_are_grouped_by_role_and_marked_as_composed() -> None:
    clips = [str(number) for number in range(100, 125)] + ["E11"]
    scenes = order({clip: speaker_of(clip) for clip in clips}, {}, {})
    assert sorted(clip for scene in scenes for clip in scene.clips) == sorted(clips)
    assert all(scene.composed for scene in scenes) and len(scenes) == 4
    for scene in scenes:
        assert len({speaker_of(clip) for clip in scene.clips}) == 1
        assert len(scene.clips) <= REMARKS_PER_CONVERSATION


def test_no_clip_is_in_two_listed_scenes_and_every_reference_is_known() -> None:
    tokens = [token for text in (*SCENES.values(), *CONTINUATIONS.values()) for token in text.split()]
    clips = [token for token in tokens if re.fullmatch(r"[A-Z]*\d+", token)]
    # "Aahh...." and "Really?" are played in several scenes; the first one keeps them.
    assert {clip for clip, count in Counter(clips).items() if count > 1} <= {"P5", "356"}
    assert all(speaker_of(clip) for clip in clips)
    dialogues = {token for token in tokens if token.startswith("OP_")}
    assert dialogues <= {f"OP_{number}" for number in CHAPTERS}
    assert all(re.fullmatch(r"[1-6]:\d+", token) for token in set(tokens) - dialogues - set(clips))
