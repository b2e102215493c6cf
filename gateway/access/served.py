"""The model this gateway serves, as clients see it."""

import time
from dataclasses import dataclass, field
from typing import Any

from protos.tandem.v1 import decoder_pb2
from protos.wire.errors import ModelNotFound


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """Its name, what its bundle presets, and a fingerprint that changes with the bundle."""

    name: str
    presets: decoder_pb2.SamplingParams  # the checkpoint's, for what a client leaves out
    bundle_digest: str
    created: int = field(default_factory=lambda: int(time.time()))  # Unix seconds

    @property
    def fingerprint(self) -> str:
        """OpenAI's `system_fingerprint`."""
        return f"tandem-{self.bundle_digest[:12]}"

    def check(self, wanted: str | None) -> None:
        """Compares the model a client asks for; None and "" ask for the one there is.

        Raises:
            ModelNotFound: another model.
        """
        if wanted and wanted != self.name:
            raise ModelNotFound(
                f"the model is not served here, expected {self.name}", param="model"
            )

    def card(self) -> dict[str, Any]:
        """OpenAI's model object."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "tandem",
        }
