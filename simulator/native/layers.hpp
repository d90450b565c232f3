// The inner loops of learning and scoring.
//
// Every sum is made in a fixed order (lanes.hpp): the same numbers give the same bits in every thread, run and build.
// NaN and infinity go through as they do in PyTorch. Nothing is kept or shared: calls may run side by side.
//
// Shapes: B events, H width of a layer, S slots, F fields, D embedding length; all arrays are contiguous float32.

#pragma once

#include "activations.hpp"

#include <vector>

namespace {

using namespace flicker;

enum Norm { NONE, BEFORE, AFTER };
const float EPSILON = 1e-5f;  // added to the variance, as in network.py

// A layer behind its matrix product: product + bias -> activation -> norm, or norm -> bias -> activation (BEFORE).
template <typename Activation, Norm NORM>
struct Layer {
    Activation f;
    const float *product, *bias, *gain;
    float *mean, *scale;  // [B], scale = 1 / standard deviation
    int64_t rows, width;

    // What is normalised: the activation's output, or the product itself.
    FLICKER_INLINE float normed(const float* x, int64_t h) const { return NORM == AFTER ? f.value(x[h] + bias[h]) : x[h]; }

    void forward(float* out) const {
        for (int64_t b = 0; b < rows; ++b) {
            const float* x = product + b * width;
            float* y = out + b * width;
            if (NORM == NONE) {
#pragma omp simd
                for (int64_t h = 0; h < width; ++h) y[h] = f.value(x[h] + bias[h]);
                continue;
            }
#pragma omp simd
            for (int64_t h = 0; h < width; ++h) y[h] = normed(x, h);
            const float centre = sum(width, [&](int64_t h, auto t) { return at(y, h, t); }) / width;
            const auto square = [&](int64_t h, auto t) {
                const auto off = at(y, h, t) - centre;
                return off * off;
            };
            const float factor = 1 / std::sqrt(sum(width, square) / width + EPSILON);
#pragma omp simd
            for (int64_t h = 0; h < width; ++h) {
                const float scaled = (y[h] - centre) * factor * gain[h];
                y[h] = NORM == BEFORE ? f.value(scaled + bias[h]) : scaled;
            }
            if (mean) mean[b] = centre, scale[b] = factor;
        }
    }

    // In: grad = gradient of the output [B, H]. Out: grad = gradient of the product, and those of bias and gain [H].
    void backward(float* grad, float* bias_grad, float* gain_grad) const {
        std::vector<float> row(2 * width);
        float *unit = row.data(), *scaled = unit + width;  // what is normalised, and the gradient times the gain
        for (int64_t h = 0; h < width; ++h) bias_grad[h] = 0;
        if (NORM != NONE)
            for (int64_t h = 0; h < width; ++h) gain_grad[h] = 0;
        for (int64_t b = 0; b < rows; ++b) {
            const float* x = product + b * width;
            float* g = grad + b * width;
            if (NORM == NONE) {
#pragma omp simd
                for (int64_t h = 0; h < width; ++h) bias_grad[h] += g[h] *= f.derivative(x[h] + bias[h]);
                continue;
            }
            const float centre = mean[b], factor = scale[b];
#pragma omp simd
            for (int64_t h = 0; h < width; ++h) {
                unit[h] = (normed(x, h) - centre) * factor;
                if (NORM == BEFORE) bias_grad[h] += g[h] *= f.derivative(unit[h] * gain[h] + bias[h]);
                gain_grad[h] += g[h] * unit[h];
                scaled[h] = g[h] * gain[h];
            }
            const auto product = [&](int64_t h, auto t) { return at(scaled, h, t) * at(unit, h, t); };
            const float level = sum(width, [&](int64_t h, auto t) { return at(scaled, h, t); }) / width;
            const float along = sum(width, product) / width;
#pragma omp simd
            for (int64_t h = 0; h < width; ++h) {
                g[h] = factor * (scaled[h] - level - unit[h] * along);
                if (NORM == AFTER) bias_grad[h] += g[h] *= f.derivative(x[h] + bias[h]);
            }
        }
    }
};

const int64_t AHEAD = 4;  // events whose rows are fetched in advance

// The share that each slot of a field has in its mean vector; the field begins at slot `s` and ends before `stop`.
float field_share(const int32_t* rows, const int32_t* field_of_slot, int64_t s, int64_t slots, int64_t* stop) {
    int64_t used = 0, end = s;
    if (s + 1 == slots || field_of_slot[s + 1] != field_of_slot[s]) return *stop = s + 1, 1.0f;
    for (; end < slots && field_of_slot[end] == field_of_slot[s]; ++end) used += rows[end] != 0;
    *stop = end;
    return used > 1 ? 1.0f / used : 1.0f;
}

}  // namespace

// Calls `WORK` on the layer that `kind` and `norm` name; returns whether there is one.
#define WITH_NORM(ACTIVATION, NORM, WORK)                                                                          \
    {                                                                                                              \
        const Layer<ACTIVATION, NORM> layer{ACTIVATION(shape), product, bias, gain, mean, scale, rows, width};     \
        layer.WORK;                                                                                                \
        return 1;                                                                                                  \
    }
#define WITH_ACTIVATION(ACTIVATION, WORK)                    \
    {                                                        \
        if (norm == NONE) WITH_NORM(ACTIVATION, NONE, WORK)     \
        if (norm == BEFORE) WITH_NORM(ACTIVATION, BEFORE, WORK) \
        if (norm == AFTER) WITH_NORM(ACTIVATION, AFTER, WORK)   \
    }
#define WITH_LAYER(WORK)                              \
    if (kind == 0) WITH_ACTIVATION(Linear, WORK)      \
    if (kind == 1) WITH_ACTIVATION(Relu, WORK)        \
    if (kind == 2) WITH_ACTIVATION(Smelu, WORK)       \
    if (kind == 3) WITH_ACTIVATION(GSmelu, WORK)      \
    if (kind == 4) WITH_ACTIVATION(Gelu, WORK)        \
    if (kind == 5) WITH_ACTIVATION(Swish, WORK)       \
    if (kind == 6) WITH_ACTIVATION(Softplus, WORK)    \
    return 0;

extern "C" {

// A layer of the kind and norm that are named; whether there is one. `mean` and `scale` [B] may be null where no
// backward pass comes; out may be the product itself.
int layer_forward(int kind, int norm, const float* shape, const float* product, const float* bias, const float* gain,
                  float* mean, float* scale, int64_t rows, int64_t width, float* out) {
    WITH_LAYER(forward(out))
}

int layer_backward(int kind, int norm, const float* shape, const float* product, const float* bias, const float* gain,
                   float* mean, float* scale, int64_t rows, int64_t width, float* grad, float* bias_grad,
                   float* gain_grad) {
    WITH_LAYER(backward(grad, bias_grad, gain_grad))
}
}

#undef WITH_LAYER
#undef WITH_ACTIVATION
#undef WITH_NORM

namespace {

// Rows [B, S] of a table [V, D] -> inputs [B, F D]: of each field the mean vector of its slots in use (row > 0).
void gather(const float* table, const int32_t* rows, const int32_t* field_of_slot, int64_t events, int64_t slots,
            int64_t fields, int64_t dim, float* out) {
    for (int64_t b = 0; b < events; ++b, rows += slots, out += fields * dim) {
        if (b + AHEAD < events)
            for (int64_t s = 0; s < slots; ++s) __builtin_prefetch(table + rows[AHEAD * slots + s] * dim);
        for (int64_t s = 0, stop; s < slots; s = stop) {
            float* sum = out + field_of_slot[s] * dim;
            const float share = field_share(rows, field_of_slot, s, slots, &stop);
            const float* vector = table + rows[s] * dim;
#pragma omp simd
            for (int64_t d = 0; d < dim; ++d) sum[d] = share * vector[d];
            for (int64_t more = s + 1; more < stop; ++more) {
                const float* another = table + rows[more] * dim;
#pragma omp simd
                for (int64_t d = 0; d < dim; ++d) sum[d] += share * another[d];
            }
        }
    }
}

// The way back: gradient of the inputs [B, F D] -> `touched` [n <= B S], the rows in use in the order they first come,
// and for each the sum of its slots' gradients [n, D]; returns n. `place` [V] is -1 everywhere before and after.
int64_t sum_by_row(const float* grad, const int32_t* rows, const int32_t* field_of_slot, int64_t events, int64_t slots,
                   int64_t fields, int64_t dim, int32_t* place, int64_t* touched, float* sums) {
    int64_t count = 0;
    for (int64_t b = 0; b < events; ++b, rows += slots, grad += fields * dim) {
        if (b + AHEAD < events)
            for (int64_t s = 0; s < slots; ++s) __builtin_prefetch(place + rows[AHEAD * slots + s]);
        for (int64_t s = 0, stop; s < slots; s = stop) {
            const float* from = grad + field_of_slot[s] * dim;
            const float share = field_share(rows, field_of_slot, s, slots, &stop);
            for (int64_t slot = s; slot < stop; ++slot) {
                const int32_t row = rows[slot];
                if (row == 0) continue;  // padding learns nothing
                float* sum = sums + place[row] * dim;
                if (place[row] < 0) {
                    sum = sums + count * dim;
                    touched[count] = row;
                    place[row] = static_cast<int32_t>(count++);
#pragma omp simd
                    for (int64_t d = 0; d < dim; ++d) sum[d] = share * from[d];
                } else {
#pragma omp simd
                    for (int64_t d = 0; d < dim; ++d) sum[d] += share * from[d];
                }
            }
        }
    }
    for (int64_t n = 0; n < count; ++n) place[touched[n]] = -1;
    return count;
}

// Adagrad, in place.
void adagrad(float* values, float* squares, const float* grad, int64_t count, float rate) {
#pragma omp simd
    for (int64_t n = 0; n < count; ++n) {
        squares[n] += grad[n] * grad[n];
        values[n] -= rate * grad[n] / std::sqrt(squares[n]);
    }
}

// Row-wise Adagrad on rows of a table [V, D], in place: one sum of squares [V] per row; each row comes once.
void adagrad_rows(float* table, float* squares, const int64_t* rows, const float* sums, int64_t count, int64_t dim,
                  float rate) {
    for (int64_t n = 0; n < count; ++n, sums += dim) {
        if (n + 8 * AHEAD < count) {
            __builtin_prefetch(table + rows[n + 8 * AHEAD] * dim, 1);
            __builtin_prefetch(squares + rows[n + 8 * AHEAD], 1);
        }
        const auto square = [&](int64_t d, auto t) { return at(sums, d, t) * at(sums, d, t); };
        const float seen = squares[rows[n]] += sum(dim, square) / dim;
        const float step = rate / std::sqrt(seen);
        float* vector = table + rows[n] * dim;
#pragma omp simd
        for (int64_t d = 0; d < dim; ++d) vector[d] -= step * sums[d];
    }
}

// The output unit: x [B, H] -> log-odds [B].
void output_forward(const float* x, const float* weight, const float* bias, int64_t rows, int64_t width, float* out) {
    for (int64_t b = 0; b < rows; ++b, x += width) {
        const auto product = [&](int64_t h, auto t) { return at(x, h, t) * at(weight, h, t); };
        out[b] = sum(width, product) + *bias;
    }
}

// Gradient of the log-odds [B] -> those of the weight [H], of the bias [1] and of x [B, H].
void output_backward(const float* x, const float* weight, const float* grad, int64_t rows, int64_t width,
                     float* weight_grad, float* bias_grad, float* x_grad) {
    *bias_grad = 0;
    for (int64_t h = 0; h < width; ++h) weight_grad[h] = 0;
    for (int64_t b = 0; b < rows; ++b, x += width, x_grad += width) {
        *bias_grad += grad[b];
#pragma omp simd
        for (int64_t h = 0; h < width; ++h) {
            weight_grad[h] += grad[b] * x[h];
            x_grad[h] = grad[b] * weight[h];
        }
    }
}

}  // namespace
