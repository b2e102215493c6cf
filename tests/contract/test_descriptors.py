"""The wire's own manners: comments, signed integers, enum zeros, additive evolution."""

import re
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from protos.tandem.v1 import decoder_pb2, gateway_pb2, tensor_pb2, vision_pb2

FILES = (tensor_pb2, vision_pb2, decoder_pb2, gateway_pb2)
SOURCES = Path(__file__).parents[2] / "protos" / "tandem" / "v1"
UNSIGNED = (FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_UINT64)


def messages() -> list[Descriptor]:
    return [message for file in FILES for message in file.DESCRIPTOR.message_types_by_name.values()]


def enums() -> list[EnumDescriptor]:
    return [enum for file in FILES for enum in file.DESCRIPTOR.enum_types_by_name.values()]


@pytest.mark.parametrize("enum", enums(), ids=lambda enum: enum.name)
def test_enums_start_with_an_unspecified_zero(enum: EnumDescriptor) -> None:
    assert enum.values_by_number[0].name.endswith("_UNSPECIFIED")


@pytest.mark.parametrize("message", messages(), ids=lambda message: message.name)
def test_counts_and_sizes_are_signed(message: Descriptor) -> None:
    assert [field.name for field in message.fields if field.type in UNSIGNED] == []


@pytest.mark.parametrize("message", messages(), ids=lambda message: message.name)
def test_maps_and_repeated_floats_stay_off_the_wire(message: Descriptor) -> None:
    floats = (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE)
    wrong = [f.name for f in message.fields if f.is_repeated and f.type in floats]
    assert wrong == []
    assert not any(nested.GetOptions().map_entry for nested in message.nested_types)


@pytest.mark.parametrize("source", sorted(SOURCES.glob("*.proto")), ids=lambda path: path.name)
def test_every_declaration_carries_a_comment(source: Path) -> None:
    lines = source.read_text().splitlines()
    declaration = re.compile(
        r"^\s*(message|enum|service|rpc)\s|^\s*[\w.]+\s+\w+ = \d+;|^\s*(optional|repeated) "
    )
    bare = [
        line.strip()
        for previous, line in zip(["", *lines], lines, strict=False)
        if declaration.match(line)
        and "= 0;" not in line
        and not previous.strip().startswith("//")
        and "//" not in line
        and not line.strip().startswith(("DTYPE_", "ROLE_"))
    ]
    assert bare == []
