"""The checkpoint's tokenizer with its added tokens kept apart from text."""

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Self

from tokenizers import Tokenizer

from gateway.prompt.long_texts import PIECE_CHARS, LeastTokens, cut, is_known_form
from protos.bundle.manifest import BundleError

TOKENIZER_NAME = "processor/tokenizer.json"
CONFIG_NAME = "processor/tokenizer_config.json"

# Ways of matching an added token besides as it is written; no Qwen tokenizer has them.
_MATCHING_FLAGS = ("lstrip", "rstrip", "single_word", "normalized")
# Texts of so few characters are encoded once, as many as that of them.
_SHORT_CHARS, _MOST_SHORT = 16, 1024
_NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedToken:
    """A token that stands outside the learned vocabulary's merges."""

    token_id: int
    content: str
    special: bool  # decoding skips it


class Encoded(NamedTuple):
    """Token ids; of a prompt that was given up, those of its beginning."""

    ids: list[int]
    whole: bool


class PromptTokenizer:
    """Encodes text, in which no added token can be matched, and finds added tokens in templates.

    Safe for use from several threads.
    """

    def __init__(self, raw: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        """Builds the tokenizer from parsed tokenizer.json and tokenizer_config.json.

        Raises:
            BundleError: it is not a byte-level BPE tokenizer, or one whose added tokens could
                be read from text.
        """
        self.named_tokens = _named_tokens(config)
        self.added = _added_tokens(raw, config, frozenset(self.named_tokens.values()))
        self._ids = {token.content: token.token_id for token in self.added}
        _check_kind(raw)
        self._text = _text_tokenizer(raw)
        # A template's own words between two tokens are the same in every prompt.
        self._short = lru_cache(_MOST_SHORT)(lambda text: tuple(self._ids_of(text)))
        # Longest first, as the tokenizers library prefers the longest token at one place.
        names = sorted(self._ids, key=len, reverse=True)
        self._splitter = re.compile("(" + ("|".join(map(re.escape, names)) or "(?!)") + ")")
        self._least = LeastTokens(self._text.get_vocab()) if is_known_form(raw) else None
        self._check_text_is_plain()

    @classmethod
    def from_folder(cls, processor: Path) -> Self:
        """Reads tokenizer.json and tokenizer_config.json of a bundle's processor folder.

        Raises:
            BundleError: a file is missing or malformed; see `__init__`.
        """
        raw = _read_object(processor / "tokenizer.json", TOKENIZER_NAME)
        config = _read_object(processor / "tokenizer_config.json", CONFIG_NAME)
        return cls(raw, config)

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids that decoding skips."""
        return frozenset(token.token_id for token in self.added if token.special)

    def encode_text(self, text: str) -> list[int]:
        """Ids of plain text; added tokens written in it become ordinary text."""
        if not text:
            return []
        return list(self._short(text)) if len(text) <= _SHORT_CHARS else self._ids_of(text)

    def _ids_of(self, text: str) -> list[int]:
        encoding = self._text.encode_batch_fast([text], add_special_tokens=False)[0]
        ids: list[int] = encoding.ids
        return ids

    def least_tokens(self, rendered: str) -> int:
        """A number of tokens that a rendered prompt cannot be below; takes milliseconds."""
        if self._least is None:
            return 0
        return self._least.of(piece for piece in self.pieces(rendered) if isinstance(piece, str))

    def encode_prompt(self, rendered: str, marker: str, *, most: int | None = None) -> Encoded:
        """Ids of a rendered prompt whose client strings are marked.

        Long texts are encoded in pieces, so that a hopeless one is given up early. Short ones are
        counted to the end, so that a client learns how much is too much.

        Args:
            rendered: Prompt text; added tokens in it are the template's unless a marker
                breaks them.
            marker: The character to drop from the text between added tokens.
            most: Number of ids behind which a long prompt is given up; None for never.

        **Source**: transformers `Qwen3VLProcessor.apply_chat_template(tokenize=True)`;
        parity in tests/parity/test_prompt_ids.py.
        """
        ids: list[int] = []
        if most is None or len(rendered) <= PIECE_CHARS:
            most = sys.maxsize
        for piece in self._bounded_pieces(rendered, marker):
            if len(ids) > most:
                return Encoded(ids=ids, whole=False)
            if isinstance(piece, int):
                ids.append(piece)
            else:
                ids.extend(self.encode_text(piece))
        return Encoded(ids=ids, whole=True)

    def _bounded_pieces(self, rendered: str, marker: str) -> Iterator[str | int]:
        for piece in self.pieces(rendered):
            if isinstance(piece, int):
                yield piece
            elif self._least is None:  # A tokenizer of which no certain place to cut is known.
                yield piece.replace(marker, "")
            else:
                yield from cut(piece.replace(marker, ""))

    def pieces(self, rendered: str) -> Iterator[str | int]:
        """Texts and added tokens' ids of a prompt, in order; texts may be empty."""
        for index, piece in enumerate(self._splitter.split(rendered)):
            yield self._ids[piece] if index % 2 else piece

    def token_names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Added tokens as they are written: the special ones, and the others."""
        special = tuple(token.content for token in self.added if token.special)
        return special, tuple(token.content for token in self.added if not token.special)

    def token_of(self, token_id: int) -> str | None:
        """The vocabulary's spelling of a token (byte-level letters), or None outside it."""
        if token_id < 0:
            return None
        token: str | None = self._text.id_to_token(token_id)
        return token

    def _check_text_is_plain(self) -> None:
        added = frozenset(self._ids.values())
        for content in self._ids:
            if added.intersection(self.encode_text(content)):
                raise BundleError(
                    f"{TOKENIZER_NAME}: the added token {content!r} can be read from plain text"
                )


def _text_tokenizer(raw: Mapping[str, Any]) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_str(json.dumps({**raw, "added_tokens": []}))
    except Exception as error:  # The tokenizers library raises nothing more precise.
        raise BundleError(f"{TOKENIZER_NAME} is not a tokenizer of a known form") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    probe = "a b"
    if tokenizer.encode(probe).ids != tokenizer.encode(probe, add_special_tokens=False).ids:
        raise BundleError(f"{TOKENIZER_NAME} adds tokens around a text, which no Qwen3-VL does")
    return tokenizer


def _check_kind(raw: Mapping[str, Any]) -> None:
    model, decoder = raw.get("model"), raw.get("decoder")
    kind = model.get("type", "BPE") if isinstance(model, Mapping) else None
    if kind != "BPE":
        raise BundleError(f"{TOKENIZER_NAME} holds a {kind} model, expected BPE")
    decoding = decoder.get("type") if isinstance(decoder, Mapping) else None
    if decoding != "ByteLevel":
        raise BundleError(f"{TOKENIZER_NAME} has the decoder {decoding}, expected ByteLevel")


def _added_tokens(
    raw: Mapping[str, Any], config: Mapping[str, Any], named: frozenset[str]
) -> tuple[AddedToken, ...]:
    entries = raw.get("added_tokens")
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise BundleError(f"{TOKENIZER_NAME} lacks added_tokens")
    tokens = []
    for entry in entries:
        token_id, content = entry.get("id"), entry.get("content")
        if not isinstance(token_id, int) or not isinstance(content, str) or len(content) < 2:
            raise BundleError(f"{TOKENIZER_NAME}: an added token lacks an id or a name")
        flags = [flag for flag in _MATCHING_FLAGS if entry.get(flag)]
        if flags:
            raise BundleError(f"{TOKENIZER_NAME}: the added token {content!r} is {flags[0]}")
        special = bool(entry.get("special")) or content in named
        tokens.append(AddedToken(token_id=token_id, content=content, special=special))
    _check_agreement(tokens, config)
    return tuple(tokens)


def _check_agreement(tokens: Sequence[AddedToken], config: Mapping[str, Any]) -> None:
    """transformers also adds the tokens of tokenizer_config.json; they must be the same."""
    known = {token.token_id: token.content for token in tokens}
    listed = config.get("added_tokens_decoder") or {}
    for key, entry in listed.items():
        content = entry.get("content") if isinstance(entry, Mapping) else None
        if not key.isdigit() or known.get(int(key)) != content:
            raise BundleError(f"{CONFIG_NAME} and tokenizer.json disagree about token {key}")


def _named_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """The tokens templates may name, such as eos_token."""
    named = {}
    for key in _NAMED_TOKENS:
        value = config.get(key)
        content = value.get("content") if isinstance(value, Mapping) else value
        if isinstance(content, str):
            named[key] = content
    return named


def _read_object(file: Path, name: str) -> Mapping[str, Any]:
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BundleError(f"the bundle lacks {name}") from error
    except ValueError as error:
        raise BundleError(f"{name} is not valid JSON") from error
    if not isinstance(raw, dict):
        raise BundleError(f"{name} is not a JSON object")
    return raw
