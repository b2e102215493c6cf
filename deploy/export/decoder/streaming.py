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
from deploy.export.checkpoint.checkpoint import Checkpoint
from deploy.export.checkpoint.weights import StoredTensor
from deploy.export.decoder import quantization, rotary_tables
from deploy.export.errors import ExportError
from deploy.export.families.family import Family
from deploy.export.options import ExportOptions
from deploy.export.progress import Advance


class Source:
    """Fills modules of a model without weights from a checkpoint."""

    def __init__(self, checkpoint: Checkpoint, advance: Advance) -> None:
        self._checkpoint = checkpoint
        self._advance = advance

    def fill(self, module: torch.nn.Module, prefix: str) -> None:
        """Reads the module's parameters; `prefix` is its name in the checkpoint with a dot."""
        checkpoint = self._checkpoint
        for name, _ in list(module.named_parameters()):
            full = prefix + name
            is_head = full == checkpoint.family.tensors.lm_head
            stored = checkpoint.lm_head if is_head else checkpoint.tensors[full]
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


class Products:
    """Adds the language model's products to a builder's graph, as the options say."""

    def __init__(self, options: ExportOptions) -> None:
        self._options = options

    def add(self, builder: Any, name: str, weight: torch.Tensor, source: str, output: str) -> None:
        """Multiplies `source` with a weight.

        Args:
            builder: The builder whose graph grows.
            name: The product's, such as "/model/layers.0/mlp/up_proj/MatMul".
            weight: [N, K], with the `stored` tensor that `Source.fill` read it from.
            source: Name of the value [B, S, K].
            output: Name of the value [B, S, N] to make.
        """
        constant = name[1:].replace("/", ".") + ".weight"
        if self._options.bits is None:
            self._add_float(builder, constant, weight.stored)  # type: ignore[attr-defined]
            builder.make_node("MatMul", inputs=[source, constant], outputs=[output], name=name)
        else:
            self._add_quantized(builder, name, constant, weight, source, output)

    def _add_float(self, builder: Any, name: str, stored: StoredTensor) -> None:
        """Adds a [K, N] weight that is read again when the file is written."""
        half = self._options.precision == "fp16"
        dtype = ir.DataType.FLOAT16 if half else ir.DataType.FLOAT
        shape = ir.Shape(stored.shape[::-1])
        constant = f"{name}_fp16" if half else name
        value = builder.make_value(constant, dtype, shape)
        value.const_value = ir.LazyTensor(
            lambda: _transposed(constant, stored, dtype), dtype=dtype, shape=shape, name=constant
        )
        builder.model.graph.register_initializer(value)
        if half:  # the graph computes in float32; ONNX Runtime folds the cast while loading
            builder.make_node(
                "Cast", inputs=[constant], outputs=[name], name=f"{name}/Cast", to=builder.io_dtype
            )
            builder.make_value(name, builder.io_dtype, shape)

    def _add_quantized(
        self,
        builder: Any,
        name: str,
        constant: str,
        weight: torch.Tensor,
        source: str,
        output: str,
    ) -> None:
        bits, block_size = self._options.bits or 0, self._options.block_size
        quantized = quantization.quantize(weight, bits=bits, block_size=block_size)
        builder.make_initializer(quantized.packed, f"{constant}_Q{bits}")
        builder.make_initializer(quantized.scales, f"{constant}_scales")
        level = self._options.accuracy_level
        builder.make_node(
            "MatMulNBits",
            inputs=[source, f"{constant}_Q{bits}", f"{constant}_scales"],
            outputs=[output],
            name=name,
            domain="com.microsoft",
            K=quantized.rows,
            N=quantized.columns,
            bits=bits,
            block_size=block_size,
            **({"accuracy_level": level} if level else {}),
        )


def streaming_class(family: Family) -> Any:
    """The family's builder with weights on demand.

    A class in a function: its base is known only here, and takes seconds to import.
    """
    base, names = libraries.builder_class(family), family.tensors

    class StreamingModel(base):  # type: ignore[misc, valid-type]
        """`source`, `skeleton` and `products` are set before make_model."""

        source: Source
        skeleton: Any
        products: Products

        def load_weights(self, input_path: str) -> Any:
            return self.skeleton

        def make_rotary_embedding_caches_from_scratch(self) -> rotary_tables.Tables:
            make = super().make_rotary_embedding_caches_from_scratch
            return rotary_tables.checked(make, self.rope_attrs["mscale"])

        def make_layer(self, layer_id: int, layer: torch.nn.Module) -> None:
            self.source.fill(layer, f"{names.text}layers.{layer_id}.")
            super().make_layer(layer_id, layer)
            self.source.empty(layer)

        def make_layernorm(
            self, layer_id: int, layernorm: Any, skip: bool, simple: bool, location: str
        ) -> None:
            if location == "final_norm":
                self.source.fill(layernorm, f"{names.text}norm.")
            super().make_layernorm(layer_id, layernorm, skip, simple, location)

        def make_lm_head(self, lm_head: torch.nn.Module) -> None:
            self.source.fill(lm_head, names.lm_head.removesuffix("weight"))
            super().make_lm_head(lm_head)
            self.source.empty(lm_head)

        def make_matmul_op(self, matmul: Any, basename: str, root_input: str, **kwargs: Any) -> str:
            output = "logits" if kwargs.get("logits", False) else f"{basename}/output_0"
            shape = self.make_hidden_state_shape(
                seq_dim=kwargs.get("seq_dim", "sequence_length"), last_dim=matmul.weight.shape[0]
            )
            self.products.add(self, basename, matmul.weight, root_input, output)
            self.make_value(output, self.io_dtype, shape=shape)
            return basename

    return StreamingModel
