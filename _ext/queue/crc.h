/* zlib's CRC-32, sixteen bytes at a time: by multiplication without carries, where the processor has that.
 *
 * The method is that of Gopal and others, "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction"
 * (Intel, 2009). A message is a polynomial, and its CRC the remainder of a division by another one, P. Sixteen bytes of it
 * that stand n bits before sixteen others may be multiplied by x^n mod P and added to these: the remainder is the same.
 * So the message shrinks to its last sixteen bytes, and these are divided.
 */
#ifndef EPSAGON_FAST_CRC_H
#define EPSAGON_FAST_CRC_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#include <wmmintrin.h>
#define CRC_FOLDS __attribute__((target("pclmul")))
#endif

/* The least that is folded. */
enum { CRC_LEAST = 16 };

static int crc_is_quick(void) {
#ifdef CRC_FOLDS
    return __builtin_cpu_supports("pclmul");
#else
    return 0;
#endif
}

#ifdef CRC_FOLDS
/* Powers of x mod P, the lowest bit of a number being its highest power, and shifted by one as products of two such numbers
 * are. tests/test_crc.py computes them. Of the two halves of sixteen bytes the first stands 64 bits further from the end. */
#define CRC_X544 0x154442bd4
#define CRC_X480 0x1c6e41596
#define CRC_X160 0x1751997d0
#define CRC_X96 0x0ccaa009e
#define CRC_X64 0x163cd6124
/* P itself, and the quotient of x^64 by P. */
#define CRC_P 0x1db710641
#define CRC_QUOTIENT 0x1f7011641

CRC_FOLDS static inline __m128i crc_load(const unsigned char *at) { return _mm_loadu_si128((const __m128i *)(const void *)at); }

/* Adds sixteen bytes to those that stand as many bits behind them as the powers say. */
CRC_FOLDS static inline __m128i crc_fold(__m128i bytes, __m128i powers, __m128i behind) {
    __m128i first = _mm_clmulepi64_si128(bytes, powers, 0x00), second = _mm_clmulepi64_si128(bytes, powers, 0x11);
    return _mm_xor_si128(_mm_xor_si128(first, second), behind);
}

/* The remainder of sixteen bytes and four zeros behind them. */
CRC_FOLDS static inline uint32_t crc_remainder(__m128i bytes) {
    const __m128i low = _mm_set_epi64x(0, 0xffffffff);
    __m128i rest = _mm_xor_si128(_mm_srli_si128(bytes, 8), _mm_clmulepi64_si128(bytes, _mm_set_epi64x(0, CRC_X96), 0x00));
    __m128i first = _mm_clmulepi64_si128(_mm_and_si128(rest, low), _mm_set_epi64x(0, CRC_X64), 0x00);
    rest = _mm_xor_si128(_mm_srli_si128(rest, 4), first);
    /* Barrett's division: the quotient by a multiplication, and what the quotient leaves. */
    __m128i quotient = _mm_clmulepi64_si128(_mm_and_si128(rest, low), _mm_set_epi64x(0, CRC_QUOTIENT), 0x00);
    __m128i product = _mm_clmulepi64_si128(_mm_and_si128(quotient, low), _mm_set_epi64x(0, CRC_P), 0x00);
    return (uint32_t)_mm_cvtsi128_si32(_mm_srli_si128(_mm_xor_si128(rest, product), 4));
}

/* zlib's crc32 of at least CRC_LEAST bytes. Only if crc_is_quick. */
CRC_FOLDS static uint32_t crc_of(const unsigned char *at, size_t length, uint32_t crc) {
    const __m128i near = _mm_set_epi64x(CRC_X96, CRC_X160), far = _mm_set_epi64x(CRC_X480, CRC_X544);
    /* Zeros in front of a message change nothing, so the first part may be shorter than sixteen bytes. */
    unsigned char start[32] = {0};
    const size_t odd = length % 16;
    uint32_t four;
    memcpy(start + 16 - odd, at, 16 + odd);
    memcpy(&four, start + 16 - odd, 4);
    four ^= ~crc;
    memcpy(start + 16 - odd, &four, 4);
    __m128i bytes = crc_fold(crc_load(start), near, crc_load(start + 16));
    const unsigned char *const end = at + length;
    at += 16 + odd;
    if (end - at >= 48 + 64) {
        /* Four at a time, because a multiplication waits for the one before it. */
        __m128i second = crc_load(at), third = crc_load(at + 16), fourth = crc_load(at + 32);
        for (at += 48; end - at >= 64; at += 64) {
            bytes = crc_fold(bytes, far, crc_load(at));
            second = crc_fold(second, far, crc_load(at + 16));
            third = crc_fold(third, far, crc_load(at + 32));
            fourth = crc_fold(fourth, far, crc_load(at + 48));
        }
        bytes = crc_fold(crc_fold(crc_fold(bytes, near, second), near, third), near, fourth);
    }
    for (; at < end; at += 16)
        bytes = crc_fold(bytes, near, crc_load(at));
    return ~crc_remainder(bytes);
}
#else
static uint32_t crc_of(const unsigned char *at, size_t length, uint32_t crc) {
    (void)at, (void)length;
    return crc;
}
#endif

#endif
