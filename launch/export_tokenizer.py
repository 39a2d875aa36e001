"""Writes a voice tokenizer as programs that run without this package: torch.export, and ONNX with --onnx.

    python launch/export_tokenizer.py --tokenizer runs/quickstart/tokenizer --output exported

OUTPUT/encoder.pt2 makes codes int64 [B, K, T] of audio float32 [B, 1, S], full scale = 1, at the rate in
OUTPUT/config.json, for any B and S; OUTPUT/decoder.pt2 makes audio of codes, or where the config says
"recover_phase" (the packaged tokenizer) magnitudes [B, T * hops_per_frame, bins], whose phases
csm/tokenizer/phase_recovery.py recovers. torch alone runs them:

    codes = torch.export.load("exported/encoder.pt2").module()(audio)

--onnx writes encoder.onnx and decoder.onnx too (pip install 'csm[export]'), inputs "audio" and "codes".
"""

import argparse
import sys
from pathlib import Path

from csm.command_line import command, command_parser, device_of
from csm.recipes.pipeline import PACKAGED
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.io.export import export_tokenizer


def work(options: argparse.Namespace) -> None:
    """Exports."""
    tokenizer = ConversationalRVQ.from_pretrained(options.tokenizer).to(device_of(options))
    for path in export_tokenizer(
        tokenizer, options.output, num_codebooks=options.codebooks, onnx=options.onnx
    ):
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def main() -> int:
    """The command."""
    parser = command_parser(__doc__)
    parser.add_argument(
        "--tokenizer", type=Path, default=PACKAGED / "tokenizer", metavar="FOLDER", help="default: packaged"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="of the programs")
    parser.add_argument("--codebooks", type=int, metavar="K", help="only the first K (default: all)")
    parser.add_argument("--onnx", action="store_true", help="write ONNX files too")
    return command("export_tokenizer", parser, work)


if __name__ == "__main__":
    sys.exit(main())
