"""ema_update: moving-average update of codebooks, once per optimizer step. Read reference.py first."""

from csm_kernels.ema_update.api import Assignment, ema_update, ema_update_stacks
from csm_kernels.ema_update.message import REVIVALS_PER_STEP

__all__ = ["REVIVALS_PER_STEP", "Assignment", "ema_update", "ema_update_stacks"]
