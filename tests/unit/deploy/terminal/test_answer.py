"""An answer on a terminal: Markdown in form while it is written, the thought beside it."""

import io

import pytest
from rich.console import Console

from deploy.terminal.answer import stream_answer
from deploy.terminal.markdown import MarkdownStream, split_blocks
from protos.tandem.v1 import gateway_pb2

TEXT = """# Title

Some *text* with `code`.

```python
first = 1

second = 2
```

- one
- two"""


def chunk(text: str = "", reasoning: str = "") -> gateway_pb2.ChatChunk:
    return gateway_pb2.ChatChunk(text=text, reasoning=reasoning)


def end() -> gateway_pb2.ChatChunk:
    completion = gateway_pb2.ChatCompletion(completion_tokens=1, prompt_tokens=1)
    return gateway_pb2.ChatChunk(completion=completion)


def terminal(*, forced: bool = True) -> tuple[Console, io.StringIO]:
    written = io.StringIO()
    console = Console(
        file=written, width=60, height=10, force_terminal=forced, color_system=None, _environ={}
    )
    return console, written


@pytest.mark.parametrize("size", [1, 2, 7, len(TEXT)])
def test_blocks_do_not_depend_on_how_the_text_came(size: int) -> None:
    whole, rest = "", ""
    for at in range(0, len(TEXT), size):
        ended, rest = split_blocks(rest + TEXT[at : at + size])
        whole += ended
    assert whole + rest == TEXT
    assert rest == "- one\n- two"


def test_a_fence_is_not_cut_at_its_blank_line() -> None:
    assert split_blocks("```\na\n\nb") == ("", "```\na\n\nb")
    assert split_blocks("a\n\n```\nb\n\nc\n```\n\nd") == ("a\n\n```\nb\n\nc\n```\n\n", "d")


def test_markdown_is_shown_in_form_and_grows_visibly() -> None:
    console, written = terminal()
    with MarkdownStream(console) as stream:
        stream.add("Some **bo")
        assert "Some **bo" in written.getvalue()
        stream.add("ld** text\n\nand more")
        assert "Some bold text" in written.getvalue()
    assert written.getvalue().rstrip().endswith("and more")


def test_a_block_above_the_terminal_s_height_shows_its_last_lines() -> None:
    console, written = terminal()
    with MarkdownStream(console) as stream:
        stream.add("".join(f"line {number}  \n" for number in range(50)))
        assert "line 49" in written.getvalue()
        assert "line 10" not in written.getvalue()
    assert "line 10" in written.getvalue()


def test_a_thought_is_told_beside_the_answer() -> None:
    (answers, answered), (notes, noted) = terminal(forced=False), terminal(forced=False)
    chunks = [chunk(reasoning="hm "), chunk(reasoning="so\x1b[2J"), chunk(text="red"), end()]
    assert stream_answer(answers, chunks, notes=notes).text == "red"
    assert answered.getvalue() == "red\n"
    assert noted.getvalue() == "hm so[2J\n"


def test_control_characters_of_an_answer_do_not_reach_the_terminal() -> None:
    console, written = terminal()
    stream_answer(console, [chunk(text="a\x1b]0;title\x07b"), end()], markdown=True)
    assert "\x1b]0" not in written.getvalue()
    assert "\x07" not in written.getvalue()
