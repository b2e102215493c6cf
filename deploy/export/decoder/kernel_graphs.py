"""Writes the graphs for Tandem's own operators: the portable graph's integers in another layout.

There is a graph for each type of cache. Both name the same weights in one data file.

Tests: tests/parity/test_kernel_graph.py compares with the same arithmetic in NumPy.
"""

from pathlib import Path

import onnx_ir as ir

from deploy.export.decoder.kernel_attention import convert_attention, set_cache
from deploy.export.decoder.kernel_products import DataFile, convert_products
from deploy.export.progress import Advance
from kernels import layout
from protos.bundle.manifest import TextDims

DATA_NAME = "model.tandem.onnx.data"
KV_DTYPES = ("float16", "float32")

VERSION = 1  # of the operators' domain


def graph_name(kv_dtype: str) -> str:
    """The file of one of the graphs."""
    return f"model.tandem.{kv_dtype}.onnx"


NAMES = (*(graph_name(dtype) for dtype in KV_DTYPES), DATA_NAME)


def fits(text: TextDims) -> bool:
    """Whether the operators compute a model of these shapes; those of real ones they do."""
    grouped = text.num_attention_heads // text.num_key_value_heads
    is_whole = text.head_dim % layout.HEAD_DIM_STEP == 0
    fits_memory = text.head_dim <= layout.MOST_HEAD_DIM
    return is_whole and fits_memory and grouped <= layout.MOST_GROUPED_HEADS


def write(portable: Path, folder: Path, advance: Advance) -> None:
    """Writes the graphs and their data, one product at a time.

    Args:
        portable: The portable graph with INT4 products, its data beside it.
        folder: Where it lies; gets the graphs and the data file.
        advance: Called with bytes written.
    """
    model = ir.load(portable)
    with DataFile(folder / DATA_NAME, advance) as data:
        convert_products(model.graph, data)
    model.opset_imports[layout.DOMAIN] = VERSION
    convert_attention(model.graph)
    model.graph.sort()
    for dtype in KV_DTYPES:
        set_cache(model.graph, dtype)
        ir.save(model, folder / graph_name(dtype))
