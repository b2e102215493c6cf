"""The command line of one run of schemathesis, for `make schema` and for the test."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "positive_data_acceptance",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
    "use_after_free",
    "events_as_told",
    "ids_and_manners",
)


def command(
    url: str,
    *,
    phases: Sequence[str],
    examples: int,
    seed: int | None = None,
    key: str | None = None,
) -> list[str]:
    """What runs it.

    Args:
        url: The gateway's, as in http://127.0.0.1:8000.
        phases: Of coverage (every boundary of every field), fuzzing and stateful.
        examples: Most of each operation, in each phase that draws them.
        seed: Of what is drawn; None draws the same in every run.
        key: Shown in every request; None for none.
    """
    shown = [] if key is None else ["--header", f"Authorization: Bearer {key}"]
    drawing = ["--generation-deterministic"]
    if seed is not None:
        drawing = ["--seed", str(seed), "--generation-database", "none"]
    return [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"),
        *("--phases", ",".join(phases), "--checks", ",".join(CHECKS)),
        *("--max-examples", str(examples), "--mode", "all"),
        *drawing,
        *("--continue-on-failure", "--request-timeout", "60", "--no-color", "--warnings", "off"),
        *shown,
    ]


def environment() -> Mapping[str, str]:
    """The environment of that process, in which it finds the hooks."""
    return {**os.environ, "SCHEMATHESIS_HOOKS": "tests.schema.hooks", "PYTHONPATH": str(ROOT)}
