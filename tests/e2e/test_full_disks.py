"""A decoder and a gateway whose logs find no room, and whose folders may only be read.

What they keep (prefixes, features, answers of Responses, pages of PDFs) is in memory; logs are all
that is written. The launcher's log files are in tests/unit/deploy/stack/test_log_file.py.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.support.bundles import bundle
from tests.support.decoder_process import ROOT, DecoderProcess
from tests.support.disks import fill, forbid_writing, small_disk

FOLDERS = ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME")


@contextmanager
def gateway(
    decoder_port: int, log: Path, environment: Mapping[str, str]
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A gateway without a vision tier, and its URL."""
    tiers = (f"--decoder=127.0.0.1:{decoder_port}", "--vision=127.0.0.1:9")
    ports = ("--http-port=0", "--grpc-port=0", f"--bundle={bundle('tied')}")
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", *tiers, *ports],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=ROOT,
            env=environment,
        )
    with process:
        try:
            assert process.stdout is not None
            ports_of = json.loads(process.stdout.readline())["ports"]
            yield process, f"http://127.0.0.1:{ports_of['http']}"
        finally:
            process.terminate()


def test_without_room_for_logs_and_folders_to_write_in_answers_go_on(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "locked") as locked,
        small_disk(tmp_path / "small") as small,
    ):
        forbid_writing(locked)
        environment = {**os.environ, **dict.fromkeys(FOLDERS, str(locked))}
        flags = ("--max-sequences=2", "--max-context=512", "--threads=1")
        with (
            DecoderProcess(
                bundle("tied"), small / "decoder", flags, environment=environment
            ) as decoder,
            gateway(decoder.port, small / "gateway", environment) as (process, url),
        ):
            fill(small)
            sizes = [path.stat().st_size for path in (small / "decoder", small / "gateway")]
            asked = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8}
            for _ in range(20):  # some 500 bytes of log each
                answer = httpx.post(f"{url}/v1/chat/completions", json=asked, timeout=20.0)
                assert answer.status_code == 200, answer.text
            kept = httpx.post(f"{url}/v1/responses", json={"input": "Hi", "max_output_tokens": 16})
            assert httpx.get(f"{url}/v1/responses/{kept.json()['id']}").json() == kept.json()
        after = [path.stat().st_size for path in (small / "decoder", small / "gateway")]
        assert all(later - before <= 4096 for before, later in zip(sizes, after, strict=True))
    assert process.returncode == 0
    assert decoder.process.returncode == 0
