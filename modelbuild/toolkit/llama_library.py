"""llama.cpp's library, found and declared. Needs xllamacpp.

It is the one inside the `xllamacpp` wheel, called with ctypes. Two structures cross by value; their layout is
checked against llama.cpp's documented defaults before the first call, so that another version is an error and
never a wrong field. Reference: include/llama.h of llama.cpp.
"""

from __future__ import annotations

import ctypes
import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelbuild.toolkit.request import ToolError

_F16 = 1
_LOG_ERROR = 4
_Log = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


class _ModelParams(ctypes.Structure):
    """`struct llama_model_params` as far as it is set here; the rest keeps llama.cpp's defaults."""

    _fields_ = (
        ("devices", ctypes.c_void_p),
        ("tensor_buft_overrides", ctypes.c_void_p),
        ("n_gpu_layers", ctypes.c_int32),
        ("split_mode", ctypes.c_int32),
        ("reserved", ctypes.c_uint8 * 48),
        ("vocab_only", ctypes.c_bool),
        ("check_tensors", ctypes.c_bool),
        ("use_extra_bufts", ctypes.c_bool),
        ("no_host", ctypes.c_bool),
        ("no_alloc", ctypes.c_bool),
        ("load_mtp", ctypes.c_bool),
    )


class _ContextParams(ctypes.Structure):
    """`struct llama_context_params`, likewise."""

    _fields_ = (
        ("n_ctx", ctypes.c_uint32),
        ("n_batch", ctypes.c_uint32),
        ("n_ubatch", ctypes.c_uint32),
        ("n_seq_max", ctypes.c_uint32),
        ("n_rs_seq", ctypes.c_uint32),
        ("n_outputs_max", ctypes.c_uint32),
        ("n_outputs_max_per_seq", ctypes.c_uint32),
        ("n_threads", ctypes.c_int32),
        ("n_threads_batch", ctypes.c_int32),
        ("ctx_type", ctypes.c_int32),
        ("rope_scaling_type", ctypes.c_int32),
        ("pooling_type", ctypes.c_int32),
        ("attention_type", ctypes.c_int32),
        ("flash_attn_type", ctypes.c_int32),
        ("rope_and_yarn", ctypes.c_uint8 * 32),
        ("cb_eval", ctypes.c_void_p),
        ("cb_eval_user_data", ctypes.c_void_p),
        ("type_k", ctypes.c_int32),
        ("type_v", ctypes.c_int32),
        ("reserved", ctypes.c_uint8 * 24),
        ("embeddings", ctypes.c_bool),
        ("offload_kqv", ctypes.c_bool),
        ("no_perf", ctypes.c_bool),
        ("op_offload", ctypes.c_bool),
        ("swa_full", ctypes.c_bool),
        ("kv_unified", ctypes.c_bool),
        ("samplers", ctypes.c_void_p),
        ("n_samplers", ctypes.c_size_t),
        ("ctx_other", ctypes.c_void_p),
    )


class Batch(ctypes.Structure):
    """`struct llama_batch`."""

    _fields_ = (
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    )


@dataclass
class LlamaLibrary:
    """The loaded library and what it last complained about."""

    functions: ctypes.CDLL
    errors: list[str] = field(default_factory=list)
    callback: Any = None

    def complaint(self) -> str:
        """What it said last, for an error."""
        return "; ".join(self.errors[-3:]) or "no reason given"


_loaded: list[LlamaLibrary] = []


def llama_library() -> LlamaLibrary:
    """Load the library once. Raises ToolError when it is not there, or has other structures."""
    if _loaded:
        return _loaded[0]
    spec = importlib.util.find_spec("xllamacpp")
    if spec is None or not spec.submodule_search_locations:
        raise ToolError("`xllamacpp` is not installed", "it is part of the extra `modelbuild[models]`")
    found = sorted(Path(spec.submodule_search_locations[0]).glob("xllamacpp*.so"))
    if not found:
        raise ToolError("`xllamacpp` holds no shared library")
    lib = ctypes.CDLL(str(found[0]))
    pointer = ctypes.c_void_p
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "llama_backend_init": (None, []),
        "llama_log_set": (None, [_Log, pointer]),
        "llama_model_default_params": (_ModelParams, []),
        "llama_context_default_params": (_ContextParams, []),
        "llama_model_load_from_file": (pointer, [ctypes.c_char_p, _ModelParams]),
        "llama_model_free": (None, [pointer]),
        "llama_model_get_vocab": (pointer, [pointer]),
        "llama_model_n_ctx_train": (ctypes.c_int32, [pointer]),
        "llama_model_meta_val_str": (
            ctypes.c_int32,
            [pointer, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t],
        ),
        "llama_init_from_model": (pointer, [pointer, _ContextParams]),
        "llama_free": (None, [pointer]),
        "llama_get_memory": (pointer, [pointer]),
        "llama_memory_clear": (None, [pointer, ctypes.c_bool]),
        "llama_memory_seq_rm": (ctypes.c_bool, [pointer, ctypes.c_int32, ctypes.c_int32, ctypes.c_int32]),
        "llama_decode": (ctypes.c_int32, [pointer, Batch]),
        "llama_get_logits": (ctypes.POINTER(ctypes.c_float), [pointer]),
        "llama_vocab_n_tokens": (ctypes.c_int32, [pointer]),
        "llama_vocab_bos": (ctypes.c_int32, [pointer]),
        "llama_vocab_eos": (ctypes.c_int32, [pointer]),
        "llama_tokenize": (
            ctypes.c_int32,
            [
                pointer,
                ctypes.c_char_p,
                ctypes.c_int32,
                ctypes.POINTER(ctypes.c_int32),
                ctypes.c_int32,
                ctypes.c_bool,
                ctypes.c_bool,
            ],
        ),
        "llama_token_to_piece": (
            ctypes.c_int32,
            [pointer, ctypes.c_int32, ctypes.c_char_p, ctypes.c_int32, ctypes.c_int32, ctypes.c_bool],
        ),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    library = LlamaLibrary(lib)

    def log(level: int, text: bytes | None, _user: object) -> None:
        if level == _LOG_ERROR and text:
            library.errors.append(text.decode(errors="replace").strip())

    library.callback = _Log(log)
    lib.llama_log_set(library.callback, None)
    _check_layout(lib)
    lib.llama_backend_init()
    _loaded.append(library)
    return library


def _check_layout(lib: ctypes.CDLL) -> None:
    model = lib.llama_model_default_params()
    context = lib.llama_context_default_params()
    seen = {
        "n_gpu_layers": model.n_gpu_layers,
        "vocab_only": model.vocab_only,
        "use_extra_bufts": model.use_extra_bufts,
        "n_ctx": context.n_ctx,
        "n_batch": context.n_batch,
        "n_ubatch": context.n_ubatch,
        "n_seq_max": context.n_seq_max,
        "n_threads": context.n_threads,
        "flash_attn_type": context.flash_attn_type,
        "type_k": context.type_k,
        "type_v": context.type_v,
        "offload_kqv": context.offload_kqv,
        "kv_unified": context.kv_unified,
    }
    expected = {
        "n_gpu_layers": -1,
        "vocab_only": False,
        "use_extra_bufts": True,
        "n_ctx": 512,
        "n_batch": 2048,
        "n_ubatch": 512,
        "n_seq_max": 1,
        "n_threads": 4,
        "flash_attn_type": -1,
        "type_k": _F16,
        "type_v": _F16,
        "offload_kqv": True,
        "kv_unified": False,
    }
    if seen != expected:
        wrong = ", ".join(f"{name} is {seen[name]}" for name in seen if seen[name] != expected[name])
        raise ToolError(
            f"this version of llama.cpp has other structures than the ones known here ({wrong})",
            "install the version of `xllamacpp` in requirements.lock",
        )
