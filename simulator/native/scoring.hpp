// Scoring in one call: from users and candidates to log-odds, behind a plain C interface; see models/native_engine.py.
//
// The candidates of a query go through all layers in blocks that stay in the cache. A score is summed in the same order
// whichever query, block or row it stands in: it does not depend on what else is scored. Calls may run side by side.
// Of the matrix products every step is rounded once (`fused`): without that the widest vectors took twice the time.
//
// Shapes: Q queries, N candidates, S slots of user and context, C of them of the context, F fields of both, D embedding
// length, H width of a layer.

#pragma once

#include "layers.hpp"

#include <algorithm>

namespace {

// Rows of a block of sums two vectors wide: as many as the registers hold.
const int TILE = WIDTH == 16 ? 12 : WIDTH == 8 ? 6 : 4;
const int PANEL = 2 * WIDTH;         // columns of a weight matrix that lie together
const int64_t BLOCK = 4 * TILE;      // candidates at once

// Rows [TILE, K] times a panel [K, PANEL] -> [TILE, PANEL].
inline void multiply(const float* x, int64_t fan_in, const float* panel, float* out, int64_t width) {
    Vector left[TILE] = {}, right[TILE] = {};
    for (int64_t k = 0; k < fan_in; ++k, panel += PANEL) {
        const Vector first = *(const Vector*)panel, second = *(const Vector*)(panel + WIDTH);
#pragma GCC unroll 12
        for (int r = 0; r < TILE; ++r) {
            const Vector one = x[r * fan_in + k] - Vector{};
            left[r] = fused(one, first, left[r]);
            right[r] = fused(one, second, right[r]);
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < TILE; ++r) {
        *(Vector*)(out + r * width) = left[r];
        *(Vector*)(out + r * width + WIDTH) = right[r];
    }
}

// x [rows, K] times a weight in panels -> [rows, H]; rows is a multiple of TILE.
void product(const float* x, int64_t rows, int64_t fan_in, const float* weight, int64_t width, float* out) {
    float part[TILE * PANEL];
    for (int64_t column = 0; column < width; column += PANEL, weight += fan_in * PANEL)
        for (int64_t row = 0; row < rows; row += TILE) {
            float* place = out + row * width + column;
            if (column + PANEL <= width) {
                multiply(x + row * fan_in, fan_in, weight, place, width);
                continue;
            }
            multiply(x + row * fan_in, fan_in, weight, part, PANEL);
            for (int r = 0; r < TILE; ++r) std::copy_n(part + r * PANEL, width - column, place + r * width);
        }
}

}  // namespace

extern "C" {

int panel_width() { return PANEL; }

struct Stage {  // a layer of a Scorer
    int64_t kind, norm, width;
    const float *constants, *bias, *gain, *weight;  // weight in panels; of the first layer none
};

struct Scorer {  // a model, as it scores
    int64_t stages, dim, user_slots, context_slots, fields;
    const Stage* stage;
    const float *out_weight, *out_bias;
    const float* items;            // [I, H] what each item adds to the first product
    const float* table;            // [V, D]
    const float* weight;           // [F D, H] of user and context in the first layer
    const int32_t* user_rows;      // [U, S - C]
    const int32_t* field_of_slot;  // [S]
};

// Users [Q], contexts [Q, C] and candidates [Q, N] -> log-odds [Q, N].
void score_candidates(const Scorer* model, int64_t queries, int64_t candidates, const int64_t* users,
                      const int32_t* context, const int64_t* items, float* scores) {
    int64_t widest = 0;
    for (int64_t n = 0; n < model->stages; ++n) widest = std::max(widest, model->stage[n].width);
    const int64_t first = model->stage[0].width, inputs = model->fields * model->dim;
    const int64_t slots = model->user_slots + model->context_slots;
    std::vector<float> here(BLOCK * widest), there(BLOCK * widest), input(inputs), query(first), last(BLOCK);
    std::vector<int32_t> rows(slots);
    for (int64_t q = 0; q < queries; ++q, context += model->context_slots, items += candidates, scores += candidates) {
        std::copy_n(model->user_rows + users[q] * model->user_slots, model->user_slots, rows.begin());
        std::copy_n(context, model->context_slots, rows.begin() + model->user_slots);
        gather(model->table, rows.data(), model->field_of_slot, 1, slots, model->fields, model->dim, input.data());
        std::fill(query.begin(), query.end(), 0.0f);
        for (int64_t d = 0; d < inputs; ++d)
#pragma omp simd
            for (int64_t h = 0; h < first; ++h) query[h] += input[d] * model->weight[d * first + h];
        for (int64_t start = 0; start < candidates; start += BLOCK) {
            const int64_t left = std::min(BLOCK, candidates - start);
            const int64_t padded = (left + TILE - 1) / TILE * TILE;  // with the last candidate again
            for (int64_t r = 0; r < padded; ++r) {
                const float* item = model->items + items[start + std::min(r, left - 1)] * first;
                float* x = here.data() + r * first;
#pragma omp simd
                for (int64_t h = 0; h < first; ++h) x[h] = item[h] + query[h];
            }
            float *x = here.data(), *y = there.data();
            for (int64_t n = 0; n < model->stages; ++n) {
                const Stage& stage = model->stage[n];
                if (n) {
                    product(x, padded, model->stage[n - 1].width, stage.weight, stage.width, y);
                    std::swap(x, y);
                }
                layer_forward(stage.kind, stage.norm, stage.constants, x, stage.bias, stage.gain, nullptr, nullptr,
                              padded, stage.width, x);
            }
            output_forward(x, model->out_weight, model->out_bias, padded, model->stage[model->stages - 1].width,
                           last.data());
            std::copy_n(last.data(), left, scores + start);
        }
    }
}
}
