"""LiteLLM's proxy in front of the gateway, asked with openai's client."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import openai

from tests.clients import checks
from tests.clients.checks import KEY, MODEL, URL, WORK, about_image, refused, same

PROXY_KEY = "sk-proxy"
START_S = 180.0


def config() -> Path:
    """The proxy's configuration: the gateway with its key, and once more with a wrong one."""
    entry = (
        "  - {{model_name: {}, litellm_params: {{model: openai/{}, api_base: {}, api_key: {}}}}}"
    )
    lines = ["model_list:", entry.format("right", MODEL, URL, KEY)]
    lines += [entry.format("wrong", MODEL, URL, "wrong"), "general_settings:"]
    lines += [f"  master_key: {PROXY_KEY}", "litellm_settings:", "  num_retries: 0"]
    path = WORK / "proxy.yaml"
    path.write_text("\n".join(lines))
    return path


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait(url: str, process: "subprocess.Popen[bytes]") -> None:
    """Waits until the proxy lives.

    Raises:
        TimeoutError: it does not in time.
    """
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health/liveliness", timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise TimeoutError(f"the proxy did not start: {(WORK / 'proxy.log').read_text()[-500:]}")


port = free_port()
with (WORK / "proxy.log").open("wb") as log:
    proxy = subprocess.Popen(
        [
            str(Path(sys.executable).with_name("litellm")),
            f"--config={config()}",
            f"--port={port}",
            "--host=127.0.0.1",
        ],
        stdout=log,
        stderr=log,
        cwd=WORK,
        env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        start_new_session=True,
    )
client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}", api_key=PROXY_KEY, max_retries=0)


def ask(content: Any, *, model: str = "right", **options: Any) -> Any:
    """One answer."""
    messages: Any = [{"role": "user", "content": content}]
    return client.chat.completions.create(
        model=model, messages=messages, temperature=0, max_tokens=48, **options
    )


def stream() -> str:
    """Pieces."""
    chunks = list(ask(about_image(checks.COLOR), stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    return same(text, checks.COLOR_ANSWER)


def schema() -> str:
    """OpenAI's response_format passes through."""
    held = {"type": "json_schema", "json_schema": {"name": "form", "schema": checks.SCHEMA}}
    answer = ask(about_image(checks.NAMING), response_format=held)
    return same(answer.choices[0].message.content, f'{{"label": "{checks.NAME}"}}')


def overflow() -> str:
    """The proxy knows the error for what it is, and tells so."""
    with refused(openai.BadRequestError) as told:
        ask(checks.LONG)
    assert "ContextWindowExceededError" in str(told.error), told.error
    return "BadRequestError that names ContextWindowExceededError"


def wrong_key() -> str:
    """The gateway's 401 reaches the proxy's client."""
    with refused(openai.AuthenticationError):
        ask(checks.SUM, model="wrong")
    return "AuthenticationError"


check = checks.Checks()
try:
    wait(f"http://127.0.0.1:{port}", proxy)
    check("text", lambda: same(ask(checks.SUM).choices[0].message.content, checks.SUM_ANSWER))
    check(
        "image",
        lambda: same(
            ask(about_image(checks.COLOR)).choices[0].message.content, checks.COLOR_ANSWER
        ),
    )
    check("stream", stream)
    check("schema", schema)
    check("context overflow", overflow)
    check("wrong key", wrong_key)
finally:
    os.killpg(proxy.pid, signal.SIGTERM)
    proxy.wait(30)
check.end()
