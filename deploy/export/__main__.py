"""`python -m deploy.export CHECKPOINT BUNDLE`: makes a bundle out of a checkpoint."""

import argparse
import errno
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.export.errors import ExportError
from deploy.export.options import ACCURACY_LEVELS, BLOCK_SIZES, PRECISIONS, ExportOptions
from deploy.export.partial import refuse_existing
from deploy.export.progress import ExportProgress

EXAMPLES = """examples:
  tandem export Qwen/Qwen3-VL-2B-Instruct bundles/2b
  tandem export my-fine-tune bundles/mine --block-size 32
"""
# A full disk, a full quota, and a limit on the size of files.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="tandem export",
        description="Makes a bundle out of a checkpoint.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("checkpoint", help="folder, or hub id such as Qwen/Qwen3-VL-2B-Instruct")
    made.add_argument("bundle", type=Path, help="folder to make; must not exist")
    made.add_argument("--precision", choices=PRECISIONS, default="int4")
    made.add_argument(
        "--block-size",
        type=int,
        choices=BLOCK_SIZES,
        default=128,
        help="weights that share one scale (int4, int8); fewer are more exact and slower",
    )
    made.add_argument(
        "--accuracy-level",
        type=int,
        choices=ACCURACY_LEVELS,
        default=4,
        help="arithmetic of quantized products: 0 and 1 float32, 4 int8 (faster, less exact; int4"
        " weights then come in the layout of Tandem's own operators too)",
    )
    made.add_argument("--model-id", help="name to serve the model under")
    made.add_argument("--revision", help="branch, tag or commit of a hub id")
    made.add_argument(
        "--quality",
        action="store_true",
        help="measure the agreement with the float32 weights even for a large model",
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code. Whatever ends it says so in one line."""
    arguments = parser().parse_args(argv)
    try:
        _export(arguments)
    except ExportError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"error: {_fault(error, arguments.bundle)}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command goes on after the last finished stage\n")
        return 128 + signal.SIGINT
    return 0


def _export(arguments: argparse.Namespace) -> None:
    # Imported here, for they take seconds: Ctrl-C meanwhile ends as it does later.
    from deploy.export import exporter
    from deploy.export.checkpoint import hub

    options = ExportOptions(
        precision=arguments.precision,
        block_size=arguments.block_size,
        accuracy_level=arguments.accuracy_level,
        quality=arguments.quality,
    )
    options.check()
    refuse_existing(arguments.bundle)  # before a download of hours
    located = hub.locate(
        arguments.checkpoint, model_id=arguments.model_id, revision=arguments.revision
    )
    with ExportProgress() as progress:
        made = exporter.export(located, arguments.bundle, options, progress)
        progress.note(f"wrote {made}")


def _fault(error: OSError, bundle: Path) -> str:
    """One line: what the system says, where, and for a full disk how to go on."""
    # A write that fails names no file.
    where = error.filename or bundle
    text = f"{where}: {error.strerror or str(error).partition(chr(10))[0]}"
    if error.errno in NO_ROOM:
        return f"{text}; with room for it, the same command goes on after the last finished stage"
    return text


if __name__ == "__main__":
    sys.exit(main())
