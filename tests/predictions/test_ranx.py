"""Accuracy as ranx has it. ranx brings 700 MB (Numba, pandas): it is no dependency, and this runs where it is there."""

from __future__ import annotations

import numpy as np
import pytest

from tests.predictions.logs import frame, measured, picked


@pytest.mark.parametrize("ours, theirs", [("ndcg", "ndcg@10"), ("mrr", "mrr"), ("recall", "recall@10")])
def test_accuracy_is_that_of_ranx(ours: str, theirs: str) -> None:
    ranx = pytest.importorskip("ranx", reason="ranx is not installed: too large for a dependency")
    columns = frame(1, queries=200, items=30)
    judged = [query for query in range(200) if columns["label"][columns["q_id"] == query].any()]
    columns = picked(columns, np.isin(columns["q_id"], judged))
    qrels, run = {str(query): {} for query in judged}, {str(query): {} for query in judged}  # type: ignore[var-annotated]
    for query, item, score, label in zip(*(columns[n] for n in ("q_id", "doc_id", "score", "label")), strict=True):
        run[str(query)][str(item)] = float(score)
        if label:
            qrels[str(query)][str(item)] = 1
    assert measured(columns, columns)[ours] == pytest.approx(ranx.evaluate(ranx.Qrels(qrels), ranx.Run(run), theirs))
