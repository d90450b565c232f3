"""The protos as buf reads them: style, a sentence for everything, a range for numbers, nothing broken, stubs in step.

The Open Inference Protocol is not ours to style.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet

from protos import inference_pb2, recommender_pb2

PROTOS = Path(recommender_pb2.__file__).parent
BUF = shutil.which("buf", path=str(Path(sys.executable).parent)) or shutil.which("buf")
pytestmark = pytest.mark.skipif(BUF is None, reason="buf is not installed (pip install buf-bin==1.75.0)")

NUMBERS = set(FieldDescriptorProto.Type.values()) - {
    FieldDescriptorProto.TYPE_BOOL,
    FieldDescriptorProto.TYPE_STRING,
    FieldDescriptorProto.TYPE_BYTES,
    FieldDescriptorProto.TYPE_MESSAGE,
    FieldDescriptorProto.TYPE_ENUM,
}


def buf(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    """Run buf, away from any network."""
    assert BUF is not None
    return subprocess.run([BUF, *map(str, arguments)], cwd=PROTOS.parent, capture_output=True)


def read_proto(name: str = "recommender.proto") -> FileDescriptorProto:
    """A proto with its comments."""
    built = buf("build", PROTOS, "--as-file-descriptor-set", "-o", "-")
    assert built.returncode == 0, built.stderr.decode()
    (file,) = (file for file in FileDescriptorSet.FromString(built.stdout).file if file.name == name)
    return file


def comments(file: FileDescriptorProto) -> dict[tuple[int, ...], str]:
    """Path of every declaration (descriptor.proto, SourceCodeInfo) -> the comment before it, on one line."""
    return {tuple(p.path): " ".join(p.leading_comments.split()) for p in file.source_code_info.location}


def declarations(file: FileDescriptorProto) -> dict[str, tuple[int, ...]]:
    """Name -> path of every message, field, enum, value, service and rpc."""
    found: dict[str, tuple[int, ...]] = {}
    for number, parts, inner, members in (
        (4, file.message_type, 2, "field"),
        (5, file.enum_type, 2, "value"),
        (6, file.service, 2, "method"),
    ):
        for i, part in enumerate(parts):
            found[part.name] = (number, i)
            found |= {f"{part.name}.{m.name}": (number, i, inner, j) for j, m in enumerate(getattr(part, members))}
    return found


def test_buf_finds_no_fault() -> None:
    done = buf("lint", PROTOS)
    assert (done.returncode, done.stdout.decode()) == (0, "")


def test_everything_has_a_sentence() -> None:
    file = read_proto()
    told = comments(file)
    names = declarations(file)
    assert len(names) > 80
    sentence = re.compile(r"([A-Z0-9`]|host:port).*[.]")
    assert [name for name, path in names.items() if not sentence.fullmatch(told.get(path, ""))] == []


def test_every_number_has_a_range() -> None:
    """Its comment holds a figure, or refers to a field that has it."""
    file = read_proto()
    told, names = comments(file), declarations(file)
    numbers = [f"{m.name}.{f.name}" for m in file.message_type for f in m.field if f.type in NUMBERS]
    assert len(numbers) > 30
    assert [name for name in numbers if not re.search(r"\d|`\w+(\.\w+)?`", told[names[name]])] == []


@pytest.mark.parametrize("stubs", [recommender_pb2, inference_pb2], ids=["recommender", "inference"])
def test_stubs_say_what_the_proto_says(stubs: Any) -> None:
    stub = FileDescriptorProto.FromString(stubs.DESCRIPTOR.serialized_pb)
    file = read_proto(Path(stub.name).name)
    file.ClearField("source_code_info")
    file.name = stub.name  # buf counts from protos/, the stubs from the repository's root
    messages = list(file.message_type)
    while messages:
        message = messages.pop()
        messages += message.nested_type
        for field in message.field:
            field.ClearField("json_name")  # stubs leave the usual one out
    assert stub == file


@pytest.mark.parametrize(
    ("old", "new", "broken"),
    [
        ("uint32 user = 2;", "uint32 user = 12;", "FIELD_NO_DELETE"),
        ("uint32 user = 2;", "int64 user = 2;", "FIELD_SAME_TYPE"),
        ("uint32 user = 2;", "uint32 person = 2;", "FIELD_SAME_NAME"),
        ("rpc Feedback(", "rpc Learn(", "RPC_NO_DELETE"),
        ("  CAUSE_REFRESH = 2;", "  CAUSE_REFRESH = 3;", "ENUM_VALUE_NO_DELETE"),
        ("bool score_all = 9;", "bool score_all = 9;\n  bool more = 15;", ""),
    ],
)
def test_a_breaking_change_is_named(tmp_path: Path, old: str, new: str, broken: str) -> None:
    before, after = copied(tmp_path / "before"), copied(tmp_path / "after")
    source = (after / "recommender.proto").read_text()
    assert old in source
    (after / "recommender.proto").write_text(source.replace(old, new))
    done = buf("breaking", after, "--against", before, "--error-format=json")
    assert (done.returncode != 0) == bool(broken), done.stdout.decode() + done.stderr.decode()
    assert broken in done.stdout.decode()


def test_the_proto_breaks_nothing_since_its_last_commit() -> None:
    log = ["git", "log", "-1", "--format=%H", "--", "protos/recommender.proto"]
    if shutil.which("git") is None or not (PROTOS.parent / ".git").exists():
        pytest.skip("not a git checkout: there is no last version to compare with")
    commit = subprocess.run(log, cwd=PROTOS.parent, capture_output=True, text=True).stdout.strip()
    if not commit:
        pytest.skip("the proto was never committed")
    done = buf("breaking", PROTOS, "--against", f".git#ref={commit},subdir=protos")
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()


def copied(folder: Path) -> Path:
    """A folder with the proto and buf's settings."""
    folder.mkdir()
    for name in ("recommender.proto", "buf.yaml"):
        shutil.copyfile(PROTOS / name, folder / name)
    return folder
