"""`tandem chat`: questions about images, answered in the terminal."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from deploy.client import ChatClient, Conversation
from deploy.commands.running import running_stack, stop_signals
from deploy.stack.local import StackSettings
from deploy.stack.ports import ANY_FREE
from deploy.terminal.answer import stream_answer
from deploy.terminal.image import read_image
from deploy.terminal.screen import CommandError
from protos.tandem.v1 import decoder_pb2, gateway_pb2
from protos.wire.errors import ServiceError


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatSettings:
    """Whom to ask, and how."""

    server: str  # host:port of a gateway's gRPC door
    bundle: Path | None = None  # served for as long as the chat lasts, instead of `server`
    api_key: str | None = None
    system: str | None = None
    max_tokens: int = 512
    temperature: float | None = None  # None: the model's own default
    seed: int | None = None


def run(
    console: Console, settings: ChatSettings, paths: Sequence[Path], question: str | None
) -> None:
    """Asks one question, or keeps asking what the user types until an empty line's end-of-file.

    Raises:
        CommandError: an image cannot be read, or no server answers.
        LaunchError: the stack for `settings.bundle` did not start.
        ServiceError: the only question failed.
    """
    images = [read_image(path) for path in paths]
    with stop_signals(), _server(console, settings) as client:
        conversation = _start(settings)
        if question is not None:
            _turn(console, client, settings, conversation, question, images)
        else:
            _converse(console, client, settings, conversation, images)


def _start(settings: ChatSettings) -> Conversation:
    conversation = Conversation()
    if settings.system is not None:
        part = gateway_pb2.ContentPart(text=settings.system)
        conversation.messages.append(
            gateway_pb2.ChatMessage(role=gateway_pb2.ROLE_SYSTEM, content=[part])
        )
    return conversation


@contextmanager
def _server(console: Console, settings: ChatSettings) -> Iterator[ChatClient]:
    if settings.bundle is not None:
        own = StackSettings(bundle=settings.bundle, ports=ANY_FREE)
        with (
            running_stack(console, own, quiet=True) as stack,
            ChatClient(stack.addresses["gateway"], api_key=settings.api_key) as client,
        ):
            yield client
        return
    with ChatClient(settings.server, api_key=settings.api_key) as client:
        if not client.wait_until_serving():
            raise CommandError(
                f"no Tandem server answers at {settings.server}; start one with"
                " `tandem serve BUNDLE`, or let this command do it with --bundle BUNDLE"
            )
        yield client


def _converse(
    console: Console,
    client: ChatClient,
    settings: ChatSettings,
    conversation: Conversation,
    images: Sequence[bytes],
) -> None:
    while True:
        try:
            question = console.input("[bold]you>[/bold] ").strip()
        except EOFError:
            console.print()
            return
        if not question:
            continue
        asked = len(conversation.messages)
        try:
            _turn(console, client, settings, conversation, question, images)
            images = ()  # they are part of the conversation now
        except ServiceError as error:
            del conversation.messages[asked:]
            console.print(
                f"error: {error.message}",
                style="red",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )


def _turn(
    console: Console,
    client: ChatClient,
    settings: ChatSettings,
    conversation: Conversation,
    question: str,
    images: Sequence[bytes],
) -> None:
    conversation.ask(question, images)
    answer = stream_answer(console, client.complete(_request(settings, conversation)))
    conversation.answer(answer.text)
    console.print(answer.cost(), style="dim", highlight=False, soft_wrap=True)


def _request(settings: ChatSettings, conversation: Conversation) -> gateway_pb2.ChatRequest:
    sampling = decoder_pb2.SamplingParams(temperature=settings.temperature, seed=settings.seed)
    return gateway_pb2.ChatRequest(
        messages=conversation.messages,
        sampling_params=sampling,
        stop_conditions=decoder_pb2.StopConditions(max_tokens=settings.max_tokens),
    )
