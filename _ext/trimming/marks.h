/* 64 bytes -> the bits of the quotes and of the backslashes among them. */
#ifndef EPSAGON_FAST_MARKS_H
#define EPSAGON_FAST_MARKS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(EPSAGON_FAST_PORTABLE)
/* Asked for: the sanitizer runs this path on machines that have a better one. */
#elif defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__aarch64__) && defined(__ARM_NEON) && !defined(__AARCH64EB__)
#include <arm_neon.h>
#define EPSAGON_FAST_NEON
#else
#define EPSAGON_FAST_PORTABLE
#endif

#define BLOCK_BYTES 64

/* These run for every block or every member: a call, or a scanner kept in memory because of one, costs a third of the
 * speed. What is rare is kept out of their way. */
#define HOT static inline __attribute__((always_inline))
#define COLD static __attribute__((noinline))
#define LIKELY(condition) __builtin_expect(!!(condition), 1)

typedef struct {
    uint64_t quotes, backslashes;
} block_marks;

#if defined(EPSAGON_FAST_PORTABLE)

HOT uint64_t load_little_endian(const unsigned char *bytes) {
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

/* Eight bytes -> the bits of those equal to the one that `pattern` repeats. The sum cannot carry from byte to byte, and
 * the product gathers the eight top bits without two of them meeting. */
HOT uint64_t equal_bits(uint64_t word, uint64_t pattern) {
    const uint64_t low = UINT64_C(0x7f7f7f7f7f7f7f7f);
    uint64_t differing = word ^ pattern;
    uint64_t equal = ~(((differing & low) + low) | differing | low);
    return ((equal >> 7) * UINT64_C(0x0102040810204080)) >> 56;
}

HOT block_marks find_marks(const unsigned char *bytes) {
    block_marks marks = {0, 0};
    for (int i = 0; i < BLOCK_BYTES; i += 8) {
        uint64_t word = load_little_endian(bytes + i);
        marks.quotes |= equal_bits(word, UINT64_C(0x2222222222222222)) << i;
        marks.backslashes |= equal_bits(word, UINT64_C(0x5c5c5c5c5c5c5c5c)) << i;
    }
    return marks;
}

#elif defined(EPSAGON_FAST_NEON)

/* Each equal byte leaves the bit of its place among eight; pairwise sums bring the places together. */
HOT uint64_t equal_bits(const uint8x16_t *part, unsigned char byte) {
    static const uint8_t places[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    uint8x16_t place = vld1q_u8(places), wanted = vdupq_n_u8(byte);
    uint8x16_t first = vpaddq_u8(vandq_u8(vceqq_u8(part[0], wanted), place), vandq_u8(vceqq_u8(part[1], wanted), place));
    uint8x16_t second = vpaddq_u8(vandq_u8(vceqq_u8(part[2], wanted), place), vandq_u8(vceqq_u8(part[3], wanted), place));
    uint8x16_t all = vpaddq_u8(first, second);
    return vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(all, all)), 0);
}

HOT block_marks find_marks(const unsigned char *bytes) {
    uint8x16_t part[4] = {vld1q_u8(bytes), vld1q_u8(bytes + 16), vld1q_u8(bytes + 32), vld1q_u8(bytes + 48)};
    return (block_marks){equal_bits(part, '"'), equal_bits(part, '\\')};
}

#else

HOT uint64_t equal_bits(const __m128i *part, char byte) {
    __m128i wanted = _mm_set1_epi8(byte);
    uint64_t first = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(part[0], wanted));
    uint64_t second = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(part[1], wanted));
    uint64_t third = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(part[2], wanted));
    uint64_t fourth = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(part[3], wanted));
    return first | second << 16 | third << 32 | fourth << 48;
}

HOT block_marks find_marks(const unsigned char *bytes) {
    const __m128i *from = (const __m128i *)bytes;
    __m128i part[4] = {_mm_loadu_si128(from), _mm_loadu_si128(from + 1), _mm_loadu_si128(from + 2),
                       _mm_loadu_si128(from + 3)};
    return (block_marks){equal_bits(part, '"'), equal_bits(part, '\\')};
}

#endif

/* The marks of the last `left` bytes, fewer than a block. Reads the block that ends with them and drops what was seen
 * before, or, of a shorter event, a copy with zeros behind. */
COLD block_marks find_last_marks(const unsigned char *bytes, size_t length, size_t left) {
    if (length < BLOCK_BYTES) {
        unsigned char padded[BLOCK_BYTES] = {0};
        memcpy(padded, bytes, length);
        return find_marks(padded);
    }
    block_marks marks = find_marks(bytes + length - BLOCK_BYTES);
    marks.quotes >>= BLOCK_BYTES - left;
    marks.backslashes >>= BLOCK_BYTES - left;
    return marks;
}

#endif
