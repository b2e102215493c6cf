"""What a vision process tells Prometheus."""

from collections.abc import Iterator
from contextlib import contextmanager

from protos.process.metrics import FIRST_TOKEN_SECONDS, Figures, TierMetrics, seconds_of
from protos.wire.errors import Reason

_TIMES = {
    "queue": "Waiting inside a replica, for a thread that decodes and for the tower, seconds.",
    "preprocess": "Decoding an image and making its patches, seconds.",
    "encode": "Vision tower, seconds.",
}


class VisionMetrics(TierMetrics):
    """Metrics of one vision process."""

    def __init__(self) -> None:
        super().__init__("vision")
        self._times = {
            name: self.histogram(f"tandem:vision_{name}_seconds", text, FIRST_TOKEN_SECONDS)
            for name, text in _TIMES.items()
        }
        self._image_tokens = self.counter("tandem:vision_image_tokens", "Tokens of images.")
        self._received = self.counter("tandem:vision_received_bytes", "Bytes of requests.")
        self._sent = self.counter("tandem:vision_embedding_bytes", "Bytes of features sent.")
        self.at_work = 0
        self.patches = 0
        self.gauge("tandem:vision_images", "Images at work or waiting.", lambda: self.at_work)
        self.gauge(
            "tandem:vision_patches",
            "Patches of images at work or waiting, as far as requests tell their grid.",
            lambda: self.patches,
        )

    @contextmanager
    def working(self, patches: int) -> Iterator[None]:
        """Counts an image as at work while the block runs."""
        self.at_work += 1
        self.patches += patches
        try:
            yield
        finally:
            self.at_work -= 1
            self.patches -= patches

    def ended(self, outcome: str | Reason, seconds: float, figures: Figures) -> None:
        """An image's features were sent, or it failed."""
        super().ended(outcome, seconds, figures)
        self._image_tokens.inc(float(figures.get("image_tokens", 0)))
        self._received.inc(float(figures.get("bytes", 0)))
        self._sent.inc(float(figures.get("feature_bytes", 0)))
        for name, times in self._times.items():
            value = seconds_of(figures, f"{name}_ms")
            if value is not None:
                times.observe(value)
