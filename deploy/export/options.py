"""What a user may choose about an export, checked before any work is done."""

from dataclasses import dataclass

from deploy.export.errors import ExportError

PRECISIONS = ("int4", "int8", "fp32", "fp16")
BLOCK_SIZES = (16, 32, 64, 128, 256)
ACCURACY_LEVELS = (0, 1, 4)  # MatMulNBits: 0 and 1 compute in float32, 4 in int8


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """How the decoder graph is written.

    "fp16" stores weights in float16, which ONNX Runtime casts to float32 once, when it loads the
    graph. `block_size` neighbouring weights share one scale and `accuracy_level` is MatMulNBits'
    arithmetic; both count for int4 and int8 only.
    """

    precision: str = "int4"
    block_size: int = 128
    accuracy_level: int = 4
    quality: bool = False  # measure the agreement with the float32 weights (always for tiny models)

    @property
    def bits(self) -> int | None:
        """Bits of a quantized weight; None for floating-point graphs."""
        return {"int4": 4, "int8": 8}.get(self.precision)

    @property
    def allows_kernel_graphs(self) -> bool:
        """Whether Tandem's own operators, which round activations to int8, may stand for it."""
        return self.precision == "int4" and self.accuracy_level == 4

    def check(self) -> None:
        """Refuses values that are none of the choices.

        Raises:
            ExportError: naming the option.
        """
        for name, value, allowed in (
            ("--precision", self.precision, PRECISIONS),
            ("--block-size", self.block_size, BLOCK_SIZES),
            ("--accuracy-level", self.accuracy_level, ACCURACY_LEVELS),
        ):
            if value not in allowed:
                choices = ", ".join(str(choice) for choice in allowed)
                raise ExportError(f"{name} is {value}, expected one of {choices}")
