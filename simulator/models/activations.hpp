// Activations and their slopes, element by element, as in activations.py: each is made from its constants.
//
// NaN and infinity go through as in PyTorch. Everything is written without branches and calls, for compilers to turn
// into vector instructions; exp, log1p and erf are therefore ours, good to 2e-7.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

// A call within a loop would keep it from being vectorised.
#define FLICKER_INLINE __attribute__((always_inline)) inline

namespace flicker {

// 2^n for n from -126 to 127, by its bits.
FLICKER_INLINE float power_of_two(int32_t n) {
    const int32_t bits = (n + 127) << 23;
    float power;
    std::memcpy(&power, &bits, sizeof power);
    return power;
}

// e^x by 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2] (Cephes expf); 0 and infinity beyond float32's range.
FLICKER_INLINE float exponential(float x) {
    const float high = x > 89.0f ? 89.0f : x, within = high < -110.0f ? -110.0f : high;
    const float n = std::floor(within * 1.44269504f + 0.5f);
    const float r = within - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const int32_t whole = static_cast<int32_t>(n), half = whole >> 1;  // in two steps: 2^n itself may be too large
    return p * power_of_two(half) * power_of_two(whole - half);
}

FLICKER_INLINE float sigmoid(float x) { return 1 / (1 + exponential(-x)); }

// ln(1 + z) for z in [0, 1], by 2 atanh(z / (2 + z)).
FLICKER_INLINE float log_of_one_plus(float z) {
    const float s = z / (2 + z), q = s * s;
    float p = 1 / 13.0f;
    p = p * q + 1 / 11.0f;
    p = p * q + 1 / 9.0f;
    p = p * q + 1 / 7.0f;
    p = p * q + 1 / 5.0f;
    p = p * q + 1 / 3.0f;
    return 2 * (s + s * q * p);
}

struct Linear {
    explicit Linear(const float*) {}
    FLICKER_INLINE float value(float x) const { return x; }
    FLICKER_INLINE float slope(float) const { return 1; }
};

struct Relu {
    explicit Relu(const float*) {}
    FLICKER_INLINE float value(float x) const { return 0 > x ? 0 : x; }
    FLICKER_INLINE float slope(float x) const { return x <= 0 ? 0.0f : 1.0f; }
};

// Gradient 0 left of -alpha, 1 at `length` right of it, a straight ramp between.
struct Smelu {
    float alpha, length, steepness;
    explicit Smelu(const float* constants) : alpha(constants[0]), length(constants[1]), steepness(constants[2]) {}
    FLICKER_INLINE float ramp(float shifted) const {
        const float above = 0 > shifted ? 0 : shifted;
        return length < above ? length : above;
    }
    FLICKER_INLINE float value(float x) const {
        const float shifted = x + alpha, c = ramp(shifted);
        return steepness * c * (shifted - 0.5f * c);
    }
    FLICKER_INLINE float slope(float x) const { return steepness * ramp(x + alpha); }
};

struct GSmelu {
    Smelu smelu;
    float gminus, t;
    explicit GSmelu(const float* constants) : smelu(constants), gminus(constants[3]), t(constants[4]) {}
    FLICKER_INLINE float value(float x) const { return smelu.value(x) + (gminus * (x + smelu.alpha) + t); }
    FLICKER_INLINE float slope(float x) const { return smelu.slope(x) + gminus; }
};

struct Gelu {
    explicit Gelu(const float*) {}
    // The standard normal distribution function (Abramowitz and Stegun 7.1.26), given e^(-x^2 / 2).
    FLICKER_INLINE static float below(float x, float bell) {
        const float z = x < 0 ? -x : x, t = 1 / (1 + 0.3275911f * 0.70710678f * z);
        float p = 1.061405429f;
        p = p * t - 1.453152027f;
        p = p * t + 1.421413741f;
        p = p * t - 0.284496736f;
        p = p * t + 0.254829592f;
        const float tail = 0.5f * p * t * bell;
        return x < 0 ? tail : 1 - tail;
    }
    FLICKER_INLINE float value(float x) const { return x * below(x, exponential(-0.5f * x * x)); }
    FLICKER_INLINE float slope(float x) const {
        const float bell = exponential(-0.5f * x * x);
        return below(x, bell) + 0.39894228f * x * bell;
    }
};

struct Swish {
    float beta;
    explicit Swish(const float* constants) : beta(constants[0]) {}
    FLICKER_INLINE float value(float x) const { return x * sigmoid(beta * x); }
    FLICKER_INLINE float slope(float x) const {
        const float share = sigmoid(beta * x);
        return share * (1 + beta * x * (1 - share));
    }
};

struct Softplus {
    float beta;
    explicit Softplus(const float* constants) : beta(constants[0]) {}
    FLICKER_INLINE float value(float x) const {
        const float scaled = beta * x, size = scaled < 0 ? -scaled : scaled;
        return ((0 > scaled ? 0 : scaled) + log_of_one_plus(exponential(-size))) / beta;
    }
    FLICKER_INLINE float slope(float x) const { return sigmoid(beta * x); }
};

}  // namespace flicker
