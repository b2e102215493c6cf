"""The demonstration model's tokenizer: byte-level BPE with Qwen's special tokens.

    python -m tests.demo_model.tokenizer FOLDER

writes `tokenizer.json` and `tokenizer_config.json`. It is trained on the questions and answers
themselves, except for what is printed in pictures: those texts are spelled letter by letter.
"""

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from tests.demo_model import phrasings
from tests.demo_model.drawing import COLORS, SHAPES
from tests.demo_model.followups import ask_follow_up
from tests.demo_model.questions import (
    Turns,
    ask_color,
    ask_count,
    ask_description,
    ask_place,
    ask_shape,
    ask_spatial,
    ask_yes_no,
)
from tests.demo_model.scenes import Frame, compose, random_names
from tests.demo_model.talk import ask_talk

LEARNED_TOKENS = 700  # bytes among them
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CONTROL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>",
    "<|object_ref_end|>", "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>",
    "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
MARKUP_TOKENS = (
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>",
    "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>",
    "<think>", "</think>",
)  # fmt: skip
SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "Answer the question about the picture.",
    "You answer questions about pictures.",
    "Answer briefly.",
)


def train_tokenizer(seed: int) -> Tokenizer:
    """A new tokenizer; the same seed gives the same one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=LEARNED_TOKENS,
        min_frequency=12,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(seed), trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in CONTROL_TOKENS])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in MARKUP_TOKENS])
    return tokenizer


def corpus(seed: int) -> Iterator[str]:
    """Questions and answers, and the words that the template and the prompts add."""
    rng = random.Random(f"tokenizer {seed}")
    frame = Frame(192, 160, 192, 160)
    askers = (
        ask_color, ask_shape, ask_count, ask_spatial, ask_place, ask_yes_no, ask_description,
        ask_follow_up,
    )  # fmt: skip
    for _ in range(1500):
        scene = compose(rng, frame, random_names(rng, rng.randint(1, 5)))
        for ask in askers:
            yield from words(ask(rng, scene))
        yield from words(ask_talk(rng))
    yield from static_phrases() * 15
    fixed = ("system\n", "user\n", "assistant\n", "<0.2 seconds>", "Picture 1: ", "Video 1: ")
    yield from [*fixed, *SYSTEM_PROMPTS] * 40


def words(turns: Turns | None) -> Iterator[str]:
    """All text of some turns."""
    for turn in turns or ():
        yield turn.question
        yield turn.answer


def static_phrases() -> list[str]:
    """Every phrasing of the skills that need several pictures, a video or a text."""
    tables = (
        phrasings.READ_NUMBER, phrasings.READ_WORD, phrasings.READ_TEXT, phrasings.SAME,
        phrasings.MORE, phrasings.COLOR_IN, phrasings.WHICH, phrasings.DIRECTION,
        phrasings.APPEAR,
    )  # fmt: skip
    found = ["at second 1", "left", "right", "up", "down", 'the number 1 and the word "X"']
    for table in tables:
        for i, phrase in enumerate(table):
            name = f"{COLORS[i % len(COLORS)]} {SHAPES[i % len(SHAPES)]}"
            found.append(
                phrase.format(
                    thing=name,
                    things=name + "s",
                    a_thing=f"a {name}",
                    a_thing_capital=f"A {name}",
                    nth=("first", "second", "third")[i % 3],
                    number="1",
                )
            )
    return found


def special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """Ids of the special tokens by name."""
    ids = {name: tokenizer.token_to_id(name) for name in CONTROL_TOKENS + MARKUP_TOKENS}
    return {name: token for name, token in ids.items() if token is not None}


def tokenizer_config(tokenizer: Tokenizer) -> dict[str, object]:
    """What transformers needs to know besides `tokenizer.json`."""
    added = {
        str(tokenizer.token_to_id(name)): {
            "content": name,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": name in CONTROL_TOKENS,
        }
        for name in CONTROL_TOKENS + MARKUP_TOKENS
    }
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": list(CONTROL_TOKENS[1:]),
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 4096,
        "pad_token": "<|endoftext|>",
        "processor_class": "Qwen3VLProcessor",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def write_tokenizer(folder: Path, seed: int) -> Tokenizer:
    """Trains a tokenizer and writes its two files."""
    tokenizer = train_tokenizer(seed)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = json.dumps(tokenizer_config(tokenizer), indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(config)
    return tokenizer


def main() -> None:
    """Writes the tokenizer's files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    write_tokenizer(arguments.folder, arguments.seed)


if __name__ == "__main__":
    main()
