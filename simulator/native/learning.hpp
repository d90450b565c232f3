// A model that learns a whole chunk, mini-batch by mini-batch, and scores, in one call; see models/native_engine.py.
//
// As in layers.hpp every sum is made in a fixed order, and calls may run side by side: all buffers are the caller's.
// Matrix products are made by the BLAS that PyTorch brings along.
//
// Shapes: n events of a chunk, B of a mini-batch, S slots, F fields, D embedding length, V table rows, H width of a
// layer, P dense parameters. Matrices lie row by row.

#pragma once

#include "layers.hpp"

#include <algorithm>

extern "C" {

// Fortran's convention: matrices column by column, everything by address.
using Sgemm = void(const char*, const char*, const int*, const int*, const int*, const float*, const float*, const int*,
                   const float*, const int*, const float*, float*, const int*);

struct Place {  // where a layer's parameters begin in the flat row [P]; the output unit has no gain
    int64_t fan_in, width, weight, bias, gain;
};

struct Model {
    Sgemm* sgemm;
    const float* constants;        // of the activation
    const int32_t* field_of_slot;  // [S]
    const Place* places;           // [depth + 1] of the hidden layers and the output unit
    int64_t kind, norm, depth, slots, fields, dim, table_rows, parameters, batch;
};
}

namespace {

// Where among `count` table rows one is outside the table, -1 if nowhere.
int64_t stray(const Model& model, const int32_t* rows, int64_t count) {
    const uint32_t end = static_cast<uint32_t>(model.table_rows);
    uint32_t outside = 0;
#pragma omp simd reduction(| : outside)
    for (int64_t n = 0; n < count; ++n) outside |= static_cast<uint32_t>(rows[n]) >= end;
    if (!outside) return -1;
    return std::find_if(rows, rows + count, [&](int32_t row) { return static_cast<uint32_t>(row) >= end; }) - rows;
}

// y [rows, columns] = left [rows, inner] right [inner, columns]; `turned`: it lies in memory as its transpose.
void multiply(const Model& model, const float* left, bool left_turned, const float* right, bool right_turned,
              int64_t rows, int64_t inner, int64_t columns, float* y) {
    const int m = static_cast<int>(columns), n = static_cast<int>(rows), k = static_cast<int>(inner);
    const float one = 1, zero = 0;
    model.sgemm(right_turned ? "T" : "N", left_turned ? "T" : "N", &m, &n, &k, &one, right, right_turned ? &k : &m,
                left, left_turned ? &n : &k, &zero, y, &m);
}

// Buffers cut from one piece of memory, each at a multiple of 64 bytes: products round alike in all of them.
struct Memory {
    float* base;
    int64_t used = 0;
    float* take(int64_t count) {
        float* taken = base + used;
        used += (count + 15) / 16 * 16;
        return taken;
    }
};

struct Saved {  // of a layer, from the forward for the backward pass
    float *product, *output, *mean, *scale;
};

// The passes of one model for at most B events.
struct Pass {
    const Model& model;
    float *inputs, *grad_logits, *sums, *gradient;
    std::vector<Saved> saved;

    Pass(const Model& model, Memory memory) : model(model), saved(model.depth) { cut(memory); }

    int64_t cut(Memory& memory) {
        inputs = memory.take(model.batch * model.fields * model.dim);
        for (int64_t n = 0; n < model.depth; ++n) {
            const int64_t width = model.places[n].width, size = model.batch * width;
            saved[n] = {memory.take(size), memory.take(size), memory.take(model.batch), memory.take(model.batch)};
        }
        grad_logits = memory.take(model.batch);
        sums = memory.take(model.batch * model.slots * model.dim);
        gradient = memory.take(model.parameters);
        return memory.used;
    }

    // Log-odds of events with table rows [rows, S].
    void forward(const float* dense, const float* table, const int32_t* rows, int64_t events, float* logits) const {
        gather(table, rows, model.field_of_slot, events, model.slots, model.fields, model.dim, inputs);
        const float* x = inputs;
        for (int64_t n = 0; n < model.depth; ++n) {
            const Place& at = model.places[n];
            const Saved& layer = saved[n];
            multiply(model, x, false, dense + at.weight, false, events, at.fan_in, at.width, layer.product);
            layer_forward(model.kind, model.norm, model.constants, layer.product, dense + at.bias, dense + at.gain,
                          layer.mean, layer.scale, events, at.width, layer.output);
            x = layer.output;
        }
        const Place& unit = model.places[model.depth];
        output_forward(x, dense + unit.weight, dense + unit.bias, events, unit.fan_in, logits);
    }

    // From the gradient of the log-odds, in `grad_logits`, to `gradient`; that of every layer's input, of the first one's
    // too, takes its input's place: what a step touches has to stay in the cache.
    void backward(const float* dense, int64_t events) const {
        const Place& unit = model.places[model.depth];
        float* now = saved[model.depth - 1].output;
        output_backward(now, dense + unit.weight, grad_logits, events, unit.fan_in, gradient + unit.weight,
                        gradient + unit.bias, now);
        for (int64_t n = model.depth - 1; n >= 0; --n) {
            const Place& at = model.places[n];
            const Saved& layer = saved[n];
            layer_backward(model.kind, model.norm, model.constants, layer.product, dense + at.bias, dense + at.gain,
                           layer.mean, layer.scale, events, at.width, now, gradient + at.bias, gradient + at.gain);
            float* x = n ? saved[n - 1].output : inputs;
            multiply(model, x, true, now, false, at.fan_in, events, at.width, gradient + at.weight);
            multiply(model, now, false, dense + at.weight, true, events, at.width, at.fan_in, x);
            now = x;
        }
    }
};

}  // namespace

extern "C" {

// Floats of memory that the functions below need.
int64_t memory_size(const Model* model) {
    Memory nothing{nullptr};
    return Pass(*model, nothing).cut(nothing);
}

// Rows [n, S] -> log-odds [n]. Returns -1, or where among the rows one is outside the table: then nothing is done.
int64_t score_events(const Model* model, const float* dense, const float* table, const int32_t* rows, int64_t events,
                     float* memory, float* logits) {
    const int64_t wrong = stray(*model, rows, events * model->slots);
    if (wrong >= 0) return wrong;
    const Pass pass(*model, {memory});
    for (int64_t start = 0; start < events; start += model->batch)
        pass.forward(dense, table, rows + start * model->slots, std::min(model->batch, events - start), logits + start);
    return -1;
}

// Rows [n, S], labels [n] -> log-odds [n] given to each event just before its mini-batch is learned. Weights, dense [P]
// and table [V, D], and Adagrad's sums of squares [P] and [V] are updated in place. Each event weighs 1 / B, also in a
// shorter mini-batch at the end, times its event_weights [n], unless these are null. lost [n / B]: whether a mini-batch is scored only. place [V] is -1 everywhere.
// Returns what score_events does.
int64_t learn_chunk(const Model* model, float* dense, float* dense_accumulator, float* table, float* table_accumulator,
                    const int32_t* rows, const float* labels, const float* event_weights, const uint8_t* lost,
                    int64_t events, float rate, float* memory, int32_t* place, int64_t* touched, float* logits) {
    const int64_t wrong = stray(*model, rows, events * model->slots);
    if (wrong >= 0) return wrong;
    const Pass pass(*model, {memory});
    std::fill(pass.gradient, pass.gradient + model->parameters, 0.0f);  // between the parameters it stays 0
    for (int64_t start = 0; start < events; start += model->batch, ++lost) {
        const int64_t count = std::min(model->batch, events - start);
        const int32_t* now = rows + start * model->slots;
        pass.forward(dense, table, now, count, logits + start);
        if (*lost) continue;
        for (int64_t b = 0; b < count; ++b)
            pass.grad_logits[b] = (sigmoid(logits[start + b]) - labels[start + b]) / model->batch;
        if (event_weights)
            for (int64_t b = 0; b < count; ++b) pass.grad_logits[b] *= event_weights[start + b];
        pass.backward(dense, count);
        const int64_t found = sum_by_row(pass.inputs, now, model->field_of_slot, count, model->slots, model->fields,
                                         model->dim, place, touched, pass.sums);
        adagrad(dense, dense_accumulator, pass.gradient, model->parameters, rate);
        adagrad_rows(table, table_accumulator, touched, pass.sums, found, model->dim, rate);
    }
    return -1;
}
}
