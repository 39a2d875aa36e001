"""Writes a voice tokenizer as programs that run without this package: torch.export, and ONNX with --onnx.

    csm export tokenizer --tokenizer runs/quickstart/tokenizer --output exported

OUTPUT/encoder.pt2 computes codes int64 [B, K, T] from audio float32 [B, 1, S], full scale = 1, at the rate in
OUTPUT/config.json, for any B and S. OUTPUT/decoder.pt2 computes audio from codes, or where the config says
"recover_phase" (the packaged tokenizer) magnitudes [B, T * hops_per_frame, bins], whose phases
csm/tokenizer/phase_recovery.py recovers. torch alone runs them:

    codes = torch.export.load("exported/encoder.pt2").module()(audio)

--onnx writes encoder.onnx and decoder.onnx too, with inputs "audio" and "codes" (extra [export]).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from csm.cli.options import add_device, device_of
from csm.generation.voice_folder import PACKAGED
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.io.export import export_tokenizer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument(
        "--tokenizer",
        type=Path,
        default=PACKAGED / "tokenizer",
        metavar="FOLDER",
        help="folder of the tokenizer (default: packaged)",
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FOLDER", help="folder of the exported programs"
    )
    parser.add_argument(
        "--codebooks", type=int, metavar="K", help="number of first codebooks to export (default: all)"
    )
    parser.add_argument("--onnx", action="store_true", help="write ONNX files too")
    add_device(parser)


def run(options: argparse.Namespace) -> None:
    """Exports."""
    tokenizer = ConversationalRVQ.from_pretrained(options.tokenizer).to(device_of(options))
    paths = export_tokenizer(tokenizer, options.output, num_codebooks=options.codebooks, onnx=options.onnx)
    for path in paths:
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
