// The one library: see build.py for how it is built, loader.py for who loads it, models/native_engine.py and world/values.py for who calls it.

#include "coder.hpp"
#include "learning.hpp"
#include "scoring.hpp"

extern "C" {

// What it was built from. `used`: nothing here reads it.
__attribute__((used)) extern const char source_digest[] = "flicker sources " SOURCE_DIGEST;

// The best of the builds that this processor, and its system, can run: 2, 3 or 4 of x86-64-v2 to v4; 0 on another.
int cpu_level() {
#if defined(__x86_64__)
    const auto v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    const auto wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
    return !v3 ? 2 : wide ? 4 : 3;
#else
    return 0;
#endif
}
}
