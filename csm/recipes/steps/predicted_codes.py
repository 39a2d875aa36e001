"""What a trained voice predicts of turns' codes, for a decoder that is to speak from such predictions."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from csm.data.code_companions import read_alignment, read_code_vectors
from csm.data.code_shards import read_code_shards
from csm.data.manifest import read_corpus
from csm.data.speakers import speaker_numbers
from csm.data.turn_table_file import table_of
from csm.generation.depth_sampler import DepthSampler
from csm.model import CSMModel
from csm.network.predicted_latent import latent_vectors
from csm.recipes.run_files import codes_folder, load_run
from csm.recipes.steps.turn_tables import known_speakers
from csm.text import ByteCodec, aligned_as


class PredictedCodes:
    """Codes of training turns as a voice predicts them, each frame given the true ones before and its code 0.

    Generation with `sampling.later_codes="nearest"` predicts likewise, from its own frames.

    Args:
        folder: Folder of a finished `csm train`, with codes/ in it.
        device: Where the model runs.

    Raises:
        ValueError: The run is not finished or has no codes, or its model predicts no latent.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        run, codes = load_run(folder), codes_folder(folder)
        self._model = CSMModel.from_pretrained(folder).to(device)
        if self._model.predicted_latent is None:
            raise ValueError(f"{folder} predicts no latent: expected a model with latent_dim")
        if (vectors := read_code_vectors(codes)) is not None:
            self._model.set_code_vectors(latent_vectors(vectors[: run.model.num_codebooks]))
        corpus, codec = read_corpus(run.corpus), self._model.codec
        ends = read_alignment(codes, aligned_as(run.model.text)) if isinstance(codec, ByteCodec) else None
        numbers = speaker_numbers(corpus.speakers(), known_speakers(run))
        self._table = table_of(corpus, read_code_shards(codes), "train", codec, numbers=numbers, ends=ends)

    @torch.no_grad()
    def __call__(self, turn: str) -> Int[Tensor, "K T"] | None:
        """Returns the predicted codes of a turn by its id, on the CPU; None where it was not trained on.

        Codebooks that the voice does not model are missing.
        """
        place = self._table.place_of(turn)
        limit = self._model.config.max_context
        if place is None or int(self._table.rows(place, place + 1)[0]) > limit:
            return None
        rows = self._model.new_rows()
        rows.begin_sequence()
        rows.add_spoken(self._table.turn(place))
        batch = self._model.with_layout(rows.build().to(self._model.audio_embedding.weight.device))
        frames = batch.target_rows().frames
        before = self._model.hidden_rows(batch).index_select(0, frames)
        code0 = batch.code_target[:, 0].index_select(0, frames)
        return DepthSampler(self._model).nearest_frames(before, code0).T.cpu()
