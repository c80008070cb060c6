"""llama.cpp through its C API: tokens, full logits and greedy answers. Needs xllamacpp and numpy.

The library is the one inside the `xllamacpp` wheel, called with ctypes. Two structures cross by value; their
layout is checked against llama.cpp's documented defaults before the first call, so that another version is an
error and never a wrong field. The KV cache is F32 and flash attention is off: with float weights the logits
then equal torch's to about 4e-7. Reference: include/llama.h of llama.cpp.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from modelbuild.toolkit.request import ToolError

_F32 = 0
_F16 = 1
_LOG_ERROR = 4
_FLASH_ATTENTION_OFF = 0
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


class _Batch(ctypes.Structure):
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
class _Library:
    """The loaded library and what it last complained about."""

    functions: ctypes.CDLL
    errors: list[str] = field(default_factory=list)
    callback: Any = None


_loaded: list[_Library] = []


def _library() -> _Library:
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
        "llama_decode": (ctypes.c_int32, [pointer, _Batch]),
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
    library = _Library(lib)

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


class LlamaCpp:
    """A GGUF model in llama.cpp, with room for `sequences` texts of up to `length` tokens at a time.

    Results depend on `threads` and `sequences` only through the order of floating-point sums.
    """

    def __init__(self, path: Path, *, threads: int, sequences: int = 32, length: int = 0) -> None:
        library = _library()
        self._library, self._lib = library, library.functions
        library.errors.clear()
        model_params = self._lib.llama_model_default_params()
        model_params.n_gpu_layers = 0
        self._model = self._lib.llama_model_load_from_file(str(path).encode(), model_params)
        if not self._model:
            raise ToolError(f"llama.cpp cannot load `{path.name}`: {self._complaint()}")
        self._vocab = self._lib.llama_model_get_vocab(self._model)
        self.vocab_size: int = self._lib.llama_vocab_n_tokens(self._vocab)
        self.bos: int = self._lib.llama_vocab_bos(self._vocab)
        self.eos: int = self._lib.llama_vocab_eos(self._vocab)
        trained: int = self._lib.llama_model_n_ctx_train(self._model)
        self.length = min(length or trained, trained)
        self.sequences = sequences
        self._batch_size = 512
        params = self._lib.llama_context_default_params()
        params.n_ctx = self.length * sequences
        params.n_batch = params.n_ubatch = self._batch_size
        params.n_seq_max = sequences
        params.n_outputs_max = params.n_outputs_max_per_seq = self._batch_size
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = _FLASH_ATTENTION_OFF
        params.type_k = params.type_v = _F32
        self._context = self._lib.llama_init_from_model(self._model, params)
        if not self._context:
            self._lib.llama_model_free(self._model)
            raise ToolError(f"llama.cpp cannot make a context for `{path.name}`: {self._complaint()}")
        self._memory = self._lib.llama_get_memory(self._context)

    def close(self) -> None:
        """Free the model; nothing may be called afterwards."""
        self._lib.llama_free(self._context)
        self._lib.llama_model_free(self._model)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def metadata(self, key: str) -> str | None:
        """The value of a key of the file as text, None when it is not there."""
        value = ctypes.create_string_buffer(4096)
        length = self._lib.llama_model_meta_val_str(self._model, key.encode(), value, len(value))
        return None if length < 0 else value.value.decode()

    def prompt(self, text: str) -> list[int]:
        """What the model reads before it answers `text`: `<bos> text suffix`."""
        suffix = self.metadata("modelbuild.prompt_suffix")
        return [self.bos, *self.tokenize(text + ("\n" if suffix is None else suffix))]

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """The tokens of `text`, without BOS. special: whether `<eos>` in the text is the control token."""
        data = text.encode()
        room = len(data) + 8
        tokens = (ctypes.c_int32 * room)()
        count = self._lib.llama_tokenize(self._vocab, data, len(data), tokens, room, False, special)
        if count < 0:
            raise ToolError(f"llama.cpp cannot tokenize {text[:40]!r}")
        return list(tokens[:count])

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`; control tokens give nothing, bytes that are not UTF-8 give U+FFFD."""
        return b"".join(map(self.piece, tokens)).decode(errors="replace")

    def piece(self, token: int) -> bytes:
        """The bytes of one token; none for a control token."""
        piece = ctypes.create_string_buffer(512)
        count = self._lib.llama_token_to_piece(self._vocab, token, piece, len(piece), 0, False)
        return piece.raw[: max(count, 0)]

    def logits(self, texts: Sequence[Sequence[int]]) -> list[npt.NDArray[np.float32]]:
        """For each text the logits after each of its tokens, [tokens, vocabulary]."""
        results: list[npt.NDArray[np.float32]] = []
        for start in range(0, len(texts), self.sequences):
            self._lib.llama_memory_clear(self._memory, True)
            group = texts[start : start + self.sequences]
            results += self._feed(dict(enumerate(group)), dict.fromkeys(range(len(group)), 0), every=True)
        return results

    def generate(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
        """Greedy continuations, without the end token. A text that fills its context stops there."""
        answers: list[list[int]] = [[] for _ in prompts]
        for start in range(0, len(prompts), self.sequences):
            self._generate_group(prompts[start : start + self.sequences], answers[start:], max_tokens)
        return answers

    def _generate_group(
        self, prompts: Sequence[Sequence[int]], answers: list[list[int]], max_tokens: int
    ) -> None:
        self._lib.llama_memory_clear(self._memory, True)
        pending = {slot: list(prompt) for slot, prompt in enumerate(prompts)}
        positions = dict.fromkeys(pending, 0)
        while pending:
            rows = self._feed(pending, positions, every=False)
            following: dict[int, list[int]] = {}
            for (slot, fed), row in zip(pending.items(), rows, strict=True):
                positions[slot] += len(fed)
                token = int(row[0].argmax())
                if token == self.eos:
                    continue
                answers[slot].append(token)
                if len(answers[slot]) < max_tokens and positions[slot] + 1 < self.length:
                    following[slot] = [token]
            pending = following

    def _feed(
        self, texts: dict[int, Any], positions: dict[int, int], *, every: bool
    ) -> list[npt.NDArray[np.float32]]:
        """Decode `texts` (sequence -> tokens) from `positions` on; logits of every token, or of the last."""
        flat: list[tuple[int, int, int, bool]] = []
        for slot, tokens in texts.items():
            if not tokens or positions[slot] + len(tokens) > self.length:
                raise ToolError(
                    f"a text of {len(tokens)} tokens does not fit in a context of {self.length}",
                    "use a longer `max_position_embeddings`, or drop texts that long",
                )
            last = len(tokens) - 1
            flat += [(slot, positions[slot] + i, t, every or i == last) for i, t in enumerate(tokens)]
        out: dict[int, list[npt.NDArray[np.float32]]] = {slot: [] for slot in texts}
        for start in range(0, len(flat), self._batch_size):
            part = flat[start : start + self._batch_size]
            rows = self._decode(part)
            wanted = [slot for slot, _, _, output in part if output]
            for slot, row in zip(wanted, rows, strict=True):
                out[slot].append(row)
        return [np.stack(out[slot]) for slot in texts]

    def _decode(self, part: list[tuple[int, int, int, bool]]) -> npt.NDArray[np.float32]:
        count = len(part)
        ints = ctypes.c_int32 * count
        slots = ints(*(slot for slot, _, _, _ in part))
        pointer = ctypes.POINTER(ctypes.c_int32)
        size = ctypes.sizeof(ctypes.c_int32)
        base = ctypes.addressof(slots)
        seq_id = (pointer * count)(*(ctypes.cast(base + i * size, pointer) for i in range(count)))
        batch = _Batch(
            n_tokens=count,
            token=ctypes.cast(ints(*(token for _, _, token, _ in part)), pointer),
            pos=ctypes.cast(ints(*(position for _, position, _, _ in part)), pointer),
            n_seq_id=ctypes.cast(ints(*([1] * count)), pointer),
            seq_id=seq_id,
            logits=(ctypes.c_int8 * count)(*(int(output) for *_, output in part)),
        )
        self._library.errors.clear()
        status = self._lib.llama_decode(self._context, batch)
        if status != 0:
            raise ToolError(f"llama.cpp failed to decode (status {status}): {self._complaint()}")
        rows = sum(output for *_, output in part)
        if not rows:
            return np.empty((0, self.vocab_size), np.float32)
        data = self._lib.llama_get_logits(self._context)
        return np.ctypeslib.as_array(data, (rows, self.vocab_size)).copy()

    def _complaint(self) -> str:
        return "; ".join(self._library.errors[-3:]) or "no reason given"
