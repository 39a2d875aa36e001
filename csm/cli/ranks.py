"""Several ranks on this machine: torchrun inside this process, without its summary of a failed rank."""

from __future__ import annotations

import argparse
import logging
import os
import signal


def add_ranks(parser: argparse.ArgumentParser) -> None:
    """Adds --ranks."""
    parser.add_argument(
        "--ranks",
        type=int,
        default=1,
        metavar="N",
        help="start N ranks on this machine, as torchrun --nproc-per-node N -m csm does (default: 1)",
    )


def starts_ranks(options: argparse.Namespace) -> bool:
    """Whether this process is to start ranks and is no rank itself."""
    return options.ranks > 1 and "RANK" not in os.environ


def run_ranks(options: argparse.Namespace) -> int:
    """Runs this command on --ranks ranks; returns the exit status of the first that failed, or 0."""
    # torchrun sets this and warns of it; start_distributed chooses the number of threads.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    words = ["--standalone", "--nproc-per-node", str(options.ranks), "-m", "csm", *options.words]
    # A rank has printed its own error; torchrun would add its process id and 40 lines.
    logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.CRITICAL)
    try:
        torchrun.run(torchrun.parse_args(words))
    except ChildFailedError as error:
        status = error.get_first_failure()[1].exitcode
        return status if status > 0 else 128 - status
    except SignalException as error:
        # The ranks have ended; a second Ctrl-C has nothing to end and would only print a traceback.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return 128 + error.sigval
    return 0
