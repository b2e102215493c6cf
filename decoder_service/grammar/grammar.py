"""Structured output: a grammar as a client gave it, and as it is compiled."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher

from decoder_service.grammar.vocabulary import GrammarVocabulary
from protos.wire.errors import InvalidRequest, Reason

Words = npt.NDArray[np.int32]  # one bit per token, lowest bit first

# Between two JSON tokens. Enough for a line break and the indentation of any real answer, and an
# end to the endless blanks that a model falls into when it would rather not go on.
_WHITESPACE = r"[\x20\x0A\x0D\x09]{1,32}"


class GrammarKind(StrEnum):
    """How a grammar is written; the values are the fields of decoder.proto's `Constraint`."""

    JSON_SCHEMA = "json_schema"
    JSON_OBJECT = "json_object"
    REGEX = "regex"
    CHOICE = "choice"
    LARK = "lark"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grammar:
    """What an output must look like, as the client wrote it; equal grammars share one compiling.

    `text` is the schema's JSON, the pattern, the Lark grammar, or the choices as a JSON list.
    """

    kind: GrammarKind
    text: str

    @property
    def field(self) -> str:
        """The request's field it came in."""
        return f"constraint.{self.kind.value}"

    def source(self) -> str:
        """The grammar in llguidance's own notation; unchecked."""
        match self.kind:
            case GrammarKind.JSON_SCHEMA | GrammarKind.JSON_OBJECT:
                schema = self.text if self.kind is GrammarKind.JSON_SCHEMA else '{"type":"object"}'
                return LLMatcher.grammar_from_json_schema(
                    schema, {"whitespace_pattern": _WHITESPACE}
                )
            case GrammarKind.REGEX:
                return LLMatcher.grammar_from_regex(self.text)
            case GrammarKind.CHOICE:
                texts = (json.dumps(text) for text in json.loads(self.text))
                return LLMatcher.grammar_from_lark("start: " + " | ".join(texts))
            case GrammarKind.LARK:
                return LLMatcher.grammar_from_lark(self.text)

    def refusal(self, what: str) -> InvalidRequest:
        """The error that says what is wrong with this grammar."""
        return InvalidRequest(
            f"{self.field} {what}", reason=Reason.INVALID_SCHEMA, param=self.field
        )


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
        self.first_banned = vocabulary.banned(matcher)
        if matcher.is_error() or vocabulary.bans_all(self.first_banned):
            raise grammar.refusal("allows no answer, or is too complex")
        self.size_bytes = size_bytes + self.first_banned.nbytes

    def matcher(self) -> LLMatcher:
        """A matcher at the beginning, for one sequence."""
        return self._matcher.deep_copy()
