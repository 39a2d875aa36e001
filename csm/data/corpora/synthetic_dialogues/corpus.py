"""Builds the corpus folder `synthetic_dialogues`: script, speech, manifest and the synthesis of each turn."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from itertools import islice
from pathlib import Path

import soundfile

from csm.data.corpora.corpus_writer import CorpusWriter
from csm.data.corpora.synthetic_dialogues.kokoro import MODEL_SHA256, Kokoro
from csm.data.corpora.synthetic_dialogues.phonemes import phonemize
from csm.data.corpora.synthetic_dialogues.script import Script, scripts
from csm.data.corpora.synthetic_dialogues.speech_cache import SpeechCache
from csm.data.corpora.synthetic_dialogues.voices import held_out_speakers
from csm.data.manifest import Corpus, Turn, write_jsonl
from csm.data.packages import default_cache
from csm.pronunciation import is_word
from csm.system.log import progress

REVISION = 2
SYNTHESIS_NAME = "synthesis.jsonl"
_BYTES_PER_HOUR = 120_000_000

#: One spoken turn: its phonemes, its file, its duration in seconds.
Spoken = tuple[str, Path, float]


def prepare_synthetic_dialogues(
    output: str | Path, *, hours: float = 12.0, cache: str | Path | None = None, workers: int | None = None
) -> Corpus:
    """Builds the corpus; a run that was stopped resumes with what is spoken already.

    Args:
        output: The corpus folder to be; a finished one is returned as it is.
        hours: Hours of speech, to the conversation that exceeds them. More hours begin with the same
            conversations.
        cache: Folder of packages and spoken utterances; None is the user's cache folder.
        workers: Processes of one thread each; None is one a core. The result does not depend on it.

    Raises:
        ValueError: A package or espeak-ng is missing, another corpus lies in `output`, too little disk.
    """
    if not hours > 0:
        raise ValueError(f"hours is {hours}: expected a number above 0")
    folder = Path(cache) if cache else default_cache()
    writer = CorpusWriter(
        folder=Path(output),
        identity={
            "name": "synthetic_dialogues",
            "source": f"Kokoro-82M, SHA-256 {MODEL_SHA256}; chitchat-dataset 0.9.0",
            "revision": REVISION,
            "hours_wanted": hours,
        },
        notes={
            "licence": "speech: Kokoro-82M (Apache-2.0); chats: chitchat-dataset (MIT); acted lines: "
            "Flight-of-the-Amazon-Queen-License",
            "synthetic": True,
            "held_out_speakers": sorted(held_out_speakers()),
        },
        needed_bytes=int(hours * _BYTES_PER_HOUR),
    )
    if finished := writer.finished():
        return finished
    Kokoro(folder / "packages").fetch()
    writer.start()
    synthesis = [
        row for script, spoken in _spoken(folder, hours, workers) for row in _write(writer, script, spoken)
    ]
    write_jsonl(writer.partial / SYNTHESIS_NAME, synthesis)
    return writer.finish()


def _spoken(folder: Path, hours: float, workers: int | None) -> Iterator[tuple[Script, list[Spoken]]]:
    """Yields conversations with their speech in order until the hours are full."""
    rest = 3600 * hours
    order = scripts(folder / "packages", is_word)
    count = workers or os.cpu_count() or 1
    # Twice as many conversations as workers are under way: more would be spoken in vain at the end.
    with (
        ProcessPoolExecutor(count) as pool,
        progress("synthetic_dialogues", round(rest), unit="second") as done,
    ):
        speak = partial(_speak, folder)
        waiting = [(script, pool.submit(speak, script)) for script in islice(order, 2 * count)]
        while waiting and rest > 0:
            script, job = waiting.pop(0)
            spoken = job.result()
            if (following := next(order, None)) is not None:
                waiting.append((following, pool.submit(speak, following)))
            rest -= sum(seconds for _, _, seconds in spoken)
            done.update(round(sum(seconds for _, _, seconds in spoken)))
            yield script, spoken
        for _, job in waiting:
            job.cancel()


@cache
def _teacher(folder: Path) -> Kokoro:
    """The teacher of this process."""
    return Kokoro(folder)


def _speak(folder: Path, script: Script) -> list[Spoken]:
    speech = SpeechCache(folder / "synthetic_dialogues")
    spoken = []
    for utterance in script.turns:
        (phonemes,) = phonemize([utterance.text], british=utterance.speaker.british)
        path = speech.speak(_teacher(folder / "packages"), utterance, phonemes)
        spoken.append((phonemes, path, soundfile.info(path).duration))
    return spoken


def _write(writer: CorpusWriter, script: Script, spoken: list[Spoken]) -> Iterator[dict[str, object]]:
    """Adds the turns of a conversation; yields what each was made from."""
    for number, (utterance, (phonemes, path, seconds)) in enumerate(zip(script.turns, spoken, strict=True)):
        turn = Turn(
            id=f"{script.id}-{number:02d}",
            conversation=script.id,
            index=number,
            speaker=utterance.speaker.name,
            text=utterance.text,
            audio=f"audio/{script.id}/{number:02d}.flac",
            end=round(seconds, 6),
            synthetic=True,
        )
        target = writer.partial / turn.audio
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        writer.add(turn, split=script.split)
        yield {
            "turn": turn.id,
            "kind": script.kind,
            "phonemes": phonemes,
            "voice": dict(utterance.speaker.parts),
            "speed": utterance.speed,
        }
