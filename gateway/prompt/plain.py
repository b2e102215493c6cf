"""A prompt that stands for itself, without a template: text, or the ids themselves."""

from collections.abc import Sequence

from gateway.prompt import provenance
from gateway.prompt.inputs import LIGHT_TEXT_CHARS, LONG_TEXT_CHARS, check_text_size
from gateway.prompt.tokenizer import PromptTokenizer
from gateway.request.conversation import PlainPrompt
from gateway.threads import Weight
from protos.wire.errors import InvalidRequest, PromptTooLong

FIELD = "prompt"


def plain_ids(
    plain: PlainPrompt, tokenizer: PromptTokenizer, *, window: int | None, max_text_bytes: int
) -> list[int]:
    """Token ids of a plain prompt.

    Args:
        plain: As the client sent it.
        tokenizer: The checkpoint's.
        window: Most tokens of prompt and answer; None where no answer follows.
        max_text_bytes: Most UTF-8 bytes.

    Raises:
        InvalidRequest: empty, too large, or no Unicode.
        PromptTooLong: no room is left for an answer.

    **Source**: transformers' tokenizer, called with the text; parity in
    tests/parity/test_tool_prompts.py.
    """
    most = None if window is None else window - 1
    ids, is_whole = list(plain.ids or ()), True
    if plain.ids is None:
        check_text_size([plain.text], max_text_bytes, field=FIELD)
        marker = provenance.choose_marker([plain.text])
        ids, is_whole = tokenizer.encode_prompt(plain.text, marker, most=most)
    if not ids:
        raise InvalidRequest(f"{FIELD} is empty", param=FIELD)
    if most is not None and len(ids) > most:
        raise PromptTooLong.of(
            most + 1,
            f"your prompt has {'' if is_whole else 'at least '}{len(ids)} tokens > limit {most}"
            " with room for one token of answer",
            param=FIELD,
        )
    return ids


def weight_of_plain(plain: PlainPrompt) -> Weight:
    """How long a plain prompt takes to prepare, by its length."""
    length = len(plain.text) + len(plain.ids or ())
    if length <= LIGHT_TEXT_CHARS:
        return Weight.LIGHT
    return Weight.LONG if length > LONG_TEXT_CHARS else Weight.SHORT


def check_ids(ids: Sequence[int], *, vocab_size: int, banned: Sequence[int]) -> None:
    """Checks that every id is one that a text may have.

    Raises:
        InvalidRequest: outside the vocabulary, or `banned`: a placeholder of an image that is not
            there.
    """
    if not 0 <= min(ids) <= max(ids) < vocab_size:
        raise InvalidRequest(
            f"{FIELD} holds the ids {min(ids)} to {max(ids)}, expected 0 to {vocab_size - 1}",
            param=FIELD,
        )
    for token in banned:
        if token in ids:
            raise InvalidRequest(
                f"{FIELD} holds the placeholder {token}, of an image or video that is not there",
                param=FIELD,
            )
