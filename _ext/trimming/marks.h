/* 64 bytes -> the bits of the quotes, of the backslashes and of the brackets among them.
 *
 * There are three ways to do this, each with the same few functions: load_block, lower_case, equal_bytes, and three that
 * only say whether a block is worth a closer look. AVX2 was a seventh faster for values of a megabyte and for others not at all,
 * which is not worth a second copy of the code and a choice at run time. */
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

typedef struct {
    uint64_t opening, closing;
} block_brackets;

#if defined(EPSAGON_FAST_PORTABLE)

typedef struct {
    uint64_t word[8];
} block_bytes;

HOT block_bytes load_block(const unsigned char *bytes) {
    block_bytes block;
    memcpy(block.word, bytes, sizeof block);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    for (int i = 0; i < 8; i++) block.word[i] = __builtin_bswap64(block.word[i]);
#endif
    return block;
}

HOT uint64_t repeated(unsigned char byte) { return byte * UINT64_C(0x0101010101010101); }

HOT block_bytes lower_case(block_bytes block) {
    for (int i = 0; i < 8; i++) block.word[i] |= repeated(0x20);
    return block;
}

/* Eight bytes -> the top bits of those equal to one. The sum cannot carry from byte to byte. */
HOT uint64_t equal_tops(uint64_t word, unsigned char byte) {
    const uint64_t low = repeated(0x7f);
    uint64_t differing = word ^ repeated(byte);
    return ~(((differing & low) + low) | differing | low);
}

/* The product gathers the eight top bits without two of them meeting. */
HOT uint64_t equal_bytes(const block_bytes *block, unsigned char byte) {
    uint64_t bits = 0;
    for (int i = 0; i < 8; i++)
        bits |= ((equal_tops(block->word[i], byte) >> 7) * UINT64_C(0x0102040810204080)) >> 56 << 8 * i;
    return bits;
}

HOT int has_mark(const block_bytes *block) {
    uint64_t found = 0;
    for (int i = 0; i < 8; i++) found |= equal_tops(block->word[i], '"') | equal_tops(block->word[i], '\\');
    return found != 0;
}

HOT int may_have_brackets(const block_bytes *block) {
    uint64_t found = 0;
    for (int i = 0; i < 8; i++) {
        uint64_t word = block->word[i];
        found |= equal_tops(word, '"') | (((word & repeated(0x7f)) + repeated(0x80 - '[')) & repeated(0x80));
    }
    return found != 0;
}

HOT int may_need_escapes(const block_bytes *block) {
    uint64_t found = 0;
    for (int i = 0; i < 8; i++) found |= (block->word[i] - repeated(' ')) & ~block->word[i] & repeated(0x80);
    return found != 0 || has_mark(block);
}

#elif defined(EPSAGON_FAST_NEON)

typedef struct {
    uint8x16_t part[4];
} block_bytes;

HOT block_bytes load_block(const unsigned char *bytes) {
    return (block_bytes){{vld1q_u8(bytes), vld1q_u8(bytes + 16), vld1q_u8(bytes + 32), vld1q_u8(bytes + 48)}};
}

HOT block_bytes lower_case(block_bytes block) {
    for (int i = 0; i < 4; i++) block.part[i] = vorrq_u8(block.part[i], vdupq_n_u8(0x20));
    return block;
}

/* Each equal byte leaves the bit of its place among eight; pairwise sums bring the places together. */
HOT uint64_t equal_bytes(const block_bytes *block, unsigned char byte) {
    static const uint8_t places[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint8x16_t *part = block->part;
    uint8x16_t place = vld1q_u8(places), wanted = vdupq_n_u8(byte);
    uint8x16_t first = vpaddq_u8(vandq_u8(vceqq_u8(part[0], wanted), place), vandq_u8(vceqq_u8(part[1], wanted), place));
    uint8x16_t second = vpaddq_u8(vandq_u8(vceqq_u8(part[2], wanted), place), vandq_u8(vceqq_u8(part[3], wanted), place));
    uint8x16_t all = vpaddq_u8(first, second);
    return vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(all, all)), 0);
}

HOT int has_mark(const block_bytes *block) {
    uint8x16_t found = vdupq_n_u8(0);
    for (int i = 0; i < 4; i++) {
        uint8x16_t part = block->part[i];
        found = vorrq_u8(found, vorrq_u8(vceqq_u8(part, vdupq_n_u8('"')), vceqq_u8(part, vdupq_n_u8('\\'))));
    }
    return vmaxvq_u8(found) != 0;
}

HOT int may_have_brackets(const block_bytes *block) {
    uint8x16_t found = vdupq_n_u8(0);
    for (int i = 0; i < 4; i++) {
        uint8x16_t part = block->part[i];
        found = vorrq_u8(found, vorrq_u8(vceqq_u8(part, vdupq_n_u8('"')), vcgeq_u8(part, vdupq_n_u8('['))));
    }
    return vmaxvq_u8(found) != 0;
}

HOT int may_need_escapes(const block_bytes *block) {
    uint8x16_t found = vdupq_n_u8(0);
    for (int i = 0; i < 4; i++) found = vorrq_u8(found, vcltq_u8(block->part[i], vdupq_n_u8(' ')));
    return vmaxvq_u8(found) != 0 || has_mark(block);
}

#else

typedef struct {
    __m128i part[4];
} block_bytes;

HOT block_bytes load_block(const unsigned char *bytes) {
    const __m128i *from = (const __m128i *)bytes;
    return (block_bytes){{_mm_loadu_si128(from), _mm_loadu_si128(from + 1), _mm_loadu_si128(from + 2),
                          _mm_loadu_si128(from + 3)}};
}

HOT block_bytes lower_case(block_bytes block) {
    for (int i = 0; i < 4; i++) block.part[i] = _mm_or_si128(block.part[i], _mm_set1_epi8(0x20));
    return block;
}

HOT uint64_t equal_bytes(const block_bytes *block, char byte) {
    __m128i wanted = _mm_set1_epi8(byte);
    uint64_t first = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(block->part[0], wanted));
    uint64_t second = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(block->part[1], wanted));
    uint64_t third = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(block->part[2], wanted));
    uint64_t fourth = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(block->part[3], wanted));
    return first | second << 16 | third << 32 | fourth << 48;
}

HOT int has_mark(const block_bytes *block) {
    __m128i found = _mm_setzero_si128();
    for (int i = 0; i < 4; i++) {
        found = _mm_or_si128(found, _mm_cmpeq_epi8(block->part[i], _mm_set1_epi8('"')));
        found = _mm_or_si128(found, _mm_cmpeq_epi8(block->part[i], _mm_set1_epi8('\\')));
    }
    return _mm_movemask_epi8(found) != 0;
}

/* Comparisons are signed: bytes that are not ASCII are less than any that is. */
HOT int may_have_brackets(const block_bytes *block) {
    __m128i found = _mm_setzero_si128();
    for (int i = 0; i < 4; i++) {
        found = _mm_or_si128(found, _mm_cmpeq_epi8(block->part[i], _mm_set1_epi8('"')));
        found = _mm_or_si128(found, _mm_cmpgt_epi8(block->part[i], _mm_set1_epi8('[' - 1)));
    }
    return _mm_movemask_epi8(found) != 0;
}

HOT int may_need_escapes(const block_bytes *block) {
    __m128i found = _mm_setzero_si128();
    for (int i = 0; i < 4; i++) found = _mm_or_si128(found, _mm_cmplt_epi8(block->part[i], _mm_set1_epi8(' ')));
    return _mm_movemask_epi8(found) != 0 || has_mark(block);
}

#endif

HOT block_marks find_marks(const unsigned char *bytes) {
    block_bytes block = load_block(bytes);
    return (block_marks){equal_bytes(&block, '"'), equal_bytes(&block, '\\')};
}

/* A brace and a square bracket differ in the bit that makes a letter small. */
HOT block_brackets find_brackets(const unsigned char *bytes) {
    block_bytes block = lower_case(load_block(bytes));
    return (block_brackets){equal_bytes(&block, '{'), equal_bytes(&block, '}')};
}

/* Return a block that holds the last `left` bytes, fewer than it has, and by how many places their bits are too high: the
 * one that ends with them, or, of a shorter event, a copy with zeros behind. */
HOT const unsigned char *last_block(const unsigned char *bytes, size_t length, size_t left, unsigned char *copy,
                                    size_t *places) {
    *places = length < BLOCK_BYTES ? length - left : BLOCK_BYTES - left;
    if (length >= BLOCK_BYTES) return bytes + length - BLOCK_BYTES;
    memset(copy, 0, BLOCK_BYTES);
    memcpy(copy, bytes, length);
    return copy;
}

COLD block_marks find_last_marks(const unsigned char *bytes, size_t length, size_t left) {
    unsigned char copy[BLOCK_BYTES];
    size_t places;
    block_marks marks = find_marks(last_block(bytes, length, left, copy, &places));
    return (block_marks){marks.quotes >> places, marks.backslashes >> places};
}

COLD block_brackets find_last_brackets(const unsigned char *bytes, size_t length, size_t left) {
    unsigned char copy[BLOCK_BYTES];
    size_t places;
    block_brackets brackets = find_brackets(last_block(bytes, length, left, copy, &places));
    return (block_brackets){brackets.opening >> places, brackets.closing >> places};
}

#endif
