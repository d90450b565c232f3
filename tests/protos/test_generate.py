"""The committed stubs are what the generator makes, they are typed, and they ask nothing of the runtime's version."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from protos import generate

ROOT = generate.ROOT
needs_tools = pytest.mark.skipif(
    not generate.are_installed(generate.tools_folder()),
    reason="the stubs' generator is not installed; `make protos` installs it",
)


@needs_tools
def test_generating_again_changes_nothing(tmp_path: Path) -> None:
    generate.generate(generate.tools_folder(), tmp_path)
    assert sorted(path.name for path in (tmp_path / "protos").iterdir()) == sorted(Path(s).name for s in generate.STUBS)
    assert generate.stale(tmp_path) == []


def test_a_stale_and_a_missing_stub_are_named(tmp_path: Path) -> None:
    for tree in ("made", "committed"):
        (tmp_path / tree / "protos").mkdir(parents=True)
        for stub in generate.STUBS:
            (tmp_path / tree / stub).write_bytes((ROOT / stub).read_bytes())
    assert generate.stale(tmp_path / "made", tmp_path / "committed") == []
    with (tmp_path / "committed" / generate.STUBS[0]).open("a") as file:
        file.write("# another line\n")
    (tmp_path / "committed" / generate.STUBS[3]).unlink()
    assert generate.stale(tmp_path / "made", tmp_path / "committed") == [generate.STUBS[0], generate.STUBS[3]]


def test_a_tool_that_fails_is_one_error_with_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(generate.GeneratorError, match="could not make the stubs: .*\nno such luck"):
        generate.run([sys.executable, "-c", "import sys; sys.exit('no such luck')"], "the stubs")


def test_other_versions_of_the_tools_count_as_missing(tmp_path: Path) -> None:
    assert not generate.are_installed(tmp_path)
    (tmp_path / "installed").write_text("\n".join(generate.TOOLS))
    assert generate.are_installed(tmp_path)
    (tmp_path / "installed").write_text("\n".join(generate.TOOLS[1:]))
    assert not generate.are_installed(tmp_path)


@pytest.mark.parametrize("stub", [stub for stub in generate.STUBS if stub.endswith(".py")])
def test_stubs_do_not_check_the_versions_of_their_runtime(stub: str) -> None:
    source = (ROOT / stub).read_text()
    assert "ValidateProtobufRuntimeVersion" not in source
    assert "GRPC_GENERATED_VERSION" not in source


@pytest.mark.parametrize("implementation", ["upb", "python"])
def test_stubs_load_without_a_warning_in_either_implementation(implementation: str) -> None:
    code = (
        "from google.protobuf.internal import api_implementation as a; from protos import recommender_pb2_grpc, "
        f"recommender_pb2 as p; assert a.Type() == {implementation!r}; m = p.RecommendRequest(user=3, duplicate=0); "
        "assert p.RecommendRequest.FromString(m.SerializeToString()).HasField('duplicate')"
    )
    environment = {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": implementation, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


CLIENT = """
    import grpc
    from protos import recommender_pb2, recommender_pb2_grpc

    def ask(channel: grpc.Channel) -> float:
        stub = recommender_pb2_grpc.RecommenderStub(channel)
        answer = stub.Recommend(recommender_pb2.RecommendRequest(user=3, generation=1), timeout=1.0)
        score: float = answer.slate[0].score
        return score
"""


COMPLAINTS = {
    ("", ""): "",
    ("user=3", "person=3"): 'Unexpected keyword argument "person"',
    ("slate[0].score", "slate[0].points"): 'has no attribute "points"',
    ("stub.Recommend(", "stub.Recommended("): 'has no attribute "Recommended"',
}
"""A change of the client, and what is wrong with it then."""


def test_a_client_is_type_checked(tmp_path: Path) -> None:
    clients = {f"client_{number}": wrong for number, wrong in enumerate(COMPLAINTS.values())}
    for name, (old, new) in zip(clients, COMPLAINTS, strict=True):
        (tmp_path / f"{name}.py").write_text(
            textwrap.dedent(CLIENT).replace(old, new) if old else textwrap.dedent(CLIENT)
        )
    cache = f"--cache-dir={tmp_path / 'cache'}"
    mypy = [sys.executable, "-m", "mypy", "--strict", "--config-file=", cache, *map(str, tmp_path.glob("*.py"))]
    done = subprocess.run(mypy, cwd=ROOT, capture_output=True, text=True)
    said = [line for line in done.stdout.splitlines() if " error: " in line]
    assert done.returncode == 1 and len(said) == 3, done.stdout + done.stderr
    for name, complaint in clients.items():
        assert [complaint in line for line in said if f"{name}.py" in line] == ([True] if complaint else [])
