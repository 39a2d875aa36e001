"""Writes the conversations of a layout into a corpus folder: audio, turns, words, and what is left out."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from csm.audio.containers import length_of, playable
from csm.audio.files import AudioInfo, check_audio
from csm.data.corpora.corpus_writer import CorpusWriter
from csm.data.corpora.layouts.source import SourceConversation, SourceTurn, Untranscribed
from csm.data.corpora.layouts.tree import MALFORMED, Tree
from csm.data.corpora.segmentation import to_turns
from csm.data.corpora.source_files import AUDIO_SUFFIXES
from csm.data.manifest import SPLITS, Recording, Segment, Turn, file_safe
from csm.data.word_times import Word, rounded

# Times of transcripts are often rounded: a turn may end this much after its recording, in seconds.
ROUNDING = 0.05
MOST_CHANNELS = 8  # of FLAC

# Makes a conversation of a recording whose words are unknown; the path is one that libsndfile reads.
Transcriber = Callable[[Untranscribed, Path, AudioInfo, Tree], SourceConversation]


class Importer:
    """Copies audio and adds turns to a corpus.

    Args:
        writer: Corpus writer that was started.
        tree: Source; receives the reasons of what is left out.
        transcribe: Makes a conversation of an untranscribed recording; None rejects these.
    """

    def __init__(self, writer: CorpusWriter, tree: Tree, transcribe: Transcriber | None = None) -> None:
        self.writer, self.tree, self.transcribe = writer, tree, transcribe
        self.wordless = 0  # turns of transcribed recordings in which no word was recognised
        self.ids: set[str] = set()
        self.turn_ids: set[str] = set()
        self.copies: dict[Path, tuple[str, AudioInfo]] = {}  # file -> path in the corpus, statistics
        self.targets: set[str] = set()  # the paths in it
        self.failures: dict[Path, str] = {}

    def add_all(self, conversations: Iterable[SourceConversation | Untranscribed]) -> None:
        """Adds conversations, then enters everything that was left out into the corpus's ledger."""
        for conversation in conversations:
            self.add(conversation)
        for path in sorted(self.tree.files):
            if path in self.failures:
                self.tree.reject_file(path, self.failures[path])
            elif path not in self.tree.used:
                self.tree.reject_file(path, "is no part of the layout")
            elif path.suffix.lower() in AUDIO_SUFFIXES and path not in self.copies:
                self.tree.reject_file(path, "no turn of it can be used")
        self._leave_out_transcripts()
        for what, reason, seconds in self.tree.turns_rejected:
            self.writer.reject(what, reason, seconds=seconds)
        for path, reason in sorted(self.tree.files_rejected.items()):
            self.writer.reject(self.tree.shown(path), reason, unit="file", seconds=length_of(path))
        inside = set(self.tree.files) - set(self.tree.files_rejected)
        for _ in inside:
            self.writer.use_file()

    def _leave_out_transcripts(self) -> None:
        """Enters the transcripts of recordings that are left out."""
        out = set(self.failures) | set(self.tree.files_rejected)
        for path, recordings in self.tree.recordings.items():
            if recordings <= out:
                self.tree.reject_file(path, "its recording is left out")

    def add(self, conversation: SourceConversation | Untranscribed) -> None:
        """Adds one conversation; what cannot be used goes to the tree's ledger."""
        if isinstance(conversation, Untranscribed):
            made = self._transcribed(conversation)
            if made is None:
                return
            conversation = made
        name = file_safe(conversation.id)
        if (problem := self._problem(name, conversation)) is not None:
            self._reject(conversation, conversation.turns, problem)
            return
        usable = [turn for turn in conversation.turns if self._has_audio(conversation, turn)]
        try:
            turns = self._turns(name, conversation, usable)
        except MALFORMED as error:
            self._reject(conversation, usable, error)
            return
        if turns:  # a conversation without any leaves its name to another
            self.ids.add(name.casefold())
        for turn, words in turns:
            self.wordless += not turn.text
            self.writer.add(turn, split=conversation.split, words=words)

    def _problem(self, name: str, conversation: SourceConversation) -> str | None:
        """Returns why no turn of a conversation can be used, or None."""
        if name.casefold() in self.ids:
            return f"another conversation is called {conversation.id!r}; rename one"
        if conversation.split not in (None, *SPLITS):
            return f"split is {conversation.split!r}: expected one of {', '.join(SPLITS)}"
        return None

    def _reject(self, conversation: SourceConversation, turns: Iterable[SourceTurn], reason: object) -> None:
        for number, source in enumerate(turns):
            self.tree.reject_turn(f"{conversation.id}, turn {number}", reason, self._length(source))
            self.tree.drop(source.audio)

    def _length(self, turn: SourceTurn) -> float | None:
        """Returns the length of a turn in seconds, None where it is that of a file which states none."""
        end = turn.end
        if end is None:
            known = self.copies.get(turn.audio)
            end = length_of(turn.audio) if known is None else known[1].duration
        return None if end is None else max(0.0, end - turn.start)

    def _turns(
        self, name: str, conversation: SourceConversation, usable: list[SourceTurn]
    ) -> list[tuple[Turn, tuple[Word, ...]]]:
        turns = (
            self._on_timeline(name, conversation, usable)
            if conversation.timeline
            else [self._single(name, number, source) for number, source in enumerate(usable)]
        )
        return [
            (replace(turn, id=self._unique(turn.id), synthetic=conversation.synthetic), rounded(words))
            for turn, words in turns
        ]

    def _transcribed(self, recording: Untranscribed) -> SourceConversation | None:
        if self.transcribe is None:
            if len(recording.texts) == 1 and recording.texts[0].channel is None:
                return self._whole(recording)
            self._reject_unknown(recording)
            return None
        path = recording.audio
        try:
            path = playable(recording.audio, self.tree.scratch)
            info = _usable(check_audio(path))
            made = self._remembered(self.transcribe, recording, path, info)
            self._copy(recording.audio, path, info)
        except ValueError as error:
            self.tree.reject_file(recording.audio, error)
            return None
        finally:
            self.tree.drop(path)
        return made

    def _reject_unknown(self, recording: Untranscribed) -> None:
        reason = "its words are unknown: --transcribe recognises them"
        self.tree.reject_file(recording.audio, reason)
        for span in recording.spans:
            where = f"{recording.id}, {span.speaker} at {span.start:.2f} s"
            self.tree.reject_turn(where, reason, span.duration)

    def _remembered(
        self, transcribe: Transcriber, recording: Untranscribed, path: Path, info: AudioInfo
    ) -> SourceConversation:
        """Returns the conversation of a transcriber, which an interrupted run leaves to the next one."""

        def make() -> dict[str, Any]:
            before = len(self.tree.turns_rejected)
            made = transcribe(recording, path, info, self.tree)
            rejected = self.tree.turns_rejected[before:]
            del self.tree.turns_rejected[before:]
            turns = [{**asdict(turn), "audio": None} for turn in made.turns]
            return {**vars(made), "turns": turns, "rejected": rejected}

        kept = self.writer.remembered(self.tree.shown(recording.audio), make)
        for entry in kept.pop("rejected"):
            self.tree.reject_turn(*entry)
        turns = [
            SourceTurn(**{**turn, "audio": recording.audio, "words": tuple(map(_word, turn["words"]))})
            for turn in kept.pop("turns")
        ]
        return SourceConversation(**kept, turns=turns)

    def _whole(self, recording: Untranscribed) -> SourceConversation | None:
        """Makes one turn of a recording of one channel whose text is known."""
        known = recording.texts[0]
        try:
            _, info = self._audio(recording.audio)
            if info.channels != 1:
                raise ValueError(f"has {info.channels} channels and one text: --transcribe places it")
        except ValueError as error:
            self.tree.reject_file(recording.audio, error)
            return None
        speaker = known.speaker or recording.audio.parent.name
        turn = SourceTurn(speaker=speaker, text=known.text, audio=recording.audio)
        return SourceConversation(id=recording.id, turns=[turn])

    def _has_audio(self, conversation: SourceConversation, turn: SourceTurn) -> bool:
        try:
            _, info = self._audio(turn.audio)
            end = info.duration if turn.end is None else turn.end
            if not 0 <= turn.channel < info.channels:
                raise ValueError(f"channel is {turn.channel}: expected 0..{info.channels - 1}")
            if end > info.duration + ROUNDING:
                raise ValueError(f"end is {end:.3f} s: expected at most the duration, {info.duration:.3f} s")
            if not round(turn.start, 6) < round(min(end, info.duration), 6):
                raise ValueError(f"start is {turn.start:.3f} s, end {end:.3f} s: expected start < end")
        except MALFORMED as error:
            where = f"{conversation.id}, {turn.speaker} at {turn.start:.2f} s"
            self.tree.reject_turn(where, error, self._length(turn))
            self.tree.drop(turn.audio)
            return False
        return True

    def _audio(self, path: Path) -> tuple[str, AudioInfo]:
        """Returns the copy of a file in the corpus, made at its first use."""
        if path in self.failures:
            raise ValueError(self.failures[path])
        if path not in self.copies:
            source = path
            try:
                source = playable(path, self.tree.scratch)
                self._copy(path, source, _usable(check_audio(source)))
            except ValueError as error:
                self.failures[path] = str(error)
                raise
            finally:
                if source != path:
                    self.tree.drop(source)
        return self.copies[path]

    def _copy(self, path: Path, source: Path, info: AudioInfo) -> None:
        target = f"audio/{file_safe(self.tree.shown(path.with_suffix('')))}.flac"
        if target in self.targets:
            target = f"audio/{file_safe(self.tree.shown(path))}.flac"
        self.writer.copy(source, target, info)
        for file in (path, source):
            self.tree.drop(file)  # constant disk for any number of containers
        self.targets.add(target)
        self.copies[path] = target, info

    def _single(self, name: str, number: int, source: SourceTurn) -> tuple[Turn, tuple[Word, ...]]:
        audio, info = self._audio(source.audio)
        end = info.duration if source.end is None else min(source.end, info.duration)
        turn = Turn(
            id=file_safe(source.id or f"{name}-{number:04d}"),
            conversation=name,
            index=number,
            speaker=source.speaker,
            text=source.text,
            audio=audio,
            start=round(source.start, 6),
            end=round(end, 6),
            channel=source.channel,
            emotion=source.emotion,
            overlap=source.overlap,
            backchannel=source.backchannel,
        )
        return turn, source.words

    def _on_timeline(
        self, name: str, conversation: SourceConversation, usable: list[SourceTurn]
    ) -> list[tuple[Turn, tuple[Word, ...]]]:
        """Makes the turns of files that share a timeline; each (file, channel) is a track."""
        tracks = list(dict.fromkeys((turn.audio, turn.channel) for turn in usable))
        infos = [self._audio(path)[1] for path, _ in tracks]
        if not tracks:
            return []
        recording = Recording(
            id=name,
            audio="audio",
            sample_rate=infos[0].sample_rate,
            channels=len(tracks),
            duration=max(info.duration for info in infos),
        )
        pairs = [
            (self._segment(turn, tracks.index((turn.audio, turn.channel)), infos), turn) for turn in usable
        ]
        turns = to_turns(recording, [segment for segment, _ in pairs], join=conversation.join)
        sources = {(s.speaker, s.channel, round(s.start, 6), round(s.end, 6)): turn for s, turn in pairs}
        parts = _parts(pairs) if conversation.join else {}
        made = []
        for turn in turns:
            audio, channel = tracks[turn.channel]
            own = None if conversation.join else sources[turn.speaker, turn.channel, turn.start, turn.end]
            words = own.words if own else _inside(turn, parts[turn.speaker, turn.channel])
            turn = replace(
                turn,
                id=file_safe((own and own.id) or turn.id),
                audio=self._audio(audio)[0],
                channel=channel,
                overlap=turn.overlap or bool(own and own.overlap),
            )
            made.append((turn, words))
        return made

    def _segment(self, turn: SourceTurn, track: int, infos: list[AudioInfo]) -> Segment:
        duration = infos[track].duration
        return Segment(
            speaker=turn.speaker,
            start=turn.start,
            end=duration if turn.end is None else min(turn.end, duration),
            text=turn.text,
            channel=track,
            emotion=turn.emotion,
        )

    def _unique(self, name: str) -> str:
        if name in self.turn_ids:
            name = file_safe(f"{name} {len(self.turn_ids)}")
        self.turn_ids.add(name)
        return name


def _parts(
    pairs: list[tuple[Segment, SourceTurn]],
) -> dict[tuple[str, int], list[tuple[Segment, SourceTurn]]]:
    """Returns the parts of turns by speaker and channel, in order of their starts."""
    found: dict[tuple[str, int], list[tuple[Segment, SourceTurn]]] = defaultdict(list)
    for pair in sorted(pairs, key=_start):
        found[pair[0].speaker, pair[0].channel].append(pair)
    return found


def _start(pair: tuple[Segment, SourceTurn]) -> float:
    return pair[0].start


def _inside(turn: Turn, parts: list[tuple[Segment, SourceTurn]]) -> tuple[Word, ...]:
    """Returns the words that were joined into a turn, in order, of the parts of its speaker and channel."""
    first, end = (bisect_left(parts, time, key=_start) for time in (turn.start - 1e-6, turn.end + 1e-6))
    words = (
        word
        for segment, source in parts[first:end]
        if segment.end <= turn.end + 1e-6
        for word in source.words
    )
    return tuple(sorted(words, key=lambda word: word.start))


def _word(fields: Sequence[Any]) -> Word:
    return Word(*fields)


def _usable(info: AudioInfo) -> AudioInfo:
    if info.channels > MOST_CHANNELS:
        raise ValueError(f"has {info.channels} channels: expected at most {MOST_CHANNELS}; split the file")
    if not 8_000 <= info.sample_rate <= 192_000:
        raise ValueError(f"has a sample rate of {info.sample_rate} Hz: expected 8000 to 192000; convert it")
    return info
