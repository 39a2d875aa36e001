"""What questions measure on: held-out turns as codes, and the tokenizer that decodes them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from csm.data.code_companions import read_alignment
from csm.data.code_shards import CodeShards, read_code_shards, read_index
from csm.data.local_speakers import with_local_speakers
from csm.data.manifest import Corpus, read_corpus
from csm.data.sampler import cut
from csm.data.speakers import speaker_numbers
from csm.data.step_plan import PlannedChunk, PlannedTurn
from csm.data.turn_table import TurnTable
from csm.data.turn_table_file import table_of
from csm.recipes.run_config import RunConfig
from csm.text import ByteCodec, aligned_as, text_codec
from csm.tokenizer.conversational_rvq import ConversationalRVQ


class HeldOut(NamedTuple):
    """Consecutive turns of a held-out conversation.

    Attributes:
        id: Id of the first turn. conversation: Id of the conversation's first turn.
        chunk: The turns, and those before them, which have left the window.
    """

    id: str
    conversation: str
    chunk: PlannedChunk


@dataclass(frozen=True, kw_only=True)
class Material:
    """Held-out turns of a recipe's corpus.

    Attributes:
        recipe: Base recipe, which names the corpus.
        codes: Folder of `csm encode`.
        seed: Seed of the models that are measured, and of every draw.
        lines: Most lines that are spoken, heard or recognised; 0 leaves these measures out.
        conversations: Most held-out conversations.
        asr: Recogniser of what is spoken, as `csm evaluate --asr`; None is tiny.en.
    """

    recipe: RunConfig
    codes: Path
    seed: int = 0
    lines: int = 60
    conversations: int = 200
    asr: str | None = None

    @cached_property
    def corpus(self) -> Corpus:
        """The corpus."""
        return read_corpus(self.recipe.corpus).held()

    @cached_property
    def encoded(self) -> CodeShards:
        """The codes of all turns."""
        return read_code_shards(self.codes)

    @cached_property
    def table(self) -> TurnTable:
        """The turns of the test split, or of validation where there is no test split.

        Raises:
            ValueError: Neither has a usable turn.
        """
        for split in ("test", "validation"):
            table = self.table_of(split)
            if len(table):
                return table
        raise ValueError(
            f"{self.recipe.corpus} has no usable turns in the splits test and validation: expected held-out "
            f"conversations to measure on; prepare the corpus with --validation"
        )

    def table_of(self, split: str) -> TurnTable:
        """Returns the turns of a split."""
        model = self.recipe.model
        codec = text_codec(model.text, model.max_speakers)
        ends = read_alignment(self.codes, aligned_as(model.text)) if isinstance(codec, ByteCodec) else None
        numbers = speaker_numbers(self.corpus.speakers(), {})
        return table_of(self.corpus, self.encoded, split, codec, numbers=numbers, ends=ends)

    def tokenizer(self) -> ConversationalRVQ:
        """Returns the tokenizer that made the codes.

        Raises:
            ValueError: The codes name none, or it has moved.
        """
        folder = (read_index(self.codes) or {}).get("tokenizer")
        if folder is None:
            raise ValueError(f"{self.codes} names no tokenizer: encode the corpus again with csm encode")
        return ConversationalRVQ.from_pretrained(folder)

    def held_out(self, *, with_past: bool, local: bool, transcribed: bool = False) -> list[HeldOut]:
        """Returns held-out stretches of at most `data.max_rows` rows, in order.

        Args:
            with_past: Whether only stretches are taken before which turns have left the window.
            local: Whether speakers have numbers of their conversation, where the model has such numbers.
                Otherwise a stretch in which a speaker speaks whom no training sees is left out.
            transcribed: Whether the turns are heard instead of spoken.
        """
        data, found = self.recipe.data, []
        numbers = self.table.numbers
        strangers = {numbers[name] for name in data.exclude_speakers if name in numbers}
        for number in range(min(self.table.conversations, self.conversations)):
            start = int(self.table.arrays["conversations"][number])
            name = self.table.id_of(start)
            for chunk in cut(number, self.table.rows_of(number), data.max_rows, data.max_rows):
                if chunk.first or not with_past:
                    oldest = max(0, chunk.first - data.past_turns)
                    past = self.table.turns_of(number, oldest, chunk.first)
                    turns = self.table.turns_of(number, chunk.first, chunk.first + chunk.turns)
                    if not local and any(turn.speaker in strangers for turn in turns):
                        continue
                    planned = [
                        PlannedTurn(turn, transcribed, turn.codes.shape[1], trained=True) for turn in turns
                    ]
                    whole = PlannedChunk(past, planned)
                    if local:
                        rng = np.random.default_rng([self.seed, number, chunk.first])
                        whole = with_local_speakers(whole, self.recipe.model.local_numbers, rng)
                    found.append(HeldOut(self.table.id_of(start + chunk.first), name, whole))
        return found
