"""ONNX Runtime operators of Tandem's own, in C++, and what Python has to know of them."""
