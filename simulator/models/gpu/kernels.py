"""Triton kernels. Importing this needs Triton; `fused.py` calls them, with shapes checked.

The first axis of every tensor is the model; one launch serves them all, `beta` [m] says which SmeLU each one has
(0 is ReLU). Nothing is added atomically: sums run in an order fixed by the shapes, so that equal models stay equal to
the last bit. SmeLU is chosen piece by piece: unlike on a CPU that costs nothing here, x >= beta passes unrounded, and
beta = 0 needs no case of its own. Comparisons are written so that a NaN comes through, as it does in PyTorch.

Shapes: m models, B events, H width of a layer, n table entries of a model's mini-batch, V table rows, D embedding
length. Names in capitals are known when a kernel is compiled.
"""
# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"

from __future__ import annotations

import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]


@triton.jit
def _smelu(x, beta):
    shifted = x + beta
    quadratic = shifted * shifted * (0.25 / tl.where(beta > 0, beta, 1.0))
    return tl.where(shifted <= 0, 0.0, tl.where(shifted >= 2 * beta, x, quadratic))


@triton.jit
def _smelu_slope(x, beta):
    shifted = x + beta
    ramp = shifted * (0.5 / tl.where(beta > 0, beta, 1.0))
    return tl.where(shifted <= 0, 0.0, tl.where(shifted >= 2 * beta, 1.0, ramp))


@triton.jit
def smelu_forward(x, beta, y, size, BLOCK: tl.constexpr):
    """y [m, size] = SmeLU(x [m, size])."""
    model = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    at = model * size + place
    value = tl.load(x + at, mask=place < size)
    tl.store(y + at, _smelu(value, tl.load(beta + model)), mask=place < size)


@triton.jit
def smelu_backward(grad, x, beta, back, size, BLOCK: tl.constexpr):
    """back [m, size] = grad [m, size] times SmeLU's slope at x [m, size]."""
    model = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    at = model * size + place
    slope = _smelu_slope(tl.load(x + at, mask=place < size), tl.load(beta + model))
    tl.store(back + at, tl.load(grad + at, mask=place < size) * slope, mask=place < size)


@triton.jit
def layer_forward(
    product, beta, bias, gain, stride, y, mean, scale, events, width,
    EPSILON: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """y [m, B, H] = layer norm of SmeLU(product + bias), times gain; mean, scale [m, B] for the backward pass.

    bias, gain: [m, H] with `stride` elements from model to model.
    """
    model = tl.program_id(1).to(tl.int64)
    row, column = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, WIDTH)
    inside = (row < events)[:, None] & (column < width)[None, :]
    at = (model * events + row)[:, None] * width + column[None, :]
    biases = tl.load(bias + model * stride + column, mask=column < width, other=0.0)[None, :]
    gains = tl.load(gain + model * stride + column, mask=column < width, other=0.0)[None, :]
    activated = _smelu(tl.load(product + at, mask=inside, other=0.0) + biases, tl.load(beta + model))
    average = tl.sum(tl.where(inside, activated, 0.0), 1) / width
    centred = tl.where(inside, activated - average[:, None], 0.0)
    inverse = tl.rsqrt(tl.sum(centred * centred, 1) / width + EPSILON)
    tl.store(y + at, centred * inverse[:, None] * gains, mask=inside)
    tl.store(mean + model * events + row, average, mask=row < events)
    tl.store(scale + model * events + row, inverse, mask=row < events)


@triton.jit
def layer_backward(
    grad, product, beta, bias, gain, stride, mean, scale, back, parts, events, width,
    ROWS: tl.constexpr, PASSES: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """back [m, B, H], the gradient of the product, from that of the layer's output.

    parts [2, m, programs, H]: gradients of bias and gain over each program's ROWS x PASSES events, summed one group of
    ROWS after the other. Their sums over the programs are the gradients. Beyond the last event the scale read is 0,
    beyond the width grad and gain are: what is computed there adds nothing.
    """
    model, part = tl.program_id(1).to(tl.int64), tl.program_id(0)
    column = tl.arange(0, WIDTH)
    smooth = tl.load(beta + model)
    biases = tl.load(bias + model * stride + column, mask=column < width, other=0.0)[None, :]
    gains = tl.load(gain + model * stride + column, mask=column < width, other=0.0)[None, :]
    bias_sum, gain_sum = tl.zeros_like(gains), tl.zeros_like(gains)
    for number in range(PASSES):
        row = (part * PASSES + number) * ROWS + tl.arange(0, ROWS)
        inside = (row < events)[:, None] & (column < width)[None, :]
        at = (model * events + row)[:, None] * width + column[None, :]
        x = tl.load(product + at, mask=inside, other=0.0) + biases
        upstream = tl.load(grad + at, mask=inside, other=0.0)
        average = tl.load(mean + model * events + row, mask=row < events, other=0.0)[:, None]
        inverse = tl.load(scale + model * events + row, mask=row < events, other=0.0)[:, None]
        unit = (_smelu(x, smooth) - average) * inverse
        scaled = upstream * gains
        along = tl.sum(scaled * unit, 1)[:, None] / width
        change = (scaled - tl.sum(scaled, 1)[:, None] / width - unit * along) * inverse * _smelu_slope(x, smooth)
        tl.store(back + at, change, mask=inside)
        bias_sum += tl.sum(change, 0)[None, :]
        gain_sum += tl.sum(upstream * unit, 0)[None, :]
    at = (model * tl.num_programs(0) + part) * width + column[None, :]
    second = tl.num_programs(1).to(tl.int64) * tl.num_programs(0) * width
    tl.store(parts + at, bias_sum, mask=(column < width)[None, :])
    tl.store(parts + second + at, gain_sum, mask=(column < width)[None, :])


@triton.jit
def update_rows(
    rows, ends, places, grads, table, squares, rate, entries, height, width,
    POSITIONS: tl.constexpr, TILE: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Row-wise Adagrad in place on table [m, V, D] and squares [m, V], by gradients grads [m, n, D].

    rows [m, n] are sorted; ends [m, n] is where the run of equal rows at a position ends; places [m, n] is where in
    `grads` a position's gradient stands. The first position of a run sums the run's gradients, TILE at a time from its
    start, and updates the row: nobody else touches it. Row 0 is padding and stays as it is.
    """
    model, first = tl.program_id(1).to(tl.int64), tl.program_id(0) * POSITIONS
    start = model * entries
    column = tl.arange(0, WIDTH)
    for position in range(first, tl.minimum(first + POSITIONS, entries)):
        row = tl.load(rows + start + position)
        before = tl.load(rows + start + position - 1, mask=position > 0, other=-1)
        if (row != before) & (row != 0):
            end = tl.load(ends + start + position)
            total = tl.zeros([WIDTH], grads.dtype.element_ty)
            for tile in range(position, end, TILE):
                inside = tile + tl.arange(0, TILE) < end
                place = tl.load(places + start + tile + tl.arange(0, TILE), mask=inside, other=0)
                at = (start + place)[:, None] * width + column[None, :]
                mask = inside[:, None] & (column < width)[None, :]
                total += tl.sum(tl.load(grads + at, mask=mask, other=0.0), 0)
            at = model * height + row
            seen = tl.load(squares + at) + tl.sum(total * total, 0) / width
            tl.store(squares + at, seen)
            vector = table + at * width + column
            step = rate * total * tl.rsqrt(seen)
            tl.store(vector, tl.load(vector, mask=column < width) - step, mask=column < width)
