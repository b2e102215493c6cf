"""A small byte-level BPE tokenizer with Qwen's names, normalizer and splitting rules."""

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

# The splitting rule of Qwen2's and Qwen3's tokenizers.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# In the order of Qwen's ids, from 151643 on.
CONTROL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# Added tokens that are not "special": decoding keeps them.
PLAIN_TOKENS = (
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
)
FIRST_QWEN_ID = 151643

TEXT = """\
What is in this picture? Describe the image in one sentence. How many red circles are there?
The quick brown fox jumps over the lazy dog. It's the user's question; we'll answer, they've asked.
A small blue square lies left of the large green triangle. Read the number: 1234567890.
You are a helpful assistant that answers questions about pictures. Picture 1: a cat. Video 2: a dog.
def main(argument):\n    return {"name": "get_weather", "arguments": {"city": "Berlin"}}\n
Größe und Straße, naïve café, señor niño, 日本語のテキスト、中文图片问题。 Привет, мир! שלום 😀👍🏽
The the the and and of of to to in in is is that that it it was was for for on on are are as as
"""


def train(merges: int, *, control_order: Sequence[str] = CONTROL_TOKENS) -> Tokenizer:
    """Trains a tokenizer.

    Args:
        merges: Wanted BPE merges beyond the 256 bytes (fewer where the text gives no more).
        control_order: The control tokens in the order of their ids.
    """
    tokenizer = _bare(BPE())
    trainer = BpeTrainer(
        vocab_size=256 + merges,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT.splitlines(keepends=True), trainer)
    _add_named_tokens(tokenizer, control_order)
    return tokenizer


def with_qwen_ids() -> Tokenizer:
    """A tokenizer whose control tokens have Qwen's real ids; fillers take the ids before."""
    trained = json.loads(train(512).to_str())["model"]
    vocab: dict[str, int] = trained["vocab"]
    for index in range(len(vocab), FIRST_QWEN_ID):
        vocab[f"Ġfiller{index}"] = index
    merges = [tuple(pair) for pair in trained["merges"]]
    tokenizer = _bare(BPE(vocab=vocab, merges=merges))
    _add_named_tokens(tokenizer, CONTROL_TOKENS)
    return tokenizer


def _bare(model: BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _add_named_tokens(tokenizer: Tokenizer, control_order: Sequence[str]) -> None:
    options = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    tokenizer.add_special_tokens(
        [AddedToken(name, special=True, **options) for name in control_order]
    )
    tokenizer.add_tokens([AddedToken(name, special=False, **options) for name in PLAIN_TOKENS])


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes tokenizer.json, vocab.json, merges.txt and tokenizer_config.json as Qwen's lie."""
    tokenizer.save(str(folder / "tokenizer.json"))
    raw = json.loads(tokenizer.to_str())
    (folder / "vocab.json").write_text(json.dumps(raw["model"]["vocab"], ensure_ascii=False))
    merges = "".join(f"{left} {right}\n" for left, right in raw["model"]["merges"])
    (folder / "merges.txt").write_text("#version: 0.2\n" + merges)
    added = {
        str(token["id"]): {key: value for key, value in token.items() if key != "id"}
        for token in raw["added_tokens"]
    }
    settings = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": [
            name for name in CONTROL_TOKENS if name not in ("<|endoftext|>", "<|im_end|>")
        ],
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 262144,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))
