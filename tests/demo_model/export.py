"""Writes a trained state as a Hugging Face checkpoint.

    python -m tests.demo_model.export FOLDER CHECKPOINT

FOLDER is where `tests.demo_model.training` kept its states. The chat template is not written: it
lies in the checkpoint folder already.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from tokenizers import Tokenizer

from tests.demo_model.model import new_model
from tests.demo_model.pictures import LONGEST_EDGE, SHORTEST_EDGE
from tests.demo_model.tokenizer import special_ids
from tests.demo_model.videos import (
    FEWEST_FRAMES,
    MOST_FRAMES,
    SAMPLED_PER_SECOND,
    VIDEO_LONGEST_EDGE,
    VIDEO_SHORTEST_EDGE,
)

Settings = dict[str, object]


def common_settings() -> Settings:
    """What pictures and videos share, as in Qwen3-VL."""
    return {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "merge_size": 2,
        "patch_size": 16,
        "processor_class": "Qwen3VLProcessor",
        "resample": 3,
        "rescale_factor": 1 / 255,
        "temporal_patch_size": 2,
    }


def picture_settings() -> Settings:
    """`preprocessor_config.json`; the two edges are areas in pixels."""
    size = {"longest_edge": LONGEST_EDGE, "shortest_edge": SHORTEST_EDGE}
    return common_settings() | {"image_processor_type": "Qwen2VLImageProcessorFast", "size": size}


def video_settings() -> Settings:
    """`video_preprocessor_config.json`; the two edges are volumes in pixels."""
    return common_settings() | {
        "cap_pixels_per_frame": False,
        "do_sample_frames": True,
        "fps": SAMPLED_PER_SECOND,
        "max_frames": MOST_FRAMES,
        "min_frames": FEWEST_FRAMES,
        "size": {"longest_edge": VIDEO_LONGEST_EDGE, "shortest_edge": VIDEO_SHORTEST_EDGE},
        "video_processor_type": "Qwen3VLVideoProcessor",
    }


def export(folder: Path, checkpoint: Path) -> None:
    """Writes weights (bfloat16), configuration, tokenizer and preprocessor settings."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    special = special_ids(tokenizer)
    model = new_model(tokenizer.get_vocab_size(), special, seed=0)
    state = torch.load(folder / "answers.pt", weights_only=True)
    model.load_state_dict(state["modules"]["model"])
    model.config.text_config.eos_token_id = special["<|im_end|>"]
    model.config.text_config.pad_token_id = special["<|endoftext|>"]
    generation = model.generation_config
    generation.do_sample = False
    generation.eos_token_id = [special["<|im_end|>"], special["<|endoftext|>"]]
    generation.pad_token_id = special["<|endoftext|>"]
    model.to(torch.bfloat16).save_pretrained(checkpoint)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, checkpoint / name)
    write(checkpoint / "preprocessor_config.json", picture_settings())
    write(checkpoint / "video_preprocessor_config.json", video_settings())


def write(path: Path, settings: Settings) -> None:
    """Writes settings as JSON."""
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def main() -> None:
    """Writes the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("checkpoint", type=Path)
    arguments = parser.parse_args()
    export(arguments.folder, arguments.checkpoint)


if __name__ == "__main__":
    main()
