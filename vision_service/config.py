"""Settings of one vision process; environment names are VISION_<FIELD>."""

import os
from dataclasses import dataclass
from typing import Any

from protos.media.images import MAX_IMAGE_PIXELS
from protos.process.settings import SettingError, setting
from protos.wire.channels import MIB, VISION_PORT

DEVICES = ("cpu", "cuda")
PILLOW_PIXELS = 178_956_970  # Pillow itself refuses more
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionConfig:
    """Everything an operator may choose; see `--help` for each line."""

    bundle: str = setting("folder of the exported bundle")
    host: str = setting("address to listen on", default="127.0.0.1")
    port: int = setting("port to listen on, 0 chooses a free one", default=VISION_PORT)
    replicas: int = setting("encoder replicas; the fewest when max_replicas is set", default=1)
    max_replicas: int | None = setting("scale up to this many replicas with load", default=None)
    threads: int | None = setting(
        "torch threads of a replica, default cores / replicas", default=None
    )
    device: str = setting("cpu or cuda", default="cpu")
    dtype: str = setting("float32, bfloat16 or float16 arithmetic in the tower", default="float32")
    max_batch_patches: int = setting("patches a replica encodes together", default=4096)
    max_queued_patches: int = setting("patches waiting in a replica", default=65_536)
    max_queued_requests: int = setting("requests waiting for a replica", default=256)
    max_image_mib: float = setting("largest encoded image, MiB", default=10.0)
    max_image_pixels: int = setting("most pixels before resizing", default=MAX_IMAGE_PIXELS)
    max_image_patches: int = setting("most patches of one image", default=65_536)
    encode_timeout_s: float = setting("longest an Encode call may take, s", default=300.0)
    drain_timeout_s: float = setting("time for running calls at shutdown, s", default=30.0)
    object_store_mib: int = setting("shared memory for features in transit, MiB", default=256)
    log_level: str = setting("DEBUG, INFO, WARNING or ERROR", default="INFO")

    def check(self) -> None:
        """Checks ranges and names.

        Raises:
            SettingError: names the first setting that is out of range.
        """
        if self.device not in DEVICES:
            raise SettingError(f"device must be one of {', '.join(DEVICES)}, got {self.device!r}")
        if self.dtype not in DTYPES:
            raise SettingError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        for name in (
            "replicas",
            "max_batch_patches",
            "max_queued_patches",
            "max_queued_requests",
            "max_image_mib",
            "max_image_pixels",
            "max_image_patches",
            "encode_timeout_s",
        ):
            if getattr(self, name) <= 0:
                raise SettingError(f"{name} must be positive, got {getattr(self, name)}")
        if self.threads is not None and self.threads < 1:
            raise SettingError(f"threads must be positive, got {self.threads}")
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise SettingError(
                f"max_replicas must be at least replicas ({self.replicas}), got {self.max_replicas}"
            )
        if self.max_image_pixels > PILLOW_PIXELS:
            raise SettingError(
                f"max_image_pixels must be at most {PILLOW_PIXELS}, got {self.max_image_pixels}"
            )
        if self.object_store_mib < 80:
            raise SettingError(f"object_store_mib must be at least 80, got {self.object_store_mib}")

    @property
    def most_replicas(self) -> int:
        """Replicas there may ever be at once."""
        return self.max_replicas or self.replicas

    def replica_threads(self, cores: int) -> int:
        """Torch threads of one replica on a machine with `cores` cores."""
        return self.threads or max(1, cores // self.most_replicas)

    def replica_settings(self, *, cores: int) -> dict[str, Any]:
        """The fields of `replica.ReplicaSettings` as plain values."""
        return {
            "bundle": os.path.abspath(self.bundle),
            "device": self.device,
            "dtype": self.dtype,
            "threads": self.replica_threads(cores),
            "max_batch_patches": self.max_batch_patches,
            "max_queued_patches": self.max_queued_patches,
            "max_image_bytes": int(self.max_image_mib * MIB),
            "max_image_pixels": self.max_image_pixels,
            "max_image_patches": self.max_image_patches,
        }
