"""What an answer is held to where tools may be called."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.request.constraint import ConstraintKind, ConstraintSpec, invalid
from gateway.request.job import Question
from gateway.request.tools import Tool, ToolMode
from gateway.tools.format import BEGIN_RULE, END_RULE, CallFormat
from gateway.tools.schemas import json_rule


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerForm:
    """The form of one answer.

    Attributes:
        constraint: What it is held to; None for anything.
        begin: The token of the output with which the constraint begins; None where it holds from
            the answer's start.
        calls: How calls are written in it; None where there are none.
    """

    constraint: ConstraintSpec | None
    begin: int | None = None
    calls: CallFormat | None = None


def form_of(
    question: Question, tools: Sequence[Tool], calls: CallFormat | None, *, behind_thought: bool
) -> AnswerForm:
    """The form of an answer to a question.

    Calls that are required are the whole answer. Others may come instead of an answer in the form
    that was asked for, or behind free text: that is held from the token that a call begins
    with, and nothing but more calls follows.

    Args:
        question: Checked.
        tools: Those that may be called.
        calls: How this checkpoint writes calls; None where it knows none.
        behind_thought: Whether the answer follows a thought, and with it line breaks.

    Raises:
        InvalidRequest: INVALID_SCHEMA, the answer's form is no JSON schema.
    """
    is_required = question.tool_choice.mode is ToolMode.REQUIRED
    # An answer that is to go on for ever is measured, and calls nothing: its tools are text.
    if not tools or (question.stopping.ignore_eos and not is_required):
        return AnswerForm(constraint=question.constraint)
    assert calls is not None, "a prompt with tools is built for checkpoints that know them"
    answer = None if is_required else question.constraint
    is_free = not is_required and answer is None
    rules = [
        _start(answer, has_gap=behind_thought and not is_free),
        "calls: call" + (' ("\\n" call)*' if question.tool_choice.parallel else ""),
        f"call: {BEGIN_RULE} body {END_RULE}",
        calls.format.body(tools),
    ]
    return AnswerForm(
        constraint=ConstraintSpec(
            kind=ConstraintKind.LARK,
            text="\n".join(rules),
            token_ids=(calls.begin, calls.end),
            field="tools",
        ),
        begin=calls.begin if is_free else None,
        calls=calls,
    )


def _start(answer: ConstraintSpec | None, *, has_gap: bool) -> str:
    """The first rules: calls, or else the answer in its form; maybe behind line breaks."""
    gap = "gap " if has_gap else ""
    rules = [f"start: {gap}calls" + ("" if answer is None else " | answer")]
    if has_gap:
        rules.append('gap: "" | "\\n" | "\\n\\n"')
    if answer is not None:
        rule = json_rule(
            _schema(answer),
            is_strict=True,
            whitespace_pattern=answer.whitespace_pattern,
            disable_any_whitespace=answer.disable_any_whitespace,
        )
        rules.append(f"answer: {rule}")
    return "\n".join(rules)


def _schema(answer: ConstraintSpec) -> Mapping[str, Any]:
    if answer.kind is ConstraintKind.JSON_OBJECT:
        return {"type": "object"}
    try:
        schema = json.loads(answer.text)
    except (ValueError, RecursionError) as error:
        raise invalid(answer.field, "is not valid JSON, or nested too deeply") from error
    if not isinstance(schema, dict):
        raise invalid(answer.field, "must be a JSON object")
    return schema
