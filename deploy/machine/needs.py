"""Memory that serving a bundle takes, by what takes it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deploy.machine.forms import TOWER_FILES
from protos.bundle.manifest import DecoderGraph, Manifest

MIB = 1024**2
# Of the processes themselves, measured by `tandem bench` on the demonstration model (PSS), with
# room: three services and Ray's processes; with torch in the replica, its libraries too.
SERVICES_BYTES = 640 * MIB
TORCH_BYTES = 400 * MIB
LEAST_CONTEXT = 4096  # tokens of KV without which an image question hardly fits
IMAGE_PATCHES = 5120  # of the largest image at the gateway's default of 1280 tokens
KV_BYTES = {"float32": 4, "float16": 2}
ROW_COPIES = 6  # buffers as wide as the tower's inner layer that a pass holds at once


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeed:
    """Bytes; weights are mapped, so several decoders or replicas of a host share them.

    Attributes:
        weights: The decoder's graph and embedding table.
        tower: The tower's weights.
        activations: Of one image in the tower.
        least_kv: Keys and values of the shortest useful context.
        services: The processes themselves.
        kv_token: Keys and values of one token.
    """

    weights: int
    tower: int
    activations: int
    least_kv: int
    services: int
    kv_token: int

    @property
    def total(self) -> int:
        """The least that serving takes."""
        return self.weights + self.tower + self.activations + self.least_kv + self.services

    def kv_tokens(self, free: int) -> int:
        """Tokens the KV cache would hold: half of what is free beside the decoder's weights,
        as its default is, and no more than what the rest leaves.

        Args:
            free: Bytes.
        """
        share = (free - self.weights) // 2
        left = free - self.total + self.least_kv
        return max(0, min(share, left) // self.kv_token)


def memory_need(
    manifest: Manifest, graph: DecoderGraph, tower: Mapping[str, Any], *, form: str
) -> MemoryNeed:
    """What the manifest says of sizes, without opening a graph.

    Args:
        manifest: The bundle's.
        graph: The graph its decoder would run.
        tower: The tower's config.json.
        form: The tower's form.
    """
    text, files = manifest.text, manifest.files
    heads = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim
    token = heads * KV_BYTES[graph.kv_dtype]
    # ONNX Runtime packs its INT4 weights anew when it loads them.
    copies = 1 if graph.kernels == "tandem" else 2
    weights = copies * graph.weight_bytes + files[manifest.embedding_table.file].size
    tower_bytes = sum(files[name].size for name in TOWER_FILES[form] if name in files)
    torch = form == "torch"
    inner = int(tower["intermediate_size"])
    context = min(LEAST_CONTEXT, text.max_position_embeddings)
    return MemoryNeed(
        weights=weights,
        tower=2 * tower_bytes if torch else tower_bytes,  # bfloat16 there, float32 in memory
        activations=IMAGE_PATCHES * inner * 4 * ROW_COPIES,
        least_kv=context * token,
        services=SERVICES_BYTES + (TORCH_BYTES if torch else 0),
        kv_token=token,
    )
