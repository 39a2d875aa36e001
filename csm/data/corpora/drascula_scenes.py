"""The order of the clips of Drascula: scenes, dialogues and talk sequences of the game, then single remarks.

Dialogues and talk sequences are in the game's data files (`drascula_game`). What belongs together beyond them
is the work of the engine (ScummVM, engines/drascula/animation.cpp and rooms.cpp) and listed here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from csm.data.corpora.drascula_game import Option

REMARKS_PER_CONVERSATION = 10

# Chapter of each dialogue OP_N: a talk sequence is known by its chapter and number.
CHAPTERS = {1: 2, 2: 2, 3: 2, 4: 2, 5: 2, 6: 4, 7: 3, 8: 5, 9: 5, 10: 5, 11: 6, 12: 6, 13: 1}

# Clips N, dialogues OP_N and talk sequences CHAPTER:NUMBER in the order in which the game plays them.
SCENES = {
    "INTRODUCTION": "D1 I8 D2 D3 D4 D5 D6 D7 D8 I9 D9 I10 D10 I1 D11 D12 I2 D13 D14 I3 D15 I4 D16 I5 D17 I6",
    "BILLIE_JEAN": "T22 BJ1 214 1:2 223 BJ11 224 BJ12 225 226 227",
    "BARTENDER": "1:3",
    "PIANIST": "205 P1 206 P2 207 P3 208 P4 209",
    "BLIND_MAN": (
        "60 D56 D68 D57 D69 D58 D70 D59 D71 D60 D72 D61 D73 D62 D74 D63 D75 D64 D76 D77 D65 D66 D78 D67"
    ),
    "KIDNAPPED": "2:11",
    "PIANIST_SCORES": "392 P5 393 P17 P18 P19",
    "PIANIST_FIRED": "404 T19 T20 T21 355 D82",
    "PIANIST_SONG": "356 OP_1",
    "DRUNKARD": "2:13 OP_2",
    "TELEPHONE": "2:22 377",
    "VON_BRAUN_DOOR": "378 OP_3",
    "VON_BRAUN": "VB22 OP_4 OP_5 405 VB44 2:31",
    "TRUNK": "341 50 D83",
    "YODA": "411 412 OP_7 413 414",
    "IGOR": "275 I13 I14 I15 276 OP_6 287 4:4",
    "IGOR_AT_THE_DOOR": "I27 I28 I29 I30",
    "PRISON": "430 BJ16 BJ17 BJ18 217 BJ19 229 431 BJ20 438 BJ21 OP_8",
    "WEREWOLF": "5:4 OP_9",
    "SKELETON": "288 E1 289 E2 E3 OP_10",
    "TRAP": "246 D18",
    "PENDULUM": (
        "D19 247 D20 D21 248 D22 249 D23 OP_11 D26 D27 254 D28 255 D29 256 D30 257 258 D31 "
        "D32 I11 D33 I12 D34 D35"
    ),
    "BEDROOM": "259 BJ13 263 BJ14 264 BJ15 265",
    "MOBILE_PHONE": "240 VB58 241 VB59 242 VB60 196 VB61 244 VB62 245",
    "FOOTBALL_GAME": "266 OP_12 273 6:14 274 6:15",
    "LETTER": "BJ24 BJ25 BJ26 BJ27 BJ28 296 297 298 299 300 301",
}

# What the engine lets follow an answer: the clips after the talk sequence of this chapter and number.
CONTINUATIONS = {
    "2:16": "B12 371",
    "2:20": (
        "VB7 VB8 383 VB9 384 VB10 385 VB11 350 VB57 386 VB12 VB13 VB14 387 VB15 VB16 VB17 VB18 VB19 VB20 VB21"
    ),
    "2:23": "VB23 VB24 VB25 VB26",
    "2:29": "VB43 402 VB42 403",
}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Clips that belong together.

    Attributes:
        name: Name of the scene, safe as a file name.
        clips: Clips in order.
        composed: Whether the order is not the game's: remarks of one speaker.
    """

    name: str
    clips: tuple[str, ...]
    composed: bool = False


def order(
    speakers: Mapping[str, str],
    sequences: Mapping[str, Sequence[str]],
    dialogues: Mapping[str, Sequence[Option]],
) -> list[Scene]:
    """Orders clips; each is in one scene, the first that plays it.

    Args:
        speakers: Clip -> speaker of all clips.
        sequences: "CHAPTER:NUMBER" -> clips.
        dialogues: "OP_N" -> options.
    """
    left = dict.fromkeys(speakers)
    scenes = []
    script = {**SCENES, **{name: name for name in dialogues}}
    script |= {f"TALK_{key.replace(':', '_')}": key for key in sequences}
    for name, tokens in script.items():
        played = dict.fromkeys(_played(tokens, sequences, dialogues))
        clips = tuple(clip for clip in played if clip in left)
        for clip in clips:
            del left[clip]
        if clips:
            scenes.append(Scene(name=name, clips=clips))
    return scenes + list(_remarks({clip: speakers[clip] for clip in left}))


def _played(
    tokens: str, sequences: Mapping[str, Sequence[str]], dialogues: Mapping[str, Sequence[Option]]
) -> Iterator[str]:
    for token in tokens.split():
        if token.startswith("OP_"):
            chapter = CHAPTERS.get(int(token.removeprefix("OP_")))
            for option in dialogues.get(token, ()):
                yield option.clip
                yield from _played(f"{chapter}:{option.answer}", sequences, dialogues)
        elif ":" in token:
            yield from sequences.get(token, ())
            yield from CONTINUATIONS.get(token, "").split()
        else:
            yield token


def _remarks(speakers: Mapping[str, str]) -> Iterator[Scene]:
    """Yields the remaining clips of each speaker, a few neighbours a scene."""
    by_speaker: dict[str, list[str]] = {}
    for clip, speaker in speakers.items():
        by_speaker.setdefault(speaker, []).append(clip)
    for speaker, clips in by_speaker.items():
        for number, first in enumerate(range(0, len(clips), REMARKS_PER_CONVERSATION)):
            part = tuple(clips[first : first + REMARKS_PER_CONVERSATION])
            yield Scene(name=f"{speaker}_{number:02d}".replace(" ", "_"), clips=part, composed=True)
