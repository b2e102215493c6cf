"""Writes a text checkpoint as onnxruntime-genai's INT4 model; runs in that peer's environment.

    python -m tests.bench.peers.to_genai CHECKPOINT FOLDER BLOCK

Its own builder quantizes a float32 copy of the whole graph at the end: 28 GB for the 4B shape.
Here each product is quantized as it is added, by the same kernel under the same names.
"""

import functools
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai.models  # noqa: F401 (puts its folder on sys.path, for its own imports)
import torch
from onnxruntime.capi import _pybind_state as kernels

COLUMNS = 16384  # quantized together; bounds the float32 copy


def main() -> None:
    """Runs the builder's own command with the two functions replaced."""
    checkpoint, target, block = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    cache = target.with_name(f"{target.name}.cache")
    from builders import base  # type: ignore[import-not-found]

    base.Model.make_matmul_nbits = functools.partialmethod(_add_quantized, block)
    base.Model.to_nbits = lambda self: self.model
    command = ["builder", "-i", checkpoint, "-o", str(target), "-p", "int4", "-e", "cpu"]
    sys.argv = [*command, "-c", str(cache), "--extra_options", f"block_size={block}"]
    runpy.run_module("onnxruntime_genai.models.builder", run_name="__main__")
    shutil.rmtree(cache, ignore_errors=True)


def _add_quantized(
    builder: Any, block: int, matmul: Any, name: str, root_input: str, **options: Any
) -> str:
    packed, scales = _quantize(matmul.weight, block)
    columns, rows = matmul.weight.shape
    weight = name[1:].replace("/", ".") + ".weight"
    builder.make_initializer(packed, f"{weight}_Q4")
    builder.make_initializer(scales, f"{weight}_scales")
    output = "logits" if options.get("logits", False) else f"{name}/output_0"
    builder.make_node(
        "MatMulNBits",
        inputs=[root_input, f"{weight}_Q4", f"{weight}_scales"],
        outputs=[output],
        name=name,
        domain="com.microsoft",
        K=rows,
        N=columns,
        bits=4,
        block_size=block,
        accuracy_level=builder.quant_attrs["accuracy_level"],
    )
    shape = builder.make_hidden_state_shape(
        seq_dim=options.get("seq_dim", "sequence_length"), last_dim=columns
    )
    builder.make_value(output, builder.io_dtype, shape=shape)
    if not options.get("logits", False):  # the head shares its memory with the embeddings
        matmul.weight = torch.nn.Parameter(torch.empty(0), requires_grad=False)
    return name


def _quantize(weight: torch.Tensor, block: int) -> tuple[Any, Any]:
    columns, rows = weight.shape
    blocks = rows // block
    packed = np.zeros((columns, blocks, block // 2), np.uint8)
    scales = np.zeros((columns, blocks), np.float32)
    unused = np.zeros((columns, -(-blocks // 2)), np.uint8)  # zero points: none when symmetric
    for first in range(0, columns, COLUMNS):
        last = min(first + COLUMNS, columns)
        part = np.ascontiguousarray(weight[first:last].T.to(torch.float32).numpy())
        kernels.quantize_matmul_4bits(
            packed[first:last], part, scales[first:last], unused[first:last], block,
            last - first, rows, True,
        )  # fmt: skip
    return packed, scales


if __name__ == "__main__":
    main()
