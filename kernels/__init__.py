"""Operators in C++ for ONNX Runtime, and the layout of the weights they read."""
