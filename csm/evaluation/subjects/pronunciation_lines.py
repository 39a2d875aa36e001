"""Speaks the sentences of the pronunciation tests: homographs, and pairs of turns that hold the same word."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from csm.audio.files import write_audio
from csm.evaluation.core.clips import Clip, ClipSet, ClipSets
from csm.evaluation.metrics.pronunciation_tests import FIRST, GIVEN, OWN
from csm.evaluation.subjects.ambiguous_words import HOMOGRAPHS, MARK, PAIRS, VARIANTS, AmbiguousWord
from csm.generation.prompt_turn import PromptTurn
from csm.generation.session import Session
from csm.generation.talker import Talker

PUBLISHED, FURTHER = "homographs, Sesame's words", "homographs, further words"
GENERATED = "generated"
# Keeps the seeds of two evaluations so far apart that their lines share none.
SEEDS_APART = 100_000


class SentenceSpeaker:
    """Speaks the sentences in one voice, each in a conversation of its own.

    Args:
        talker: The talker; its main voice speaks.
        folder: Folder that each line's WAV is written to.
        seed: Seed of the evaluation; a line's own follows from it and its number.
        done: Called after each line.
    """

    def __init__(self, talker: Talker, folder: Path, seed: int, done: Callable[[], Any]) -> None:
        self.talker, self.folder, self.seed, self.done = talker, folder, seed, done
        self.voice = next(iter(talker.voices))
        self.number = 0

    def session(self) -> Session:
        """Begins a conversation with the next line's seed."""
        self.number += 1
        return self.talker.session(SEEDS_APART * self.seed + self.number)

    def say(self, clip: Clip, session: Session, text: str, context: Sequence[PromptTurn] = ()) -> Clip:
        """Returns the clip with its audio, or with the reason why there is none."""
        try:
            speech = self.talker.generate(text, self.voice, session=session, context=context)
        except ValueError as error:
            return replace(clip, reason=" ".join(str(error).split()))
        finally:
            self.done()
        write_audio(self.folder / f"{clip.id}.wav", speech.waveform, speech.sample_rate)
        return replace(clip, waveform=speech.waveform[0].numpy(), sample_rate=speech.sample_rate)

    def homographs(self, published: bool) -> Iterator[Clip]:
        """Speaks every sentence of the homographs, of Sesame's words or of the further ones."""
        for word in HOMOGRAPHS:
            for asked, reading in enumerate(word.readings if word.published == published else ()):
                for number, sentence in enumerate(reading.sentences):
                    clip = clip_of_word(word, sentence, asked, f"{word.word}.{asked}.{number}")
                    yield self.say(clip, self.session(), clip.text)

    def own(self, word: AmbiguousWord) -> tuple[Clip, Clip]:
        """Speaks both turns of a word in one conversation."""
        session = self.session()
        first, second = (
            clip_of_word(word, sentence, None, f"{word.word}.own.{number}")
            for number, sentence in enumerate(PAIRS[word.word])
        )
        return self.say(first, session, first.text), self.say(second, session, second.text)

    def given(self, word: AmbiguousWord, reading: int) -> tuple[Clip, Clip]:
        """Speaks the first turn spelled as one pronunciation sounds, then the second as usually spelled.

        The first turn stands in the second one's context with the usual spelling: only its sound says which
        pronunciation it has.
        """
        sentences = PAIRS[word.word]
        first, second = (
            clip_of_word(word, sentence, reading, f"{word.word}.given{reading}.{number}")
            for number, sentence in enumerate(sentences)
        )
        spelled = sentences[0].replace(MARK, word.readings[reading].spelling)
        first = self.say(first, self.session(), spelled)
        if first.waveform is None:
            self.done()
            return first, replace(second, reason=f"first turn: {first.reason}")
        sound = torch.from_numpy(first.waveform)[None]
        context = PromptTurn(first.text, sound, first.sample_rate, self.voice)
        return first, self.say(second, self.session(), second.text, [context])


def clip_of_word(word: AmbiguousWord, sentence: str, reading: int | None, name: str) -> Clip:
    """Returns the clip of a sentence before it is spoken; the bootstrap resamples words."""
    before, after = sentence.split(MARK)
    facts = {
        "word": word.word,
        "before": before,
        "after": after,
        "readings": [one.phones for one in word.readings],
        "reading": reading,
    }
    text = sentence.replace(MARK, word.word)
    return Clip(id=name, conversation=word.word, text=text[0].upper() + text[1:], facts=facts)


def count_of_lines() -> int:
    """Returns the number of lines that `spoken_sets` speaks."""
    sentences = [sentence for word in HOMOGRAPHS for one in word.readings for sentence in one.sentences]
    return len(sentences) + 6 * len(VARIANTS)


def spoken_sets(talker: Talker, folder: Path, seed: int, done: Callable[[], Any] = lambda: None) -> ClipSets:
    """Speaks all lines; those of a pair are in two sets, the first turn's being the reference."""
    speaker = SentenceSpeaker(talker, folder, seed, done)
    sets = [
        ClipSet(group=group, condition=GENERATED, clips=tuple(speaker.homographs(published)), generated=True)
        for group, published in ((PUBLISHED, True), (FURTHER, False))
    ]
    own = [speaker.own(word) for word in VARIANTS]
    given = [speaker.given(word, reading) for word in VARIANTS for reading in (0, 1)]
    for group, pairs in ((OWN, own), (GIVEN, given)):
        for condition, clips in zip((FIRST, GENERATED), zip(*pairs, strict=True), strict=True):
            sets.append(ClipSet(group=group, condition=condition, clips=tuple(clips), generated=True))
    return ClipSets(sets=tuple(sets), reference=FIRST)
