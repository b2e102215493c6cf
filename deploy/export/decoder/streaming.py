"""onnxruntime-genai's text builder, fed one layer at a time.

The builder itself loads the whole model and, for quantized graphs, a float32 copy of it. Here its
modules have no weights until their turn comes: a layer is read, its products are quantized at once
or left to be read again when the file is written, and the layer is emptied. Memory then holds the
quantized weights and one layer.
"""

from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from deploy.export import libraries
from deploy.export.checkpoint.checkpoint import LM_HEAD_NAME, TEXT_PREFIX, Checkpoint
from deploy.export.checkpoint.weights import StoredTensor
from deploy.export.decoder import quantization
from deploy.export.errors import ExportError
from deploy.export.options import ExportOptions
from deploy.export.progress import Advance


class Source:
    """Fills modules of a model without weights from a checkpoint."""

    def __init__(self, checkpoint: Checkpoint, advance: Advance) -> None:
        self._checkpoint = checkpoint
        self._advance = advance

    def fill(self, module: torch.nn.Module, prefix: str) -> None:
        """Reads the module's parameters; `prefix` is its name in the checkpoint with a dot."""
        for name, _ in list(module.named_parameters()):
            full = prefix + name
            checkpoint = self._checkpoint
            stored = checkpoint.lm_head if full == LM_HEAD_NAME else checkpoint.tensors[full]
            parameter = torch.nn.Parameter(stored.read(), requires_grad=False)
            parameter.stored = stored  # type: ignore[attr-defined]
            owner, _, leaf = name.rpartition(".")
            setattr(module.get_submodule(owner), leaf, parameter)
            self._advance(stored.size)

    def empty(self, module: torch.nn.Module) -> None:
        """Drops the module's parameters from memory."""
        module.to_empty(device="meta")


def _transposed(name: str, stored: StoredTensor, dtype: ir.DataType) -> ir.Tensor:
    weight = stored.read().T.to(torch.float32).contiguous().numpy()
    if dtype == ir.DataType.FLOAT16 and np.abs(weight).max(initial=0) > np.finfo(np.float16).max:
        raise ExportError(f"{stored.name} has values beyond float16; choose another --precision")
    return ir.Tensor(weight.astype(dtype.numpy(), copy=False), name=name)


def text_model_class() -> Any:
    """The builder's class with weights on demand."""
    base = libraries.text_model_class()

    class StreamingTextModel(base):  # type: ignore[misc, valid-type]
        """Qwen3-VL's text graph; `source`, `skeleton` and `options` are set before make_model."""

        source: Source
        skeleton: Any
        options: ExportOptions

        def load_weights(self, input_path: str) -> Any:
            return self.skeleton

        def make_layer(self, layer_id: int, layer: torch.nn.Module) -> None:
            self.source.fill(layer, f"{TEXT_PREFIX}layers.{layer_id}.")
            super().make_layer(layer_id, layer)
            self.source.empty(layer)

        def make_layernorm(
            self, layer_id: int, layernorm: Any, skip: bool, simple: bool, location: str
        ) -> None:
            if location == "final_norm":
                self.source.fill(layernorm, f"{TEXT_PREFIX}norm.")
            super().make_layernorm(layer_id, layernorm, skip, simple, location)

        def make_lm_head(self, lm_head: torch.nn.Module) -> None:
            self.source.fill(lm_head, LM_HEAD_NAME.removesuffix("weight"))
            super().make_lm_head(lm_head)
            self.source.empty(lm_head)

        def make_matmul_op(self, matmul: Any, basename: str, root_input: str, **kwargs: Any) -> str:
            output = "logits" if kwargs.get("logits", False) else f"{basename}/output_0"
            shape = self.make_hidden_state_shape(
                seq_dim=kwargs.get("seq_dim", "sequence_length"), last_dim=matmul.weight.shape[0]
            )
            name = basename[1:].replace("/", ".") + ".weight"
            if self.options.bits is None:
                self._add_float(name, matmul.weight.stored)
                self.make_node("MatMul", inputs=[root_input, name], outputs=[output], name=basename)
            else:
                self._add_quantized(basename, name, matmul.weight, root_input, output)
            self.make_value(output, self.io_dtype, shape=shape)
            return basename

        def _add_float(self, name: str, stored: StoredTensor) -> None:
            """Adds a [K, N] weight that is read again when the file is written."""
            half = self.options.precision == "fp16"
            dtype = ir.DataType.FLOAT16 if half else ir.DataType.FLOAT
            shape = ir.Shape(stored.shape[::-1])
            constant = f"{name}_fp16" if half else name
            value = self.make_value(constant, dtype, shape)
            value.const_value = ir.LazyTensor(
                lambda: _transposed(constant, stored, dtype),
                dtype=dtype,
                shape=shape,
                name=constant,
            )
            self.model.graph.register_initializer(value)
            if half:  # the graph computes in float32; ONNX Runtime folds the cast while loading
                self.make_node(
                    "Cast", inputs=[constant], outputs=[name], name=f"{name}/Cast", to=self.io_dtype
                )
                self.make_value(name, self.io_dtype, shape)

        def _add_quantized(
            self, basename: str, name: str, weight: torch.Tensor, root_input: str, output: str
        ) -> None:
            bits, block_size = self.options.bits or 0, self.options.block_size
            quantized = quantization.quantize(weight, bits=bits, block_size=block_size)
            self.make_initializer(quantized.packed, f"{name}_Q{bits}")
            self.make_initializer(quantized.scales, f"{name}_scales")
            level = self.options.accuracy_level
            self.make_node(
                "MatMulNBits",
                inputs=[root_input, f"{name}_Q{bits}", f"{name}_scales"],
                outputs=[output],
                name=basename,
                domain="com.microsoft",
                K=quantized.rows,
                N=quantized.columns,
                bits=bits,
                block_size=block_size,
                **({"accuracy_level": level} if level else {}),
            )

    return StreamingTextModel
