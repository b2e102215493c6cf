"""No message's text vanishes: the template writes it, or the request is refused by index."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.prompt.builder import PromptBuilder
from gateway.prompt.template import ChatTemplate
from gateway.request.conversation import Conversation, Message, Role
from protos.wire.errors import InvalidRequest
from tests.support.prompts import (
    answer,
    parts_of,
    png,
    processor_bundle,
    processor_files,
    talk,
    user,
)

SYSTEM = Message(role=Role.SYSTEM, content="Answer in French.")

# Writes every turn where it stands, as the text models of the family do.
EVERY_TURN = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
"""
# Looks into texts, so tags would change what is written.
LOOKING = """\
{%- for message in messages if message.content.startswith('say') %}
    {{- message.content }}
{%- endfor %}
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return processor_files(tmp_path_factory.mktemp("files") / "it")


@pytest.fixture
def build(files: Path, tmp_path: Path) -> Callable[[str | None], PromptBuilder]:
    def build_with(template: str | None) -> PromptBuilder:
        changes = {} if template is None else {"chat_template.jinja": lambda _: template}
        return PromptBuilder(processor_bundle(files, tmp_path / "it", changes=changes))

    return build_with


@pytest.mark.parametrize(
    ("conversation", "place"),
    [
        (talk(user("hi"), SYSTEM), 1),
        (talk(SYSTEM, user("hi"), answer("ho"), SYSTEM), 3),
        (talk(SYSTEM, SYSTEM, user("hi")), 1),
        (talk(user("hi"), Message(role=Role.SYSTEM, content=parts_of("hi"))), 1),
        # The same words elsewhere do not stand for it.
        (talk(user("Answer in French."), SYSTEM), 1),
    ],
)
def test_an_instruction_the_template_leaves_out_is_refused_by_index(
    build: Callable[[str | None], PromptBuilder], conversation: Conversation, place: int
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        build(None).prepare(conversation)
    assert caught.value.param == f"messages[{place}]"
    assert "first message" in caught.value.message


@pytest.mark.parametrize(
    "conversation",
    [
        talk(SYSTEM, user("hi")),
        talk(Message(role=Role.SYSTEM, content=parts_of(" a ", "b", "")), user(png(40, 40), "c")),
        talk(user("hi"), Message(role=Role.SYSTEM, content=" \n")),
        talk(user("hi"), answer("ho"), Message(role=Role.TOOL, content="\ufdd0\ufdd1")),
    ],
)
def test_what_the_template_writes_is_served(
    build: Callable[[str | None], PromptBuilder], conversation: Conversation
) -> None:
    assert len(build(None).prepare(conversation).input_ids) > 0


def test_a_template_that_writes_later_instructions_is_used(
    build: Callable[[str | None], PromptBuilder],
) -> None:
    builder = build(EVERY_TURN)
    hello = Message(role=Role.USER, content="hi")
    longer = builder.prepare(talk(hello, *[SYSTEM] * 100)).input_ids
    assert len(longer) > len(builder.prepare(talk(hello)).input_ids)


def test_where_a_template_looks_into_texts_the_texts_are_looked_for(
    build: Callable[[str | None], PromptBuilder],
) -> None:
    builder = build(LOOKING)
    said = Message(role=Role.USER, content="say one")
    assert len(builder.prepare(talk(said, said)).input_ids) > 0
    with pytest.raises(InvalidRequest) as caught:
        builder.prepare(talk(said, Message(role=Role.USER, content="hush")))
    assert caught.value.param == "messages[1]"


@pytest.mark.parametrize(("template", "count"), [(None, 2), (LOOKING, 4)])
def test_a_chat_is_rendered_twice_and_more_often_where_the_template_looks_into_texts(
    build: Callable[[str | None], PromptBuilder],
    monkeypatch: pytest.MonkeyPatch,
    template: str | None,
    count: int,
) -> None:
    renderings: list[str] = []
    render = ChatTemplate.render

    def counted(template: ChatTemplate, *given: Any, **named: Any) -> str:
        renderings.append(render(template, *given, **named))
        return renderings[-1]

    monkeypatch.setattr(ChatTemplate, "render", counted)
    build(template).prepare(talk(Message(role=Role.USER, content="say it")))
    assert len(renderings) >= count
    assert template or len(renderings) == count
