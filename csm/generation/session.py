"""A conversation that goes on: hear turns, speak turns, write what was heard."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from csm.generation.frame_drawing import FrameDrawer
from csm.generation.sampling import SamplingConfig, sample
from csm.generation.spoken_turn import PlannedTurn, SpokenTurn, one_query, text_keys
from csm.network.backbone import ReadingKeys
from csm.network.csm_model import CSMModel
from csm.network.layers import KeyValueCache, PackedSequences
from csm.network.pace import frames_of_ids, text_ends
from csm.sequences.frames import RowBatch, TurnFrames, pack_past

# Of the codes, as csm-1b's and the project's tokenizers have it.
FRAMES_PER_SECOND = 12.5
# A turn may run to this many times its expected length before it is cut off.
LONGEST_SHARE = 2.0
# Texts of this language have at most about two ids per frame; beyond that the writer has lost the thread.
TEXT_PER_FRAME = 3


class ContextTurn(NamedTuple):
    """A turn in the exact context: its frames, and the length its text was spread over."""

    turn: TurnFrames
    length: int


class Session:
    """One conversation with one model.

    The newest turns are kept exactly, as rows with cached keys and values, up to `max_context` rows; turns
    that no longer fit are written to the memory, and positions start anew from 0. So positions never leave
    the trained range, and a conversation of any length takes bounded space.

    Args:
        model: In eval mode.
        sampling: How codes are drawn; its seed makes the session repeatable.
        drawer: Draws the later codes of every frame; None makes one of fp32 weights. Sessions with one model
            may share theirs, and with it an int8 copy of the weights.

    Attributes:
        turns: The turns in the exact context, oldest first.
        memory: What is remembered of older ones; None where the model has no memory layers.
    """

    def __init__(
        self,
        model: CSMModel,
        sampling: SamplingConfig | None = None,
        *,
        drawer: FrameDrawer | None = None,
    ) -> None:
        self.model = model
        self.sampling = sampling or SamplingConfig()
        self.device = model.audio_embedding.weight.device
        self.turns: list[ContextTurn] = []
        self.memory = model.memory.empty(1, self.device) if model.backbone.memory_reads else None
        self._generator = torch.Generator().manual_seed(self.sampling.seed)
        self._drawer = drawer or FrameDrawer(model)
        self._cache = self._new_cache()
        self._speaking = False

    @torch.no_grad()
    def listen(self, turn: TurnFrames) -> None:
        """Takes in a finished turn of anyone, with its text and voice.

        Raises:
            ValueError: No frames, empty text, an unknown speaker, codes of a wrong shape or range, a turn
                longer than the context, or a turn that is still being spoken. The session stays as it was.
        """
        self.refuse_while_speaking()
        if turn.codes.ndim != 2 or turn.codes.shape[1] == 0:
            raise ValueError(
                f"turn {turn.id}: codes have shape {tuple(turn.codes.shape)}, expected [K, T] with at least "
                f"one frame"
            )
        # Copied: a slice would keep its whole recording in memory.
        turn = turn._replace(codes=turn.codes.clone())
        context = ContextTurn(turn, turn.codes.shape[1])
        # Made once before anything moves: what is refused leaves the session as it was.
        self._make_room(len(self._turn_rows(context).text))
        self._run_turn(context)

    def speak(
        self, text: str, speaker: int, *, frames: int | None = None
    ) -> Generator[Int[Tensor, " K"], None, None]:
        """Speaks a text; yields one frame of codes (80 ms) at a time and keeps the turn as said.

        A consumer that stops early (`close()` on the iterator, or leaving a `for` loop) leaves a whole turn
        behind: what was yielded so far.

        Args:
            text: What to say.
            speaker: Speaker index.
            frames: Expected length; None asks the model's duration head. It sets the pace, not the end.

        Raises:
            ValueError: Empty text, one too long for the context, an unknown speaker, fewer than 1 expected
                frames, or (at the first frame) another turn still being spoken. The session stays as it was.
        """
        return self._speak(self.plan_turn(text, speaker, frames))

    @torch.no_grad()
    def _speak(self, plan: PlannedTurn) -> Generator[Int[Tensor, " K"], None, None]:
        turn = self.begin_turn(plan)
        # A consumer that stops early still leaves a whole turn behind: what was said so far.
        try:
            while (frame := self.next_frame(turn)) is not None:
                turn.said.append(frame)
                yield frame.cpu()
                turn.hidden = self._run_next(turn)
        finally:
            self._speaking = False
            while turn.rows_left:
                self._run_next(turn)
            self.end_turn(turn)

    @torch.no_grad()
    def write(self, codes: Int[Tensor, "K T"], speaker: int = 0) -> str:
        """Writes down what a voice says, and keeps the turn in the context with the text it wrote.

        Args:
            codes: int64 [K, T] with K at least the model's, T at least 1.
            speaker: Speaker index.

        Raises:
            ValueError: Codes of a wrong shape or range, a voice longer than the context, an unknown speaker,
                or a turn that is still being spoken. The session stays as it was.
        """
        self.refuse_while_speaking()
        model, longest = self.model, self.model.config.max_context
        if codes.ndim != 2 or codes.shape[1] == 0:
            raise ValueError(
                f"codes have shape {tuple(codes.shape)}: expected [K, T] with at least one frame"
            )
        builder = model.new_rows()
        builder.add_heard(TurnFrames("heard", "", speaker, codes), with_text=False)
        batch = builder.build().to(self.device)
        # Kept in the context, the turn needs a row for at least one id and one more for its end id.
        if len(batch.text) + 2 > longest:
            raise ValueError(
                f"a voice of {codes.shape[1]} frames does not fit max_context {longest} rows: split it into "
                "turns"
            )
        limit = TEXT_PER_FRAME * codes.shape[1] + 16
        self._make_room(min(len(batch.text) + limit + 1, longest))
        rows = model.embed_rows(batch.text, batch.codes)
        keys = model.reading_keys(rows, batch, voice_reads=False)
        hidden = self._forward(rows, text_keys=keys)[-1]
        written: list[int] = []
        while len(written) < limit and self._cache.length + 1 < longest:
            token = int(F.linear(hidden, model.text_embedding.weight[: model.codec.vocab_size]).argmax())
            if token == model.codec.end_id:
                break
            written.append(token)
            row = model.text_embedding(torch.tensor([token], device=self.device))
            if keys is not None:
                keys = one_query(keys, len(written), model.config.frames_per_text_id)
            hidden = self._forward(row, text_keys=keys)[-1]
        text = model.codec.decode(written).strip()
        # From now on the turn counts like any other: as text and voice.
        context = ContextTurn(self._written_turn(text, speaker, codes), codes.shape[1])
        self._rebuild([*self._kept_beside(self._rows(context.turn)), context])
        return text

    # ---- the parts of `speak`, for who runs the rows of several sessions at once, without gradients ----

    def refuse_while_speaking(self) -> None:
        """Raises ValueError while a turn is being spoken."""
        if self._speaking:
            raise ValueError("a turn is still being spoken: exhaust or close() its iterator first")

    def plan_turn(self, text: str, speaker: int, frames: int | None) -> PlannedTurn:
        """What `speak` is to say; nothing changes yet.

        Raises:
            ValueError: As `speak` at its call.
        """
        ids = self.model.codec.encode_turn(text, speaker)
        if frames is not None and frames < 1:
            raise ValueError(f"frames is {frames}: expected at least 1, or None to ask the model")
        # The text, one frame and the end row.
        if len(ids) + 2 > self.model.config.max_context:
            raise ValueError(
                f"the text has {len(ids)} ids, max_context is {self.model.config.max_context} rows: split it "
                f"into sentences"
            )
        return PlannedTurn(text, speaker, torch.tensor(ids, device=self.device), frames)

    def begin_turn(self, plan: PlannedTurn) -> SpokenTurn:
        """Makes room and runs the text; from now on the session is speaking, until `end_turn`.

        Raises:
            ValueError: Another turn is still being spoken.
        """
        self.refuse_while_speaking()
        model, longest, ids = self.model, self.model.config.max_context, plan.ids
        limit = int(self.sampling.max_seconds * FRAMES_PER_SECOND)
        # Room for the longest the turn can become; what the text leaves free is the turn's limit.
        self._make_room(min(len(ids) + limit + 1, longest))
        free = longest - self._cache.length - len(ids) - 1
        codes = torch.full((len(ids), model.config.num_codebooks), -1, device=self.device)
        rows = self._forward(model.embed_rows(ids, codes))
        hidden = rows[-1]
        pace = self._pace(rows)
        expected = min(plan.frames or self._expected_frames(hidden, pace, len(ids)), longest)
        timed = plan.frames is not None or model.knows_durations()
        ends = None if pace is None else text_ends(pace, expected)
        turn = SpokenTurn(
            plan=plan,
            model=model,
            cache=self._cache,
            memory=self.memory,
            keys=text_keys(model, plan, expected, ends),
            ends=ends,
            hidden=hidden,
            expected=expected,
            shortest=self.sampling.shortest * expected if timed else 0,
            limit=max(1, min(limit, free, cut_off(expected) if timed else limit)),
        )
        self._speaking = True
        return turn

    def next_frame(self, turn: SpokenTurn) -> Int[Tensor, " K"] | None:
        """Draws the frame that follows, or None at the turn's end; the caller appends it to `turn.said`."""
        if len(turn.said) >= turn.limit:
            return None
        return self._next_frame(turn.hidden, may_end=len(turn.said) >= turn.shortest)

    def end_turn(self, turn: SpokenTurn) -> None:
        """Keeps a turn whose rows have all been run."""
        assert not turn.rows_left, f"{turn.rows_left} rows of the turn have not been run"
        self._speaking = False
        said = TurnFrames("spoken", turn.plan.text, turn.plan.speaker, turn.codes(), ends=turn.ends)
        self.turns.append(ContextTurn(said, turn.expected))

    # ---- rows and caches ----

    def _new_cache(self) -> KeyValueCache:
        return KeyValueCache(len(self.model.backbone.blocks), self.model.config.max_context)

    def _expected_frames(self, hidden: Float[Tensor, " D"], pace: Tensor | None, ids: int) -> int:
        """What the heads of duration and pace say, or the mean pace; no more than the context can hold."""
        if not self.model.knows_durations():
            frames = ids * self.model.config.frames_per_text_id
        else:
            frames = float(self.model.duration_head(hidden).clamp(max=20.0).exp())
            if pace is not None:
                # The two err independently: between them lies a better guess than either (docs/LOG.md).
                frames = (frames * frames_of_ids(pace)) ** 0.5
        return max(1, min(round(frames), self.model.config.max_context))

    def _rows(self, turn: TurnFrames) -> int:
        return len(self.model.codec.encode_turn(turn.text, turn.speaker)) + turn.codes.shape[1] + 1

    def _written_turn(self, text: str, speaker: int, codes: Tensor) -> TurnFrames:
        """The turn to keep: bytes that are no text weigh one row each, as they did when they were written."""
        text = text.replace("\ufffd", "?")
        turn = TurnFrames("heard", text or ".", speaker, codes.cpu())
        while len(text) > 1 and self._rows(turn) > self.model.config.max_context:
            text = text[:-1].strip()
            turn = turn._replace(text=text or ".")
        return turn

    def _make_room(self, rows: int) -> None:
        """Moves the oldest turns to the memory until `rows` more fit."""
        if rows > self.model.config.max_context:
            raise ValueError(
                f"a turn of {rows} rows does not fit max_context {self.model.config.max_context}: split it"
            )
        if self._cache.length + rows > self.model.config.max_context:
            self._rebuild(self._kept_beside(rows))

    def _kept_beside(self, rows: int) -> list[ContextTurn]:
        """The newest turns that leave `rows` free; the others go to the memory."""
        kept = list(self.turns)
        sizes = [self._rows(context.turn) for context in kept]
        while kept and rows + sum(sizes[-len(kept) :]) > self.model.config.max_context:
            self._remember(kept.pop(0).turn)
        return kept

    def _remember(self, turn: TurnFrames) -> None:
        if self.memory is None or turn.codes.shape[1] == 0:
            return
        past = pack_past([[turn]], self.model.codec, self.model.config.num_codebooks).to(self.device)
        self.memory = self.model.memory.write(self.memory, *self.model.turn_vectors(past))

    def _rebuild(self, turns: Sequence[ContextTurn]) -> None:
        """Runs the rows of these turns again, exactly as training does, with the memory as it is now."""
        self.turns, self._cache = [], self._new_cache()
        for context in turns:
            # A turn that was stopped before its first frame leaves nothing to hear.
            if context.turn.codes.shape[1]:
                self._run_turn(context)

    def _run_turn(self, context: ContextTurn) -> None:
        """Runs a turn's rows and keeps it; when its text is said is guessed where nobody knows."""
        turn = context.turn
        if turn.ends is None:
            ids = torch.tensor(self.model.codec.encode_turn(turn.text, turn.speaker), device=self.device)
            codes = torch.full((len(ids), self.model.config.num_codebooks), -1, device=self.device)
            # Without `advance`: the cache forgets these rows again.
            rows = self._backbone(self.model.embed_rows(ids, codes))
            pace = self._pace(rows)
            ends = None if pace is None else text_ends(pace, context.length)
            context = context._replace(turn=turn._replace(ends=ends))
        self._run_batch(self._turn_rows(context))
        self.turns.append(context)

    def _pace(self, text: Float[Tensor, "L D"]) -> Float[Tensor, " L"] | None:
        """Log frames of each text id of a turn; None in a model that was not taught it."""
        if not self.model.pace_head.is_trained():
            return None
        bounds = torch.tensor([0, len(text)], dtype=torch.int32, device=self.device)
        return self.model.pace_head(text, PackedSequences(bounds, len(text))).float().cpu()

    def _turn_rows(self, context: ContextTurn) -> RowBatch:
        builder = self.model.new_rows()
        builder.add_spoken(context.turn, length=context.length, train=False)
        return builder.build().to(self.device)

    def _run_batch(self, batch: RowBatch) -> Tensor:
        rows = self.model.embed_rows(batch.text, batch.codes)
        return self._forward(rows, voice_keys=self.model.reading_keys(rows, batch, voice_reads=True))

    def _run_next(self, turn: SpokenTurn) -> Float[Tensor, " D"]:
        coming = turn.next_row()
        return self._forward(coming.row, voice_keys=coming.voice_keys)[-1]

    def _forward(
        self, rows: Tensor, *, voice_keys: ReadingKeys | None = None, text_keys: ReadingKeys | None = None
    ) -> Float[Tensor, "R D"]:
        hidden = self._backbone(rows, voice_keys=voice_keys, text_keys=text_keys)
        self._cache.advance(len(rows))
        return hidden

    def _backbone(self, rows: Tensor, **reads: ReadingKeys | None) -> Float[Tensor, "R D"]:
        start = self._cache.length
        positions = torch.arange(start, start + len(rows), device=self.device)
        hidden: Tensor = self.model.backbone(rows, positions, self._cache, memory=self.memory, **reads)
        return hidden

    # ---- drawing ----

    def _next_frame(self, hidden: Float[Tensor, " D"], *, may_end: bool) -> Tensor | None:
        """The frame after a row, or None at the end of the turn."""
        model, config, drawing = self.model, self.model.config, self.sampling
        logits = model.codebook0_head(hidden).float()
        extra = drawing.extra_codes and not config.end_code
        drawn = config.audio_vocab_size if extra else config.codebook_size
        allowed = torch.arange(len(logits), device=self.device) < drawn
        if may_end:
            allowed = allowed | (torch.arange(len(logits), device=self.device) == config.end_code)
        logits = logits.masked_fill(~allowed, float("-inf"))
        code = sample(logits, drawing.temperature, drawing.top_k, self._generator)
        if may_end and int(code) == config.end_code and config.end_code:
            return None
        if drawing.later_codes == "nearest":
            return self._drawer.nearest_codes(hidden, code, spread=drawing.spread)
        depth_temperature = (
            drawing.temperature if drawing.depth_temperature is None else drawing.depth_temperature
        )
        frame = self._drawer.later_codes(
            hidden,
            code,
            drawn=drawn,
            temperature=depth_temperature,
            top_k=drawing.top_k,
            generator=self._generator,
        )
        if may_end and not config.end_code and not bool(frame.any()):
            return None
        return frame


def cut_off(expected: int) -> int:
    """Frames at which a turn of this expected length is cut off."""
    # 12 frames, about a second, for turns of a single word.
    return round(expected * LONGEST_SHARE) + 12
