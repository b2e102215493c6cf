"""Exports several bundles in one process: importing the libraries takes longer than an export.

`python -m tests.support.export_all JOBS`, JOBS a JSON list of the exporter's argument lists.
"""

import json
import sys

from deploy.export.__main__ import main


def run(jobs: list[list[str]]) -> int:
    """Runs the exporter once per job; returns the first exit code that is not 0."""
    for arguments in jobs:
        code = main(arguments)
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(run(json.loads(sys.argv[1])))
