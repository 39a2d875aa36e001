"""The lines that a voice speaks: of its main voice, of its other voices, of unseen speakers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from csm.data.manifest import Corpus, Turn
from csm.generation.evaluation_lines import (
    held_out_conversation,
    held_out_lines,
    lines_of_many,
    prompt_turns,
)

MAIN, OTHERS, UNSEEN, CONVERSATION = "main voice", "other voices", "unseen speakers", "conversation"
CONVERSATION_TURNS = 20


@dataclass(frozen=True, kw_only=True)
class Line:
    """A turn of the corpus that is to be spoken.

    Attributes:
        group: "main voice", "other voices", "unseen speakers" or "conversation".
        number: Number from 0 over all groups; its seed follows from it.
        turn: Text, speaker and recording.
        prompt: Recordings of the speaker as a prompt; none for a speaker with an embedding.
    """

    group: str
    number: int
    turn: Turn
    prompt: tuple[Turn, ...] = ()

    @property
    def id(self) -> str:
        """Unique and file-name safe: a turn may be spoken in more than one group."""
        return f"{self.group.split()[0]}.{self.turn.id}"

    @property
    def conversation(self) -> str:
        """Conversation of the turn."""
        return self.turn.conversation

    @property
    def speaker(self) -> str:
        """Speaker of the turn."""
        return self.turn.speaker

    @property
    def text(self) -> str:
        """Text of the turn."""
        return self.turn.text


@dataclass(frozen=True, kw_only=True)
class ChosenLines:
    """All lines that are to be spoken.

    Attributes:
        main, others, unseen: Lines in the order of the corpus.
        conversation: Turns in a row, to be spoken in one session.
        prompts: Prompts of every unseen speaker who has lines.
        absent: What the corpus lacks, a sentence each.
    """

    main: tuple[Line, ...]
    others: tuple[Line, ...]
    unseen: tuple[Line, ...]
    conversation: tuple[Line, ...]
    prompts: dict[str, tuple[Turn, ...]]
    absent: tuple[str, ...]

    @property
    def groups(self) -> dict[str, tuple[Line, ...]]:
        """Lines that are each spoken in a new session, by group; empty groups are left out."""
        named = {MAIN: self.main, OTHERS: self.others, UNSEEN: self.unseen}
        return {name: lines for name, lines in named.items() if lines}


def choose_lines(corpus: Corpus, voices: Sequence[str], count: int) -> ChosenLines:
    """Chooses up to `count` lines for each group, and a conversation of up to 20 turns, by fixed rules.

    Lines of the talker's voices are of the test split. An unseen speaker is one for whom the talker has no
    voice: lines of any split are taken, and the prompt of each speaker is made of other recordings. The
    recipe of the training decides whether it left them out. A talker with no voice of the corpus, such as
    csm-1b, whose speakers are numbers, speaks as unseen speakers alone.

    Args:
        corpus: Corpus with the recordings.
        voices: Names of the talker's voices, the main one first.
        count: Most lines of a group.

    Raises:
        ValueError: The test split has no line of the main voice, or the corpus none that can be prompted.
    """
    main = held_out_lines(corpus, voices[0], count)
    if not main and {*voices} & {*corpus.speakers()}:
        raise ValueError(
            f"{corpus.root} has no test line (1.2 to 6 s, four words or more) of the main voice {voices[0]}: "
            f"name the corpus that the voice was trained on"
        )
    others = lines_of_many(corpus, voices[1:], count)
    strangers = [name for name in corpus.speakers() if name not in voices]
    prompts = {name: prompt for name in strangers if (prompt := prompt_turns(corpus, name))}
    taken = {turn.id for prompt in prompts.values() for turn in prompt}
    unseen = lines_of_many(corpus, prompts, count, split=None, without=taken)
    if not main and not unseen:
        raise ValueError(
            f"{corpus.root} has no line (1.2 to 6 s, four words or more) beside a prompt of 1.6 s of any "
            f"speaker: name a corpus with longer turns"
        )
    conversation = held_out_conversation(corpus, voices[0], voices, CONVERSATION_TURNS)
    groups = {MAIN: main, OTHERS: others, UNSEEN: unseen, CONVERSATION: conversation}
    lines: dict[str, list[Line]] = {}
    number = 0
    for group, turns in groups.items():
        lines[group] = []
        for turn in turns:
            prompt = prompts[turn.speaker] if group == UNSEEN else ()
            lines[group].append(Line(group=group, number=number, turn=turn, prompt=prompt))
            number += 1
    spoken = {turn.speaker for turn in unseen}
    return ChosenLines(
        main=tuple(lines[MAIN]),
        others=tuple(lines[OTHERS]),
        unseen=tuple(lines[UNSEEN]),
        conversation=tuple(lines[CONVERSATION]),
        prompts={name: prompt for name, prompt in prompts.items() if name in spoken},
        absent=tuple(_absent(groups, strangers, spoken)),
    )


def _absent(groups: dict[str, Sequence[Turn]], strangers: Sequence[str], spoken: set[str]) -> list[str]:
    absent = []
    if not groups[MAIN]:
        absent.append(
            "main voice: the talker has no voice of a speaker of the corpus; prompts lend it theirs"
        )
    if not groups[OTHERS]:
        absent.append("other voices: the test split has no line of another voice of the talker")
    if not strangers:
        absent.append("unseen speakers: the talker has a voice of every speaker of the corpus")
    elif silent := [name for name in strangers if name not in spoken]:
        absent.append(
            f"unseen speakers: none of the lines, or no prompt of 1.6 s beside one, is of {', '.join(silent)}"
        )
    if not groups[CONVERSATION]:
        absent.append(
            "conversation: no test conversation has turns in a row of the talker's voices with three of the "
            "main one"
        )
    return absent
