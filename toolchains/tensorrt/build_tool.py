"""Builds a TensorRT engine of a typed ONNX graph, on the GPU that it is for."""

from __future__ import annotations

import tensorrt
from cuda_device import gpu_architecture

from modelbuild.toolkit.progress import report
from modelbuild.toolkit.request import Request, ToolError

_WORKSPACE_BYTES = 1 << 30


class _Log(tensorrt.ILogger):  # type: ignore[misc]
    """Keeps what TensorRT complains of."""

    def __init__(self) -> None:
        super().__init__()
        self.complaints: list[str] = []

    def log(self, severity: tensorrt.ILogger.Severity, msg: str) -> None:
        if severity in (tensorrt.ILogger.Severity.ERROR, tensorrt.ILogger.Severity.INTERNAL_ERROR):
            self.complaints.append(msg)


def main(request: Request) -> None:
    """Inputs: onnx (typed). Outputs: engine. Params: gpu_architecture, tensorrt (its version)."""
    params = request.params
    if tensorrt.__version__ != params["tensorrt"]:
        raise ToolError(f"the environment has TensorRT {tensorrt.__version__}, and not {params['tensorrt']}")
    found = gpu_architecture()
    if found != params["gpu_architecture"]:
        raise ToolError(
            f"the engine is to be for {params['gpu_architecture']}, and the GPU of this machine is {found}",
            "an engine is built on the GPU it is for; set `gpu_architecture`, or build on the device",
        )
    report(0, 1, unit="engines")
    log = _Log()
    builder = tensorrt.Builder(log)
    # Before TensorRT 11 types are heeded when that is asked for; since then always.
    flags = 1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = tensorrt.OnnxParser(network, log)
    if not parser.parse((request.inputs["onnx"] / "model.onnx").read_bytes()):
        problems = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise ToolError(f"TensorRT does not take the ONNX graph: {problems}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, _WORKSPACE_BYTES)
    config.clear_flag(tensorrt.BuilderFlag.TF32)  # It would shorten float32 to 10 bits, and says nothing.
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ToolError(f"TensorRT built no engine: {'; '.join(log.complaints[:5])}")
    request.outputs["engine"].write_bytes(memoryview(engine))
    report(1, 1, unit="engines")
