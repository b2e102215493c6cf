"""What an output must look like, as a request says it."""

from decoder_service.grammar.checks import GrammarLimits, check_grammar
from decoder_service.grammar.grammar import (
    Grammar,
    GrammarKind,
    JsonWhitespace,
    choice_grammar,
)
from decoder_service.grammar.trial import MAX_ADDED_TOKENS
from protos.tandem.v1 import decoder_pb2
from protos.wire.errors import InvalidRequest
from protos.wire.sampling import check_range


def grammar_from_proto(
    message: decoder_pb2.Constraint, limits: GrammarLimits, *, ignore_eos: bool, vocab_size: int
) -> Grammar:
    """What the output must look like.

    Raises:
        InvalidRequest: INVALID_SCHEMA, a field that is missing, malformed or too large.
    """
    kind = message.WhichOneof("kind")
    if kind is None:
        raise InvalidRequest("constraint has no kind, expected one", param="constraint")
    if ignore_eos:
        raise InvalidRequest(
            "stop_conditions.ignore_eos is set with a constraint, whose end it would pass;"
            " expected one of them",
            param="stop_conditions.ignore_eos",
        )
    whitespace = _whitespace(message)
    if kind == "choice":
        grammar = choice_grammar(message.choice.texts)
    elif kind == "json_object":
        grammar = Grammar(kind=GrammarKind.JSON_OBJECT, text="", whitespace=whitespace)
        if not message.json_object:
            raise grammar.refusal("is false, expected true")
    else:
        grammar = Grammar(
            kind=GrammarKind(kind),
            text=getattr(message, kind),
            whitespace=whitespace,
            token_ids=_token_ids(message, vocab_size),
        )
    check_grammar(grammar, limits)
    return grammar


def _token_ids(message: decoder_pb2.Constraint, vocab_size: int) -> tuple[int, ...]:
    field = "constraint.token_ids"
    if len(message.token_ids) > MAX_ADDED_TOKENS:
        raise InvalidRequest(
            f"{field} has {len(message.token_ids)} entries, expected at most {MAX_ADDED_TOKENS}",
            param=field,
        )
    if message.token_ids and message.WhichOneof("kind") != "lark":
        raise InvalidRequest(f"{field} is set without lark, whose rules they are", param=field)
    for token in message.token_ids:
        check_range(field, token, 0, vocab_size - 1)
    return tuple(message.token_ids)


def _whitespace(message: decoder_pb2.Constraint) -> JsonWhitespace:
    option = message.WhichOneof("whitespace")
    if option is None:
        return JsonWhitespace()
    field = f"constraint.{option}"
    if message.WhichOneof("kind") not in ("json_schema", "json_object"):
        raise InvalidRequest(
            f"{field} is set without json_schema or json_object, which it is about", param=field
        )
    if option == "whitespace_pattern":
        return JsonWhitespace(pattern=message.whitespace_pattern)
    if not message.disable_any_whitespace:
        raise InvalidRequest(f"{field} is false, expected true", param=field)
    return JsonWhitespace(is_disabled=True)
