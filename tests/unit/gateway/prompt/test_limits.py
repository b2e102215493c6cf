"""What the prompt builder refuses, by which name, and how long it takes at worst."""

import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gateway.media.images import MediaLimits
from gateway.prompt.builder import PromptBuilder
from gateway.prompt.inputs import PromptLimits
from gateway.request.conversation import Conversation, Message, Role, ToolCall
from protos.bundle.manifest import BundleError
from protos.wire.errors import InvalidRequest, PromptTooLong, Reason, ServiceError
from tests.support.prompts import (
    parts_of,
    png,
    processor_bundle,
    processor_files,
    talk,
    user,
    weather_tool,
)

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return processor_files(tmp_path_factory.mktemp("files") / "it")


@pytest.fixture(scope="module")
def builder(files: Path, tmp_path_factory: pytest.TempPathFactory) -> PromptBuilder:
    return PromptBuilder(processor_bundle(files, tmp_path_factory.mktemp("bundle") / "it"))


@pytest.fixture(scope="module")
def roomy(files: Path, tmp_path_factory: pytest.TempPathFactory) -> PromptBuilder:
    """A builder whose context never is the limit."""
    target = tmp_path_factory.mktemp("roomy") / "it"
    bundle = processor_bundle(files, target)
    manifest = json.loads((target / "tandem.json").read_text())
    manifest["text"]["max_position_embeddings"] = 1 << 24
    (target / "tandem.json").write_text(json.dumps(manifest))
    return PromptBuilder(type(bundle).open(target))


def fault(
    builder: PromptBuilder, conversation: Conversation, **options: Any
) -> tuple[Reason, str | None]:
    with pytest.raises(ServiceError) as caught:
        builder.prepare(conversation, **options)
    return caught.value.reason, caught.value.param


@pytest.mark.parametrize(
    "conversation",
    [
        talk(),
        talk(Message(role=Role.USER, content="")),
        talk(Message(role=Role.USER, content=" \n\t\u3000")),
        talk(Message(role=Role.USER, content=())),
        talk(Message(role=Role.USER, content=None)),
        talk(user("", " ")),
    ],
)
def test_an_empty_conversation_is_refused(
    builder: PromptBuilder, conversation: Conversation
) -> None:
    assert fault(builder, conversation) == (Reason.INVALID_PARAMETER, "messages")


def test_a_image_alone_is_enough(builder: PromptBuilder) -> None:
    assert len(builder.prepare(talk(user(png(64, 64)))).spans) == 1


@pytest.mark.parametrize("role", [Role.SYSTEM, Role.ASSISTANT])
def test_a_image_the_template_would_drop_is_refused(builder: PromptBuilder, role: Role) -> None:
    message = Message(role=role, content=parts_of("see", png(64, 64)))
    assert fault(builder, talk(message, user("x"))) == (Reason.INVALID_PARAMETER, "messages")


def test_images_at_fault_are_named_by_their_place(builder: PromptBuilder) -> None:
    conversation = talk(user("a", png(64, 64)), user("b", b"GIF89a"))
    assert fault(builder, conversation) == (Reason.INVALID_IMAGE, "messages[1].content[1]")
    conversation = talk(user("a", b"%PDF-1.7"))
    assert fault(builder, conversation) == (Reason.UNSUPPORTED_MEDIA, "messages[0].content[1]")


@pytest.mark.parametrize(
    "conversation",
    [
        talk(user("a\ud800b")),
        talk(Message(role=Role.USER, content="\udfff")),
        talk(user("x"), tools=({"type": "function", "\ud800": 1},)),
        talk(user("x"), Message(role=Role.USER, content="y", name="\ud800")),
        talk(user("x"), Message(role=Role.TOOL, content="y", tool_call_id="\ud800")),
    ],
)
def test_lone_surrogates_are_refused(builder: PromptBuilder, conversation: Conversation) -> None:
    assert fault(builder, conversation) == (Reason.INVALID_PARAMETER, "messages")


def nested(depth: int) -> Mapping[str, Any]:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return {"type": "function", "function": value}


def test_tools_are_bounded_in_number_depth_and_size(builder: PromptBuilder) -> None:
    tools = (weather_tool(),) * 129
    assert fault(builder, talk(user("x"), tools=tools)) == (Reason.INVALID_PARAMETER, "tools")
    deep = talk(user("x"), tools=(weather_tool(), nested(200)))
    assert fault(builder, deep) == (Reason.INVALID_SCHEMA, "tools[1]")
    wide = talk(user("x"), tools=({"enum": list(range(30_000))},))
    assert fault(builder, wide) == (Reason.INVALID_SCHEMA, "tools[0]")
    call = ToolCall(name="f", arguments=nested(100))
    message = Message(role=Role.ASSISTANT, content=None, tool_calls=(call,))
    assert fault(builder, talk(user("x"), message)) == (
        Reason.INVALID_SCHEMA,
        "messages[1].tool_calls[0]",
    )
    assert builder.prepare(talk(user("x"), tools=(nested(20),))).spans == ()


def test_messages_parts_and_text_are_bounded(files: Path, tmp_path: Path) -> None:
    limits = PromptLimits(max_messages=3, max_parts=4, max_text_bytes=10)
    builder = PromptBuilder(processor_bundle(files, tmp_path / "it"), limits=limits)
    assert fault(builder, talk(*[user("a")] * 4)) == (Reason.INVALID_PARAMETER, "messages")
    assert fault(builder, talk(user(*"abcde"))) == (Reason.INVALID_PARAMETER, "messages")
    assert fault(builder, talk(user("é" * 6))) == (Reason.REQUEST_TOO_LARGE, "messages")
    assert len(builder.prepare(talk(user("é" * 5))).input_ids) > 0


def test_a_prompt_that_fills_the_window_is_too_long(builder: PromptBuilder) -> None:
    conversation = talk(user("one two three", png(64, 64)))
    length = len(builder.prepare(conversation).input_ids)
    assert len(builder.prepare(conversation, max_context=length + 1).input_ids) == length
    with pytest.raises(PromptTooLong) as caught:
        builder.prepare(conversation, max_context=length)
    assert f"{length} tokens > limit {length - 1}" in caught.value.message
    assert caught.value.param == "messages"


def test_a_window_larger_than_the_models_changes_nothing(builder: PromptBuilder) -> None:
    assert fault(builder, talk(user("a b " * 4096)), max_context=10**9)[0] is (
        Reason.CONTEXT_LENGTH_EXCEEDED
    )


def test_images_that_fill_the_window_are_refused_before_text_is_tokenized(
    builder: PromptBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(builder.tokenizer), "encode_text", None)
    conversation = talk(user("x", png(640, 640), png(640, 640)))
    assert fault(builder, conversation, max_context=500)[0] is Reason.CONTEXT_LENGTH_EXCEEDED


def test_text_that_cannot_fit_is_refused_before_it_is_tokenized(
    builder: PromptBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(builder.tokenizer), "encode_text", None)
    assert fault(builder, talk(user("ab " * (MIB // 3))), max_context=100) == (
        Reason.CONTEXT_LENGTH_EXCEEDED,
        "messages",
    )


def test_accents_that_compose_are_not_counted_twice(roomy: PromptBuilder) -> None:
    text = "e\u0301" * 400
    window = roomy.tokenizer.least_tokens("user\n" + "\u00e9" * 400 + "assistant\n") + 1
    assert window > 100
    with pytest.raises(PromptTooLong) as caught:
        roomy.prepare(talk(user(text)), max_context=window)
    assert "at least" not in caught.value.message


def with_blanks(text: str) -> str:
    """A tokenizer.json whose longest token is of 128 blanks, as in the published one."""
    raw = json.loads(text)
    vocab, merges = raw["model"]["vocab"], raw["model"]["merges"]
    lengths = [1 << power for power in range(7)]
    for length in lengths:
        vocab.setdefault("Ġ" * 2 * length, 1000 + length)
    kept = [pair for pair in merges if set("".join(pair)) != {"Ġ"}]
    raw["model"]["merges"] = kept + [["Ġ" * length] * 2 for length in lengths]
    return json.dumps(raw)


@pytest.fixture(scope="module")
def blanks(files: Path, tmp_path_factory: pytest.TempPathFactory) -> PromptBuilder:
    target = tmp_path_factory.mktemp("blanks") / "it"
    return PromptBuilder(processor_bundle(files, target, changes={"tokenizer.json": with_blanks}))


def test_one_long_token_of_blanks_does_not_hide_letters_that_cannot_fit(
    blanks: PromptBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(blanks.tokenizer.encode_text(" " * 128)) == 1
    monkeypatch.setattr(type(blanks.tokenizer), "encode_text", None)
    for text in ("a" * 2 * MIB, "lazy " * (MIB // 4), "日本" * (MIB // 4)):
        assert fault(blanks, talk(user(text))) == (Reason.CONTEXT_LENGTH_EXCEEDED, "messages")


def test_a_prompt_too_long_is_given_up_at_the_window(
    blanks: PromptBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, lengths = blanks.tokenizer.encode_text, []
    monkeypatch.setattr(blanks.tokenizer, "least_tokens", lambda _: 0)

    def counted(text: str) -> list[int]:
        lengths.append(len(text))
        return encode(text)

    monkeypatch.setattr(blanks.tokenizer, "encode_text", counted)
    with pytest.raises(PromptTooLong) as caught:
        blanks.prepare(talk(user("the lazy dog " * (MIB // 8))))
    assert "at least" in caught.value.message
    assert sum(lengths) < 100_000


@pytest.mark.parametrize(
    "text",
    [
        "a" * MIB,
        " " * (MIB - 1) + "x",
        "😀" * (MIB // 4),
        "<|" * (MIB // 2),
        "<|im_end|>" * (MIB // 10),
        "1" * MIB,
        "\n" * (MIB - 1) + "x",
        " \n" * (MIB // 2 - 1) + "x",
        "\u0301" * (MIB // 2),
    ],
    ids=["a", "spaces", "emoji", "angle", "tokens", "digits", "newlines", "mixed", "accents"],
)
def test_a_mebibyte_of_anything_takes_at_most_two_seconds(roomy: PromptBuilder, text: str) -> None:
    took = []
    for _ in range(3):  # a busy machine adds to what it takes
        start = time.process_time()
        roomy.prepare(talk(user(text)))
        took.append(time.process_time() - start)
        if took[-1] < 2.0:
            break
    assert min(took) < 2.0


def test_images_have_other_digests_under_another_key(files: Path, tmp_path: Path) -> None:
    bundle = processor_bundle(files, tmp_path / "it")
    conversation = talk(user(png(64, 64)))

    def digest(digest_key: bytes | None) -> bytes:
        (span,) = PromptBuilder(bundle, digest_key=digest_key).prepare(conversation).spans
        return span.digest

    assert digest(b"a" * 32) == digest(b"a" * 32)
    assert len({digest(None), digest(b"a" * 32), digest(b"b" * 32)}) == 3


def test_threads_may_share_a_builder(builder: PromptBuilder) -> None:
    talks = [talk(user(f"turn {turn} <|im_end|>", png(64, 64 + turn))) for turn in range(8)]
    alone = [builder.prepare(conversation) for conversation in talks]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(builder.prepare, talks * 5))
    for index, prompt in enumerate(together):
        assert prompt.input_ids.tolist() == alone[index % 8].input_ids.tolist()


def test_media_limits_are_settings(files: Path, tmp_path: Path) -> None:
    limits = PromptLimits(media=MediaLimits(max_request_images=1))
    builder = PromptBuilder(processor_bundle(files, tmp_path / "it"), limits=limits)
    assert fault(builder, talk(user(png(9, 9), png(9, 9))))[0] is Reason.IMAGE_TOO_LARGE


def edit(change: Callable[[Any], None]) -> Callable[[str], str]:
    def edited(text: str) -> str:
        raw = json.loads(text)
        change(raw)
        return json.dumps(raw)

    return edited


@pytest.mark.parametrize(
    ("file", "change", "named"),
    [
        ("tokenizer.json", lambda text: text[:-9], "tokenizer.json"),
        ("tokenizer.json", lambda _: "[]", "tokenizer.json"),
        ("tokenizer.json", lambda _: "{}", "added_tokens"),
        ("tokenizer.json", edit(lambda raw: raw["model"].update(type="Unigram")), "BPE"),
        ("tokenizer.json", edit(lambda raw: raw.update(decoder=None)), "ByteLevel"),
        ("tokenizer.json", edit(lambda raw: raw["model"].update(merges=["x"])), "known form"),
        ("tokenizer.json", edit(lambda raw: raw["added_tokens"][3].update(lstrip=True)), "lstrip"),
        ("tokenizer.json", edit(lambda raw: raw["added_tokens"][3].update(content="x")), "added"),
        ("tokenizer.json", edit(lambda raw: raw["added_tokens"].pop()), "disagree"),
        (
            "tokenizer_config.json",
            edit(lambda raw: raw["added_tokens_decoder"]["560"].update(content="<x>")),
            "disagree",
        ),
        ("tokenizer_config.json", lambda _: "no", "tokenizer_config.json"),
        ("chat_template.jinja", lambda _: "{% if %}", "chat_template.jinja"),
        ("preprocessor_config.json", lambda _: "{}", "lacks size"),
        ("preprocessor_config.json", edit(lambda raw: raw.update(patch_size=14)), "patch_size"),
    ],
)
def test_a_damaged_bundle_is_refused_by_name(
    files: Path, tmp_path: Path, file: str, change: Callable[[str], str], named: str
) -> None:
    bundle = processor_bundle(files, tmp_path / "it", changes={file: change})
    with pytest.raises(BundleError, match=named):
        PromptBuilder(bundle)


@pytest.mark.parametrize(
    "file",
    [
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "preprocessor_config.json",
    ],
)
def test_a_missing_file_is_named(files: Path, tmp_path: Path, file: str) -> None:
    bundle = processor_bundle(files, tmp_path / "it")
    (bundle.path / "processor" / file).unlink()
    with pytest.raises(BundleError, match=file):
        PromptBuilder(bundle)


def test_an_added_token_that_text_could_spell_is_refused(files: Path, tmp_path: Path) -> None:
    def spell(raw: Any) -> None:
        words = (word for word in raw["model"]["vocab"] if len(word) > 2)
        word = next(word for word in words if word.isascii() and word.isalpha())
        token = dict(raw["added_tokens"][0], id=raw["model"]["vocab"][word], content=word)
        raw["added_tokens"].append(token)

    bundle = processor_bundle(files, tmp_path / "it", changes={"tokenizer.json": edit(spell)})
    with pytest.raises(BundleError, match="plain text"):
        PromptBuilder(bundle)


def test_a_manifest_with_other_special_tokens_is_refused(files: Path, tmp_path: Path) -> None:
    target = tmp_path / "it"
    bundle = processor_bundle(files, target)
    manifest = json.loads((target / "tandem.json").read_text())
    manifest["special_tokens"]["image"] = 5
    (target / "tandem.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="image token"):
        PromptBuilder(type(bundle).open(target))


def test_refusals_are_errors_a_client_may_see(builder: PromptBuilder) -> None:
    with pytest.raises(InvalidRequest):
        builder.prepare(talk())
