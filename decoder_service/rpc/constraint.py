"""What an output must look like, as a request says it."""

from decoder_service.grammar.checks import GrammarLimits, check_grammar
from decoder_service.grammar.grammar import (
    Grammar,
    GrammarKind,
    JsonWhitespace,
    choice_grammar,
)
from protos.tandem.v1 import decoder_pb2
from protos.wire.errors import InvalidRequest


def grammar_from_proto(
    message: decoder_pb2.Constraint, limits: GrammarLimits, *, ignore_eos: bool
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
        text = getattr(message, kind)
        grammar = Grammar(kind=GrammarKind(kind), text=text, whitespace=whitespace)
    check_grammar(grammar, limits)
    return grammar


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
