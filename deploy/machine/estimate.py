"""The speed to expect of a bundle on this machine.

A token is decoded by reading the weights once; prompts and images are multiplied. What the
operators reach of a rate that NumPy measured depends on the instruction set; the shares below are
of the runs in tests/bench/results (towers.md) and DECISIONS 55 and 56; that of INT4 products with
AVX-512 lies between a Xeon's, which reached less, and an EPYC's, which reached more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deploy.machine.rates import Rates
from protos.bundle.manifest import DecoderGraph, Manifest

READ_SHARE = 0.85  # of the bandwidth that products of one row reach
STEP_S, LAYER_S = 1e-3, 15e-6  # of a token beside its weights: the step, and each layer's nodes
IMAGE_S = 0.15  # of an image beside its tower: decoding, resizing, the way there and back
WIDTH, HEIGHT = 1024, 768  # of the image whose time is told


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Multiplications a second, as multiples of NumPy's float32 product.

    Attributes:
        int4: The decoder's products of many rows.
        fast: The INT8 tower's, `fast_attention` its attention.
        exact: The float32 tower's, attention included.
    """

    int4: float
    fast: float
    fast_attention: float
    exact: float


# What computes, by instruction set; "": ONNX Runtime's kernels, and torch for the tower.
SHARES: Mapping[str, Shares] = {
    "amx": Shares(int4=2.0, fast=2.8, fast_attention=1.4, exact=1.2),
    "avx512": Shares(int4=2.0, fast=2.0, fast_attention=0.8, exact=0.8),
    "avxvnni": Shares(int4=1.7, fast=1.8, fast_attention=0.7, exact=0.75),
    "avx2": Shares(int4=1.5, fast=1.2, fast_attention=0.7, exact=0.75),
    "": Shares(int4=1.0, fast=0.8, fast_attention=0.8, exact=0.8),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What one request alone may expect, while nothing else runs."""

    decode_tokens_per_s: float
    prompt_tokens_per_s: float
    image_s: float


def speed(
    manifest: Manifest,
    graph: DecoderGraph,
    tower: Mapping[str, Any],
    *,
    form: str,
    instruction_set: str,
    rates: Rates,
) -> Speed:
    """Estimates; each may be off by a factor of two.

    Args:
        manifest: The bundle's.
        graph: The graph its decoder would run.
        tower: The tower's config.json.
        form: The tower's form, as `forms.chosen_form` says.
        instruction_set: A key of `SHARES`.
        rates: Of this machine.
    """
    shares = SHARES[instruction_set]
    layers = manifest.text.num_hidden_layers
    reading = graph.weight_bytes / (rates.read_bytes_per_s * READ_SHARE)
    int4 = shares.int4 if graph.precision == "int4" else 1.0
    prompt = prompt_products(manifest, graph) / (rates.products_per_s * int4)
    products, attention = image_products(tower)
    if form == "fast":
        rate, attending = shares.fast, shares.fast_attention
    else:
        rate = attending = shares.exact
    return Speed(
        decode_tokens_per_s=1 / (reading + STEP_S + layers * LAYER_S),
        prompt_tokens_per_s=1 / prompt,
        image_s=IMAGE_S + (products / rate + attention / attending) / rates.products_per_s,
    )


def prompt_products(manifest: Manifest, graph: DecoderGraph) -> float:
    """Multiplications of one prompt token: a weight each, but for those of the logits."""
    bits = {"fp32": 32, "fp16": 16, "int8": 8, "int4": 4}[graph.precision]
    scale = 32 / graph.block_size if graph.block_size and bits < 16 else 0
    weights = graph.weight_bytes * 8 / (bits + scale)
    logits = manifest.text.vocab_size * manifest.text.hidden_size
    return max(weights - logits, weights / 10)


def image_products(tower: Mapping[str, Any]) -> tuple[float, float]:
    """Multiplications of one image of `WIDTH` x `HEIGHT`: of products, and of attention."""
    side = int(tower["patch_size"])
    patches = (WIDTH // side) * (HEIGHT // side)
    depth, width = int(tower["depth"]), int(tower["hidden_size"])
    inner = int(tower["intermediate_size"])
    products = patches * depth * (4 * width * width + 2 * width * inner)
    return float(products), float(depth * 2 * patches * patches * width)


def rounded(value: float) -> str:
    """One digit that says something, two where the first is a 1: no more is known."""
    if value <= 0:
        return "0"
    digits = 2 if f"{value:e}".startswith("1") else 1
    shown = float(f"{value:.{digits}g}")
    return f"{shown:,.0f}" if shown >= 10 else f"{shown:g}"
