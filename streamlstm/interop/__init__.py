"""Weights from other frameworks, and to ONNX."""
