"""`tandem chat` on a terminal, and between pipes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.deploy.fake_gateway import FakeGateway
from tests.unit.deploy.terminal_session import TerminalSession

UP = "\x1b[A"
END_OF_INPUT = "\x04"


def questions(gateway: FakeGateway) -> list[str]:
    return [request.messages[-1].content[-1].text for request in gateway.requests]


def test_earlier_lines_come_back_in_this_chat_and_the_next(tmp_path: Path) -> None:
    state = {"XDG_STATE_HOME": str(tmp_path)}
    with FakeGateway(["one", "two", "three"]) as gateway:
        with TerminalSession(["chat", f"--server={gateway.address}"], **state) as terminal:
            terminal.await_text("you> ")
            terminal.type("Which colour?\n")
            terminal.await_text("first after")
            terminal.type(f"{UP}\n")
            terminal.await_text("two")
            terminal.type(END_OF_INPUT)
            assert terminal.exit_code() == 0
        with TerminalSession(["chat", f"--server={gateway.address}"], **state) as terminal:
            terminal.await_text("you> ")
            terminal.type(f"{UP}\n")
            terminal.await_text("three")
            terminal.type("/bye\n")
            assert terminal.exit_code() == 0
    assert questions(gateway) == ["Which colour?"] * 3
    history = tmp_path / "tandem" / "chat_history"
    assert history.stat().st_mode & 0o077 == 0


def test_ctrl_c_ends_the_answer_and_another_one_the_chat(tmp_path: Path) -> None:
    with (
        FakeGateway(["word " * 500, "short"], pause_s=0.05) as gateway,
        TerminalSession(
            ["chat", f"--server={gateway.address}"], XDG_STATE_HOME=str(tmp_path)
        ) as terminal,
    ):
        terminal.await_text("you> ")
        terminal.type("Tell me all\n")
        terminal.await_text("word word")
        terminal.interrupt()
        terminal.await_text("you> ", times=2)
        terminal.type("And now?\n")
        terminal.await_text("short")
        terminal.await_text("you> ", times=3)
        terminal.interrupt()
        assert terminal.exit_code() == 130
    texts = [message.content[0].text for message in gateway.requests[1].messages]
    assert (texts[0], texts[2]) == ("Tell me all", "And now?")
    assert texts[1].startswith("word word")


def piped(gateway: FakeGateway, *arguments: str, stdin: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploy.cli", "chat", f"--server={gateway.address}", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=dict(os.environ),
    )


@pytest.mark.parametrize(
    ("arguments", "stdin"), [(("Well?",), ""), ((), "Well?\n")], ids=["argument", "typed"]
)
def test_a_pipe_gets_the_answer_alone(arguments: tuple[str, ...], stdin: str) -> None:
    with FakeGateway(["all is well"]) as gateway:
        run = piped(gateway, *arguments, stdin=stdin)
    assert run.stdout == "all is well\n"
    assert "7 + 3 tokens" in run.stderr


def test_what_is_piped_in_joins_the_question() -> None:
    with FakeGateway(["a poem"]) as gateway:
        piped(gateway, "What is this?", stdin="Roses are red\n")
    assert questions(gateway) == ["What is this?\n\nRoses are red"]
