"""The vocabulary as grammars see it: tokens as bytes, and the tokens no grammar may use."""

import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLTokenizer

from protos.bundle.manifest import Bundle, BundleError

TOKENIZER_NAME = "processor/tokenizer.json"

FloatArray = npt.NDArray[np.float32]
Words = npt.NDArray[np.int32]


class GrammarVocabulary:
    """Tokens and masks of one model; safe for use from several threads.

    A mask has one bit per token, lowest bit first, in int32 words; a set bit bans its token.
    Added tokens (special or not) other than the end-of-sequence ones, and ids beyond the
    tokenizer's, are banned but for those that a grammar is allowed: text that reads like such a
    token is written with ordinary tokens.

    Args:
        tokenizer_json: The checkpoint's tokenizer.json.
        vocab_size: Ids the model has logits for.
        eos_ids: Ids that end an answer, at least one; allowed where a grammar may end.

    Raises:
        BundleError: the tokenizer is of an unknown form, or larger than the model's vocabulary.
    """

    def __init__(self, tokenizer_json: str, *, vocab_size: int, eos_ids: tuple[int, ...]) -> None:
        self.vocab_size = vocab_size
        self._word_count = (vocab_size + 31) // 32
        try:
            ordinary_ids, speller = _speller(json.loads(tokenizer_json))
            self.tokenizer = LLTokenizer(speller, n_vocab=vocab_size, eos_token=list(eos_ids))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BundleError(f"{TOKENIZER_NAME} cannot be used for structured output") from error
        usable = np.zeros(self._word_count * 32, dtype=np.bool_)
        usable[ordinary_ids] = True
        usable[vocab_size:] = False
        usable[list(eos_ids)] = True
        self._usable: Words = np.packbits(usable, bitorder="little").view(np.int32)

    @classmethod
    def from_bundle(cls, bundle: Bundle) -> "GrammarVocabulary":
        """Reads the bundle's tokenizer; takes a second and 0.1 GB with 150,000 tokens.

        Raises:
            BundleError: it is missing, damaged, or of an unknown form.
        """
        bundle.verify_files(("processor",))
        try:
            text = Path(bundle.path / TOKENIZER_NAME).read_text(encoding="utf-8")
        except OSError as error:
            raise BundleError(f"the bundle lacks {TOKENIZER_NAME}") from error
        manifest = bundle.manifest
        return cls(text, vocab_size=manifest.text.vocab_size, eos_ids=manifest.special_tokens.eos)

    def usable(self, token_ids: Sequence[int]) -> Words:
        """Tokens that a grammar may use to which these added ones are allowed, int32 words."""
        if not token_ids:
            return self._usable
        bits = np.unpackbits(self._usable.view(np.uint8), bitorder="little")
        bits[list(token_ids)] = 1
        return np.packbits(bits, bitorder="little").view(np.int32)

    def banned(self, matcher: LLMatcher, usable: Words) -> Words:
        """Tokens that may not follow, int32 words. A matcher may fail here: ask `is_error`.

        Args:
            matcher: Where a sequence is in its grammar.
            usable: See `usable`.
        """
        words = np.empty(self._word_count, dtype=np.int32)
        matcher.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)  # without the GIL
        np.bitwise_and(words, usable, out=words)
        return np.invert(words, out=words)

    @staticmethod
    def bans_all(banned: Words) -> bool:
        """Whether nothing may follow, not even an end."""
        return bool((banned == -1).all())

    def ban(self, scores: FloatArray, banned: Words) -> None:
        """Sets the scores of banned tokens to -inf, in place; float32 [vocab]."""
        bits = np.unpackbits(banned.view(np.uint8), count=self.vocab_size, bitorder="little")
        np.copyto(scores, np.float32(-np.inf), where=bits.view(np.bool_))


def _speller(raw: dict[str, Any]) -> tuple[list[int], str]:
    """The tokenizer that spells the text a grammar prescribes, byte for byte.

    Where only one text may follow, llguidance encodes that text and allows nothing but its first
    token. The checkpoint's own tokenizer must not do that: it first rewrites the text to
    Unicode's NFC ("e" and U+0301 become "é"), and it finds added tokens in it ("<|im_end|>"
    would end the answer). Neither spells the text that was asked for.

    Args:
        raw: A byte-level BPE tokenizer.json.

    Returns:
        The ids of ordinary tokens; and the tokenizer.json without normalizer and with other added
        tokens. They have their ids, but names that no text holds because nobody can guess them,
        and all are special: grammars reach them by their ids alone, never by text.
    """
    added = {token["content"]: token["id"] for token in raw["added_tokens"]}
    ordinary = {name: token for name, token in raw["model"]["vocab"].items() if name not in added}
    secret = secrets.token_hex(16)
    unmatched = {f" {secret} {token}": token for token in added.values()}
    model = raw["model"] | {"vocab": ordinary | unmatched}
    changes = {
        "model": model,
        "normalizer": None,
        "added_tokens": [_special(name, token) for name, token in unmatched.items()],
    }
    # These would shorten or lengthen text.
    changes |= {"truncation": None, "padding": None, "post_processor": None}
    return list(ordinary.values()), json.dumps(raw | changes)


def _special(name: str, token_id: int) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": token_id, "content": name, "special": True, **flags}
