"""Services killed, told to stop, or started with what cannot work: the whole stack's manners."""

import base64
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import httpx
import openai
import psutil
import pytest
from openai import OpenAI

from deploy.stack.local import LocalStack, StackSettings
from deploy.stack.ports import ANY_FREE, settle_ports
from deploy.stack.tier import Tier, TierEvent, TierReady
from tests.support.bundles import bundle
from tests.support.prompts import png
from tests.support.stack import WITHOUT_RAY, family_of, is_alive
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
LONG: dict[str, Any] = {"max_tokens": 3500, "extra_body": {"ignore_eos": True}}
QUESTION: Any = [{"role": "user", "content": "Tell me a long story."}]
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLv"
    "AAAAAElFTkSuQmCC"
)
OTHER_PIXEL = "data:image/png;base64," + base64.b64encode(png(1, 1)).decode()


def question_about(url: str) -> Any:
    parts = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "Which colour?"},
    ]
    return [{"role": "user", "content": parts}]


IMAGE_QUESTION = question_about(PIXEL)
ENOUGH_CONTEXT = {"decoder": ("--max-context=4096", "--max-sequences=4")}


class Served:
    """A `tandem serve` process of its own, its door, and every process below it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.lines = []
        for line in process.stdout:
            self.lines.append(line)
            if line.startswith("ready in"):
                break
        found = re.search(r"http://[0-9.]+:\d+/v1", self.lines[-1])
        assert found is not None, self.lines
        self.client = OpenAI(base_url=found[0], api_key="unused", max_retries=0)
        self.family = psutil.Process(process.pid).children(recursive=True)

    def pid_of(self, module: str) -> int:
        """The process of one service."""
        for member in self.family:
            if module in member.cmdline() and "deploy.stack.guard" not in member.cmdline():
                return int(member.pid)
        raise LookupError(module)

    def alive(self) -> list[psutil.Process]:
        """Processes of the stack that still run."""
        return [member for member in self.family if is_alive(member)]

    def wait_until_gone(self) -> None:
        """Waits for the end of every process of the stack."""
        wait_until(lambda: not self.alive(), what="the stack's processes to end", timeout_s=60.0)


@contextmanager
def tandem_serve(folder: Path, *arguments: str, module: str = "deploy.cli") -> Iterator[Served]:
    ports = settle_ports("127.0.0.1", ANY_FREE).named()
    command = [sys.executable, "-m", module, "serve", str(bundle("tied"))]
    command += [f"--{name}={port}" for name, port in ports.items()]
    command += [f"--log-dir={folder}", "--set=decoder.max-context=4096", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # to find the tests' module
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            served = Served(process)
            with served.client:
                yield served
        finally:
            process.kill()


def start_stream(client: OpenAI, **options: Any) -> Any:
    """A long answer of which the first pieces have come."""
    stream = client.chat.completions.create(
        model="tiny-tied", messages=QUESTION, stream=True, temperature=0.0, **{**LONG, **options}
    )
    for _ in range(3):
        next(stream)
    return stream


def test_text_is_answered_while_vision_is_dead_and_images_get_a_clear_error(
    tmp_path: Path,
) -> None:
    settings = StackSettings(
        bundle=bundle("tied"), ports=ANY_FREE, flags=ENOUGH_CONTEXT, log_dir=tmp_path
    )
    with LocalStack(settings) as stack:
        family = family_of(stack)
        with OpenAI(base_url=stack.http_url, api_key="unused", max_retries=0) as client:
            ask = client.chat.completions.create
            assert ask(model="tiny-tied", messages=IMAGE_QUESTION, max_tokens=2).choices

            os.kill(stack.pid("vision"), signal.SIGKILL)
            stack.wait()
            # What is known of an image is still there; another one would have to be looked at.
            assert ask(model="tiny-tied", messages=IMAGE_QUESTION, max_tokens=2).choices
            with pytest.raises(openai.InternalServerError) as refused:
                ask(model="tiny-tied", messages=question_about(OTHER_PIXEL), max_tokens=2)
            assert (refused.value.status_code, refused.value.code) == (503, "vision_unavailable")
            assert ask(model="tiny-tied", messages=QUESTION, max_tokens=2).choices

            stream = start_stream(client)
            os.kill(stack.pid("decoder"), signal.SIGKILL)
            with pytest.raises(openai.APIError) as broken:
                list(stream)
            assert broken.value.code in ("decoder_unavailable", "unavailable_error")
            with pytest.raises(openai.InternalServerError) as unavailable:
                ask(model="tiny-tied", messages=QUESTION, max_tokens=2)
            assert unavailable.value.code == "decoder_unavailable"
            health = httpx.get(stack.http_url.replace("/v1", "/health"), timeout=30.0)
            assert health.json()["status"] == "unavailable"
    assert [process for process in family if is_alive(process)] == []


def test_serve_names_the_dead_tier_and_stops_all_others(tmp_path: Path) -> None:
    with tandem_serve(tmp_path, module="tests.support.tandem_without_ray") as served:
        os.kill(served.pid_of("decoder_service"), signal.SIGKILL)
        assert served.process.wait(60.0) == 1
        assert served.process.stderr is not None
        assert served.process.stderr.read() == "error: decoder stopped (signal 9)\n"
        served.wait_until_gone()


def test_serve_lets_running_answers_end_when_it_is_told_to_stop(tmp_path: Path) -> None:
    with tandem_serve(tmp_path) as served:
        stream = start_stream(served.client, max_tokens=400)
        served.process.send_signal(signal.SIGTERM)
        chunks = list(stream)
        assert chunks[-1].choices[0].finish_reason == "length"
        assert served.process.wait(60.0) == 0
        assert served.alive() == []


def test_nothing_outlives_a_killed_serve(tmp_path: Path) -> None:
    with tandem_serve(tmp_path) as served:
        assert any("ray" in member.name() for member in served.family)
        served.process.kill()
        served.wait_until_gone()


def refusal(*arguments: str) -> str:
    """The one line with which `tandem serve` refuses to start."""
    run = subprocess.run(
        [sys.executable, "-m", "deploy.cli", "serve", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 2
    logged = run.stderr.splitlines()
    (line,) = (line for line in logged if not line.startswith("{"))  # a service's logs are JSON
    return line


def test_a_taken_port_is_refused_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        line = refusal(str(bundle("tied")), f"--grpc-port={port}")
    assert f"port {port} is already in use" in line


def test_a_missing_bundle_is_refused_in_one_line(tmp_path: Path) -> None:
    assert "no bundle at" in refusal(str(tmp_path / "nothing"))


def test_a_damaged_bundle_is_refused_in_one_line(tmp_path: Path) -> None:
    damaged = shutil.copytree(bundle("tied"), tmp_path / "bundle")
    graph = damaged / "decoder" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    assert "decoder/model.onnx" in refusal(str(damaged))


def test_a_misspelt_setting_is_refused_in_one_line() -> None:
    line = refusal(str(bundle("tied")), "--http-port=0", "--grpc-port=0", "--vision-port=0",
                   "--decoder-port=0", "--set=decoder.max-slotz=4")  # fmt: skip
    assert line.startswith("error: decoder:")
    assert "max-slotz" in line


def test_a_stream_that_is_not_waited_for_ends_with_an_error_event(tmp_path: Path) -> None:
    settings = StackSettings(
        bundle=bundle("tied"),
        ports=ANY_FREE,
        flags=ENOUGH_CONTEXT,
        log_dir=tmp_path,
        programs=WITHOUT_RAY,
    )
    stack = LocalStack(settings)
    stack.start()
    with OpenAI(base_url=stack.http_url, api_key="unused", max_retries=0) as client:
        stream = start_stream(client)
        stack.stop(drain=False)
        with pytest.raises(openai.APIError) as broken:  # a cut would be an error of httpx
            list(stream)
    assert broken.value.code in ("decoder_unavailable", "unavailable_error")


def test_a_decoder_with_another_bundle_is_refused_in_one_line() -> None:
    events: SimpleQueue[TierEvent] = SimpleQueue()
    decoder = tier("decoder_service", events, bundle("odd"), "--port=0")
    decoder.start()
    try:
        address = f"127.0.0.1:{ready(events).ports['grpc']}"
        line = refusal(
            "gateway", f"--bundle={bundle('tied')}", f"--decoder={address}",
            "--vision=127.0.0.1:1", "--http-port=0", "--grpc-port=0",
        )  # fmt: skip
    finally:
        decoder.kill()
    assert f"the decoder tier at {address} serves another bundle" in line


def tier(module: str, events: SimpleQueue[TierEvent], folder: Path, *flags: str) -> Tier:
    command = [sys.executable, "-m", module, f"--bundle={folder}", *flags]
    return Tier(module, command, events=events)


def ready(events: SimpleQueue[TierEvent]) -> TierReady:
    event = events.get(timeout=60.0)
    assert isinstance(event, TierReady), event
    return event
