/* Looks in an event's JSON for names in which a fragment of an ignored key stands. masking/search.py says what a name is
 * and builds the automaton; this walks. Nothing is copied, and the work grows with the event's length and no faster: each
 * byte is looked at twice, and what may be a name as a value SEARCH_AGAIN times more at most.
 */
#ifndef EPSAGON_FAST_SEARCH_H
#define EPSAGON_FAST_SEARCH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__SSE2__) && defined(__GNUC__)
#include <emmintrin.h>
#define SEARCH_SSE2
#endif

/* The classes and the state that search.py names. */
enum { SEARCH_QUOTE = 252, SEARCH_UNCOUNTED = 253, SEARCH_PERCENT = 254, SEARCH_MAY_FOLD = 255, SEARCH_FOUND = 0xFFFF };
/* Bytes of a URL in which its user is looked for. A longer one is read. */
#define SEARCH_USER_BYTES 256
/* How often an event may be looked through for names as values. Such names in texts in texts may hold each other, and an
 * event of which every part would be looked at again for each is read instead. */
#define SEARCH_AGAIN 4

typedef struct {
    const unsigned char *text;
    size_t length;
    const unsigned char *classes;
    const uint16_t *states;
    size_t width;
    /* Where the last name ended: what stands before it has been looked at. */
    size_t done;
    /* Bytes in which names were looked for as values. */
    size_t again;
} search_run;

static size_t search_left(const search_run *run, size_t at) { return run->length - at; }

/* Whether a character stands here that folds to ASCII letters: the list in search.py, by its UTF-8. */
static int search_folds(const search_run *run, size_t at) {
    const unsigned char *c = run->text + at;
    if (search_left(run, at) < 2)
        return 0;
    switch (c[0]) {
    case 0xC3: return c[1] == 0x9F;
    case 0xC4: return c[1] == 0xB0;
    case 0xC5: return c[1] == 0x89 || c[1] == 0xBF;
    case 0xC7: return c[1] == 0xB0;
    case 0xE1: return c[1] == 0xBA;
    case 0xE2: return c[1] == 0x84;
    case 0xEF: return c[1] == 0xAC;
    default: return 0;
    }
}

/* Whether the name that ends before `at` may be a key. It begins after the last name, or after the quote of the string
 * that it stands in: a quote with a backslash may be a part of it. */
static int search_name(search_run *run, size_t at) {
    const unsigned char *text = run->text;
    size_t start = run->done, i = at;
    unsigned state = 0;
    run->done = at;
    while (i > start && (text[i - 1] == '"' || text[i - 1] == '\'' || text[i - 1] == '\\' || text[i - 1] == ' '))
        i--;
    while (i > start) {
        unsigned char c = text[--i], class = run->classes[c];
        /* Most bytes are letters, so one question sets the others apart. */
        if (class >= SEARCH_QUOTE) {
            if (class == SEARCH_UNCOUNTED)
                continue;
            if (class == SEARCH_QUOTE ? i == 0 || text[i - 1] != '\\' : class == SEARCH_PERCENT || search_folds(run, i))
                return class != SEARCH_QUOTE;
            class = 0;
        }
        state = run->states[state * run->width + class];
        if (state == SEARCH_FOUND)
            return 1;
    }
    return 0;
}

/* Whether the text in quotes that begins at `start`, behind its quote, may be a key that stands there as a value. Its
 * closing quote has no more backslashes than the opening one, which has `escapes`. */
static int search_value(search_run *run, size_t start, size_t escapes) {
    search_run value = *run;
    size_t end = start, before = 0;
    value.done = start;
    while (end < run->length && (run->text[end] != '"' || before > escapes)) {
        before = run->text[end] == '\\' ? before + 1 : 0;
        end++;
    }
    run->again += end - start;
    return run->again / SEARCH_AGAIN > run->length || (end < run->length && search_name(&value, end));
}

/* Whether the member whose colon stands at `at` says the name of a value that stands in another member. */
static int search_named(search_run *run, size_t at) {
    size_t i = at, next = at + 1, escapes = 0;
    while (i > 0 && (run->text[i - 1] == '"' || run->text[i - 1] == '\\' || run->text[i - 1] == ' '))
        i--;
    if (!((i >= 4 && memcmp(run->text + i - 3, "ame", 3) == 0) || (i >= 3 && memcmp(run->text + i - 2, "ey", 2) == 0)))
        return 0;
    for (; next < run->length && (run->text[next] == ' ' || run->text[next] == '\\'); next++)
        escapes += run->text[next] == '\\';
    return next < run->length && run->text[next] == '"' && search_value(run, next + 1, escapes);
}

/* Whether a URL whose colon stands at `at` names its user. */
static int search_user(const search_run *run, size_t at) {
    size_t i = at + 1, end = search_left(run, at) > SEARCH_USER_BYTES ? at + SEARCH_USER_BYTES : run->length;
    int slashes = 0;
    for (; i < end && (run->text[i] == '/' || run->text[i] == '\\'); i++)
        slashes += run->text[i] == '/';
    if (slashes < 2)
        return 0;
    for (; i < end; i++) {
        unsigned char c = run->text[i];
        if (c == '@')
            return 1;
        if (c == '/' || c == '?' || c == '#' || c == '"' || c == '\\' || c <= ' ')
            return 0;
    }
    return end != run->length;
}

/* Whether the percent sign at `at` begins what may hide a name or what follows a name. */
static int search_percent(const search_run *run, size_t at) {
    unsigned char high, low;
    if (search_left(run, at) < 3)
        return 0;
    high = run->text[at + 1];
    low = run->text[at + 2] | 0x20;
    if (high == '2')
        return run->text[at + 2] == '5';
    if (high == '3')
        return low == 'a' || low == 'd' || low == 'e' || (low >= ('0' | 0x20) && low <= ('9' | 0x20));
    if (high == '5')
        return low != 'b' && low != 'd';
    return high == '4' || high == '6' || (high == '7' && low < 'a');
}

/* Whether an escape of JSON that begins at `at` may be a letter of a name, also after folding: search.py has the list. */
static int search_escape(const search_run *run, size_t at) {
    static const char digits[][4] = {"00d", "013", "014", "017", "01f", "1e9", "212", "fb0"};
    const unsigned char *text = run->text + at;
    char found[3];
    if (search_left(run, at) < 5 || text[1] != 'u')
        return 0;
    if (text[2] == '0' && text[3] == '0' && text[4] >= '2' && text[4] <= '7')
        return 1;
    for (int i = 0; i < 3; i++)
        found[i] = (char)(text[2 + i] | 0x20);
    for (size_t i = 0; i < sizeof digits / sizeof *digits; i++)
        if (memcmp(found, digits[i], 3) == 0)
            return 1;
    return 0;
}

/* Whether something at `at`, which is one of the bytes that end names or hide them, must be read. */
static int search_at(search_run *run, size_t at) {
    const unsigned char *text = run->text + at;
    size_t left = search_left(run, at);
    switch (*text) {
    case ':': return search_name(run, at) || search_named(run, at) || search_user(run, at);
    case '[': return left > 1 && text[1] == '"' && search_value(run, at + 2, 0);
    case '=':
    case '>': return search_name(run, at);
    case '%': return search_percent(run, at);
    default: /* a backslash: an escape, or the end of a text in a list that stands in a text */
        return search_escape(run, at) || (left > 2 && text[1] == '"' && text[2] == ',' && search_name(run, at));
    }
}

static int search_event(const unsigned char *text, size_t length, const unsigned char *classes, const uint16_t *states,
                        size_t width) {
    search_run run = {text, length, classes, states, width, 0, 0};
    size_t at = 0;
#ifdef SEARCH_SSE2
    const __m128i colon = _mm_set1_epi8(':'), equals = _mm_set1_epi8('='), tag = _mm_set1_epi8('>'),
                  percent = _mm_set1_epi8('%'), bracket = _mm_set1_epi8('['), backslash = _mm_set1_epi8('\\');
    for (; at + 16 <= length; at += 16) {
        __m128i block = _mm_loadu_si128((const __m128i *)(text + at));
        __m128i any = _mm_or_si128(_mm_cmpeq_epi8(block, colon), _mm_cmpeq_epi8(block, equals));
        any = _mm_or_si128(any, _mm_or_si128(_mm_cmpeq_epi8(block, tag), _mm_cmpeq_epi8(block, percent)));
        any = _mm_or_si128(any, _mm_or_si128(_mm_cmpeq_epi8(block, bracket), _mm_cmpeq_epi8(block, backslash)));
        for (unsigned bits = (unsigned)_mm_movemask_epi8(any); bits; bits &= bits - 1)
            if (search_at(&run, at + (size_t)__builtin_ctz(bits)))
                return 1;
    }
#endif
    for (; at < length; at++)
        if (memchr(":=>%[\\", text[at], 6) && search_at(&run, at))
            return 1;
    return 0;
}

#endif
