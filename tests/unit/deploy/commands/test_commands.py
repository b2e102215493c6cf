"""The command line: help, and one clear line for what goes wrong."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from importlib import metadata
from pathlib import Path

import pytest
from rich.console import Console

from decoder_service.config import DecoderConfig
from deploy.cli.__main__ import app
from deploy.commands import doctor
from deploy.commands.digests import check_digests
from deploy.commands.serve import file_environment, tier_flags
from deploy.machine.finding import Finding
from deploy.terminal.screen import CommandError, plain_log_line
from gateway.config import GatewayConfig
from protos.bundle.manifest import Bundle
from protos.process import settings
from tests.support.readme import blocks
from tests.unit.deploy.fakes import empty_bundle

COMMANDS = ("demo", "serve", "export", "chat", "verify", "bench", "doctor", "plan")


def tandem(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploy.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )


def error_line(run: subprocess.CompletedProcess[str]) -> str:
    assert "Traceback" not in run.stderr
    (line,) = run.stderr.splitlines()
    return line


def test_help_lists_every_command() -> None:
    run = tandem("--help")
    assert run.returncode == 0
    assert all(f"│ {name}" in run.stdout for name in COMMANDS)


@pytest.mark.parametrize("command", [(), ("chat",), ("serve",), ("serve", "decoder")])
def test_short_help_is_help(command: tuple[str, ...]) -> None:
    run = tandem(*command, "-h")
    assert (run.returncode, run.stdout) == (0, tandem(*command, "--help").stdout)


def test_a_shell_can_complete_commands() -> None:
    words = {"_TANDEM_COMPLETE": "complete_bash", "COMP_WORDS": "tandem se", "COMP_CWORD": "1"}
    script = Path(sys.executable).with_name("tandem")
    run = subprocess.run([script], capture_output=True, text=True, env={**os.environ, **words})
    assert run.stdout.split() == ["serve"]


def test_the_version_is_the_packages() -> None:
    assert tandem("--version").stdout == f"tandem {metadata.version('tandem-vlm')}\n"


def test_a_missing_bundle_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    run = tandem("serve", str(tmp_path / "nowhere"))
    assert run.returncode == 2
    assert "no bundle at" in error_line(run)


def test_a_damaged_bundle_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    bundle = empty_bundle(tmp_path)
    (bundle / "vision" / "config.json").unlink()
    run = tandem("verify", str(bundle))
    assert run.returncode == 2
    assert "vision/config.json is missing" in error_line(run)


@pytest.mark.parametrize("command", ["serve", "verify", "bench"])
def test_a_checkpoint_in_a_bundle_s_place_leads_to_export(tmp_path: Path, command: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    run = tandem(command, str(tmp_path))
    assert run.returncode == 2
    assert f"tandem export {tmp_path} BUNDLE" in error_line(run)


def test_a_hub_id_in_a_bundle_s_place_leads_to_export() -> None:
    run = tandem("serve", "Qwen/Qwen3-VL-2B-Instruct")
    assert run.returncode == 2
    assert "tandem export Qwen/Qwen3-VL-2B-Instruct BUNDLE" in error_line(run)


@pytest.mark.parametrize("form", [("--bundle={}",), ("--bundle", "{}"), ("{}",)])
def test_a_tier_takes_its_bundle_as_an_option_or_first(
    tmp_path: Path, form: tuple[str, ...]
) -> None:
    run = tandem("serve", "decoder", *(word.format(tmp_path / "nowhere") for word in form))
    assert run.returncode == 2
    assert f"no bundle at {tmp_path / 'nowhere'}" in run.stderr


def test_an_unknown_command_is_a_usage_error() -> None:
    assert tandem("sreve").returncode == 2


def test_a_failed_question_is_one_line_and_exit_code_1() -> None:
    run = tandem("chat", "--server", "127.0.0.1:1", "hello")
    assert run.returncode == 1
    assert "no Tandem server answers at 127.0.0.1:1" in error_line(run)


def test_settings_reach_the_tier_they_name() -> None:
    flags = tier_flags(["decoder.max_slots=4", "vision.replicas=2"], threads=1)
    assert flags == {
        "vision": ["--threads=1", "--replicas=2"],
        "decoder": ["--threads=1", "--max-slots=4"],
        "gateway": [],
    }


def test_the_model_s_name_reaches_the_gateway() -> None:
    assert tier_flags([], threads=None, model_name="eye")["gateway"] == ["--model-name=eye"]


@pytest.mark.parametrize("assignment", ["decoder", "decoder=4", "router.x=1", "decoder.=1", "="])
def test_a_malformed_setting_is_refused(assignment: str) -> None:
    with pytest.raises(CommandError, match="TIER.NAME=VALUE"):
        tier_flags([assignment], threads=None)


def test_every_damaged_file_is_named_by_the_digest_check(tmp_path: Path) -> None:
    folder = empty_bundle(tmp_path)
    (folder / "decoder" / "model.onnx").write_text("decoder/model.ONNX")
    (folder / "vision" / "config.json").unlink()
    with pytest.raises(CommandError, match=r"decoder/model\.onnx .*; vision/config\.json"):
        check_digests(Console(file=io.StringIO()), Bundle.open(folder))


def test_an_untouched_bundle_passes_the_digest_check(tmp_path: Path) -> None:
    check_digests(Console(file=io.StringIO()), Bundle.open(empty_bundle(tmp_path)))


def test_doctor_looks_at_everything_a_tier_needs() -> None:
    names = {finding.name for finding in doctor.examine()}
    assert {"python", "cores", "memory", "gateway", "vision", "decoder", "export"} <= names


def test_doctor_marks_what_is_missing() -> None:
    terminal = Console(file=io.StringIO(), width=80)
    doctor.show(terminal, [Finding(name="vision", found="torch MISSING", ok=False)])
    assert isinstance(terminal.file, io.StringIO)
    assert terminal.file.getvalue().split() == ["!!", "vision", "torch", "MISSING"]


def test_json_log_records_become_readable_lines() -> None:
    record = {"time": "now", "level": "INFO", "logger": "decoder_service", "message": "ready"}
    assert plain_log_line(json.dumps(record)) == "INFO decoder_service: ready"
    assert plain_log_line("a plain line") == "a plain line"
    assert plain_log_line("17") == "17"


SERVE = """
from pathlib import Path
from rich.console import Console
from deploy.commands import serve
from tests.unit.deploy.fakes import fake_settings
settings = fake_settings(Path({folder!r}), gateway={gateway!r}, drain_timeout_s=60.0)
serve.run(Console(), settings, verbose=False)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_stops_on_a_signal_and_exits_with_0(tmp_path: Path, number: signal.Signals) -> None:
    program = textwrap.dedent(SERVE.format(folder=str(tmp_path), gateway=("serve",)))
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as launcher:
        assert launcher.stdout is not None
        lines = [launcher.stdout.readline() for _ in range(5)]
        launcher.send_signal(number)
        rest = launcher.stdout.read()
    assert sorted(line.split()[0] for line in lines[1:4]) == ["decoder", "gateway", "vision"]
    assert re.search(r"^ready in [0-9.]+ s: (http://[0-9.:]+/)v1  page \1  gRPC", lines[4])
    assert rest.splitlines()[-2:] == ["stopping", "stopped"]
    assert launcher.returncode == 0


def test_a_second_signal_ends_streams_with_their_error_event(tmp_path: Path) -> None:
    note = tmp_path / "stream"
    gateway = ("streaming", f"--note={note}")
    program = textwrap.dedent(SERVE.format(folder=str(tmp_path), gateway=gateway))
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as launcher:
        assert launcher.stdout is not None
        for awaited in ("ready in", "stopping"):
            while not launcher.stdout.readline().startswith(awaited):
                pass
            launcher.send_signal(signal.SIGTERM)
        launcher.stdout.read()
        assert launcher.wait(30.0) == 0
    assert note.read_text() == "the error event"


def test_a_file_of_settings_reaches_every_tier(tmp_path: Path) -> None:
    file = tmp_path / "tandem.toml"
    file.write_text('[gateway]\ndoor_certificate = "c.pem"\n[decoder]\nthreads = 1\n')
    flags = tier_flags(["decoder.threads=2"], threads=None, config=file)
    assert {flag for tier in flags.values() for flag in tier if "config" in flag} == {
        f"--config={file}"
    }
    assert flags["decoder"][-1] == "--threads=2"  # a flag of the service, which outdoes its file
    assert file_environment(file, {}) == {"GATEWAY_DOOR_CERTIFICATE": "c.pem"}
    assert file_environment(file, {"GATEWAY_DOOR_CERTIFICATE": ""}) == {}
    assert file_environment(None, {}) == {}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[decoder]\nport = 1", r"port of \[decoder\] is set by tandem serve: give --decoder-port"),
        ("[gateway]\nhttp-port = 1", "give --http-port"),
        ("[decodr]\nthreads = 1", "did you mean decoder"),
        ("threads = 1", "none of the sections"),
        ("threads", "is not TOML"),
    ],
)
def test_what_a_file_cannot_say_is_refused_before_anything_starts(
    tmp_path: Path, text: str, named: str
) -> None:
    (tmp_path / "tandem.toml").write_text(text)
    with pytest.raises(CommandError, match=named) as refused:
        tier_flags([], threads=None, config=tmp_path / "tandem.toml")
    assert refused.value.exit_code == 2


def test_the_file_of_settings_in_the_readme_is_one(tmp_path: Path) -> None:
    tomls = (block.text for block in blocks() if block.language == "toml")
    (example,) = (text for text in tomls if "[decoder]" in text)
    (tmp_path / "tandem.toml").write_text(example)
    flags = tier_flags([], threads=None, config=tmp_path / "tandem.toml")
    given = ["--bundle=b", *flags["decoder"]]
    decoder = settings.load(
        DecoderConfig, program="decoder", prefix="DECODER", argv=given, environ={}
    )
    assert (decoder.max_sequences, decoder.kv_memory_mib) == (4, 2048)
    given = ["--bundle=b", "--vision=a:1", "--decoder=a:2", *flags["gateway"]]
    gateway = settings.load(
        GatewayConfig, program="gateway", prefix="GATEWAY", argv=given, environ={}
    )
    assert gateway.allowed_hosts == "chat.example,host.docker.internal"


def test_an_unknown_tier_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(CommandError, match="did you mean decoder"):
        tier_flags(["decodr.threads=1"], threads=None)


def test_helps_end_with_examples_of_their_own_command() -> None:
    for command in app.registered_commands:
        if command.epilog is not None:
            assert f"tandem {command.name} " in command.epilog, command.name


def test_url_takes_no_bundle_and_a_broken_endpoint_is_one_line() -> None:
    run = tandem("bench", "bundle", "--url", "http://127.0.0.1:1")
    assert (run.returncode, "it takes no BUNDLE" in error_line(run)) == (2, True)
    run = tandem("bench", "--url", "http://127.0.0.1:1/v1")
    assert run.returncode == 1
    assert "nothing answers at http://127.0.0.1:1/v1/models: not reachable" in error_line(run)
