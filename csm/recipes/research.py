"""Recipe that the research questions vary."""

from __future__ import annotations

from dataclasses import replace

from csm.recipes.run_config import RunConfig
from csm.recipes.wideband import wideband_model


def research() -> RunConfig:
    """Base of `csm research`: the wide-band voice for fewer steps, in windows that turns leave.

    Hardware: two CPU cores.
    Time: 10 minutes for 1,000 steps of 600 rows of one model on one core, in bf16 (docs/research.md).

    After `csm encode --recipe research --tokenizer runs/wideband/tokenizer --output runs/wideband/codes`:
    `csm research memory --codes runs/wideband/codes --output runs/research/memory`
    """
    base = wideband_model()
    return replace(
        base,
        recipe="research",
        data=replace(base.data, max_rows=300),
        training=replace(
            base.training,
            steps=1500,
            warmup_steps=100,
            checkpoint_every=500,
            validate_every=500,
            samples=False,
        ),
    )
