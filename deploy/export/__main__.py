"""`python -m deploy.export CHECKPOINT BUNDLE`: makes a bundle out of a checkpoint."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.export import exporter
from deploy.export.checkpoint import hub
from deploy.export.errors import ExportError
from deploy.export.options import ACCURACY_LEVELS, BLOCK_SIZES, PRECISIONS, ExportOptions
from deploy.export.progress import ExportProgress


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m deploy.export", description=__doc__)
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
    """Runs the command; returns the exit code."""
    arguments = parser().parse_args(argv)
    options = ExportOptions(
        precision=arguments.precision,
        block_size=arguments.block_size,
        accuracy_level=arguments.accuracy_level,
        quality=arguments.quality,
    )
    try:
        options.check()
        located = hub.locate(
            arguments.checkpoint, model_id=arguments.model_id, revision=arguments.revision
        )
        with ExportProgress() as progress:
            made = exporter.export(located, arguments.bundle, options, progress)
            progress.note(f"wrote {made}")
    except ExportError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
