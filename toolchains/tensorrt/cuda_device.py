"""The first NVIDIA GPU of this machine, through CUDA's runtime library."""

from __future__ import annotations

from typing import Any

from cuda.bindings import runtime

from modelbuild.toolkit.request import ToolError


def check(result: tuple[Any, ...]) -> Any:
    """What a call of CUDA returned behind its status. Raises ToolError when it failed."""
    status, *values = result
    if status != runtime.cudaError_t.cudaSuccess:
        raise ToolError(
            f"CUDA says {status.name}",
            "is there an NVIDIA GPU, with a driver that is new enough for the CUDA of the lock?",
        )
    return values[0] if values else None


def gpu_architecture() -> str:
    """Its architecture, `sm_87`. Raises ToolError when there is no GPU."""
    attributes = runtime.cudaDeviceAttr
    names = (attributes.cudaDevAttrComputeCapabilityMajor, attributes.cudaDevAttrComputeCapabilityMinor)
    major, minor = (check(runtime.cudaDeviceGetAttribute(name, 0)) for name in names)
    return f"sm_{major}{minor}"
