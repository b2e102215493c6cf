"""The routes of every API but chat completions, over one door."""

from starlette.routing import Route

from gateway.answer.detokenize import TokenBytes
from gateway.config import GatewayConfig
from gateway.http.door.door import Door
from gateway.http.messages.route import Messages
from gateway.http.ollama.models import ModelFacts
from gateway.http.ollama.route import Ollama
from gateway.http.reading import Bodies
from gateway.http.responses.route import Responses
from gateway.http.responses.store import ResponseStore
from gateway.service import ChatService


def api_routes(
    config: GatewayConfig,
    service: ChatService,
    *,
    bodies: Bodies,
    token_bytes: TokenBytes,
    facts: ModelFacts,
) -> list[Route]:
    """All of them.

    Args:
        config: Of what is kept, and of unknown fields.
        service: Opens requests.
        bodies: Reads bodies.
        token_bytes: What tokens are spelled like.
        facts: What Ollama's clients are told of the model.
    """
    door = Door(service, bodies=bodies, refuse_unknown=config.unknown_fields == "refuse")
    store = ResponseStore(max_count=config.max_stored_responses, max_bytes=config.max_stored_bytes)
    return [
        *Responses(door, token_bytes=token_bytes, store=store).routes(),
        *Messages(door).routes(),
        *Ollama(door, token_bytes=token_bytes, facts=facts).routes(),
    ]
