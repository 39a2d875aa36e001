"""The steps of a whole run, in their order; `launch/` parses arguments and calls them.

A run's folder holds the model's own files (config.json, model.safetensors, run.json, metrics.jsonl),
tokenizer/ with the tokenizer's, codes/ with the encoded corpus and speech/ with the demonstration. A step
whose work is done says so and changes nothing.
"""

from csm.generation.talker import PACKAGED
from csm.recipes.run_files import PRETRAINED_FILES, load_run
from csm.recipes.steps.encode import encode_corpus
from csm.recipes.steps.finish_model import ADAPTER
from csm.recipes.steps.speak import show, trained_cast, trained_talker
from csm.recipes.steps.train_model import model_task, train_model, trained_shape
from csm.recipes.steps.train_tokenizer import train_tokenizer

__all__ = [
    "ADAPTER",
    "PACKAGED",
    "PRETRAINED_FILES",
    "encode_corpus",
    "load_run",
    "model_task",
    "show",
    "train_model",
    "train_tokenizer",
    "trained_cast",
    "trained_shape",
    "trained_talker",
]
