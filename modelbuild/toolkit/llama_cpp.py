"""llama.cpp through its C API: tokens, full logits and greedy answers. Needs xllamacpp and numpy.

The KV cache is F32 and flash attention is off: float weights then give
torch's logits to about 4e-7.
"""

from __future__ import annotations

import ctypes
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from modelbuild.toolkit.llama_library import Batch, llama_library
from modelbuild.toolkit.request import ToolError

_F32 = 0
_FLASH_ATTENTION_OFF = 0


class LlamaVocabulary:
    """The tokenizer of a GGUF file, in llama.cpp. The file needs no tensors."""

    def __init__(self, path: Path) -> None:
        self._open(path, vocab_only=True)

    def _open(self, path: Path, *, vocab_only: bool) -> None:
        self._library = llama_library()
        self._lib = self._library.functions
        self._library.errors.clear()
        params = self._lib.llama_model_default_params()
        params.n_gpu_layers = 0
        params.vocab_only = vocab_only
        self._model = self._lib.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise ToolError(f"llama.cpp cannot load `{path.name}`: {self._library.complaint()}")
        self._vocab = self._lib.llama_model_get_vocab(self._model)
        self.vocab_size: int = self._lib.llama_vocab_n_tokens(self._vocab)
        self.bos: int = self._lib.llama_vocab_bos(self._vocab)
        self.eos: int = self._lib.llama_vocab_eos(self._vocab)
        self._normalizer: Any = self.metadata("modelbuild.normalizer") or ""

    def close(self) -> None:
        """Free the file; nothing may be called afterwards."""
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

    def prompt(self, text: str, *, special: bool = False) -> list[int]:
        """What the model reads before it answers `text`: `<bos> text suffix`.

        special: as for `tokenize`, of the text; control tokens of the suffix are always such.
        """
        stated = self.metadata("modelbuild.prompt_suffix")
        suffix = "\n" if stated is None else stated
        if special:
            return [self.bos, *self.tokenize(text + suffix, special=True)]
        at = self._first_control(suffix)
        tokens = [self.bos, *self.tokenize(text + suffix[:at])]
        return [*tokens, *self.tokenize(suffix[at:], special=True)]

    def _first_control(self, text: str) -> int:
        """Where the first control token begins; the end, when there is none."""
        for at in range(len(text)):
            if not self.piece(self.tokenize(text[at:], special=True)[0]):
                return at
        return len(text)

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """The tokens of `text`, without BOS. special: whether `<eos>` in the text is the control token."""
        data = (unicodedata.normalize(self._normalizer, text) if self._normalizer else text).encode()
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


class LlamaCpp(LlamaVocabulary):
    """A GGUF model in llama.cpp, with room for `sequences` texts of up to `length` tokens at a time.

    Results depend on `threads` and `sequences` only through the order of floating-point sums.
    """

    def __init__(self, path: Path, *, threads: int, sequences: int = 32, length: int = 0) -> None:
        self._open(path, vocab_only=False)
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
            super().close()
            raise ToolError(f"llama.cpp cannot make a context for `{path.name}`: {self._library.complaint()}")
        self._memory = self._lib.llama_get_memory(self._context)

    def close(self) -> None:
        """Free the model; nothing may be called afterwards."""
        self._lib.llama_free(self._context)
        super().close()

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
        batch = Batch(
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
            raise ToolError(f"llama.cpp failed to decode (status {status}): {self._library.complaint()}")
        rows = sum(output for *_, output in part)
        if not rows:
            return np.empty((0, self.vocab_size), np.float32)
        data = self._lib.llama_get_logits(self._context)
        return np.ctypeslib.as_array(data, (rows, self.vocab_size)).copy()
