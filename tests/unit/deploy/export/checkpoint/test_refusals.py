"""A checkpoint that lacks or contradicts something is refused by the name of that thing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from deploy.export.checkpoint.checkpoint import Checkpoint
from deploy.export.errors import ExportError
from tests.support.bundles import checkpoint

Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of a tiny sharded checkpoint to damage."""
    return Path(shutil.copytree(checkpoint("untied"), tmp_path / "checkpoint"))


def edit(file: Path, change: Change) -> None:
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))


def test_an_undamaged_checkpoint_opens(folder: Path) -> None:
    opened = Checkpoint.open(folder)
    assert opened.vision.deepstack_visual_indexes == (8, 24)
    assert opened.text.num_attention_heads * opened.text.head_dim != opened.text.hidden_size


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "preprocessor_config.json",
        "video_preprocessor_config.json",
        "model-00002-of-00021.safetensors",
    ],
)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ExportError, match=name):
        Checkpoint.open(folder)


def test_a_missing_chat_template_is_named(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ExportError, match="chat template"):
        Checkpoint.open(folder)


def test_a_template_in_chat_template_json_is_found(folder: Path) -> None:
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    assert Checkpoint.open(folder).processor_files["chat_template.jinja"] == template.encode()


TEXT_KEYS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "max_position_embeddings",
    "rms_norm_eps",
    "attention_bias",
)
VISION_KEYS = (
    "depth",
    "hidden_size",
    "hidden_act",
    "intermediate_size",
    "num_heads",
    "in_channels",
    "patch_size",
    "spatial_merge_size",
    "temporal_patch_size",
    "out_hidden_size",
    "num_position_embeddings",
    "deepstack_visual_indexes",
)
TOP_KEYS = (
    "model_type",
    "architectures",
    "text_config",
    "vision_config",
    "image_token_id",
    "video_token_id",
    "vision_start_token_id",
    "vision_end_token_id",
    "tie_word_embeddings",
)
ROPE_KEYS = ("rope_theta", "rope_type", "mrope_section", "mrope_interleaved")
IMAGE_KEYS = (
    "size",
    "patch_size",
    "temporal_patch_size",
    "merge_size",
    "image_mean",
    "image_std",
    "image_processor_type",
)
MISSING = [
    *((("config.json",), key) for key in TOP_KEYS),
    *((("config.json", "text_config"), key) for key in TEXT_KEYS),
    *((("config.json", "vision_config"), key) for key in VISION_KEYS),
    *((("config.json", "text_config", "rope_parameters"), key) for key in ROPE_KEYS),
    *((("preprocessor_config.json",), key) for key in IMAGE_KEYS),
    (("preprocessor_config.json", "size"), "longest_edge"),
    (("video_preprocessor_config.json",), "size"),
    (("generation_config.json",), "eos_token_id"),
]


@pytest.mark.parametrize(("where", "key"), MISSING, ids=lambda value: str(value))
def test_a_missing_key_is_named_instead_of_taken_from_a_class(
    folder: Path, where: tuple[str, ...], key: str
) -> None:
    def remove(value: dict[str, Any]) -> None:
        for part in where[1:]:
            value = value[part]
        del value[key]

    edit(folder / where[0], remove)
    with pytest.raises(ExportError, match=key):
        Checkpoint.open(folder)


def set_in(*path: str, to: object) -> Change:
    def change(value: dict[str, Any]) -> None:
        for part in path[:-1]:
            value = value[part]
        value[path[-1]] = to

    return change


WRONG: list[tuple[str, Change, str]] = [
    ("config.json", set_in("model_type", to="qwen2_5_vl"), "qwen2_5_vl"),
    ("config.json", set_in("model_type", to="qwen3_vl_moe"), "qwen3_vl_moe"),
    ("config.json", set_in("architectures", to=["Other"]), "Other"),
    ("config.json", set_in("auto_map", to={"AutoModel": "code.Model"}), "auto_map"),
    ("tokenizer_config.json", set_in("auto_map", to={}), "tokenizer_config.json has auto_map"),
    ("preprocessor_config.json", set_in("auto_map", to={}), "auto_map"),
    ("config.json", set_in("quantization_config", to={"bits": 4}), "quantization_config"),
    ("config.json", set_in("text_config", "hidden_act", to="gelu"), "hidden_act"),
    ("config.json", set_in("text_config", "attention_bias", to=True), "attention_bias"),
    ("config.json", set_in("text_config", "head_dim", to=20), "head_dim"),
    ("config.json", set_in("text_config", "hidden_size", to="96"), "hidden_size"),
    ("config.json", set_in("text_config", "hidden_size", to=0), "hidden_size"),
    ("config.json", set_in("text_config", "num_key_value_heads", to=4), "key/value heads"),
    (
        "config.json",
        set_in("text_config", "rope_parameters", "rope_type", to="yarn"),
        "rope_type",
    ),
    (
        "config.json",
        set_in("text_config", "rope_parameters", "mrope_interleaved", to=False),
        "mrope_interleaved",
    ),
    (
        "config.json",
        set_in("text_config", "rope_parameters", "mrope_section", to=[2, 5, 5]),
        "mrope_section",
    ),
    ("config.json", set_in("vision_config", "out_hidden_size", to=64), "out_hidden_size"),
    (
        "config.json",
        set_in("vision_config", "num_position_embeddings", to=255),
        "num_position_embeddings",
    ),
    (
        "config.json",
        set_in("vision_config", "deepstack_visual_indexes", to=[24, 8]),
        "deepstack_visual_indexes",
    ),
    (
        "config.json",
        set_in("vision_config", "deepstack_visual_indexes", to=[8, 27]),
        "deepstack_visual_indexes",
    ),
    ("config.json", set_in("image_token_id", to=7), "image_pad"),
    ("preprocessor_config.json", set_in("patch_size", to=14), "patch_size"),
    ("preprocessor_config.json", set_in("merge_size", to=3), "merge_size"),
    ("preprocessor_config.json", set_in("min_pixels", to="3136"), "min_pixels"),
    ("preprocessor_config.json", set_in("max_pixels", to=1), "area"),
    ("preprocessor_config.json", set_in("resample", to=2), "resample"),
    ("preprocessor_config.json", set_in("do_resize", to=False), "do_resize"),
    ("preprocessor_config.json", set_in("do_convert_rgb", to=False), "do_convert_rgb"),
    ("preprocessor_config.json", set_in("image_std", to=[0.5, 0, 0.5]), "image_std"),
    ("preprocessor_config.json", set_in("rescale_factor", to="1"), "rescale_factor"),
    (
        "preprocessor_config.json",
        set_in("image_processor_type", to="CLIPImageProcessor"),
        "CLIPImageProcessor",
    ),
    ("generation_config.json", set_in("eos_token_id", to=[10**6]), "eos_token_id"),
]


@pytest.mark.parametrize(("name", "change", "match"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_or_unsupported_value_is_named(
    folder: Path, name: str, change: Change, match: str
) -> None:
    edit(folder / name, change)
    with pytest.raises(ExportError, match=match):
        Checkpoint.open(folder)


def test_more_levels_than_layers_are_refused(folder: Path) -> None:
    edit(folder / "config.json", set_in("text_config", "num_hidden_layers", to=1))
    with pytest.raises(ExportError, match="2 DeepStack levels, but only 1 decoder layers"):
        Checkpoint.open(folder)


def test_pickled_weights_are_refused_by_name(folder: Path) -> None:
    for file in folder.glob("model*"):
        file.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(ExportError, match=r"pytorch_model\.bin"):
        Checkpoint.open(folder)


def test_a_checkpoint_without_weights_says_so(folder: Path) -> None:
    for file in folder.glob("model*"):
        file.unlink()
    with pytest.raises(ExportError, match=r"model\.safetensors"):
        Checkpoint.open(folder)


@pytest.mark.parametrize("place", ["../model.safetensors", "/etc/passwd", "weights.bin"])
def test_an_index_cannot_point_outside_the_checkpoint(folder: Path, place: str) -> None:
    index = folder / "model.safetensors.index.json"
    edit(index, set_in("weight_map", "lm_head.weight", to=place))
    with pytest.raises(ExportError, match="expected a safetensors file beside it"):
        Checkpoint.open(folder)


def test_a_truncated_weights_file_is_named(folder: Path) -> None:
    file = folder / "model-00003-of-00021.safetensors"
    file.write_bytes(file.read_bytes()[:-64])
    with pytest.raises(ExportError, match=r"model-00003-of-00021\.safetensors"):
        Checkpoint.open(folder)


def test_a_file_that_is_no_safetensors_is_named(folder: Path) -> None:
    (folder / "model-00001-of-00021.safetensors").write_bytes(b"\xff" * 200)
    with pytest.raises(ExportError, match="not a safetensors file"):
        Checkpoint.open(folder)


def test_settings_that_are_no_json_are_named(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(ExportError, match=r"config\.json is not valid JSON"):
        Checkpoint.open(folder)


def test_a_list_beside_the_settings_is_nobodys_business(folder: Path) -> None:
    (folder / "merges.json").write_text("[]")
    assert Checkpoint.open(folder).path == folder


@pytest.mark.parametrize("text", ["{", "\ufeff[1]"])
def test_a_stray_file_that_is_no_json_is_nobodys_business(folder: Path, text: str) -> None:
    (folder / "trainer_state.json").write_text(text)
    assert Checkpoint.open(folder).path == folder


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json"])
def test_a_byte_order_mark_is_named(folder: Path, name: str) -> None:
    (folder / name).write_text("\ufeff" + (folder / name).read_text())
    with pytest.raises(ExportError, match=f"{name} begins with a byte order mark"):
        Checkpoint.open(folder)


def with_templates(folder: Path, *names: str) -> str:
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    named = [{"name": name, "template": template} for name in names]
    edit(folder / "tokenizer_config.json", set_in("chat_template", to=named))
    return template


def test_a_list_with_one_default_template_is_that_template(folder: Path) -> None:
    template = with_templates(folder, "default")
    assert Checkpoint.open(folder).processor_files["chat_template.jinja"] == template.encode()


@pytest.mark.parametrize("names", [("default", "tool_use"), ("tool_use",), ()])
def test_several_named_templates_are_refused_by_their_names(
    folder: Path, names: tuple[str, ...]
) -> None:
    with_templates(folder, *names)
    with pytest.raises(ExportError, match=r"list of the templates \["):
        Checkpoint.open(folder)


def store(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Adds tensors to the sharded checkpoint, or replaces them, in a shard of their own."""
    save_file(tensors, folder / "model-more.safetensors")

    def place(index: dict[str, Any]) -> None:
        index["weight_map"] |= dict.fromkeys(tensors, "model-more.safetensors")

    edit(folder / "model.safetensors.index.json", place)


def test_a_buffer_of_integers_is_left_alone(folder: Path) -> None:
    store(folder, {"model.visual.position_ids": torch.arange(4)})
    opened = Checkpoint.open(folder)
    assert "position_ids" not in opened.with_prefix("model.visual.")
    opened.require({"model.language_model.norm.weight": (96,)})


def test_a_weight_of_integers_is_refused_by_name(folder: Path) -> None:
    name = "model.language_model.norm.weight"
    store(folder, {name: torch.ones(96, dtype=torch.int8)})
    with pytest.raises(ExportError, match=f"{name} is stored as I8"):
        Checkpoint.open(folder).require({name: (96,)})


GENERATION: list[tuple[str, object]] = [
    ("temperature", "0.7"),
    ("temperature", 2.5),
    ("temperature", float("nan")),
    ("temperature", True),
    ("top_p", -0.1),
    ("top_p", [0.8]),
    ("top_k", -1),
    ("top_k", 20.0),
    ("min_p", 1.5),
    ("repetition_penalty", 0),
    ("presence_penalty", -3),
    ("do_sample", "true"),
    ("pad_token_id", "0"),
]


@pytest.mark.parametrize(("key", "value"), GENERATION, ids=str)
def test_a_generation_default_that_no_request_could_send_is_named(
    folder: Path, key: str, value: object
) -> None:
    edit(folder / "generation_config.json", set_in(key, to=value))
    with pytest.raises(ExportError, match=f"generation_config.json: {key} is"):
        Checkpoint.open(folder)


def test_generation_defaults_within_the_ranges_are_kept(folder: Path) -> None:
    given = {"temperature": 0.7, "top_p": 1.0, "top_k": 0, "min_p": None, "max_length": "any"}
    edit(folder / "generation_config.json", lambda value: value.update(given))
    kept = Checkpoint.open(folder).generation
    assert {key: kept[key] for key in given} == given


def test_a_missing_tensor_and_a_wrong_shape_are_named(folder: Path) -> None:
    opened = Checkpoint.open(folder)
    name = "model.language_model.norm.weight"
    opened.require({name: (96,)})
    with pytest.raises(ExportError, match=r"lack model\.extra"):
        opened.require({"model.extra": (1,)})
    with pytest.raises(ExportError, match=r"shape \[96\], config\.json implies \[97\]"):
        opened.require({name: (97,)})


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="nowhere"):
        Checkpoint.open(tmp_path / "nowhere")
