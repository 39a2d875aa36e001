"""How often the pronunciation scorer finds which of two pronunciations was synthesised.

    python benchmarks/pronunciation_scorer.py --corpus data/amazon_queen --speech DIR

Every sentence of `csm evaluate --pronunciation` is spoken by Kokoro in both pronunciations, from exact
phones. The phone models are those of the command, trained on the corpus. Each clip costs a second or two of
computing; what lies in DIR is not spoken again.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import soundfile
import torch

from csm.audio.resampling import resample
from csm.data.corpora.synthetic_dialogues.kokoro import SAMPLE_RATE, Kokoro
from csm.data.corpora.synthetic_dialogues.phonemes import phonemize
from csm.data.corpora.synthetic_dialogues.speech_cache import trimmed
from csm.data.corpora.synthetic_dialogues.voices import SyntheticSpeaker, held_out_speakers
from csm.data.manifest import read_corpus
from csm.data.packages import default_cache
from csm.evaluation.core.clips import EVALUATION_RATE
from csm.evaluation.core.intervals import mean_interval
from csm.evaluation.metrics.pronunciation import PronunciationScorer, RecogniserFeatures, words_of
from csm.evaluation.subjects.ambiguous_words import HOMOGRAPHS, MARK, PAIRS, VARIANTS, AmbiguousWord
from csm.evaluation.subjects.pronunciation import PronunciationOptions, trained_scorer
from csm.pronunciation import STRESS, VOWELS
from csm.system.threads import one_thread

#: Phones of the house -> Kokoro's letters, where they differ.
LETTERS = {"eɪ": "A", "aɪ": "I", "oʊ": "O", "aʊ": "W", "ɔɪ": "Y", "t͡ʃ": "ʧ", "d͡ʒ": "ʤ", "ɚ": "əɹ"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--speech", type=Path, required=True)
    parser.add_argument("--packages", type=Path, default=default_cache() / "packages")
    parser.add_argument("--speakers", default="af_aoede,bm_lewis")
    options = parser.parse_args()
    teacher, known = Kokoro(options.packages), held_out_speakers()
    speakers = [known[name] for name in options.speakers.split(",")]
    with one_thread():
        scorer = trained_scorer(read_corpus(options.corpus), PronunciationOptions(), RecogniserFeatures())
        right = {
            word.word: found(scorer, word, speakers, teacher, options.speech)
            for word in (*HOMOGRAPHS, *VARIANTS)
        }
    for word, scores in right.items():
        print(f"{word:<10}{sum(scores):>4} of {len(scores)}")
    sums, sizes = [float(sum(one)) for one in right.values()], [float(len(one)) for one in right.values()]
    total = mean_interval(sums, sizes, repeats=1000, seed=0)
    assert total is not None
    low, high = total.ci95
    print(f"{int(sum(sums))} of {int(sum(sizes))} clips: {total.mean:.3f} [{low:.3f}, {min(high, 1.0):.3f}]")
    print("the same clip for both pronunciations: 0.5, as the sign of a ratio changes with its order")


def found(
    scorer: PronunciationScorer,
    word: AmbiguousWord,
    speakers: list[SyntheticSpeaker],
    teacher: Kokoro,
    folder: Path,
) -> list[bool]:
    """Returns for each clip of a word whether its own pronunciation is the likelier one."""
    sentences = PAIRS.get(word.word) or [s for reading in word.readings for s in reading.sentences]
    right = []
    for speaker in speakers:
        for number, sentence in enumerate(sentences):
            before, after = sentence.split(MARK)
            first, second = (
                [*words_of(before), reading.phones, *words_of(after)] for reading in word.readings
            )
            for said in (0, 1):
                path = folder / f"{word.word}.{number}.{said}.{speaker.name}.wav"
                if not path.is_file():
                    speak(teacher, speaker, (before, word.readings[said].phones, after), path)
                samples, rate = soundfile.read(path, dtype="float32")
                sound = resample(torch.from_numpy(samples), rate, EVALUATION_RATE)[None]
                right.append((scorer.ratio(scorer.features(sound), first, second) > 0) == (said == 0))
    return right


def speak(
    teacher: Kokoro, speaker: SyntheticSpeaker, parts: tuple[str, tuple[str, ...], str], path: Path
) -> None:
    """Writes a sentence whose word has exact phones."""
    before, phones, after = parts
    vowels = [place for place, phone in enumerate(phones) if phone in VOWELS]
    stressed = vowels[1] if phones[vowels[0]] == "ə" else vowels[0]
    word = "".join(
        (STRESS if place == stressed else "") + LETTERS.get(phone, phone)
        for place, phone in enumerate(phones)
    )
    left, right = (
        phonemize([text.strip()], british=speaker.british)[0] if re.search(r"\w", text) else text.strip()
        for text in (before, after)
    )
    gap = "" if right[:1] in ".,?!" else " "
    samples = trimmed(teacher.speak(f"{left} {word}{gap}{right}".strip(), speaker, 1.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples.clip(-1, 1), SAMPLE_RATE)


if __name__ == "__main__":
    main()
