"""A whole answer, put together from its pieces; for doors that send it at once."""

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.answer.events import AnswerCall, AnswerPiece, AnswerText, AnswerThought, OutputToken


@dataclass(frozen=True, slots=True, kw_only=True)
class SpokenCall:
    """One call of a tool; `arguments` is JSON text, cut short where the answer was."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """What an answer thought, said and called; `tokens` are those of its text alone."""

    thought: str
    text: str
    calls: tuple[SpokenCall, ...]
    tokens: tuple[OutputToken, ...]


def spoken(pieces: Iterable[AnswerPiece]) -> Spoken:
    """The whole of an answer's pieces."""
    thought, text = "", ""
    tokens: list[OutputToken] = []
    calls: list[SpokenCall] = []
    for piece in pieces:
        match piece:
            case AnswerThought():
                thought += piece.text
            case AnswerText():
                text += piece.text
                tokens.extend(piece.tokens)
            case AnswerCall():
                _add(calls, piece)
    return Spoken(thought=thought, text=text, calls=tuple(calls), tokens=tuple(tokens))


def _add(calls: list[SpokenCall], piece: AnswerCall) -> None:
    if piece.name is not None and piece.call_id is not None:
        calls.append(SpokenCall(call_id=piece.call_id, name=piece.name, arguments=piece.arguments))
    elif piece.arguments:  # behind the piece that named the call
        last = calls.pop()
        calls.append(
            SpokenCall(
                call_id=last.call_id, name=last.name, arguments=last.arguments + piece.arguments
            )
        )
