"""Settings of one vision process; environment names are VISION_<FIELD>."""

import os
from dataclasses import dataclass
from typing import Any

from protos.media.limits import (
    MAX_IMAGE_PIXELS,
    MAX_PDF_BYTES,
    MAX_VIDEO_BYTES,
    MAX_VIDEO_SECONDS,
    PILLOW_PIXELS,
)
from protos.process.security import HopSettings, check_hops
from protos.process.settings import MAX_PORT, SettingError, check, setting
from protos.wire.channels import MIB, VISION_METRICS_PORT, VISION_PORT
from protos.wire.features import FORMS

DEVICES = ("cpu", "cuda")
TOWERS = ("auto", "exact", "fast", "portable", "torch")
DTYPES = ("float32", "bfloat16", "float16")
MOST_REPLICAS_PER_HOST = 100  # that Serve can count


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionConfig(HopSettings):
    """Everything an operator may choose; see `--help` for each line."""

    bundle: str = setting("folder of the exported bundle")
    host: str = setting("address to listen on", default="127.0.0.1")
    port: int = setting(
        "port to listen on, 0 chooses a free one", default=VISION_PORT, least=0, most=MAX_PORT
    )
    metrics_port: int | None = setting(
        f"port of Prometheus metrics, as {VISION_METRICS_PORT}; 0 picks one; unset: none",
        default=None,
        least=0,
        most=MAX_PORT,
    )
    replicas: int = setting(
        "encoder replicas; the fewest when max_replicas is set, which may be 0",
        default=1,
        least=0,
    )
    max_replicas: int | None = setting("scale up to this many replicas with load", default=None)
    target_wait_s: float = setting(
        "scale up so that a new image should wait no longer than this, s", default=2.0, above=0
    )
    tier_wait_s: float | None = setting(
        "how long an image waits where no replica runs, s; default 0.5, and 60 where replicas is 0",
        default=None,
        least=0,
    )
    threads: int | None = setting(
        "torch threads of a replica, default cores / replicas", default=None, least=1
    )
    device: str = setting("cpu or cuda", default="cpu", choices=DEVICES)
    tower: str = setting(
        "what computes the tower: exact: float32 by Tandem's operators; fast: INT8 products and"
        " attention, whose rounding it costs; portable: float32 by ONNX Runtime's; torch: the"
        " reference, and what a GPU needs; auto: fast where the"
        " bundle's own figures keep the bars, else exact, and torch where the operators do not run",
        default="auto",
        choices=TOWERS,
    )
    dtype: str = setting(
        "float32, bfloat16 or float16 arithmetic in the tower", default="float32", choices=DTYPES
    )
    wire_dtype: str = setting(
        "what features are sent in: float32, exactly; bfloat16, half the bytes; int8 with a scale"
        " for each token, a quarter",
        default="float32",
        choices=FORMS,
    )
    max_batch_patches: int = setting("patches a replica encodes together", default=4096, least=1)
    max_queued_patches: int = setting("patches waiting in a replica", default=65_536, least=1)
    max_queued_requests: int = setting("requests waiting for a replica", default=256, least=1)
    max_image_mib: float = setting("largest encoded image, MiB", default=10.0, above=0)
    max_image_pixels: int = setting(
        "most pixels before resizing", default=MAX_IMAGE_PIXELS, least=1, most=PILLOW_PIXELS
    )
    max_image_patches: int = setting("most patches of one image", default=65_536, least=1)
    max_video_mib: float = setting(
        "largest file of a video, MiB", default=MAX_VIDEO_BYTES / MIB, above=0
    )
    max_video_seconds: float = setting("longest video, seconds", default=MAX_VIDEO_SECONDS, above=0)
    max_pdf_mib: float = setting("largest PDF, MiB", default=MAX_PDF_BYTES / MIB, above=0)
    encode_timeout_s: float = setting("longest an Encode call may take, s", default=300.0, above=0)
    startup_timeout_s: float = setting("time for Ray to start, s", default=600.0, above=0)
    drain_timeout_s: float = setting("time for running calls at shutdown, s", default=30.0, least=0)
    object_store_mib: int = setting(
        "shared memory for features in transit, MiB", default=256, least=80
    )
    ray_address: str | None = setting(
        "HOST:PORT of the head of a Ray cluster that replicas run on, or auto for that of this"
        " host; unset: a Ray of this process alone",
        default=None,
    )
    ray_node_ip: str | None = setting(
        "address of this host's Ray node, where several run on it", default=None
    )
    replicas_per_host: int | None = setting(
        "most replicas on one host of a cluster; unset: as its resources allow",
        default=None,
        least=1,
        most=MOST_REPLICAS_PER_HOST,
    )
    gpus_per_replica: float | None = setting(
        "GPUs of a replica, or a fraction of one; unset: 1 with device cuda", default=None, above=0
    )
    host_labels: str | None = setting(
        "KEY=VALUE,... that a Ray node's labels must have for a replica to run there", default=None
    )
    bundle_folders: str | None = setting(
        "folders on the hosts of a cluster that may hold the bundle, or bundles, joined by ':',"
        " beside that of --bundle; VISION_BUNDLE in the environment of a host's Ray node replaces"
        " both",
        default=None,
    )
    keep_replicas: bool = setting(
        "leave the replicas on the cluster when the last front stops; tandem vision-down ends them",
        default=False,
    )

    def __post_init__(self) -> None:
        check(self)
        check_hops(self)
        if self.tower not in ("auto", "torch") and (self.device, self.dtype) != ("cpu", "float32"):
            raise SettingError(
                f"tower is {self.tower!r}, which computes float32 on a cpu; expected auto or torch"
                f" with dtype {self.dtype} on {self.device}"
            )
        if self.replicas == 0 and self.max_replicas is None:
            raise SettingError("replicas is 0 and max_replicas is unset, expected at least 1")
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise SettingError(
                f"max_replicas is {self.max_replicas}, expected at least replicas ({self.replicas})"
            )

        _ = self.labels

    @property
    def labels(self) -> dict[str, str]:
        """`host_labels` by key.

        Raises:
            SettingError: a part of it is not KEY=VALUE.
        """
        parts = [part.partition("=") for part in (self.host_labels or "").split(",") if part]
        for key, _, value in parts:
            if not key or not value:
                raise SettingError(f"host_labels is {self.host_labels!r}, expected KEY=VALUE,...")
        return {key: value for key, _, value in parts}

    @property
    def gpus(self) -> float:
        """GPUs of a replica; 0 where it computes on a CPU."""
        if self.device == "cpu":
            return 0
        return self.gpus_per_replica or 1

    @property
    def most_replicas(self) -> int:
        """Replicas there may ever be at once."""
        return self.max_replicas or self.replicas

    @property
    def longest_tier_wait_s(self) -> float:
        """How long an image waits while no replica runs, seconds."""
        if self.tier_wait_s is not None:
            return self.tier_wait_s
        return 0.5 if self.replicas else 60.0

    def replica_threads(self, cores: int) -> int:
        """Torch threads of one replica on a machine with `cores` cores."""
        on_one_host = self.replicas_per_host or self.most_replicas
        return self.threads or max(1, cores // min(on_one_host, self.most_replicas))

    @property
    def max_image_bytes(self) -> int:
        """`max_image_mib` in bytes."""
        return int(self.max_image_mib * MIB)

    @property
    def max_video_bytes(self) -> int:
        """`max_video_mib` in bytes."""
        return int(self.max_video_mib * MIB)

    @property
    def max_pdf_bytes(self) -> int:
        """`max_pdf_mib` in bytes."""
        return int(self.max_pdf_mib * MIB)

    def replica_settings(self, *, cores: int) -> dict[str, Any]:
        """The fields of `replica.ReplicaSettings` as plain values."""
        return {
            "bundle": os.path.abspath(self.bundle),
            "device": self.device,
            "tower": self.tower,
            "dtype": self.dtype,
            "threads": self.replica_threads(cores),
            "max_batch_patches": self.max_batch_patches,
            "max_queued_patches": self.max_queued_patches,
            "max_image_bytes": self.max_image_bytes,
            "max_image_pixels": self.max_image_pixels,
            "max_image_patches": self.max_image_patches,
        }
