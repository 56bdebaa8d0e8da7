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
#include <tmmintrin.h>
#define SIFT_SSSE3 __attribute__((target("ssse3")))
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
static int sift_letter(const search_run *run, const unsigned char *sieve, size_t at) {
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

/* The first place from `at` at which a fragment stands, or something may be hidden. The event's length: there is none. A
 * fragment's place is that of its middle letter. */
static size_t sift_bytes(const search_run *run, const unsigned char *sieve, size_t at) {
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

#ifdef SIFT_SSSE3
/* For each byte of a block, given by its halves, the bits that two tables have. */
SIFT_SSSE3 static __m128i sift_block(__m128i lower, __m128i upper, const unsigned char *tables) {
    const __m128i by_lower = _mm_loadu_si128((const __m128i *)tables),
                  by_upper = _mm_loadu_si128((const __m128i *)(tables + 16));
    return _mm_and_si128(_mm_shuffle_epi8(by_lower, lower), _mm_shuffle_epi8(by_upper, upper));
}

SIFT_SSSE3 static size_t sift_blocks(const search_run *run, const unsigned char *sieve, size_t from) {
    const unsigned char *text = run->text;
    size_t at = from;
    const __m128i half = _mm_set1_epi8(15), none = _mm_setzero_si128(), all = _mm_set1_epi8(-1),
                  signs = _mm_set1_epi8(SIFT_UNCOUNTED), backslash = _mm_set1_epi8('\\'), u = _mm_set1_epi8('u');
    /* What the block before this one had. Any letter may have been the first one. */
    __m128i before_was = all, first_or_sign_was = all, middle_was = none, last_was = none, sign_was = none, hiding_was = none;
    for (; run->length - at >= 17; at += 16) {
        const __m128i block = _mm_loadu_si128((const __m128i *)(text + at)),
                      next = _mm_loadu_si128((const __m128i *)(text + at + 1)), lower = _mm_and_si128(block, half),
                      upper = _mm_and_si128(_mm_srli_epi16(block, 4), half), first = sift_block(lower, upper, sieve),
                      middle = sift_block(lower, upper, sieve + 32), last = sift_block(lower, upper, sieve + 64),
                      other = sift_block(lower, upper, sieve + SIFT_OTHERS),
                      sign = _mm_cmpgt_epi8(_mm_and_si128(other, signs), none),
                      escape = _mm_and_si128(_mm_cmpeq_epi8(block, backslash), _mm_cmpeq_epi8(next, u)),
                      hiding = _mm_or_si128(escape, _mm_andnot_si128(signs, other));
        /* A sign stands for the first letter only behind that or another sign, and for the last one only before them. */
        const __m128i first_or_sign = _mm_or_si128(first, sign),
                      before = _mm_or_si128(
                          first, _mm_and_si128(sign, _mm_alignr_epi8(first_or_sign, first_or_sign_was, 15))),
                      behind = _mm_or_si128(
                          _mm_alignr_epi8(last, last_was, 15),
                          _mm_and_si128(_mm_or_si128(last, sign), _mm_alignr_epi8(sign, sign_was, 15))),
                      triple = _mm_and_si128(behind, _mm_and_si128(_mm_alignr_epi8(middle, middle_was, 14),
                                                                   _mm_alignr_epi8(before, before_was, 13))),
                      any = _mm_or_si128(triple, _mm_alignr_epi8(hiding, hiding_was, 14));
        unsigned bits = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(any, none)) ^ 0xFFFFu;
        for (; bits; bits &= bits - 1) {
            const size_t place = at + (size_t)__builtin_ctz(bits) - 2;
            if (sift_is_letter(run, place) ? sift_letter(run, sieve, place) : sift_hidden(run, place))
                return place;
        }
        before_was = before;
        first_or_sign_was = first_or_sign;
        middle_was = middle;
        last_was = last;
        sign_was = sign;
        hiding_was = hiding;
    }
    return sift_bytes(run, sieve, at - from > 2 ? at - 2 : from);
}
#endif

/* Whether the first look is worth it. One byte after the other it takes longer than the search itself. */
static int sift_is_quick(void) {
#ifdef SIFT_SSSE3
    return __builtin_cpu_supports("ssse3");
#elif defined(EPSAGON_FAST_PORTABLE)
    /* The tests hold it to the same answers. */
    return 1;
#else
    return 0;
#endif
}

static size_t sift_event(const search_run *run, const unsigned char *sieve, size_t from) {
#ifdef SIFT_SSSE3
    return sift_blocks(run, sieve, from);
#else
    return sift_bytes(run, sieve, from);
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
