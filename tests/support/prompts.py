"""What prompt tests share: images, processor bundles, conversations in both spellings."""

import io
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from gateway.request.conversation import (
    Conversation,
    ImagePart,
    Message,
    Part,
    Role,
    TextPart,
    ToolCall,
)
from protos.bundle.manifest import MANIFEST_NAME, Bundle, Manifest, TextDims, VisionDims
from tests.support import tokenizers_tiny
from tests.support.manifests import small_manifest

PROCESSOR_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
)


def png(width: int, height: int, *, colour: tuple[int, int, int] = (200, 30, 40)) -> bytes:
    """A one-coloured PNG."""
    return encoded(Image.new("RGB", (width, height), colour), "PNG")


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    """An image file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def opened(data: bytes) -> Image.Image:
    """The image as the reference gets it: upright RGB."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert image is not None
    return image.convert("RGB")


def processor_bundle(
    checkpoint: Path,
    target: Path,
    *,
    changes: Mapping[str, Callable[[str], str]] | None = None,
    manifest_changes: Mapping[str, Any] | None = None,
) -> Bundle:
    """A bundle with nothing but the gateway's part, made from a checkpoint folder.

    Args:
        checkpoint: A Hugging Face checkpoint.
        target: Folder to write.
        changes: By file name, edits of its text.
        manifest_changes: Fields of the manifest to replace.
    """
    processor = target / "processor"
    processor.mkdir(parents=True)
    for name in PROCESSOR_FILES:
        shutil.copy(checkpoint / name, processor / name)
    for name, change in (changes or {}).items():
        file = processor / name
        file.write_text(change(file.read_text()))
    manifest = manifest_of(json.loads((checkpoint / "config.json").read_text()))
    fields = {name: getattr(manifest, name) for name in Manifest.__slots__}
    manifest = Manifest(**{**fields, **(manifest_changes or {})})
    (target / MANIFEST_NAME).write_text(manifest.to_json())
    return Bundle.open(target)


def processor_files(folder: Path) -> Path:
    """A folder with what the gateway reads of a checkpoint, made without torch."""
    folder.mkdir(parents=True)
    tokenizer = tokenizers_tiny.train(300)
    tokenizers_tiny.save(tokenizer, folder)
    shutil.copy(Path(__file__).with_name("chat_template.jinja"), folder)
    images = {
        "size": {"shortest_edge": 4096, "longest_edge": 16777216},
        "patch_size": 16,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    for name in ("preprocessor_config.json", "video_preprocessor_config.json"):
        (folder / name).write_text(json.dumps(images))
    (folder / "config.json").write_text(json.dumps(_config(tokenizer.token_to_id)))
    return folder


def _config(token_id: Callable[[str], int | None]) -> Mapping[str, Any]:
    names = ("image_pad", "video_pad", "vision_start", "vision_end")
    keys = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    vision = dict.fromkeys((*VisionDims.__slots__,), 1)
    return {
        "text_config": {**dict.fromkeys(TextDims.__slots__, 1), "max_position_embeddings": 4096},
        "vision_config": {
            **vision,
            "patch_size": 16,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "deepstack_visual_indexes": [0],
        },
        **{key: token_id(f"<|{name}|>") for key, name in zip(keys, names, strict=True)},
    }


def manifest_of(config: Mapping[str, Any]) -> Manifest:
    """A manifest whose dims and special tokens are config.json's."""
    text, vision = config["text_config"], config["vision_config"]
    return small_manifest(
        model_id="test",
        text={name: text[name] for name in TextDims.__slots__},
        vision={
            **{name: vision[name] for name in VisionDims.__slots__},
            "deepstack_visual_indexes": tuple(vision["deepstack_visual_indexes"]),
        },
        special_tokens={
            "image": config["image_token_id"],
            "video": config["video_token_id"],
            "vision_start": config["vision_start_token_id"],
            "vision_end": config["vision_end_token_id"],
            "eos": (0,),
        },
    )


def user(*parts: str | bytes) -> Message:
    """A user's turn of texts and images."""
    return Message(role=Role.USER, content=parts_of(*parts))


def parts_of(*parts: str | bytes) -> tuple[Part, ...]:
    """Texts and images as parts."""
    return tuple(
        TextPart(text=part) if isinstance(part, str) else ImagePart(data=part) for part in parts
    )


def answer(text: str) -> Message:
    """An assistant's turn."""
    return Message(role=Role.ASSISTANT, content=text)


def talk(*messages: Message, **options: Any) -> Conversation:
    """A conversation."""
    return Conversation(messages=messages, **options)


def transformers_messages(conversation: Conversation) -> list[dict[str, Any]]:
    """The conversation as transformers' users write it."""
    return [_transformers_message(message) for message in conversation.messages]


def images_of(conversation: Conversation) -> list[Image.Image]:
    """The conversation's images as the reference gets them."""
    return [
        opened(part.data)
        for message in conversation.messages
        if isinstance(message.content, tuple)
        for part in message.content
        if isinstance(part, ImagePart)
    ]


def _transformers_message(message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": str(message.role), "content": message.content}
    if isinstance(message.content, tuple):
        turn["content"] = [
            {"type": "text", "text": part.text} if isinstance(part, TextPart) else {"type": "image"}
            for part in message.content
        ]
    if message.tool_calls:
        turn["tool_calls"] = [_transformers_call(call) for call in message.tool_calls]
    if message.reasoning is not None:
        turn["reasoning_content"] = message.reasoning
    return turn


def _transformers_call(call: ToolCall) -> dict[str, Any]:
    return {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def weather_tool(description: str = "Tells the weather.") -> Mapping[str, Any]:
    """A tool schema with nesting, non-ASCII text and numbers."""
    return {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": description,
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "enum": ["Zürich", "東京", 'quo"ted']},
                    "days": {"type": "integer", "minimum": 1, "maximum": 14.5},
                },
                "required": ["city"],
            },
        },
    }


def texts_of(messages: Sequence[Message]) -> list[str]:
    """Every text part and string content."""
    texts = []
    for message in messages:
        if isinstance(message.content, str):
            texts.append(message.content)
        elif message.content is not None:
            texts += [part.text for part in message.content if isinstance(part, TextPart)]
    return texts
