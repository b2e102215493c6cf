"""The vision tower as ONNX graphs: a portable one, and two for Tandem's own operators."""
