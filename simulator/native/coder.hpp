// Texts become numbers 0, 1, 2 ... in order of first appearance: open addressing, linear probing. A million distinct ids
// do not fit a core's caches, so the rows are taken in groups: what one step of a group will touch is fetched by the
// step before it.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

namespace flicker {

template <typename Word>
inline uint64_t load(const char* text) {
    Word word;
    std::memcpy(&word, text, sizeof word);
    return word;
}

// Folds the 128 bits of a product (as wyhash does, https://github.com/wangyi-fudan/wyhash).
inline uint64_t fold(uint64_t x, uint64_t y) {
    const auto product = (unsigned __int128)x * y;
    return uint64_t(product) ^ uint64_t(product >> 64);
}

// Of all bytes; the last words overlap where they do not fill one.
inline uint64_t hash(const char* text, int64_t bytes) {
    const uint64_t ODD = 0xD6E8FEB86659FD93u;
    uint64_t sum = bytes ^ 0x9E3779B97F4A7C15u, last = 0;
    for (int64_t b = 0; b + 8 < bytes; b += 8) sum = fold(sum ^ load<uint64_t>(text + b), ODD);
    if (bytes >= 8) last = load<uint64_t>(text + bytes - 8);
    else if (bytes >= 4) last = load<uint32_t>(text) << 32 | load<uint32_t>(text + bytes - 4);
    else if (bytes > 0) last = load<uint8_t>(text) << 16 | load<uint8_t>(text + bytes / 2) << 8 | load<uint8_t>(text + bytes - 1);
    return fold(sum ^ last, ODD);
}

inline bool same(const char* one, const char* two, int64_t bytes) {
    if (bytes < 8) return std::memcmp(one, two, bytes) == 0;
    for (int64_t b = 0; b + 8 < bytes; b += 8)
        if (load<uint64_t>(one + b) != load<uint64_t>(two + b)) return false;
    return load<uint64_t>(one + bytes - 8) == load<uint64_t>(two + bytes - 8);
}

struct Coder {
    struct Slot { uint32_t tag; int32_t code; };  // the hash's upper half; -1: free

    std::vector<Slot> slots = std::vector<Slot>(1 << 10, Slot{0, -1});  // a power of two, at most half of them taken
    std::vector<int64_t> offsets{0};                                    // [codes + 1] in `texts`
    std::vector<char> texts;

    int64_t size() const { return int64_t(offsets.size()) - 1; }

    void grow() {
        std::vector<Slot> wider(slots.size() * 4, Slot{0, -1});
        for (int64_t code = 0; code < size(); ++code) {
            const uint64_t key = hash(&texts[offsets[code]], offsets[code + 1] - offsets[code]);
            uint64_t at = key & (wider.size() - 1);
            while (wider[at].code >= 0) at = (at + 1) & (wider.size() - 1);
            wider[at] = {uint32_t(key >> 32), int32_t(code)};
        }
        slots.swap(wider);
    }

    int32_t code(uint64_t key, const char* text, int64_t bytes) {
        for (uint64_t at = key & (slots.size() - 1);; at = (at + 1) & (slots.size() - 1)) {
            const Slot slot = slots[at];
            if (slot.code < 0) {
                texts.insert(texts.end(), text, text + bytes);
                offsets.push_back(int64_t(texts.size()));
                slots[at] = {uint32_t(key >> 32), int32_t(size() - 1)};
                return int32_t(size() - 1);
            }
            const int64_t start = offsets[slot.code];
            if (slot.tag == uint32_t(key >> 32) && offsets[slot.code + 1] - start == bytes &&
                same(&texts[start], text, bytes))
                return slot.code;
        }
    }

    void code_all(const int32_t* places, const char* data, int64_t rows, int32_t* codes) {
        const int64_t GROUP = 64, SMALL = 4096;  // what is small stays in the first cache
        uint64_t keys[GROUP];
        for (int64_t first = 0; first < rows; first += GROUP, places += GROUP, codes += GROUP) {
            const int64_t count = std::min(GROUP, rows - first);
            while (2 * (size() + count) > int64_t(slots.size())) grow();
            for (int64_t r = 0; r < count; ++r) {
                keys[r] = hash(data + places[r], places[r + 1] - places[r]);
                __builtin_prefetch(&slots[keys[r] & (slots.size() - 1)]);
            }
            if (size() > SMALL) {
                int32_t found[GROUP];
                for (int64_t r = 0; r < count; ++r) {
                    found[r] = std::max(0, slots[keys[r] & (slots.size() - 1)].code);
                    __builtin_prefetch(&offsets[found[r]]);
                }
                for (int64_t r = 0; r < count; ++r) __builtin_prefetch(texts.data() + offsets[found[r]]);
            }
            for (int64_t r = 0; r < count; ++r) {
                const int64_t bytes = places[r + 1] - places[r];
                codes[r] = bytes ? code(keys[r], data + places[r], bytes) : -1;
            }
        }
    }
};

}  // namespace flicker

extern "C" {

void* coder_make() {
    try { return new flicker::Coder; } catch (const std::bad_alloc&) { return nullptr; }
}

void coder_free(flicker::Coder* coder) { delete coder; }

// Codes [n] of the n texts that lie between places [n + 1] of the data, -1 of an empty one. Returns how many distinct
// texts there have been, or -1 where memory has run out.
int64_t coder_code(flicker::Coder* coder, const int32_t* places, const char* data, int64_t rows, int32_t* codes) {
    try { coder->code_all(places, data, rows, codes); } catch (const std::bad_alloc&) { return -1; }
    return coder->size();
}

// Of all distinct texts together.
int64_t coder_bytes(const flicker::Coder* coder) { return int64_t(coder->texts.size()); }

// All distinct texts in the order of their numbers: offsets [codes + 1] in the bytes.
void coder_copy(const flicker::Coder* coder, int64_t* offsets, char* texts) {
    std::memcpy(offsets, coder->offsets.data(), 8 * coder->offsets.size());
    if (!coder->texts.empty()) std::memcpy(texts, coder->texts.data(), coder->texts.size());
}
}
