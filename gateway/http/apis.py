"""The routes that ask the model something, of every API."""

from collections.abc import Callable

from starlette.routing import Route

from gateway.answer.detokenize import TokenBytes
from gateway.config import GatewayConfig
from gateway.http.bodies.reading import Requests
from gateway.http.chat.route import ChatCompletions
from gateway.http.completions.route import PlainCompletions
from gateway.http.door.door import Door
from gateway.http.messages.route import Messages
from gateway.http.ollama.models import ModelFacts
from gateway.http.ollama.route import Ollama
from gateway.http.responses.route import Responses
from gateway.http.responses.store import ResponseStore
from gateway.http.tokens.route import Tokens
from gateway.service import ChatService
from gateway.threads import Threads


def asking_routes(
    config: GatewayConfig,
    service: ChatService,
    *,
    threads: Threads,
    token_bytes: TokenBytes,
    vocab_size: int,
    context_length: Callable[[], int],
    facts: ModelFacts,
) -> list[Route]:
    """All of them.

    Args:
        config: Limits of bodies and of what is kept, and what becomes of unknown fields.
        service: Opens requests.
        threads: Parse bodies.
        token_bytes: What tokens are spelled like.
        vocab_size: How many there are.
        context_length: Most tokens of prompt and answer; it may change as tiers come and go.
        facts: What Ollama's clients are told of the model.
    """
    requests = Requests(
        service,
        threads,
        max_body_bytes=config.max_body_bytes,
        slow_client_s=config.slow_client_s,
        refuse_unknown=config.unknown_fields == "refuse",
    )
    chat = ChatCompletions(requests, token_bytes=token_bytes)
    plain = PlainCompletions(requests, token_bytes=token_bytes)
    tokens = Tokens(
        requests,
        token_bytes=token_bytes,
        context_length=context_length,
        vocab_size=vocab_size,
    )
    door = Door(requests)
    store = ResponseStore(max_count=config.max_stored_responses, max_bytes=config.max_stored_bytes)
    return [
        Route("/v1/chat/completions", chat.serve, methods=["POST"]),
        Route("/v1/completions", plain.serve, methods=["POST"]),
        Route("/tokenize", tokens.tokenize, methods=["POST"]),
        Route("/detokenize", tokens.detokenize, methods=["POST"]),
        *Responses(door, token_bytes=token_bytes, store=store).routes(),
        *Messages(door).routes(),
        *Ollama(door, token_bytes=token_bytes, facts=facts).routes(),
    ]
