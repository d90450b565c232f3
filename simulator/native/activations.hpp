// Activations and their derivatives, element by element, as in activations.py: each is made from its constants.
//
// NaN and infinity go through as in PyTorch. Everything is written without branches and calls, for compilers to turn
// into vector instructions; exp, log1p and erf are therefore ours, good to 2e-7.

#pragma once

#include "lanes.hpp"

#include <cmath>

namespace flicker {

FLICKER_INLINE float of_bits(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

FLICKER_INLINE uint32_t bits_of(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}

// e^x by 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2] (Cephes expf); 0 and infinity beyond float32's range.
FLICKER_INLINE float exponential(float x) {
    const float high = x > 89.0f ? 89.0f : x, within = high < -110.0f ? -110.0f : high;
    // floats of this size are whole numbers; the last bits of this one are n + 254, twice the bias of an exponent
    const float shift = 12582912.0f + 254.0f, shifted = fused(within, 1.44269504f, shift), n = shifted - shift;
    const float r = fused(n, 2.12194440e-4f, fused(n, -0.693359375f, within));
    float p = 1.9875691500e-4f;
    p = fused(p, r, 1.3981999507e-3f);
    p = fused(p, r, 8.3334519073e-3f);
    p = fused(p, r, 4.1665795894e-2f);
    p = fused(p, r, 1.6666665459e-1f);
    p = fused(p, r, 5.0000001201e-1f);
    p = fused(p * r, r, r) + 1.0f;
    const uint32_t whole = bits_of(shifted), half = whole >> 1;  // in two steps: 2^n itself may be too large
    return p * of_bits(half << 23) * of_bits((whole - half) << 23);
}

FLICKER_INLINE float sigmoid(float x) { return 1 / (1 + exponential(-x)); }

// ln(1 + z) for z in [0, 1], by 2 atanh(z / (2 + z)).
FLICKER_INLINE float log_of_one_plus(float z) {
    const float s = z / (2 + z), q = s * s;
    float p = 1 / 13.0f;
    p = fused(p, q, 1 / 11.0f);
    p = fused(p, q, 1 / 9.0f);
    p = fused(p, q, 1 / 7.0f);
    p = fused(p, q, 1 / 5.0f);
    p = fused(p, q, 1 / 3.0f);
    return 2 * fused(s * q, p, s);
}

struct Linear {
    explicit Linear(const float*) {}
    FLICKER_INLINE float value(float x) const { return x; }
    FLICKER_INLINE float derivative(float) const { return 1; }
};

struct Relu {
    explicit Relu(const float*) {}
    FLICKER_INLINE float value(float x) const { return 0 > x ? 0 : x; }
    FLICKER_INLINE float derivative(float x) const { return x <= 0 ? 0.0f : 1.0f; }
};

// Gradient 0 left of -alpha, 1 at `length` right of it, a straight ramp between.
struct Smelu {
    float alpha, length, steepness;
    explicit Smelu(const float* constants) : alpha(constants[0]), length(constants[1]), steepness(constants[2]) {}
    FLICKER_INLINE float above(float x) const {
        const float shifted = x + alpha;
        return 0 > shifted ? 0 : shifted;
    }
    FLICKER_INLINE float value(float x) const {
        const float z = above(x), c = length < z ? length : z;
        return steepness * c * (z - 0.5f * c);
    }
    FLICKER_INLINE float derivative(float x) const {
        const float z = above(x);
        return steepness * (length < z ? length : z);
    }
};

struct GSmelu {
    Smelu smelu;
    float gminus, t;
    explicit GSmelu(const float* constants) : smelu(constants), gminus(constants[3]), t(constants[4]) {}
    FLICKER_INLINE float value(float x) const { return smelu.value(x) + (gminus * (x + smelu.alpha) + t); }
    FLICKER_INLINE float derivative(float x) const { return smelu.derivative(x) + gminus; }
};

struct Gelu {
    explicit Gelu(const float*) {}
    // The standard normal distribution function (Abramowitz and Stegun 7.1.26), given e^(-x^2 / 2).
    FLICKER_INLINE static float below(float x, float bell) {
        const float z = x < 0 ? -x : x, t = 1 / fused(0.3275911f * 0.70710678f, z, 1.0f);
        float p = 0.5f * 1.061405429f;
        p = fused(p, t, -0.5f * 1.453152027f);
        p = fused(p, t, 0.5f * 1.421413741f);
        p = fused(p, t, -0.5f * 0.284496736f);
        p = fused(p, t, 0.5f * 0.254829592f);
        const float tail = p * t * bell;
        return x < 0 ? tail : 1 - tail;
    }
    FLICKER_INLINE float value(float x) const { return x * below(x, exponential(-0.5f * x * x)); }
    FLICKER_INLINE float derivative(float x) const {
        const float bell = exponential(-0.5f * x * x);
        return fused(0.39894228f * x, bell, below(x, bell));
    }
};

struct Swish {
    float beta;
    explicit Swish(const float* constants) : beta(constants[0]) {}
    FLICKER_INLINE float value(float x) const { return x * sigmoid(beta * x); }
    FLICKER_INLINE float derivative(float x) const {
        const float share = sigmoid(beta * x);
        return share * fused(beta * x, 1 - share, 1.0f);
    }
};

struct Softplus {
    float beta;
    explicit Softplus(const float* constants) : beta(constants[0]) {}
    FLICKER_INLINE float value(float x) const {
        const float scaled = beta * x, size = scaled < 0 ? -scaled : scaled;
        return ((0 > scaled ? 0 : scaled) + log_of_one_plus(exponential(-size))) / beta;
    }
    FLICKER_INLINE float derivative(float x) const { return sigmoid(beta * x); }
};

}  // namespace flicker
