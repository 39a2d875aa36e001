"""Complete runs by name; each recipe's docstring states command, hardware, time and result."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from csm.recipes.finetune_csm_1b import finetune_csm_1b
from csm.recipes.research import research
from csm.recipes.run_config import RunConfig
from csm.recipes.speech_24khz import speech_24khz
from csm.recipes.telephone import quickstart, telephone_model, telephone_tokenizer
from csm.recipes.tiny import tiny
from csm.recipes.wideband import wideband_model, wideband_tokenizer

RECIPES: dict[str, Callable[[], RunConfig]] = {
    recipe.__name__: recipe
    for recipe in (
        quickstart,
        telephone_tokenizer,
        telephone_model,
        wideband_tokenizer,
        wideband_model,
        research,
        speech_24khz,
        finetune_csm_1b,
        tiny,
    )
}


def recipe(name: str) -> RunConfig:
    """The recipe of this name.

    Raises:
        ValueError: Unknown; lists the names.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"unknown recipe {name!r}{hint} Known: {', '.join(sorted(RECIPES))}")
    return RECIPES[name]()
