"""A program that behaves like a service towards the launcher, without serving anything.

    python fake_service.py MODE FLAGS...

MODE: serve; refuse (one line on stderr, exit 2); crash (exit 3 at once); silent (never ready);
stubborn (ignores SIGTERM); family (starts a daemon in a session of its own, pid in `--note`);
until-file (serves until the file `--note` exists, then exit 5); streaming (after SIGTERM ends when
the decoder is gone, and writes `--note`); once (serves in its first life, which makes the file
`--note`, and is silent in later ones). `--show-environment=NAME` logs that variable.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil


def main(mode: str, flags: dict[str, str]) -> int:
    if mode == "refuse":
        sys.stderr.write("decoder_service: max_slots must be of type int, got 'many'\n")
        return 2
    if mode == "crash":
        return 3
    signal.signal(signal.SIGTERM, signal.SIG_IGN if mode == "stubborn" else stop)
    if mode == "streaming":
        signal.signal(signal.SIGTERM, lambda *_: end_streams(flags))
    if mode == "family":
        start_daemon(Path(flags["note"]))
    record = {"level": "INFO", "logger": "vision_service.app", "message": "flags " + repr(flags)}
    sys.stderr.write(json.dumps(record) + "\n")
    sys.stderr.write(json.dumps({**record, "logger": "ray", "message": "a library's word"}) + "\n")
    if name := flags.get("show-environment"):
        sys.stderr.write(f"{name} is {os.environ[name]}\n")
    sys.stdout.write("a library prints this\n")
    if mode == "once":
        mode = "silent" if Path(flags["note"]).exists() else "serve"
        Path(flags["note"]).touch()
    if mode != "silent":
        sys.stdout.write(json.dumps({"event": "serving", "tier": "x", "ports": ports(flags)}))
        sys.stdout.write("\n")
    sys.stdout.flush()
    while not (mode == "until-file" and Path(flags["note"]).exists()):
        time.sleep(0.02)
    return 5


def ports(flags: dict[str, str]) -> dict[str, int]:
    if "http-port" in flags:
        return {"http": int(flags["http-port"]), "grpc": int(flags["grpc-port"])}
    return {"grpc": int(flags["port"])}


def start_daemon(note: Path) -> None:
    if os.fork() == 0:
        daemon = subprocess.Popen(["sleep", "600"], start_new_session=True)
        note.write_text(str(daemon.pid))
        os._exit(0)
    os.wait()


def end_streams(flags: dict[str, str]) -> None:
    """What a gateway with a running stream does: it ends when the decoder has."""
    decoder = f"--port={flags['decoder'].rpartition(':')[2]}"
    while decoder in arguments_of_all():
        time.sleep(0.02)
    Path(flags["note"]).write_text("the error event")
    sys.exit(0)


def arguments_of_all() -> set[str]:
    """Arguments of all processes; a zombie has none."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            found.update(process.cmdline())
    return found


def stop(number: int, frame: object) -> None:
    sys.exit(0)


if __name__ == "__main__":
    pairs = [argument.removeprefix("--").split("=", 1) for argument in sys.argv[2:]]
    sys.exit(main(sys.argv[1], {pair[0]: pair[-1] for pair in pairs}))
