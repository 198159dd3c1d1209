"""Capabilities to use as they are, or to copy: models and clients that many people run.

Each class imports its library when it is built, so that a spec can be validated without it; its extra is
named like the module: `pip install 'batchrunner[onnx]'`.
"""
