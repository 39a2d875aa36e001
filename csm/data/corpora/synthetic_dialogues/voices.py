"""Speakers of the synthetic corpus: Kokoro's English voices and blends of two of them.

A blend is a weighted mean of two style tables and sounds like a voice of its own (`docs/MEASURED.md`).
Held-out speakers are four voices that take part in no training blend, and blends among themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

from csm.system.files import hash_key

#: Voices that appear in test conversations only.
HELD_OUT_VOICES = ("af_aoede", "am_liam", "bf_alice", "bm_lewis")
VOICES = (
    *("af_alloy", "af_bella", "af_heart", "af_jessica", "af_kore", "af_nicole", "af_nova", "af_river"),
    *("af_sarah", "af_sky", "am_adam", "am_echo", "am_eric", "am_fenrir", "am_michael", "am_onyx", "am_puck"),
    *("am_santa", "bf_emma", "bf_isabella", "bf_lily", "bm_daniel", "bm_fable", "bm_george"),
)
#: Share of turns of the voices that speak most; the others divide the rest evenly. A recipe's main voice
#: needs hours of one speaker, and af_heart has the teacher's best grade.
SHARES = {"af_heart": 0.14, "am_michael": 0.05, "bf_emma": 0.05, "am_puck": 0.04, "bm_george": 0.04}
BLENDS = 40


@dataclass(frozen=True)
class SyntheticSpeaker:
    """One synthetic speaker.

    Attributes:
        name: Name in the manifest.
        parts: (voice, weight) of the style tables; the weights add up to 1.
        speed: Speaking rate as a factor on the teacher's own.
        british: Accent of the phonemes.
    """

    name: str
    parts: tuple[tuple[str, float], ...]
    speed: float
    british: bool


def speakers() -> dict[str, SyntheticSpeaker]:
    """All training speakers by name: 24 voices and 40 blends."""
    blends = [pair for pair in _pairs(VOICES) if pair[0][:2] == pair[1][:2] or pair[0][1] == pair[1][1]]
    return {s.name: s for s in [*map(_voice, VOICES), *(_blend(*pair) for pair in blends[:BLENDS])]}


def held_out_speakers() -> dict[str, SyntheticSpeaker]:
    """All held-out speakers by name: four voices and two blends of them."""
    pairs = (("af_aoede", "bf_alice"), ("am_liam", "bm_lewis"))
    return {s.name: s for s in [*map(_voice, HELD_OUT_VOICES), *(_blend(*pair) for pair in pairs)]}


def _pairs(names: tuple[str, ...]) -> list[tuple[str, str]]:
    """All pairs in an order drawn by hash: each prefix is a fair sample."""
    pairs = [(a, b) for index, a in enumerate(names) for b in names[index + 1 :]]
    return sorted(pairs, key=lambda pair: _fraction("pair", *pair))


def _voice(name: str) -> SyntheticSpeaker:
    return SyntheticSpeaker(name, ((name, 1.0),), _speed(name), name.startswith("b"))


def _blend(first: str, second: str) -> SyntheticSpeaker:
    weight = round(0.4 + 0.2 * _fraction("weight", first, second), 2)
    name = f"{first}+{second}"
    return SyntheticSpeaker(
        name, ((first, weight), (second, round(1 - weight, 2))), _speed(name), first[0] == "b"
    )


def _speed(name: str) -> float:
    """Rates from 0.92 to 1.15; voices differ in rate as people do."""
    return 1.0 if name in SHARES else round(0.92 + 0.23 * _fraction("speed", name), 2)


def _fraction(*words: str) -> float:
    return int.from_bytes(hash_key("/".join(words))[:8], "big") / 2**64
