"""Codebook statistics: one explicit update per optimizer step."""

from csm_kernels.ema_update.api import Assignment, ema_update, ema_update_stacks
from csm_kernels.ema_update.message import REVIVALS_PER_STEP

__all__ = ["REVIVALS_PER_STEP", "Assignment", "ema_update", "ema_update_stacks"]
