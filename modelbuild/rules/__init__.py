"""The built-in rules. Each is imported when a BUILD file first calls it."""

from __future__ import annotations

BUILTIN_RULES: dict[str, str] = {
    "alias": "modelbuild.rules.native.alias:Alias",
    "artifact_matrix": "modelbuild.rules.matrix.rule:ArtifactMatrix",
    "config_setting": "modelbuild.rules.native.constraint:ConfigSetting",
    "constraint_setting": "modelbuild.rules.native.constraint:ConstraintSetting",
    "constraint_value": "modelbuild.rules.native.constraint:ConstraintValue",
    "dataset": "modelbuild.rules.dataset.rule:Dataset",
    "device_binary": "modelbuild.rules.device_binary.rule:DeviceBinary",
    "device_runner": "modelbuild.rules.device.runner:DeviceRunner",
    "distill": "modelbuild.rules.distill.rule:Distill",
    "evaluate": "modelbuild.rules.evaluate.rule:Evaluate",
    "filegroup": "modelbuild.rules.native.filegroup:Filegroup",
    "genrule": "modelbuild.rules.native.genrule:Genrule",
    "gguf": "modelbuild.rules.gguf.rule:Gguf",
    "host_platform": "modelbuild.rules.native.platform:HostPlatform",
    "latency_test": "modelbuild.rules.device.parity:LatencyTest",
    "onnx": "modelbuild.rules.onnx.rule:Onnx",
    "parity_test": "modelbuild.rules.device.parity:ParityTest",
    "platform": "modelbuild.rules.native.platform:Platform",
    "probes": "modelbuild.rules.device.rule:Probes",
    "prune": "modelbuild.rules.prune.rule:Prune",
    "python_stdlib": "modelbuild.rules.python_stdlib.rule:PythonStdlib",
    "quality_gate_test": "modelbuild.rules.evaluate.rule:QualityGateTest",
    "quality_table": "modelbuild.rules.evaluate.rule:QualityTable",
    "quantize": "modelbuild.rules.quantize.rule:Quantize",
    "reference_logits": "modelbuild.rules.device.rule:ReferenceLogits",
    "release_candidate": "modelbuild.rules.matrix.candidate:ReleaseCandidate",
    "teacher_logits": "modelbuild.rules.distill.rule:TeacherLogits",
    "test_suite": "modelbuild.rules.native.test_suite:TestSuite",
    "tokenizer": "modelbuild.rules.tokenizer.rule:Tokenizer",
    "toolchain": "modelbuild.rules.native.toolchain:Toolchain",
    "toolchain_type": "modelbuild.rules.native.toolchain:ToolchainType",
    "train": "modelbuild.rules.train.rule:Train",
}
"""Rule name -> `module:class`."""
