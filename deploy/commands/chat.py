"""`tandem chat`: questions about images and videos, answered in the terminal."""

import os
import re
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deploy.client import ChatClient, Conversation
from deploy.commands.running import StopRequested, own_stack, stop_signals
from deploy.commands.server import NO_FILES, ClientFiles, connected
from deploy.stack.local import StackSettings
from deploy.stack.paths import chat_history
from deploy.stack.ports import ANY_FREE
from deploy.terminal import typed
from deploy.terminal.answer import stream_answer
from deploy.terminal.attachments import image_part, named_in, typed_path, video_part
from deploy.terminal.screen import CommandError, Screen
from protos.tandem.v1 import decoder_pb2, gateway_pb2
from protos.wire.errors import ServiceError

GOODBYES = ("/bye", "/exit", "/quit", "exit", "quit")
HELP = """\
/image PATH   add an image to the next question; its path within a question does too
/video PATH   add a video
/set NAME X   change max-tokens, temperature or seed
/clear        begin a new conversation
/help         this list
/bye, /exit   leave, as does Ctrl-D
Ctrl-C        end the answer; without one: leave"""
_ATTACHING = {"/image": image_part, "/video": video_part}
_SETTINGS: dict[str, tuple[str, type[int] | type[float]]] = {
    "max-tokens": ("max_tokens", int),
    "temperature": ("temperature", float),
    "seed": ("seed", int),
}
_COMMAND = re.compile(r"/[a-z]+")  # a path such as /etc/hosts belongs to a question


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatSettings:
    """Whom to ask, and how."""

    server: str  # host:port of a gateway's gRPC door, or the URL of its HTTP door
    bundle: Path | None = None  # served for as long as the chat lasts, instead of `server`
    api_key: str | None = None
    files: ClientFiles = NO_FILES
    system: str | None = None
    max_tokens: int = 512
    temperature: float | None = None  # None: the model's own default
    seed: int | None = None
    markdown: bool = True  # on a terminal, answers are shown as the Markdown they are


def run(
    screen: Screen,
    settings: ChatSettings,
    images: Sequence[Path],
    question: str | None,
    *,
    videos: Sequence[Path] = (),
) -> None:
    """Asks one question, or keeps asking what the user types until an end-of-file.

    Raises:
        CommandError: an image or video cannot be read, or no server answers.
        LaunchError: the stack for `settings.bundle` did not start.
        ServiceError: the only question failed.
    """
    attached = [image_part(path) for path in images] + [video_part(path) for path in videos]
    with stop_signals(), _server(screen, settings) as client:
        talk = _Talk(screen, client, settings, attached)
        if question is not None:
            talk.ask(question)
        else:
            with typed.history(chat_history(os.environ)):
                _converse(screen, talk)


@contextmanager
def _server(screen: Screen, settings: ChatSettings) -> Iterator[ChatClient]:
    if settings.bundle is not None:
        own = StackSettings(bundle=settings.bundle, ports=ANY_FREE)
        with own_stack(screen.notes, own, quiet=True) as (_, client):
            yield client
        return
    otherwise = (
        "start one with `tandem serve BUNDLE`, or let this command do it with --bundle BUNDLE"
    )
    with connected(
        settings.server, api_key=settings.api_key, otherwise=otherwise, files=settings.files
    ) as client:
        yield client


class _Talk:
    """One conversation with one server, and what its next question will carry."""

    def __init__(
        self,
        screen: Screen,
        client: ChatClient,
        settings: ChatSettings,
        attached: Sequence[gateway_pb2.ContentPart],
    ) -> None:
        self.attached = list(attached)
        self.settings = settings
        self._screen = screen
        self._client = client
        self._conversation = _start(settings)

    def clear(self) -> None:
        """Begins a new conversation."""
        self.attached.clear()
        self._conversation = _start(self.settings)

    def ask(self, question: str) -> None:
        """Streams an answer and tells its cost.

        Raises:
            ServiceError: the server refused or failed; the question is forgotten.
            StopRequested: a signal came; what was answered until then is part of the conversation.
        """
        messages = self._conversation.messages
        asked = len(messages)
        self._conversation.ask(question, attachments=self.attached)
        said: list[str] = []
        chunks = _noting(self._client.complete(self._request()), said)
        try:
            answer = stream_answer(
                self._screen.answers,
                chunks,
                notes=self._screen.notes,
                markdown=self.settings.markdown and self._screen.answers.is_terminal,
            )
        except ServiceError:
            del messages[asked:]
            raise
        except StopRequested:
            if said:
                self._take("".join(said))
            else:
                del messages[asked:]
            raise
        self._take(answer.text)
        self._screen.note(answer.cost())

    def _take(self, answer: str) -> None:
        self._conversation.answer(answer)
        self.attached.clear()  # they are part of the conversation now

    def _request(self) -> gateway_pb2.ChatRequest:
        settings = self.settings
        sampling = decoder_pb2.SamplingParams(temperature=settings.temperature, seed=settings.seed)
        return gateway_pb2.ChatRequest(
            messages=self._conversation.messages,
            sampling_params=sampling,
            stop_conditions=decoder_pb2.StopConditions(max_tokens=settings.max_tokens),
        )


def _start(settings: ChatSettings) -> Conversation:
    conversation = Conversation()
    if settings.system is not None:
        part = gateway_pb2.ContentPart(text=settings.system)
        conversation.messages.append(
            gateway_pb2.ChatMessage(role=gateway_pb2.ROLE_SYSTEM, content=[part])
        )
    return conversation


def _noting(
    chunks: Iterable[gateway_pb2.ChatChunk], said: list[str]
) -> Iterator[gateway_pb2.ChatChunk]:
    for chunk in chunks:
        said.append(chunk.text)
        yield chunk


def _converse(screen: Screen, talk: _Talk) -> None:
    if typed.is_interactive():
        screen.note("/help lists what else you can type")
    while (line := typed.read_line()) is not None:
        if line in GOODBYES:
            return
        if not line:
            continue
        word, _, rest = line.partition(" ")
        if _COMMAND.fullmatch(word):
            _obey(screen, talk, word, rest.strip())
        else:
            _ask(screen, talk, line)
    if typed.is_interactive():
        screen.note("")  # Ctrl-D leaves the cursor behind the prompt


def _obey(screen: Screen, talk: _Talk, command: str, argument: str) -> None:
    if command in _ATTACHING and argument:
        try:
            talk.attached.append(_ATTACHING[command](typed_path(argument)))
        except CommandError as error:
            screen.note(f"error: {error}", style="red")
        else:
            _tell_attached(screen, talk)
    elif command == "/set":
        _change(screen, talk, argument)
    elif command == "/clear":
        talk.clear()
        screen.note("a new conversation")
    elif command == "/help":
        screen.note(HELP)
    else:
        screen.note(f"error: {command} is not understood; these are:\n{HELP}", style="red")


def _change(screen: Screen, talk: _Talk, argument: str) -> None:
    name, _, value = argument.partition(" ")
    try:
        field, kind = _SETTINGS[name]
        changed: dict[str, Any] = {field: kind(value)}
        talk.settings = replace(talk.settings, **changed)
    except (KeyError, ValueError):
        names = ", ".join(_SETTINGS)
        screen.note(f"error: /set takes one of {names}, and a number", style="red")


def _tell_attached(screen: Screen, talk: _Talk) -> None:
    kinds = [part.WhichOneof("part") for part in talk.attached]
    counts = [f"{kinds.count(kind)} {kind}(s)" for kind in ("image", "video") if kind in kinds]
    screen.note(f"with the next question: {', '.join(counts)}")


def _ask(screen: Screen, talk: _Talk, question: str) -> None:
    try:
        question, named = named_in(question)
        talk.attached.extend(named)
        if question:
            talk.ask(question)
        else:
            _tell_attached(screen, talk)
    except CommandError as error:
        screen.note(f"error: {error}", style="red")
    except ServiceError as error:
        screen.note(f"error: {error.message}", style="red")
    except StopRequested as stop:
        if stop.number != signal.SIGINT:
            raise
        screen.answers.print()
        screen.note("stopped; Ctrl-C once more leaves")
