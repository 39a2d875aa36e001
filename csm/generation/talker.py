"""Text in, speech out: a model, its tokenizer and the voices it knows, loaded and used as one."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple, overload

import torch
from jaxtyping import Int
from torch import Tensor

from csm import config as config_files
from csm.data.resampling import resample
from csm.generation.batch import Request, SpeakingTogether
from csm.generation.frame_drawing import FrameDrawer, WeightKind
from csm.generation.sampling import SamplingConfig
from csm.generation.sentences import sentences
from csm.generation.session import Session
from csm.generation.speech_stream import Speech, SpeechStream
from csm.generation.voices import Voice
from csm.network.code_geometry import latent_vectors
from csm.network.csm_model import CSMModel
from csm.sequences.frames import TurnFrames
from csm.system.threads import one_thread
from csm.text import PhoneCodec
from csm.tokenizer.conversational_rvq import ConversationalRVQ

PACKAGED = Path(__file__).resolve().parents[1] / "weights"
VOICES_FILE, SAMPLING_FILE = "voices.json", "sampling.json"
# Silence between sentences: a speaker's pause for breath is 0.2 s and more.
PAUSE_FRAMES = 2


class Heard(NamedTuple):
    """A turn that was said by someone: what a generation goes on from.

    Attributes:
        text: What is said in it.
        waveform: float32 [1, S], full scale = 1. sample_rate: Hz.
        speaker: Name of a known voice; None for anyone else.
    """

    text: str
    waveform: Tensor
    sample_rate: int
    speaker: str | None = None


@dataclass(frozen=True, kw_only=True)
class Talker:
    """Everything that is needed to speak.

    Attributes:
        model, tokenizer: Trained, in eval mode, on one device.
        voices: By name, the main one first.
        sampling: How codes are drawn.
        weights: "int8" draws codes from a rounded copy of the depth decoder: see FrameDrawer.

    Raises:
        ValueError: "int8" where sampling draws nothing from the depth decoder.
    """

    model: CSMModel
    tokenizer: ConversationalRVQ
    voices: Mapping[str, Voice]
    sampling: SamplingConfig
    weights: WeightKind = "fp32"

    def __post_init__(self) -> None:
        if self.weights == "int8" and self.sampling.later_codes == "nearest":
            raise ValueError(
                "weights is 'int8' with sampling.later_codes 'nearest', which asks no depth decoder: "
                "expected 'fp32', or later_codes 'drawn' (sampling.json of a voice's folder)"
            )
        make_ready(self.model, self.tokenizer)

    @classmethod
    def from_pretrained(cls, folder: Path | str | None = None) -> Talker:
        """Reads a folder of `save_pretrained`; None takes the packaged voice.

        Raises:
            ValueError: Something is missing or does not fit; says what.
        """
        folder = PACKAGED / "voice" if folder is None else Path(folder)
        for name in (VOICES_FILE, SAMPLING_FILE):
            if not (folder / name).is_file():
                raise ValueError(
                    f"no voice in {folder}: expected {name}; launch/export_voice.py makes one of a run"
                )
        # The packaged voice and the packaged tokenizer are kept once, side by side.
        own = folder / "tokenizer"
        tokenizer = ConversationalRVQ.from_pretrained(own if own.is_dir() else folder.parent / "tokenizer")
        rows = json.loads((folder / VOICES_FILE).read_text(encoding="utf-8"))
        voices = {
            name: Voice(name, row["number"], torch.tensor([row["speaker"]]), torch.tensor([row["emotion"]]))
            for name, row in rows.items()
        }
        return cls(
            model=CSMModel.from_pretrained(folder),
            tokenizer=tokenizer,
            voices=voices,
            sampling=config_files.load(SamplingConfig, folder / SAMPLING_FILE),
        )

    def save_pretrained(self, folder: Path | str, *, half: bool = False, tokenizer: bool = True) -> None:
        """Writes a folder that `from_pretrained` reads.

        Args:
            folder: Made if missing.
            half: In half precision, tables of codes in 8 bits.
            tokenizer: Whether the tokenizer goes along; without it, one beside the folder is used.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.model.save_pretrained(folder, half=half)
        if tokenizer:
            self.tokenizer.save_pretrained(folder / "tokenizer", half=half)
        config_files.save(self.sampling, folder / SAMPLING_FILE)
        rows = {
            name: {
                "number": voice.number,
                **{
                    part: [round(float(x), 5) for x in row[0]]
                    for part, row in (("speaker", voice.speaker), ("emotion", voice.emotion))
                    if row is not None
                },
            }
            for name, voice in self.voices.items()
        }
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
        (folder / VOICES_FILE).write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")

    def voice(self, name: str | None = None) -> Voice:
        """The voice of a name; None is the main one.

        Raises:
            ValueError: Unknown; names the nearest and all.
        """
        if name is None:
            return next(iter(self.voices.values()))
        if name not in self.voices:
            near = difflib.get_close_matches(name.upper(), self.voices, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"unknown speaker {name!r}{hint} Known: {', '.join(self.voices)}")
        return self.voices[name]

    @cached_property
    def pause(self) -> list[Int[Tensor, " K"]]:
        """Frames of silence that stand between sentences."""
        silence = torch.zeros(1, 1, PAUSE_FRAMES * self.tokenizer.config.samples_per_frame)
        device = self.tokenizer.decoder.embed.weight.device
        with torch.no_grad():
            codes, _ = self.tokenizer.encode(silence.to(device))
        return list(codes[0, : self.model.config.num_codebooks].cpu().unbind(dim=1))

    def session(self, seed: int | None = None) -> Session:
        """A new conversation; None takes the seed of `sampling`."""
        sampling = self.sampling if seed is None else replace(self.sampling, seed=seed)
        return Session(self.model, sampling, drawer=FrameDrawer(self.model, self.weights))

    @overload
    def generate(
        self,
        text: str | Iterable[str],
        speaker: str | None = None,
        *,
        prompt: Heard | None = None,
        context: Sequence[Heard] = (),
        session: Session | None = None,
        seed: int | None = None,
        stream: Literal[False] = False,
    ) -> Speech: ...

    @overload
    def generate(
        self,
        text: str | Iterable[str],
        speaker: str | None = None,
        *,
        prompt: Heard | None = None,
        context: Sequence[Heard] = (),
        session: Session | None = None,
        seed: int | None = None,
        stream: Literal[True],
    ) -> SpeechStream: ...

    def generate(
        self,
        text: str | Iterable[str],
        speaker: str | None = None,
        *,
        prompt: Heard | None = None,
        context: Sequence[Heard] = (),
        session: Session | None = None,
        seed: int | None = None,
        stream: bool = False,
    ) -> Speech | SpeechStream:
        """Speaks a text, sentence by sentence.

        Args:
            text: What to say; or its pieces, which may still arrive while the sentences before them are
                spoken.
            speaker: Name of a voice; None is the main one, or whoever is heard in `prompt`.
            prompt: A recording whose voice is taken up, with what it says; ten seconds are plenty.
            context: The conversation so far, oldest first. What does not fit the model's context goes to its
                memory.
            session: A conversation to go on with; what is said is kept in it, as far as it was said.
                None begins a new one.
            seed: Of a new session's draws; None takes `sampling.seed`.
            stream: Hands out waveforms as they are made, 80 ms of speech at a time, instead of all at the
                end. The same seed gives the same codes, and the chunks end to end are the same waveform.

        Returns:
            The speech; or, streaming, an iterator of waveforms [1, S]. Closing it stops the speech between
            two frames. While it is open the tokenizer serves nothing else.

        Raises:
            ValueError: No text, an unknown speaker, both a speaker and a prompt, a prompt or a turn without
                its text, a session together with a seed. While speaking: a word too long to be spoken.
        """
        if isinstance(text, str) and not text.strip():
            raise ValueError("the text is empty: expected something to say")
        if prompt is not None and speaker is not None:
            raise ValueError(
                f"speaker is {speaker!r} and there is a prompt: give one of them, the prompt's voice is used"
            )
        if session is not None and seed is not None:
            raise ValueError("a session goes on with its own draws: give a seed or a session, not both")
        for turn in (*context, *([] if prompt is None else [prompt])):
            self._check_heard(turn)
        voice = self.voice(speaker)
        session = session or self.session(seed)
        for turn in context:
            session.listen(self._frames(turn)[0])
        if prompt is not None:
            frames, voice = self._frames(prompt)
            session.listen(frames)
        spoken = SpeechStream(
            self.tokenizer,
            session,
            voice,
            [text] if isinstance(text, str) else text,
            pause=self.pause,
        )
        return spoken if stream else spoken.whole()

    def generate_many(
        self, texts: Sequence[str], speakers: Sequence[str | None], seeds: Sequence[int]
    ) -> list[Speech]:
        """Speaks several texts at once, each as `generate(text, speaker, seed=seed)` does alone.

        Their frames go through the backbone together, which costs little more than one; codes are equal up to
        the rounding of a product of many rows or of one.

        Args:
            texts: What to say.
            speakers: Of each, a name or None for the main voice. seeds: Of each.

        Raises:
            ValueError: Other numbers of speakers or seeds than texts, or what `generate` refuses.
        """
        if not len(texts) == len(speakers) == len(seeds):
            raise ValueError(
                f"{len(texts)} texts, {len(speakers)} speakers and {len(seeds)} seeds: expected one of each"
            )
        voices = [self.voice(name) for name in speakers]
        said = [list(sentences([text])) for text in texts]
        if not all(said):
            raise ValueError(f"text {said.index([])} is empty: expected something to say")
        sessions = [self.session(seed) for seed in seeds]
        frames: list[list[Tensor]] = [[] for _ in texts]
        with one_thread():
            for turn in range(max(map(len, said), default=0)):
                going = [index for index, parts in enumerate(said) if turn < len(parts)]
                for index in going if turn else []:
                    frames[index].extend(self.pause)
                together = SpeakingTogether(
                    [Request(sessions[i], said[i][turn], voices[i].number) for i in going]
                )
                for step in together:
                    for index, frame in zip(going, step, strict=True):
                        if frame is not None:
                            frames[index].append(frame)
            return [self._decoded(*pair) for pair in zip(frames, voices, strict=True)]

    @torch.no_grad()
    def _decoded(self, frames: list[Tensor], voice: Voice) -> Speech:
        rate = self.tokenizer.config.sample_rate
        if not frames:
            none = torch.zeros(self.model.config.num_codebooks, 0, dtype=torch.int64)
            return Speech(torch.zeros(1, 0), none, rate)
        codes = torch.stack(frames, dim=1)
        device = self.tokenizer.decoder.embed.weight.device
        waveform = self.tokenizer.decode(
            codes[None].to(device),
            speaker=voice.speaker,
            emotion=voice.emotion,
            contrast=self.sampling.contrast,
        )
        return Speech(waveform[0].cpu(), codes, rate)

    def _check_heard(self, turn: Heard) -> None:
        if not turn.text.strip():
            raise ValueError(
                "a prompt or earlier turn has no text: expected the words that its recording says"
            )
        if turn.waveform.ndim != 2 or turn.waveform.shape[0] != 1 or turn.waveform.shape[1] == 0:
            raise ValueError(
                f"a prompt or earlier turn has a waveform of shape {tuple(turn.waveform.shape)}: expected "
                f"[1, S] with at least one sample; mix channels down first"
            )
        if turn.speaker is not None:
            self.voice(turn.speaker)

    @torch.no_grad()
    def _frames(self, turn: Heard) -> tuple[TurnFrames, Voice]:
        """A heard turn as the model takes it in, and the voice heard in it.

        Whoever is unknown goes by the number of the known voice that sounds most alike: the model has learned
        what such numbers sound like, and the recording in its context says the rest.
        """
        device = self.tokenizer.decoder.embed.weight.device
        waveform = resample(turn.waveform[0], turn.sample_rate, self.tokenizer.config.sample_rate)
        codes, info = self.tokenizer.encode(waveform[None, None].to(device))
        if turn.speaker is not None:
            number = self.voice(turn.speaker).number
        else:
            nearest = max(
                self.voices.values(), key=lambda voice: float((voice.speaker.to(device) * info.speaker).sum())
            )
            number = nearest.number
        voice = Voice(turn.speaker or "prompt", number, info.speaker, info.emotion)
        books = self.model.config.num_codebooks
        return TurnFrames("heard", turn.text, number, codes[0, :books].cpu()), voice


def known_numbers(folder: Path) -> dict[str, int]:
    """Numbers of the voices in a folder of `Talker.save_pretrained`; none of a folder that has no voices."""
    path = folder / VOICES_FILE
    rows = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {name: row["number"] for name, row in rows.items()}


def make_ready(model: CSMModel, tokenizer: ConversationalRVQ) -> None:
    """What a model needs before it speaks: what its tokenizer's codes add to a latent, and the lexicon.

    A model that speaks from phones reads it for half a second, which the first sound need not wait for.
    """
    if isinstance(model.codec, PhoneCodec):
        model.codec.encode_turn("a", 0)
    if model.config.latent_dim and isinstance(tokenizer, ConversationalRVQ):
        model.know_codes(latent_vectors(tokenizer.code_vectors()[: model.config.num_codebooks]))
