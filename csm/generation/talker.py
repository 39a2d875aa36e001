"""Text to speech: a model, its tokenizer, voices and sampling settings, loaded and used as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, overload

import torch
from jaxtyping import Float, Int
from torch import Tensor

from csm import config as config_files
from csm.audio.resampling import resample
from csm.generation.audio_stream import SpeechStream
from csm.generation.candidates import Candidates
from csm.generation.depth_sampler import DepthSampler, WeightKind
from csm.generation.hearing import TranscriptStream
from csm.generation.prompt_turn import PromptTurn, check_prompt, check_waveform, encoded_prompt
from csm.generation.readers import READERS, Reader, ReaderName, reader_of
from csm.generation.sampling import SamplingConfig
from csm.generation.sentences import sentences
from csm.generation.session import Session
from csm.generation.shared_lanes import SharedLanes
from csm.generation.shared_speech import SharedSteps
from csm.generation.simultaneous import OngoingText, speak_simultaneously
from csm.generation.speech import Speech, StreamClock
from csm.generation.voice_folder import (
    SAMPLING_FILE,
    TOKENIZER_FOLDER,
    packaged_voice,
    read_voice_folder,
)
from csm.generation.voices import VOICES_FILE, Voice, find_voice, write_voices
from csm.network.conversation_network import ConversationNetwork
from csm.network.io import checkpoints
from csm.network.predicted_latent import latent_vectors
from csm.sequences.turns import TurnFrames
from csm.system.digests import record_digests
from csm.text import PhoneCodec
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.opening import VoiceTokenizer
from csm.word_search import WORDS_FILE, WordPairs

# Silence between sentences: a pause for breath is 0.2 s and more, and the sentences' own ends add to it.
PAUSE_FRAMES = 2


@dataclass(frozen=True, kw_only=True)
class Talker:
    """Model, tokenizer, voices and sampling settings for speech synthesis.

    Attributes:
        model: Trained model in eval mode.
        tokenizer: Trained tokenizer in eval mode, on the model's device.
        voices: Voices by name, the main one first.
        sampling: Sampling settings.
        weights: Kind of the depth decoder's weights; "int8" samples from a quantized copy: see DepthSampler.
        words: Words by which a model with a letter head reads whole turns; None: by letters alone.
        shared: Steps that make the frames of all streams together; None makes those of each alone.
        style: Emotion embedding [1, M] that replaces the voices' own (`with_style`); None: their own.

    Raises:
        ValueError: weights is "int8", but sampling uses no depth decoder; or decoded_codebooks are more than
            the model's.
    """

    model: ConversationNetwork
    tokenizer: VoiceTokenizer
    voices: Mapping[str, Voice]
    sampling: SamplingConfig
    weights: WeightKind = "fp32"
    words: WordPairs | None = None
    shared: SharedSteps | SharedLanes | None = None
    style: Tensor | None = None

    def __post_init__(self) -> None:
        if self.weights == "int8" and self.sampling.later_codes == "nearest":
            raise ValueError(
                "weights is 'int8' with sampling.later_codes 'nearest', which uses no depth decoder: "
                "expected 'fp32', or later_codes 'sampled' (sampling.json of a voice's folder)"
            )
        self.sampling.require_reading(bool(self.model.backbone.voice_layers()))
        count, modelled = self.sampling.decoded_codebooks, self.model.config.num_codebooks
        if count is not None and count > modelled:
            raise ValueError(f"sampling.decoded_codebooks is {count}: the model has {modelled} codebooks")
        self._prepare()

    def _prepare(self) -> None:
        """Gives the model what its codes add to a latent, and loads the lexicon before the first sound."""
        config = self.model.config
        if config.latent_dim and isinstance(self.tokenizer, ConversationalRVQ):
            vectors = self.tokenizer.code_vectors()[: config.num_codebooks]
            self.model.set_code_vectors(latent_vectors(vectors))
        if isinstance(self.model.codec, PhoneCodec):
            self.model.codec.encode_turn("a", 0)
        if self.model.letter_head is not None:
            self.model.letter_head.words = self.words

    @classmethod
    def from_pretrained(cls, folder: Path | str | None = None) -> Talker:
        """Reads a folder of `save_pretrained`, or csm-1b with Mimi (`csm.generation.voice_folder`).

        Args:
            folder: Folder, or the name of a packaged voice: "telephone" (None) or "wideband".

        Raises:
            ValueError: A file is missing or does not fit the others.
        """
        parts = read_voice_folder(packaged_voice(folder))
        return cls(**parts._asdict())

    def save_pretrained(self, folder: Path | str, *, half: bool = False, tokenizer: bool = True) -> None:
        """Writes a folder that `from_pretrained` reads.

        Args:
            folder: Target folder; made if missing.
            half: Whether the model's matrices are stored in 8 bits and the rest in half precision; of the
                tokenizer its codebooks in 8 bits.
            tokenizer: Whether the tokenizer is stored too; without it, one beside the folder is used.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        checkpoints.save(self.model, folder, half=half)
        if tokenizer:
            self.tokenizer.save_pretrained(folder / TOKENIZER_FOLDER, half=half)
        config_files.save(self.sampling, folder / SAMPLING_FILE)
        write_voices(folder, self.voices)
        if self.words is not None:
            self.words.save(folder)
        written = [path.name for path in (*folder.glob("*.safetensors"), *folder.glob(WORDS_FILE))]
        record_digests(folder, [*written, VOICES_FILE, "config.json"])

    def voice(self, name: str | None = None) -> Voice:
        """Returns the voice of a name; None takes the main one.

        Raises:
            ValueError: The name is unknown.
        """
        return self._styled(find_voice(self.voices, name))

    @torch.no_grad()
    def with_style(self, waveform: Float[Tensor, "1 S"], sample_rate: int) -> Talker:
        """Returns a talker whose voices, and those of prompts, speak in the manner of a recording.

        The decoder is given the recording's emotion embedding instead of the voice's own.

        Args:
            waveform: Recording of any speaker, full scale = 1; a few seconds of speech.
            sample_rate: Its sample rate in Hz.

        Raises:
            ValueError: The recording has no samples, a wrong shape, dtype or full scale, or the tokenizer has
                no such embedding.
        """
        check_waveform(waveform, "a recording of a style")
        mono = resample(waveform[0], sample_rate, self.tokenizer.config.sample_rate)
        emotion = self.tokenizer.encode(mono[None, None].to(self.tokenizer.device))[1].emotion
        if not emotion.shape[1]:
            raise ValueError("the tokenizer has no emotion embedding: expected one of csm, Mimi has none")
        return replace(self, style=emotion)

    def _styled(self, voice: Voice) -> Voice:
        return voice if self.style is None else voice._replace(emotion=self.style)

    @cached_property
    def pause(self) -> list[Int[Tensor, " K"]]:
        """Frames of silence between sentences."""
        silence = torch.zeros(1, 1, PAUSE_FRAMES * self.tokenizer.config.samples_per_frame)
        with torch.no_grad():
            codes, _ = self.tokenizer.encode(silence.to(self.tokenizer.device))
        return list(codes[0, : self.model.config.num_codebooks].cpu().unbind(dim=1))

    def session(self, seed: int | None = None, speed: float | None = None) -> Session:
        """Returns a new conversation; None takes the seed and the speed of `sampling`.

        Raises:
            ValueError: The speed is out of its range.
        """
        own = self.sampling
        sampling = replace(
            own, seed=own.seed if seed is None else seed, speed=own.speed if speed is None else speed
        )
        return Session(self.model, sampling, sampler=DepthSampler(self.model, self.weights))

    @overload
    def generate(
        self,
        text: str | Iterable[str],
        speaker: str | None = None,
        *,
        prompt: PromptTurn | None = None,
        context: Sequence[PromptTurn] = (),
        session: Session | None = None,
        seed: int | None = None,
        speed: float | None = None,
        candidates: int = 1,
        reader: Reader | ReaderName | None = None,
        stream: Literal[False] = False,
    ) -> Speech: ...

    @overload
    def generate(
        self,
        text: str | Iterable[str],
        speaker: str | None = None,
        *,
        prompt: PromptTurn | None = None,
        context: Sequence[PromptTurn] = (),
        session: Session | None = None,
        seed: int | None = None,
        speed: float | None = None,
        candidates: int = 1,
        reader: Reader | ReaderName | None = None,
        stream: Literal[True],
    ) -> SpeechStream: ...

    def generate(
        self,
        text: str | Iterable[str],
        speaker: str | None = None,
        *,
        prompt: PromptTurn | None = None,
        context: Sequence[PromptTurn] = (),
        session: Session | None = None,
        seed: int | None = None,
        speed: float | None = None,
        candidates: int = 1,
        reader: Reader | ReaderName | None = None,
        stream: bool = False,
    ) -> Speech | SpeechStream:
        """Speaks a text sentence by sentence; each sentence is a turn, with a pause of silence between two.

        Args:
            text: Text, or its pieces, which may still arrive while earlier sentences are spoken.
            speaker: Name of a voice; None takes the prompt's voice, or the main one without a prompt.
            prompt: Recording whose voice is used, with its text; ten seconds are enough.
            context: Conversation so far, oldest turn first. Turns that do not fit the model's context are
                written to its memory.
            session: Conversation to continue, which keeps the spoken turns; None begins a new one.
            seed: Seed of a new session; None takes `sampling.seed`.
            speed: Rate of speech of a new session, 0.5 to 2; None takes `sampling.speed`.
            candidates: Renditions of each sentence; the one with the lowest loss of `reader` is kept.
                Above 1 a sentence's first audio comes when all are spoken.
            reader: What reads candidates (`csm.generation.readers`): "recogniser", "model", or an object;
                None is the recogniser.
            stream: Whether to return waveforms as they are generated, 80 ms of speech at a time.
                The same seed gives the same codes, and the concatenated chunks equal the whole waveform.

        Returns:
            The speech; or, with `stream`, an iterator of waveforms [1, S]. Closing it stops the speech
            between two frames. Without `shared`, the tokenizer serves nothing else while it is open.

        Raises:
            ValueError: The text is empty, the speaker is unknown, both speaker and prompt are given, a prompt
                or context turn has no text or a wrong shape, the speed is out of its range, a session is
                given beside seed or speed; candidates are below 1, or above 1 with `shared` steps or without
                their reader. While speaking: a word is too long.
        """
        if isinstance(text, str) and not text.strip():
            raise ValueError("text is empty: expected words to speak")
        if prompt is not None and speaker is not None:
            raise ValueError(f"speaker is {speaker!r} and a prompt is given: expected only one of them")
        for name, value in (("seed", seed), ("speed", speed)):
            if session is not None and value is not None:
                raise ValueError(
                    f"{name} is {value} and a session, which has its own, is given: expected only one"
                )
        self._check_candidates(candidates, reader)
        for turn in (*context, *([] if prompt is None else [prompt])):
            check_prompt(turn, self.voices)
        voice = self.voice(speaker)
        session = session or self.session(seed, speed)
        several = None if candidates == 1 else Candidates(candidates, self._reader(reader))
        clock = StreamClock()
        for turn in context:
            session.listen(self._encoded(turn)[0])
        if prompt is not None:
            frames, voice = self._encoded(prompt)
            voice = self._styled(voice)
            session.listen(frames)
        turns = sentences([text] if isinstance(text, str) else text)
        speech = SpeechStream(
            self.tokenizer,
            session,
            voice,
            turns,
            pause=self.pause,
            clock=clock,
            shared=self.shared,
            candidates=several,
        )
        return speech if stream else speech.whole()

    def _check_candidates(self, candidates: int, reader: Reader | ReaderName | None) -> None:
        if candidates < 1 or (candidates > 1 and self.shared is not None):
            most = "1 with shared steps" if candidates > 1 else "1 or more"
            raise ValueError(f"candidates is {candidates}: expected {most}")
        if isinstance(reader, str) and reader not in READERS:
            raise ValueError(f"reader is {reader!r}: expected one of {', '.join(READERS)}")

    def _reader(self, reader: Reader | ReaderName | None) -> Reader:
        return self.reader(reader) if reader is None or isinstance(reader, str) else reader

    def reader(self, name: str | None = None) -> Reader:
        """Returns a reader of candidates by its name, to be used for several texts; None is the recogniser.

        Raises:
            ValueError: As `csm.generation.readers.reader_of`.
        """
        return reader_of(name, self.model, self.tokenizer, self.sampling)

    def hear(self, speaker: str | None = None, *, session: Session | None = None) -> TranscriptStream:
        """Begins to hear a turn: `push` its audio as it comes, and `finish` returns its whole text.

        A model with a letter head gives the text so far at every push, any other one at the end.

        Args:
            speaker: Name of a known voice; None for any other speaker: the model's first local number, or the
                main voice's in a model without local numbers.
            session: Conversation that keeps the turn; None begins a new one.

        Raises:
            ValueError: The speaker is unknown, the session is busy, or the model writes no text.
        """
        local = self.model.config.local_numbers
        number = local[0] if speaker is None and local else self.voice(speaker).number
        return TranscriptStream(self.tokenizer.with_own_state(), session or self.session(), number)

    def speak_turn(self, text: str, speaker: str | None = None, *, session: Session | None = None) -> Speech:
        """Speaks a text as one turn, whatever its sentences.

        A turn without frames becomes one frame of silence, so that an audio file can hold it.

        Args:
            text: Text of the turn.
            speaker: Name of a voice; None takes the main one.
            session: Conversation to continue; None begins a new one.

        Raises:
            ValueError: The text is empty or does not fit the model's context, or the speaker is unknown.
        """
        voice, session = self.voice(speaker), session or self.session()
        speech = SpeechStream(self.tokenizer, session, voice, [text]).whole()
        if speech.waveform.shape[1]:
            return speech
        config = self.tokenizer.config
        seconds = round(config.samples_per_frame / config.sample_rate, 4)
        silence = torch.zeros(1, config.samples_per_frame)
        return speech._replace(waveform=silence, timing=speech.timing._replace(audio_s=seconds))

    def generate_many(
        self, texts: Sequence[str], speakers: Sequence[str | None], seeds: Sequence[int]
    ) -> list[Speech]:
        """Speaks several texts at once, each as `generate(text, speaker, seed=seed)` does alone.

        The frames of all texts go through the backbone together, which costs little more than one frame;
        codes are equal up to the rounding of a product of many rows or of one.

        Args:
            texts: Texts to speak.
            speakers: Name of a voice for each text; None takes the main one.
            seeds: Seed of each text's session.

        Raises:
            ValueError: The numbers of texts, speakers and seeds differ, or `generate` would refuse a text.
        """
        if not len(texts) == len(speakers) == len(seeds):
            raise ValueError(
                f"{len(texts)} texts, {len(speakers)} speakers and {len(seeds)} seeds: expected one of each"
            )
        voices = [self.voice(name) for name in speakers]
        turns = [list(sentences([text])) for text in texts]
        if not all(turns):
            raise ValueError(f"text {turns.index([])} is empty: expected words to speak")
        spoken = [
            OngoingText(self.session(seed), voice, parts)
            for seed, voice, parts in zip(seeds, voices, turns, strict=True)
        ]
        return speak_simultaneously(self.tokenizer, spoken, self.pause)

    def _encoded(self, turn: PromptTurn) -> tuple[TurnFrames, Voice]:
        config = self.model.config
        return encoded_prompt(turn, self.tokenizer, self.voices, config.num_codebooks, config.local_numbers)
