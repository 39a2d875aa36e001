"""Speaks with a trained model.

python launch/generate_speech.py --run runs/quickstart
    the demonstration: eight held-out lines of the main voice and two dialogues, each as recording,
    resynthesis and generated WAV with speech.jsonl in RUN/speech, for launch/evaluate_speech.py.
    Finished ones are kept.

python launch/generate_speech.py --run runs/quickstart --text "I had a plane to catch." --speaker JOE
    one line of your own, as RUN/lines/000.wav ... or --output FILE.wav; another --seed says it otherwise.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

from csm.audio.files import write_audio
from csm.command_line import command, command_parser, device_of
from csm.generation.typed_conversation import free_path
from csm.recipes import pipeline


def work(options: argparse.Namespace) -> None:
    """Makes the demonstration, or says one line."""
    sampling = pipeline.load_run(options.run).sampling
    given = {name: getattr(options, name) for name in ("seed", "temperature", "top_k")}
    sampling = dataclasses.replace(sampling, **{k: v for k, v in given.items() if v is not None})
    talker = pipeline.trained_talker(
        options.run, device_of(options), sampling=sampling, corpus=options.corpus
    )
    if options.text is None:
        output = options.output or options.run / "speech"
        corpus = pipeline.run_corpus(options.run, options.corpus)
        made = pipeline.speak_lines(options.run, talker, corpus, output)
        print(
            f"{output}: "
            + (f"{made} items spoken" if made else "the demonstration is complete; nothing to do")
        )
        return
    output = options.output or free_path(options.run / "lines", ".wav")
    speech = talker.speak_turn(options.text, options.speaker)
    write_audio(output, speech.waveform, speech.sample_rate)
    seconds = f"{speech.timing.audio_s:.2f} s of speech in {speech.timing.generation_s:.2f} s"
    print(f"{output}: {speech.voice.name}, {seconds}, the first after {speech.timing.first_audio_s:.2f} s")


def main() -> int:
    """The command."""
    parser = command_parser(__doc__)
    parser.add_argument(
        "--run", type=Path, required=True, metavar="FOLDER", help="of a finished launch/train.py"
    )
    parser.add_argument("--text", help="say this line instead of the demonstration")
    parser.add_argument("--speaker", metavar="NAME", help="who says it (default: who was trained on most)")
    parser.add_argument(
        "--output", type=Path, metavar="PATH", help="speech folder, or with --text a WAV file"
    )
    parser.add_argument("--corpus", type=Path, metavar="FOLDER", help="of the corpus, where it has moved")
    parser.add_argument("--seed", type=int, help="of the draws (default: the recipe's, as the next two)")
    parser.add_argument("--temperature", type=float, help="0 is the likeliest, 1 the whole variety")
    parser.add_argument("--top-k", type=int, help="draw from the k likeliest codes; 0 from all")
    return command("generate_speech", parser, work)


if __name__ == "__main__":
    sys.exit(main())
