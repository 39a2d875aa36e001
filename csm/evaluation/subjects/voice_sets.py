"""Clip sets of a voice: recording, resynthesis and generated speech, group by group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from csm.data.manifest import Corpus
from csm.evaluation.core.clips import ClipSet, ClipSets, Kind
from csm.evaluation.subjects.voice_folder import GeneratedSpeech
from csm.evaluation.subjects.voice_lines import CONVERSATION, MAIN, ChosenLines
from csm.evaluation.subjects.voice_speech import GENERATED
from csm.evaluation.systems.conditions import by_codebooks, recordings
from csm.generation.talker import Talker

RECORDING, RESYNTHESIS = "recording", "resynthesis"


def voice_sets(
    talker: Talker,
    corpus: Corpus,
    chosen: ChosenLines,
    kept: GeneratedSpeech,
    conditions: Sequence[str],
    done: Callable[[], Any] = lambda: None,
) -> ClipSets:
    """Reads, resynthesises and collects all clips.

    Resynthesis is through the talker's tokenizer from the codes alone, of as many first codebooks as the
    model generates: it bounds what generation can reach, except for the speaker embedding of a known voice.

    Args:
        talker, corpus, chosen: The talker and the lines of the corpus that it spoke.
        kept: Folder of the speech.
        conditions: Conditions of the main voice's lines beside "generated".
        done: Called after each group.

    Raises:
        ValueError: None of the recordings of a group can be read.
    """
    sets = []
    groups = {**chosen.groups, **({CONVERSATION: chosen.conversation} if chosen.conversation else {})}
    for group, lines in groups.items():
        kind: Kind = "turns" if group == CONVERSATION else "lines"
        turns = [line.turn for line in lines]
        recorded = recordings(corpus, turns)
        books = (talker.model.config.num_codebooks,)
        ((resynthesised,), _) = by_codebooks(talker.tokenizer, corpus, turns, books, recorded)
        for condition, clips in ((RECORDING, recorded.clips), (RESYNTHESIS, resynthesised.clips)):
            named = tuple(
                replace(clip, id=line.id, turn=place)
                for place, (clip, line) in enumerate(zip(clips, lines, strict=True))
            )
            sets.append(ClipSet(group=group, condition=condition, clips=named, kind=kind))
        for condition in (GENERATED, *(conditions if group == MAIN else ())):
            clips = kept.clips(lines, condition)
            sets.append(ClipSet(group=group, condition=condition, clips=clips, kind=kind, generated=True))
        done()
    return ClipSets(sets=tuple(sets), reference=RECORDING)
