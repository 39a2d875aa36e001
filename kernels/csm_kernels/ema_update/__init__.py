"""Codebook statistics: one explicit update per optimizer step."""

from csm_kernels.ema_update.api import ema_update
from csm_kernels.ema_update.message import REVIVALS_PER_STEP

__all__ = ["REVIVALS_PER_STEP", "ema_update"]
