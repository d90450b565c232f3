"""Tensors of the Open Inference Protocol: every datatype in either form; damaged ones are unusable and no more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from protos import inference_pb2 as pb
from serving.proxy.mirror import parsed
from serving.proxy.tensors import (
    MAX_ITEMS,
    MAX_SCORES,
    TYPES,
    UnusableError,
    ids_of,
    items_of,
    numbers_of,
    scores_of,
)
from tests.serving.model_server import answer, request

NUMBERS = [name for name in TYPES if name != "BOOL"]


def output(values: Any, datatype: str, shape: Sequence[int], typed: bool) -> pb.ModelInferResponse:
    """An answer with one output."""
    found = pb.ModelInferResponse()
    tensor = found.outputs.add(name="out", datatype=datatype, shape=shape)
    dtype, field = TYPES[datatype]
    if typed:
        getattr(tensor.contents, field).extend(values.astype(dtype).tolist())
    else:
        found.raw_output_contents.append(values.astype(dtype).tobytes())
    return found


@pytest.mark.parametrize("shape", [(6,), (2, 3), (2, 3, 1), (6, 1), (1, 6)])
@pytest.mark.parametrize("datatype", NUMBERS)
def test_every_datatype_and_shape_is_read_in_both_forms(datatype: str, shape: tuple[int, ...]) -> None:
    values = np.array([3, 0, 7, 100, 1, 2])
    expected = values.reshape(shape[:2] if len(shape) > 1 else (1, 6)).tolist()
    assert scores_of(output(values, datatype, shape, False), "out", "scores").tolist() == expected
    if TYPES[datatype][1]:
        assert scores_of(output(values, datatype, shape, True), "", "logits").tolist() == expected
    else:
        with pytest.raises(UnusableError, match="cannot be read as 'FP16'"):
            scores_of(pb.ModelInferResponse(outputs=[output(values, datatype, shape, False).outputs[0]]), "", "scores")


@pytest.mark.parametrize(
    ("values", "shape", "reason"),
    [
        ([0.5, 1.5], (2,), "not_probabilities"),
        ([0.5, -0.1], (2,), "not_probabilities"),
        ([0.5, np.nan], (2,), "not_finite"),
        ([0.5, 0.5], (1, 1, 2), "shape"),
        ([0.5, 0.5], (), "tensor"),
        ([0.5], (), "shape"),
        ([0.5] * (MAX_ITEMS + 1), (MAX_ITEMS + 1,), "shape"),
    ],
)
def test_what_is_no_score_is_said(values: list[float], shape: tuple[int, ...], reason: str) -> None:
    with pytest.raises(UnusableError) as error:
        scores_of(output(np.array(values), "FP64", shape, False), "out", "probabilities")
    assert error.value.reason == reason


def test_a_tensor_in_shared_memory_takes_no_place_among_raw_contents() -> None:
    asked = request(np.arange(2), np.arange(6).reshape(2, 3))
    asked.inputs[0].parameters["shared_memory_region"].string_param = "region"
    del asked.raw_input_contents[0]
    assert items_of(asked, "items", (2, 3)).tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(UnusableError):
        items_of(asked, "user", (2, 3))


def test_items_are_positions_shared_or_each_querys_own() -> None:
    asked = request(np.arange(2), np.array([7, 5, 9]), id="r")
    assert items_of(asked, "", (2, 3)).tolist() == [[0, 1, 2]] * 2
    assert items_of(asked, "items", (2, 3)).tolist() == [[7, 5, 9]] * 2
    assert numbers_of(np.array([["7", "b"], ["b", "7"]], object))[:, ::-1].tolist()[0][1] == 7
    asked.parameters["user"].int64_param = 12
    assert ids_of(asked, "request.id", 1) == ["r"] and ids_of(asked, "parameters.user", 2) == ["12/0", "12/1"]
    assert ids_of(asked, "parameters.none", 1) == [""]


def test_damaged_messages_are_unusable_or_read_and_nothing_else() -> None:
    draw = np.random.default_rng(3)
    asked = request(np.arange(3), np.arange(24).reshape(3, 8))
    valid = asked, answer(asked, draw.normal(size=(3, 8)).astype(np.float32))
    outcomes = set[str]()
    for _ in range(3_000):
        parts = []
        for message in valid:
            damaged = bytearray(message.SerializeToString())
            for _ in range(draw.integers(0, 4)):
                damaged[draw.integers(len(damaged))] = draw.integers(256)
            parts.append(bytes(damaged[: draw.integers(1, 4 * len(damaged))]))
        try:
            scores = scores_of(parsed(pb.ModelInferResponse, parts[1]), "", "scores")
            found = numbers_of(items_of(parsed(pb.ModelInferRequest, parts[0]), "items", scores.shape))
        except UnusableError as problem:
            outcomes.add(problem.reason)
        else:
            assert found.shape == scores.shape and np.isfinite(scores).all()
            outcomes.add("compared")
    assert outcomes >= {"compared", "message", "tensor", "items"}


@pytest.mark.parametrize("said", [1, MAX_SCORES, 4 * MAX_SCORES])
def test_a_million_empty_texts_are_not_read(said: int) -> None:
    asked = pb.ModelInferRequest()
    asked.inputs.add(name="skus", datatype="BYTES", shape=[said])
    asked.raw_input_contents.append(bytes(16 * MAX_SCORES))
    with pytest.raises(UnusableError) as error:
        items_of(asked, "skus", (1, said))
    assert error.value.reason == "tensor"
