"""Step: turns the exported weights of a training into a model that is complete and calibrated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from csm.model import CSMModel
from csm.network.io.adapters import merged_state, save_adapter
from csm.network.io.checkpoints import on_meta
from csm.network.lora import is_adapter
from csm.network.model_config import CSMConfig
from csm.recipes.run_config import RunConfig
from csm.recipes.run_files import save_whole
from csm.recipes.steps.latent_statistics import set_latent_statistics
from csm.recipes.steps.length_correction import correct_lengths
from csm.training.finetuning import FinetuneConfig
from csm.training.model_task import ModelTask

# Folder of a run's adapters alone, beside the merged model.
ADAPTER = "adapter"


def finish_model(
    run: RunConfig, task: ModelTask, weights: dict[str, Tensor], trained: Sequence[str], output: Path
) -> list[Path]:
    """Writes the finished model of a training and, where it has some, its adapters; returns the paths.

    Args:
        run: The recipe.
        task: Whose validation turns the model is calibrated on.
        weights: Exported weights.
        trained: Names of the parameters that were trained.
        output: Folder of the run.
    """
    paths: list[Path] = []
    if run.finetune.adapts:
        whole = [name for name in trained if not is_adapter(name)]
        save_adapter(output / ADAPTER, weights, run.finetune.lora, base=run.model_start, whole=whole)
        paths += sorted(path for path in (output / ADAPTER).iterdir() if path.is_file())
    model = assembled(task.model.config, weights, run.finetune)
    set_latent_statistics(model, task.validation_batch, task.vectors)
    if "pace_head.pace.bias" in trained and not run.finetune.adapts:
        correct_lengths(model, task.validation)
    return paths + save_whole(model, output)


def assembled(config: CSMConfig, weights: dict[str, Tensor], finetune: FinetuneConfig) -> CSMModel:
    """Returns a model of these weights, without drawing random numbers; adapters are merged."""
    model = on_meta(CSMModel, config)
    state = merged_state(weights, finetune.lora) if finetune.adapts else weights
    model.load_state_dict(state, assign=True)
    return model
