"""Puts the weights that a quantized graph implies into the oracle's model."""

import copy
from pathlib import Path

from deploy.export.comparison.implied import Product, float_product, replace_products
from protos.bundle.manifest import Bundle
from tests.support.oracle import Oracle


def dequantized(reference: Oracle, bundle: Path) -> Oracle:
    """A copy of the oracle whose products use the bundle's quantized weights, in float32.

    Raises:
        ValueError: the graph leaves a product of the language model in floating point.
    """
    return with_products(reference, bundle, float_product)


def with_products(reference: Oracle, bundle: Path, product: Product) -> Oracle:
    """A copy of the oracle with other products in place of the language model's.

    Args:
        reference: The oracle of the bundle's checkpoint.
        bundle: Holds the quantized weights.
        product: Makes one of integers float32 [N, KB, block_size] and scales float32 [N, KB].

    Raises:
        ValueError: the graph leaves a product of the language model in floating point.
    """
    changed = copy.copy(reference)
    changed.model = copy.deepcopy(reference.model)
    replace_products(changed.model, bundle / Bundle.open(bundle).manifest.graph.file, product)
    return changed
