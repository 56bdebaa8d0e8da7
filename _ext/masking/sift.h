/* Says of an event's JSON, before names are looked for, that no fragment of an ignored key stands anywhere in it and that
 * nothing hides one. That holds for most events, and is found out at the speed of a block of bytes. Where it does not hold,
 * search.h asks whether the fragment stands in a name.
 *
 * Of each fragment three letters are looked for, of which search.py takes the rarest. What does not count in a name may
 * stand between them, so the one in the middle is looked for, and on each side of it the next letter or such a sign.
 */
#ifndef EPSAGON_FAST_SIFT_H
#define EPSAGON_FAST_SIFT_H

#include "search.h"

#if defined(SEARCH_SSE2) && (defined(__x86_64__) || defined(__i386__))
#include <immintrin.h>
#define SIFT_SHUFFLES
#endif

/* search.py makes them: for each of the three letters 16 bytes by the lower half of a byte and 16 by the upper one, in
 * which a bit stands for some of the fragments; the same of other bytes that are looked for, with these bits; a bit for
 * each three letters by their five lowest bits; and how many letters of a fragment may stand behind the middle one. */
enum { SIFT_OTHERS = 3 * 32, SIFT_TRIPLES = 4 * 32, SIFT_REACH = SIFT_TRIPLES + (1 << 12), SIFT_SIZE = SIFT_REACH + 1 };
enum { SIFT_UNCOUNTED = 1 | 2 };

/* Whether a letter of a fragment may stand at `at`. */
static int sift_is_letter(const search_run *run, size_t at) {
    return run->classes[run->text[at]] - 1u < SEARCH_QUOTE - 1u;
}

static int sift_counts(const search_run *run, size_t at) { return run->classes[run->text[at]] != SEARCH_UNCOUNTED; }

/* Whether a fragment stands around `at`. */
static int sift_around(const search_run *run, const unsigned char *sieve, size_t at) {
    size_t end = at + 1;
    uint32_t state = 0;
    for (unsigned char letters = 0; end < run->length && letters < sieve[SIFT_REACH]; end++)
        if (sift_is_letter(run, end))
            letters++;
        else if (sift_counts(run, end))
            break;
    while (end > 0) {
        unsigned char class = run->classes[run->text[--end]];
        if (class == SEARCH_UNCOUNTED)
            continue;
        state = run->states[state + (class >= SEARCH_QUOTE ? 0 : class)];
        if (state == SEARCH_FOUND)
            return 1;
        if (state == 0 && end <= at)
            return 0;
    }
    return 0;
}

/* Whether the letters of a triple, and if so a fragment, stand around the one at `middle`. */
static int sift_triple(const search_run *run, const unsigned char *sieve, unsigned triple, size_t middle) {
    return sieve[SIFT_TRIPLES + (triple >> 3 & 0xFFF)] >> (triple & 7) & 1 && sift_around(run, sieve, middle);
}

/* Whether a fragment stands around the letter at `at`. */
static inline __attribute__((always_inline)) int sift_letter(const search_run *run, const unsigned char *sieve, size_t at) {
    size_t left = at, right = at + 1;
    unsigned triple = (run->text[at] & 31u) << 5;
    while (left > 0 && !sift_counts(run, left - 1))
        left--;
    while (right < run->length && !sift_counts(run, right))
        right++;
    triple |= left > 0 ? (run->text[left - 1] & 31u) << 10 : 0;
    triple |= right < run->length ? run->text[right] & 31u : 0;
    return sift_triple(run, sieve, triple, at);
}

/* Whether the `@` at `at` may end a user: a slash stands before it in the same word. */
static int sift_user(const search_run *run, size_t at) {
    while (at > 0 && run->text[at - 1] > ' ' && run->text[at - 1] != '"' && run->text[at - 1] != '@')
        if (run->text[--at] == '/')
            return 1;
    return 0;
}

/* Whether a letter, or a user's end, may be hidden at `at`. */
static int sift_hidden(const search_run *run, size_t at) {
    unsigned char c = run->text[at], next = search_left(run, at) > 1 ? run->text[at + 1] : 0;
    if (c >= 0xC2)
        return search_wide(run, at);
    switch (c) {
    case '%': return (next >= '2' && next <= '7') || ((next | 0x20) >= 'c' && (next | 0x20) <= 'f');
    case '@': return sift_user(run, at);
    case '\\': return next == 'u' && search_escape(run, at);
    default: return 0;
    }
}

/* Each way to take a first look says the first place from where it begins at which a fragment stands, or something may be
 * hidden. The event's length: there is none. A fragment's place is that of its middle letter. */
#ifdef SIFT_SHUFFLES
#define SIFT_BLOCKS sift_16
#define SIFT_BYTES 16
#define SIFT_TARGET __attribute__((target("ssse3")))
#define SIFT_VECTOR __m128i
#define SIFT_OF(name) _mm_##name
#define SIFT_AND _mm_and_si128
#define SIFT_AND_NOT _mm_andnot_si128
#define SIFT_OR _mm_or_si128
#define SIFT_NONE _mm_setzero_si128()
#define SIFT_LOAD(bytes) _mm_loadu_si128((const __m128i *)(bytes))
#define SIFT_TABLE SIFT_LOAD
/* A vector some bytes later, behind the last ones of the block before. */
#define SIFT_LATER(now, was, bytes) _mm_alignr_epi8(now, was, 16 - (bytes))
#define SIFT_LEAVE() (void)0
#include "sift_blocks.h"

#define SIFT_BLOCKS sift_32
#define SIFT_BYTES 32
#define SIFT_TARGET __attribute__((target("avx2,bmi")))
#define SIFT_VECTOR __m256i
#define SIFT_OF(name) _mm256_##name
#define SIFT_AND _mm256_and_si256
#define SIFT_AND_NOT _mm256_andnot_si256
#define SIFT_OR _mm256_or_si256
#define SIFT_NONE _mm256_setzero_si256()
#define SIFT_LOAD(bytes) _mm256_loadu_si256((const __m256i *)(bytes))
#define SIFT_TABLE(table) _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(table)))
#define SIFT_LATER(now, was, bytes) _mm256_alignr_epi8(now, _mm256_permute2x128_si256(was, now, 0x21), 16 - (bytes))
/* What the compiler leaves out behind a call: with their upper halves in use, the search's vectors of 16 bytes are slow. */
#define SIFT_LEAVE() _mm256_zeroupper()
#include "sift_blocks.h"

/* Whether the processor has blocks of 32 bytes, with which the first look takes two thirds to four fifths of the time. */
static int sift_is_wide(void) {
#ifdef EPSAGON_FAST_NARROW
    /* The tests hold blocks of 16 bytes to the same answers. */
    return 0;
#else
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi");
#endif
}

static size_t sift_event(const search_run *run, const unsigned char *sieve, size_t from) {
    return sift_is_wide() ? sift_32(run, sieve, from) : sift_16(run, sieve, from);
}
#else
static size_t sift_event(const search_run *run, const unsigned char *sieve, size_t at) {
    size_t start = at, middle = 0;
    unsigned triple = 0;
    for (int letters = 0; start > 0 && letters < 2;)
        letters += sift_counts(run, --start);
    for (; start < run->length; start++) {
        if (sift_counts(run, start)) {
            triple = triple << 5 | (run->text[start] & 31u);
            if (middle >= at && sift_triple(run, sieve, triple, middle))
                return middle;
            middle = start;
        }
        if (start >= at && sift_hidden(run, start))
            return start;
    }
    return middle >= at && sift_triple(run, sieve, triple << 5, middle) ? middle : run->length;
}
#endif

/* Whether the first look is worth it. One byte after the other it takes longer than the search itself. */
static int sift_is_quick(void) {
#ifdef SIFT_SHUFFLES
    return __builtin_cpu_supports("ssse3");
#elif defined(EPSAGON_FAST_PORTABLE)
    /* The tests hold it to the same answers. */
    return 1;
#else
    return 0;
#endif
}

/* Whether a quote stands at `at` that ends or begins a text of the event itself. */
static int sift_quote(const search_run *run, size_t at) {
    return run->text[at] == '"' && (at == 0 || run->text[at - 1] != '\\');
}

/* Where the text of the event itself begins in which `at` is: at its quote. */
static size_t sift_opening(const search_run *run, size_t at) {
    while (at > 0 && !sift_quote(run, at)) {
        at--;
#ifdef SEARCH_SSE2
        const __m128i quote = _mm_set1_epi8('"');
        while (at >= 16 &&
               !_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(run->text + at - 15)), quote)))
            at -= 16;
#endif
    }
    return at;
}

/* Where a list begins to say where pydantic found an input, if a text in it begins at `start`: behind its name. */
static size_t sift_located(const search_run *run, size_t start) {
    size_t first = start > SEARCH_PLACE_BYTES ? start - SEARCH_PLACE_BYTES : 0;
    for (size_t at = start; at >= first + 5; at--)
        if (memcmp(run->text + at - 5, "\"loc\"", 5) == 0)
            return at;
    return start;
}

/* Whether a key may stand in an event. Only the texts are searched in which there is a fragment or something hidden, each
 * with the sign before it and the one behind it. */
static int sift_and_search(const unsigned char *text, size_t length, const unsigned char *classes, const uint32_t *states,
                           const unsigned char *folding, const unsigned char *sieve) {
    search_run run = {text, length, classes, states, folding, 0, 0, 0};
    size_t end = 0;
    if (!sift_is_quick())
        return search_part(&run, 0, length);
    for (size_t at = sift_event(&run, sieve, 0); at < length; at = sift_event(&run, sieve, end)) {
        size_t start = sift_opening(&run, at), behind;
        while (start > 0 && text[start - 1] <= ' ')
            start--;
        for (end = at + 1; end < length && !sift_quote(&run, end); end++) {
            const unsigned char *quote = memchr(text + end + 1, '"', length - end - 1);
            end = quote ? (size_t)(quote - text) - 1 : length - 1;
        }
        for (behind = end + 1; behind < length && text[behind] <= ' ';)
            behind++;
        if (start > 0 && (text[start - 1] == ',' || text[start - 1] == '[') && (behind >= length || text[behind] != ':'))
            start = sift_located(&run, start);
        if (search_part(&run, start > 0 ? start - 1 : 0, behind < length ? behind + 1 : length))
            return 1;
    }
    return 0;
}

#endif
