"""The clips by which a voice is judged: recording, resynthesis and what was generated, group by group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from csm.data.manifest import Corpus, Turn
from csm.evaluation.codec_versions import by_codebooks, recordings
from csm.evaluation.judge import Clip
from csm.evaluation.voice_folder import SpokenLines
from csm.evaluation.voice_lines import CONVERSATION, MAIN, ChosenLines, Line
from csm.evaluation.voice_speech import GENERATED
from csm.generation.talker import Talker

RECORDING, RESYNTHESIS = "recording", "resynthesis"


@dataclass(frozen=True, kw_only=True)
class ClipSet:
    """All lines of a group in one version.

    Attributes:
        group: "main voice", "other voices", "unseen speakers" or "conversation".
        version: "recording", "resynthesis", "generated", or how else it was generated.
        clips: In the order of the group's lines.
        facts: What was kept of each line as it was spoken; empty for what was not spoken.
    """

    group: str
    version: str
    clips: tuple[Clip, ...]
    facts: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class VoiceMaterial:
    """Everything that is judged.

    Attributes:
        sets: Recording, resynthesis and generated of a group stand in a row, then its other versions.
        corpus: For recordings of voices to compare with.
        known: Names of the talker's voices, the main one first.
        prompts: Recordings that lent their voice to unseen speakers' lines.
        asr: faster-whisper model name or folder; None for the packaged tiny.en.
        seed, repeats: Of the bootstrap over conversations.
    """

    sets: tuple[ClipSet, ...]
    corpus: Corpus
    known: tuple[str, ...]
    prompts: dict[str, tuple[Turn, ...]]
    asr: str | None = None
    seed: int = 0
    repeats: int = 1000

    def of(self, group: str, version: str) -> ClipSet | None:
        """One set, where it exists."""
        return next((one for one in self.sets if (one.group, one.version) == (group, version)), None)

    @property
    def spoken(self) -> list[ClipSet]:
        """The sets that the talker spoke."""
        return [one for one in self.sets if one.facts]


def clip_sets(
    talker: Talker,
    corpus: Corpus,
    chosen: ChosenLines,
    kept: SpokenLines,
    versions: Sequence[str],
    done: Callable[[], Any] = lambda: None,
) -> tuple[ClipSet, ...]:
    """Reads, resynthesises and collects all clips.

    Resynthesis is through the talker's tokenizer from the codes alone, of as many first codebooks as the
    model speaks: nothing that is generated can be better than this, except by the speaker embedding that a
    known voice brings along.

    Args:
        talker, corpus, chosen: Who speaks which lines of what.
        kept: Where they were spoken to.
        versions: Of the main voice's lines beside "generated".
        done: Called after each group.

    Raises:
        ValueError: None of the recordings of a group can be read.
    """
    sets = []
    groups = {**chosen.groups, **({CONVERSATION: chosen.conversation} if chosen.conversation else {})}
    for group, lines in groups.items():
        turns = [line.turn for line in lines]
        recorded = recordings(corpus, turns)
        books = (talker.model.config.num_codebooks,)
        ((resynthesised,), _) = by_codebooks(talker.tokenizer, corpus, turns, books, recorded)
        for version, clips in ((RECORDING, recorded.clips), (RESYNTHESIS, resynthesised.clips)):
            named = tuple(replace(clip, id=line.id) for clip, line in zip(clips, lines, strict=True))
            sets.append(ClipSet(group=group, version=version, clips=named))
        for version in (GENERATED, *(versions if group == MAIN else ())):
            sets.append(_spoken(group, lines, version, kept))
        done()
    return tuple(sets)


def _spoken(group: str, lines: Sequence[Line], version: str, kept: SpokenLines) -> ClipSet:
    return ClipSet(
        group=group,
        version=version,
        clips=tuple(kept.clips(lines, version)),
        facts=tuple(kept.row(line, version) for line in lines),
    )
