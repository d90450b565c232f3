// What has to round alike on every machine: sums, and products that are added up.
//
// A sum is always made in 16 partial sums, term n in number n modulo 16, which are then added in one fixed order: the
// same bits whatever the width of the machine's vectors. Nothing else that is written here depends on that width,
// provided that the compiler fuses no product with a sum of its own accord (-ffp-contract=off).

#pragma once

#include <cstdint>
#include <cstring>

#if defined(__FMA__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

// A call within a loop would keep it from being vectorised.
#define FLICKER_INLINE __attribute__((always_inline)) inline

namespace flicker {

#if defined(__AVX512F__)
const int WIDTH = 16;
#elif defined(__AVX__)
const int WIDTH = 8;
#else
const int WIDTH = 4;
#endif
const int LANES = 16;
typedef float Vector __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));

// x[n], or as many from there as the last argument holds.
FLICKER_INLINE float at(const float* x, int64_t n, float) { return x[n]; }
FLICKER_INLINE Vector at(const float* x, int64_t n, Vector) { return *(const Vector*)(x + n); }

typedef float Four __attribute__((vector_size(16)));

// 16 partial sums.
struct Sum {
    Vector part[LANES / WIDTH] = {};

    // The terms [n, n + 16): `term(n, Vector())` gives WIDTH of them.
    template <typename Term>
    FLICKER_INLINE void add(int64_t n, Term term) {
        for (int p = 0; p < LANES / WIDTH; ++p) part[p] += term(n + p * WIDTH, Vector());
    }

    // With the last terms [n, count), less than 16 of them: `term(n, float())` gives one.
    template <typename Term>
    FLICKER_INLINE float total(int64_t n, int64_t count, Term term) const {
        Four quarter[4];
        std::memcpy(quarter, part, sizeof quarter);
        if (n < count) {
            float lane[LANES];
            std::memcpy(lane, part, sizeof lane);
            for (int l = 0; n + l < count; ++l) lane[l] += term(n + l, float());
            std::memcpy(quarter, lane, sizeof quarter);
        }
        const Four whole = (quarter[0] + quarter[2]) + (quarter[1] + quarter[3]);
        return (whole[0] + whole[2]) + (whole[1] + whole[3]);
    }
};

// The sum of `count` terms: `term(n, float())` gives one, `term(n, Vector())` WIDTH of them.
template <typename Term>
FLICKER_INLINE float sum(int64_t count, Term term) {
    Sum sum;
    int64_t n = 0;
    for (; n + LANES <= count; n += LANES) sum.add(n, term);
    return sum.total(n, count, term);
}

// sum + x y, rounded once: without it the products of scoring take twice the time, and exp and erf 1.1 to 1.3 times.
FLICKER_INLINE float fused(float x, float y, float sum) {
#if defined(__FMA__) || !defined(__x86_64__)
    return __builtin_fmaf(x, y, sum);
#else
    // A processor without that instruction (before 2013) is many times slower here, but gives the same bits: in double
    // the product is exact, and the sum is rounded to odd, so that rounding again, to float, does no harm (Boldo and
    // Melquiond, "Emulation of FMA and correctly rounded sums", 2008).
    const double a = static_cast<double>(x) * y, b = sum, s = a + b, z = s - a;
    const double error = (a - (s - z)) + (b - z);  // s + error = a + b (Knuth)
    int64_t bits, sign;
    std::memcpy(&bits, &s, sizeof bits);
    std::memcpy(&sign, &error, sizeof sign);
    const int64_t even = (bits & 1) - 1, inexact = error < 0 || error > 0 ? -1 : 0;
    bits += inexact & even & ((sign ^ bits) >> 63 | 1);  // 1 towards the exact sum
    double odd;
    std::memcpy(&odd, &bits, sizeof odd);
    return static_cast<float>(odd);
#endif
}

FLICKER_INLINE Vector fused(Vector x, Vector y, Vector sum) {
#if defined(__AVX512F__)
    return _mm512_fmadd_ps(x, y, sum);
#elif defined(__FMA__)
    return _mm256_fmadd_ps(x, y, sum);
#elif defined(__aarch64__)
    return vfmaq_f32(sum, x, y);
#else
    for (int n = 0; n < WIDTH; ++n) sum[n] = fused(x[n], y[n], sum[n]);
    return sum;
#endif
}

}  // namespace flicker
