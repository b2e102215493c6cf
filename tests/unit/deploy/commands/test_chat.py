"""`tandem chat` against a gateway that answers from a script."""

import io
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from deploy.commands import chat
from deploy.commands.chat import ChatSettings
from deploy.terminal.answer import Answer
from deploy.terminal.screen import CommandError, Screen
from protos.tandem.v1 import gateway_pb2
from protos.wire.errors import InvalidRequest, ServiceError
from tests.unit.deploy.fake_gateway import FakeGateway


def console() -> Screen:
    return Screen(
        answers=Console(file=io.StringIO(), width=100), notes=Console(file=io.StringIO(), width=100)
    )


def shown(terminal: Console) -> str:
    assert isinstance(terminal.file, io.StringIO)
    return terminal.file.getvalue()


def image_file(folder: Path, name: str = "cat.png") -> Path:
    path = folder / name
    Image.new("RGB", (4, 3), "red").save(path)
    return path


def test_the_answer_and_its_cost_are_shown() -> None:
    terminal = console()
    with FakeGateway(["a red square here"]) as gateway:
        chat.run(terminal, ChatSettings(server=gateway.address), [], "What is it?")
    assert shown(terminal.answers).splitlines() == ["a red square here"]
    assert shown(terminal.notes).splitlines() == ["7 + 4 tokens · first after 250 ms · 10.0 tok/s"]


@pytest.mark.parametrize(("milliseconds", "said"), [(4.2, "4 ms"), (20_460.0, "20.46 s")])
def test_the_first_token_s_time_is_told_in_a_unit_that_fits(milliseconds: float, said: str) -> None:
    answer = Answer(
        text="red",
        finish_reason="stop",
        prompt_tokens=7,
        completion_tokens=1,
        first_token_ms=milliseconds,
        decode_ms=0.0,
    )
    assert answer.cost() == f"7 + 1 tokens · first after {said}"


def test_images_are_sent_before_the_question_in_their_order(tmp_path: Path) -> None:
    files = [image_file(tmp_path, "a.png"), image_file(tmp_path, "b.bmp")]
    with FakeGateway(["red"]) as gateway:
        chat.run(console(), ChatSettings(server=gateway.address), files, "Which colour?")
    (message,) = gateway.requests[0].messages
    assert [part.WhichOneof("part") for part in message.content] == ["image", "image", "text"]
    assert [part.image for part in message.content[:2]] == [path.read_bytes() for path in files]


def test_a_system_prompt_comes_first() -> None:
    with FakeGateway(["yes"]) as gateway:
        chat.run(console(), ChatSettings(server=gateway.address, system="Be brief."), [], "Well?")
    roles = [message.role for message in gateway.requests[0].messages]
    assert roles == [gateway_pb2.ROLE_SYSTEM, gateway_pb2.ROLE_USER]


def test_the_key_is_sent_as_a_bearer_token() -> None:
    with FakeGateway(["yes"]) as gateway:
        chat.run(console(), ChatSettings(server=gateway.address, api_key="secret"), [], "Well?")
    assert gateway.metadata[0]["authorization"] == "Bearer secret"


def test_follow_up_questions_carry_the_whole_conversation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = io.StringIO("What is it?\n\nWhich colour?\n")
    monkeypatch.setattr("sys.stdin", typed)
    with FakeGateway(["a square", "red"]) as gateway:
        chat.run(console(), ChatSettings(server=gateway.address), [image_file(tmp_path)], None)
    second = gateway.requests[1].messages
    assert [message.content[-1].text for message in second] == [
        "What is it?",
        "a square",
        "Which colour?",
    ]
    assert [len(message.content) for message in second] == [2, 1, 1]


@pytest.mark.parametrize("goodbye", ["/bye", "/exit", "exit"])
def test_a_goodbye_ends_the_chat_and_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, goodbye: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"Well?\n{goodbye}\nStill there?\n"))
    with FakeGateway(["yes"]) as gateway:
        chat.run(console(), ChatSettings(server=gateway.address), [], None)
    assert len(gateway.requests) == 1


@pytest.mark.parametrize("command", ["/help", "/hlep", "/image"])
def test_a_command_is_answered_here_with_the_list_of_commands(
    monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{command}\n"))
    terminal = console()
    with FakeGateway([]) as gateway:
        chat.run(terminal, ChatSettings(server=gateway.address), [], None)
    assert "/image PATH" in shown(terminal.notes)
    assert (f"error: {command} is" in shown(terminal.notes)) == (command != "/help")


def test_a_question_may_begin_with_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("/etc/hosts is what?\n"))
    with FakeGateway(["a file"]) as gateway:
        chat.run(console(), ChatSettings(server=gateway.address), [], None)
    assert gateway.requests[0].messages[0].content[0].text == "/etc/hosts is what?"


def test_images_can_be_added_to_any_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, blank = image_file(tmp_path), image_file(tmp_path, "my cat.png")
    lines = ("Hello?", f"/image {plain}", f"/image {blank}", f"/image '{blank}'", "And?", "Sure?")
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    with FakeGateway(["hi", "three cats", "yes"]) as gateway:
        chat.run(console(), ChatSettings(server=gateway.address), [], None)
    counts = [len(message.content) - 1 for message in gateway.requests[2].messages]
    assert counts == [0, 0, 3, 0, 0]


def test_a_bad_image_does_not_end_the_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("/image nowhere.png\nWell?\n"))
    terminal = console()
    with FakeGateway(["yes"]) as gateway:
        chat.run(terminal, ChatSettings(server=gateway.address), [], None)
    assert "error: cannot read nowhere.png" in shown(terminal.notes)
    assert len(gateway.requests) == 1


def test_a_refused_question_is_forgotten_and_the_chat_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("too long\nshort\n"))
    terminal = console()
    with FakeGateway([InvalidRequest("the prompt is too long"), "fine"]) as gateway:
        chat.run(terminal, ChatSettings(server=gateway.address), [], None)
    assert "error: the prompt is too long" in shown(terminal.notes)
    assert [message.content[0].text for message in gateway.requests[1].messages] == ["short"]


def test_a_refused_only_question_fails_the_command() -> None:
    with FakeGateway([InvalidRequest("no")]) as gateway, pytest.raises(InvalidRequest):
        chat.run(console(), ChatSettings(server=gateway.address), [], "What?")


def test_a_stream_without_its_last_message_is_an_error() -> None:
    with FakeGateway(["half an"], complete=False) as gateway, pytest.raises(ServiceError):
        chat.run(console(), ChatSettings(server=gateway.address), [], "What?")


def test_control_characters_of_the_model_do_not_reach_the_terminal() -> None:
    terminal = console()
    with FakeGateway(["\x1b[2J[red]boo[/red]\x07"]) as gateway:
        chat.run(terminal, ChatSettings(server=gateway.address), [], "What?")
    assert shown(terminal.answers).splitlines()[0] == "[2J[red]boo[/red]"


def test_no_server_is_one_clear_line() -> None:
    with pytest.raises(CommandError, match="tandem serve BUNDLE"):
        chat.run(console(), ChatSettings(server="127.0.0.1:1"), [], "Anyone?")


@pytest.mark.parametrize("content", [None, b"not an image"])
def test_a_bad_image_is_refused_before_anything_is_sent(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "cat.png"
    if content is not None:
        path.write_bytes(content)
    with FakeGateway([]) as gateway, pytest.raises(CommandError, match="cat.png"):
        chat.run(console(), ChatSettings(server=gateway.address), [path], "What?")
    assert gateway.requests == []


def video_file(folder: Path, name: str = "a walk.mp4", data: bytes = b"a video") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def test_videos_are_sent_like_images(tmp_path: Path) -> None:
    image, video = image_file(tmp_path), video_file(tmp_path)
    with FakeGateway(["a dog walks"]) as gateway:
        settings = ChatSettings(server=gateway.address)
        chat.run(console(), settings, [image], "What happens?", videos=[video])
    (message,) = gateway.requests[0].messages
    assert [part.WhichOneof("part") for part in message.content] == ["image", "video", "text"]
    assert message.content[1].video.file == b"a video"


@pytest.mark.parametrize(("data", "said"), [(b"", "has 0 bytes"), (None, "cannot read")])
def test_a_video_that_cannot_be_sent_is_named(
    tmp_path: Path, data: bytes | None, said: str
) -> None:
    path = tmp_path / "none.mp4" if data is None else video_file(tmp_path, data=data)
    settings = ChatSettings(server="127.0.0.1:1")
    with pytest.raises(CommandError, match=said):
        chat.run(console(), settings, [], "What happens?", videos=[path])


def test_paths_within_a_line_are_attached_and_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, video = image_file(tmp_path, "my cat.png"), video_file(tmp_path)
    escaped = str(video).replace(" ", "\\ ")
    lines = (f"What is '{image}' beside {escaped} here?", str(image_file(tmp_path)), "And that?")
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    terminal = console()
    with FakeGateway(["a cat", "the same"]) as gateway:
        chat.run(terminal, ChatSettings(server=gateway.address), [], None)
    first, _, second = gateway.requests[1].messages
    assert [part.WhichOneof("part") for part in first.content] == ["image", "video", "text"]
    assert first.content[2].text == "What is beside here?"
    assert [part.WhichOneof("part") for part in second.content] == ["image", "text"]
    assert "with the next question: 1 image(s)" in shown(terminal.notes)


def test_a_name_that_is_no_file_stays_part_of_the_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("What is  nowhere.png for?\n"))
    with FakeGateway(["nothing"]) as gateway:
        chat.run(console(), ChatSettings(server=gateway.address), [], None)
    assert gateway.requests[0].messages[0].content[0].text == "What is  nowhere.png for?"


def test_settings_change_and_a_conversation_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ("Well?", "/set temperature 0.5", "/set max-tokens many", "/clear", "And now?")
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    terminal = console()
    with FakeGateway(["yes", "no"]) as gateway:
        chat.run(terminal, ChatSettings(server=gateway.address, system="Be brief."), [], None)
    second = gateway.requests[1]
    assert [part.text for message in second.messages for part in message.content] == [
        "Be brief.",
        "And now?",
    ]
    assert second.sampling_params.temperature == 0.5
    assert second.stop_conditions.max_tokens == 512
    assert "error: /set takes one of" in shown(terminal.notes)
