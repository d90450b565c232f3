# One file for every image of ours: `docker build --target router .`; docker-compose.yml names them all.
# Layers: packages first, by what a process imports; the code last, so that a change of code rebuilds in seconds.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS base
# one thread per operation: the processes share the cores
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin flicker \
    && install --directory --owner=flicker /cache /state /weights
WORKDIR /app
COPY constraints.txt .

# the native library: only this stage holds a compiler
FROM base AS native
# the compiler of this Debian, as the image's tag names it
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY simulator/native simulator/native
RUN python simulator/native/build.py

# what every process imports
FROM base AS lean
# more flags for pip, such as `--extra-index-url URL` of an index of CPU-only torch wheels
ARG PIP_ARGS=""
# hadolint ignore=SC2086
RUN pip install --no-cache-dir --constraint constraints.txt ${PIP_ARGS} \
    fsspec grpcio grpcio-health-checking grpcio-reflection numpy prometheus-client protobuf redis safetensors tyro

# what learns or ranks
FROM lean AS learning
ARG PIP_ARGS=""
# hadolint ignore=SC2086
RUN pip install --no-cache-dir --constraint constraints.txt ${PIP_ARGS} torch

FROM learning AS trainer
ARG PIP_ARGS=""
# hadolint ignore=SC2086
RUN pip install --no-cache-dir --constraint constraints.txt ${PIP_ARGS} pyarrow
COPY simulator simulator
COPY --from=native /app/simulator/native/lib simulator/native/lib
COPY trainer trainer
USER 10001
ENTRYPOINT ["python", "-m", "trainer"]

FROM learning AS replica
COPY protos protos
COPY simulator simulator
COPY --from=native /app/simulator/native/lib simulator/native/lib
COPY serving serving
USER 10001
ENTRYPOINT ["python", "-m", "serving", "replica"]

FROM lean AS router
RUN install --directory --owner=flicker /spool
COPY protos protos
COPY simulator simulator
COPY serving serving
USER 10001
ENTRYPOINT ["python", "-m", "serving", "router"]

FROM lean AS asking
ARG PIP_ARGS=""
# hadolint ignore=SC2086
RUN pip install --no-cache-dir --constraint constraints.txt ${PIP_ARGS} locust pyarrow

FROM asking AS load
COPY protos protos
COPY simulator simulator
COPY --from=native /app/simulator/native/lib simulator/native/lib
COPY load load
USER 10001
ENTRYPOINT ["python", "-m", "locust", "-f", "load/locustfile.py"]

FROM lean AS page
ARG PIP_ARGS=""
# hadolint ignore=SC2086
RUN pip install --no-cache-dir --constraint constraints.txt ${PIP_ARGS} nicegui
COPY protos protos
COPY simulator simulator
COPY page page
USER 10001
ENTRYPOINT ["python", "-m", "page"]

# the tests of the running containers, tests/containers
FROM lean AS checks
ARG PIP_ARGS=""
# hadolint ignore=SC2086
RUN pip install --no-cache-dir --constraint constraints.txt ${PIP_ARGS} pytest
COPY pyproject.toml .
COPY protos protos
COPY tests/containers tests/containers
USER 10001
ENTRYPOINT ["python", "-m", "pytest", "-p", "no:cacheprovider", "tests/containers"]
