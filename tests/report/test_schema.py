"""docs/result.schema.json is what the class and the registry say now, and describes what the doors write."""

from __future__ import annotations

import pytest
from jsonschema import Draft202012Validator, ValidationError

from simulator.measures.registry import MEASURES
from simulator.report.schema import schema, text
from simulator.result import Arm, Result, to_json
from tests.report.fake_results import RESULTS, spread
from tests.result_schema import DOCUMENTED, assert_documented


def test_the_documented_schema_is_the_current_one() -> None:
    assert DOCUMENTED.read_text() == text(), "python -m simulator.report.schema docs/result.schema.json"
    Draft202012Validator.check_schema(schema())


def test_it_tells_what_every_measure_is() -> None:
    swaps = schema()["$defs"]["Measures"]["properties"]["refresh_swaps"]["properties"]
    for name, measure in MEASURES.items():
        assert swaps[name]["title"] == f"{measure.words} at a refresh" and swaps[name]["description"] == measure.about


@pytest.mark.parametrize("name", ["three arms", "zeros"])
def test_results_are_of_it(name: str) -> None:
    assert_documented(RESULTS[name]())
    assert_documented(to_json(Result("live", {"name": "log"}, [Arm("relu")], serving={"p99": None})))


def test_what_is_damaged_is_not_of_it() -> None:
    for change in ({"kind": "walk"}, {"schema": 1}, {"arms": []}, {"more": 1}, {"notes": [1]}):
        with pytest.raises(ValidationError):
            assert_documented(RESULTS["three arms"]() | change)
    result = RESULTS["three arms"]()
    result["arms"]["relu"]["swaps"]["pair"] = spread(0.1) | {"low": "little"}
    with pytest.raises(ValidationError):
        assert_documented(result)
