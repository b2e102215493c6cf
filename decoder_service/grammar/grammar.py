"""Structured output: a grammar as a client gave it, and as it is compiled."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher

from decoder_service.grammar.vocabulary import GrammarVocabulary
from protos.wire.errors import InvalidRequest, Reason

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions  # its stubs' only

Words = npt.NDArray[np.int32]  # one bit per token, lowest bit first

# After a colon and a comma of JSON one blank, as models have read it, and none elsewhere. Measured
# on the demonstration model (INT4, temperature 0), 60 images of one shape in a schema of its shape
# and colour: 56 right with the blank, 31 without, 40 where the model may choose; with up to 32
# blanks anywhere, which it then says, 3 of 12. Of 40 boxes, which it tells in JSON unasked, the
# blank keeps every letter; without it none is right.
_ITEM_SEPARATOR, _KEY_SEPARATOR = ", ", ": "


class GrammarKind(StrEnum):
    """How a grammar is written; the values are the fields of decoder.proto's `Constraint`."""

    JSON_SCHEMA = "json_schema"
    JSON_OBJECT = "json_object"
    REGEX = "regex"
    CHOICE = "choice"
    LARK = "lark"


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonWhitespace:
    """What may stand between the tokens of JSON; by default a blank after each colon and comma.

    Attributes:
        pattern: A regular expression; each gap is empty or matches it.
        is_disabled: Every gap is empty; not with a pattern.
    """

    pattern: str | None = None
    is_disabled: bool = False

    def options(self) -> "JsonCompileOptions":
        """What of llguidance's options says so; nothing by default."""
        if self.pattern is None and not self.is_disabled:
            return {}
        return {
            "whitespace_flexible": False,
            "whitespace_pattern": self.pattern,
            "item_separator": ",",
            "key_separator": ":",
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Grammar:
    """What an output must look like, as the client wrote it; equal grammars share one compiling.

    `text` is the schema's JSON, the pattern, the Lark grammar, or the choices as a JSON list.
    `whitespace` concerns the two kinds of JSON only, `token_ids` a Lark grammar: the added tokens
    that its rules `token_0`, `token_1` and so on stand for.
    """

    kind: GrammarKind
    text: str
    whitespace: JsonWhitespace = JsonWhitespace()
    token_ids: tuple[int, ...] = ()

    @property
    def field(self) -> str:
        """The request's field it came in."""
        return f"constraint.{self.kind.value}"

    def source(self, *, token_ids: Sequence[int] | None = None) -> str:
        """The grammar in llguidance's own notation; unchecked.

        Args:
            token_ids: The added tokens' ids in another vocabulary; None for the model's.
        """
        match self.kind:
            case GrammarKind.JSON_SCHEMA | GrammarKind.JSON_OBJECT:
                schema = self.text if self.kind is GrammarKind.JSON_SCHEMA else '{"type":"object"}'
                return LLMatcher.grammar_from_json_schema(
                    schema, defaults=_json_style(), overrides=self.whitespace.options()
                )
            case GrammarKind.REGEX:
                return LLMatcher.grammar_from_regex(self.text)
            case GrammarKind.CHOICE:
                texts = (json.dumps(text) for text in json.loads(self.text))
                return LLMatcher.grammar_from_lark("start: " + " | ".join(texts))
            case GrammarKind.LARK:
                ids = self.token_ids if token_ids is None else token_ids
                rules = (f"\ntoken_{at}: <[{token}]>" for at, token in enumerate(ids))
                return LLMatcher.grammar_from_lark(self.text + "".join(rules))

    def refusal(self, what: str) -> InvalidRequest:
        """The error that says what is wrong with this grammar."""
        return InvalidRequest(
            f"{self.field} {what}", reason=Reason.INVALID_SCHEMA, param=self.field
        )


def _json_style() -> "JsonCompileOptions":
    """What holds unless the request or the schema's own `x-guidance` says otherwise."""
    return {
        "whitespace_flexible": False,
        "item_separator": _ITEM_SEPARATOR,
        "key_separator": _KEY_SEPARATOR,
    }


def choice_grammar(texts: Iterable[str]) -> Grammar:
    """The grammar of one of some texts."""
    return Grammar(kind=GrammarKind.CHOICE, text=json.dumps(list(texts), ensure_ascii=False))


class CompiledGrammar:
    """A compiled grammar: the matcher that is copied for each sequence, and its first mask.

    Copies share the lexer's states, so what one sequence explored is known to the next.

    Attributes:
        size_bytes: Memory it takes, as measured when it was tried.
        is_worn: A sequence ran into the limit of shared states; compile anew.
    """

    def __init__(
        self, grammar: Grammar, matcher: LLMatcher, vocabulary: GrammarVocabulary, size_bytes: int
    ) -> None:
        """Computes the first mask; milliseconds, or more for an intricate grammar.

        Raises:
            InvalidRequest: no answer can begin.
        """
        self.grammar = grammar
        self.vocabulary = vocabulary
        self.is_worn = False
        self._matcher = matcher
        self._usable = vocabulary.usable(grammar.token_ids)
        self.first_banned = self.banned(matcher)
        if matcher.is_error() or vocabulary.bans_all(self.first_banned):
            raise grammar.refusal("allows no answer, or is too complex")
        self.size_bytes = size_bytes + self.first_banned.nbytes

    def matcher(self) -> LLMatcher:
        """A matcher at the beginning, for one sequence."""
        return self._matcher.deep_copy()

    def banned(self, matcher: LLMatcher) -> Words:
        """Tokens that may not follow, int32 words. A matcher may fail here: ask `is_error`."""
        return self.vocabulary.banned(matcher, self._usable)
