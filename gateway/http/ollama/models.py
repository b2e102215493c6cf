"""The served model as Ollama describes one."""

from collections.abc import Callable
from datetime import UTC, datetime

from gateway.access.served import ServedModel
from gateway.http.door.telling import Json
from protos.bundle.manifest import Manifest

# The version of Ollama's API that these routes follow; clients look for a least one.
API_VERSION = "0.13.0"

# Names in a checkpoint's generation settings and in Ollama's options.
_PARAMETERS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repeat_penalty",
}


class ModelFacts:
    """What is told of the one model there is.

    Args:
        served: Its name and digest.
        manifest: Its bundle's.
        card: OpenAI's model object; what the model takes may change as tiers come and go.
        thinks: Whether it thinks before it answers.
        calls: Whether it calls tools.
    """

    def __init__(
        self,
        served: ServedModel,
        manifest: Manifest,
        *,
        card: Callable[[], Json],
        thinks: bool,
        calls: bool,
    ) -> None:
        self._served = served
        self._manifest = manifest
        self._card = card
        optional = {"tools": calls, "thinking": thinks}
        self._capabilities = [
            "completion",
            "vision",
            *(name for name, has in optional.items() if has),
        ]

    def listed(self) -> Json:
        """The body of GET /api/tags."""
        model = {
            "name": self._served.name,
            "model": self._served.name,
            "modified_at": self._modified_at(),
            "size": sum(file.size for file in self._manifest.files.values()),
            "digest": self._served.bundle_digest,
            "details": self._details(),
        }
        return {"models": [model]}

    def shown(self) -> Json:
        """The body of POST /api/show."""
        family, text = self._manifest.family, self._manifest.text
        return {
            "license": "",
            "modelfile": "",
            "template": "",  # the checkpoint's is no template of Ollama's
            "parameters": self._parameters(),
            "details": self._details(),
            "model_info": {
                "general.architecture": family,
                f"{family}.context_length": self._card()["context_length"],
                f"{family}.embedding_length": text.hidden_size,
                f"{family}.block_count": text.num_hidden_layers,
            },
            "capabilities": self._capabilities,
            "modified_at": self._modified_at(),
        }

    def _parameters(self) -> str:
        given = self._manifest.generation
        told = {theirs: given.get(ours) for ours, theirs in _PARAMETERS.items()}
        return "\n".join(f"{name} {value}" for name, value in told.items() if value is not None)

    def _details(self) -> Json:
        family = self._manifest.family
        return {
            "parent_model": "",
            "format": "onnx",
            "family": family,
            "families": [family],
            "parameter_size": "",  # no bundle says it
            "quantization_level": self._manifest.graphs[0].precision,
        }

    def _modified_at(self) -> str:
        return datetime.fromtimestamp(self._served.created, UTC).isoformat()
