"""A runtime of MLServer with the tests' model."""

from __future__ import annotations

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from tests.serving.ranker import scores


class Ranker(MLModel):
    """`ranker-1` and `ranker-2`."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        inputs = {each.name: NumpyCodec.decode_input(each) for each in payload.inputs}
        found = scores(inputs["user"].reshape(-1), inputs["items"], int(self.name.rpartition("-")[2]))
        output = NumpyCodec.encode_output("output_0", np.asarray(found))
        return InferenceResponse(model_name=self.name, id=payload.id, outputs=[output])
