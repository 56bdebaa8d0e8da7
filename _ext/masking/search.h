/* Looks in an event's JSON for names in which a fragment of an ignored key stands. masking/search.py says what a name is
 * and builds the automaton; this walks. Nothing is copied, and the work grows with the event's length and no faster: each
 * byte is looked at twice, and what may be a name as a value SEARCH_AGAIN times more at most.
 */
#ifndef EPSAGON_FAST_SEARCH_H
#define EPSAGON_FAST_SEARCH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__SSE2__) && defined(__GNUC__) && !defined(EPSAGON_FAST_PORTABLE)
#include <emmintrin.h>
#define SEARCH_SSE2
#endif

/* The classes and the state that search.py names; bytes of the bits that say which characters fold to ASCII. */
enum { SEARCH_QUOTE = 252, SEARCH_UNCOUNTED = 253, SEARCH_PERCENT = 254, SEARCH_WIDE = 255, SEARCH_FOLDING = 0x110000 >> 7 };
#define SEARCH_FOUND UINT32_MAX
/* Bytes of a URL in which its user is looked for. A longer one is read. */
#define SEARCH_USER_BYTES 256
/* Bytes of the list in which pydantic says where it found an input. */
#define SEARCH_PLACE_BYTES 512
/* How often an event may be looked through for names as values. Such names in texts in texts may hold each other, and an
 * event of which every part would be looked at again for each is read instead. */
#define SEARCH_AGAIN 4

typedef struct {
    const unsigned char *text;
    size_t length;
    const unsigned char *classes;
    const uint32_t *states;
    const unsigned char *folding;
    /* Where the last name ended: what stands before it has been looked at. */
    size_t done;
    /* Bytes in which names were looked for as values. */
    size_t again;
    /* Up to where no user was found in a URL. */
    size_t no_user;
} search_run;

static size_t search_left(const search_run *run, size_t at) { return run->length - at; }

static int search_folds(const search_run *run, uint32_t character) {
    return character < 0x110000 && run->folding[character >> 7] >> (character >> 4 & 7) & 1;
}

/* Whether the character that begins at `at`, which is none of ASCII's, may be a letter of a name, or no part of it. */
static int search_wide(const search_run *run, size_t at) {
    const unsigned char *c = run->text + at;
    size_t more = c[0] < 0xE0 ? 1 : c[0] < 0xF0 ? 2 : 3;
    uint32_t character = c[0] & (0x3Fu >> more);
    if (search_left(run, at) <= more)
        return 0;
    for (size_t i = 1; i <= more; i++)
        character = character << 6 | (c[i] & 0x3Fu);
    return search_folds(run, character);
}

/* Whether the name that ends before `at` may be a key. It begins after the last name, or after the quote of the string
 * that it stands in: a quote with a backslash may be a part of it. */
static int search_name(search_run *run, size_t at) {
    const unsigned char *text = run->text;
    size_t start = run->done, i = at;
    uint32_t state = 0;
    run->done = at;
    while (i > start && (text[i - 1] == '"' || text[i - 1] == '\'' || text[i - 1] == '\\' || text[i - 1] == ' '))
        i--;
    while (i > start) {
        unsigned char c = text[--i], class = run->classes[c];
        /* Most bytes are letters, so one question sets the others apart. */
        if (class >= SEARCH_QUOTE) {
            if (class == SEARCH_UNCOUNTED)
                continue;
            if (class == SEARCH_QUOTE ? i == 0 || text[i - 1] != '\\' : class == SEARCH_PERCENT || search_wide(run, i))
                return class != SEARCH_QUOTE;
            class = 0;
        }
        state = run->states[state + class];
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

/* Whether a key may stand in the list behind `at`, which says where pydantic found an input. */
static int search_located(const search_run *run, size_t at) {
    size_t end = search_left(run, at) > SEARCH_PLACE_BYTES ? at + SEARCH_PLACE_BYTES : run->length;
    uint32_t state = 0;
    for (size_t i = end; i > at;) {
        unsigned char class = run->classes[run->text[--i]];
        if (class == SEARCH_UNCOUNTED)
            continue;
        if (class == SEARCH_WIDE && search_wide(run, i))
            return 1;
        state = run->states[state + (class >= SEARCH_QUOTE ? 0 : class)];
        if (state == SEARCH_FOUND)
            return 1;
    }
    return 0;
}

/* Whether the member whose colon stands at `at` says the name of a value that stands in another member. */
static int search_named(search_run *run, size_t at) {
    size_t i = at, next = at + 1, escapes = 0;
    while (i > 0 && (run->text[i - 1] == '"' || run->text[i - 1] == '\\' || run->text[i - 1] == ' '))
        i--;
    if (i >= 3 && memcmp(run->text + i - 3, "loc", 3) == 0)
        return search_located(run, at);
    if (!((i >= 4 && memcmp(run->text + i - 3, "ame", 3) == 0) || (i >= 3 && memcmp(run->text + i - 2, "ey", 2) == 0)))
        return 0;
    for (; next < run->length && (run->text[next] == ' ' || run->text[next] == '\\'); next++)
        escapes += run->text[next] == '\\';
    return next < run->length && run->text[next] == '"' && search_value(run, next + 1, escapes);
}

/* Whether a URL whose colon stands at `at` names its user. A password may have signs that a URL should not have. */
static int search_user(search_run *run, size_t at) {
    size_t i = at + 1, end = search_left(run, at) > SEARCH_USER_BYTES ? at + SEARCH_USER_BYTES : run->length;
    int slashes = 0;
    for (; i < end && (run->text[i] == '/' || run->text[i] == '\\'); i++)
        slashes += run->text[i] == '/';
    if (slashes < 2)
        return 0;
    for (i = i > run->no_user ? i : run->no_user; i < end; i++) {
        unsigned char c = run->text[i];
        if (c == '@')
            return 1;
        if (c == '"' || c <= ' ') {
            run->no_user = i;
            return 0;
        }
    }
    return end != run->length;
}

/* The number that `count` hexadecimal digits at `at` write, or UINT32_MAX if they are none. */
static uint32_t search_digits(const search_run *run, size_t at, int count) {
    uint32_t number = 0;
    if (at > run->length || search_left(run, at) < (size_t)count)
        return UINT32_MAX;
    for (int i = 0; i < count; i++) {
        unsigned char c = run->text[at + (size_t)i], letter = c | 0x20;
        if (c >= '0' && c <= '9')
            number = number << 4 | (uint32_t)(c - '0');
        else if (letter >= 'a' && letter <= 'f')
            number = number << 4 | (uint32_t)(letter - 'a' + 10);
        else
            return UINT32_MAX;
    }
    return number;
}

/* Whether the percent sign at `at` begins what may hide a name or what follows a name. */
static int search_percent(const search_run *run, size_t at) {
    uint32_t byte = search_digits(run, at + 1, 2);
    if (byte == UINT32_MAX)
        return 0;
    if (byte >= 0xC2) {
        size_t more = byte < 0xE0 ? 1 : byte < 0xF0 ? 2 : 3;
        uint32_t character = byte & (0x3Fu >> more);
        for (size_t i = 1; i <= more; i++) {
            uint32_t next = search_digits(run, at + 3 * i + 1, 2);
            if (next == UINT32_MAX || run->text[at + 3 * i] != '%')
                return 0;
            character = character << 6 | (next & 0x3Fu);
        }
        return search_folds(run, character);
    }
    if (byte <= ' ' || byte == '"' || byte == ',')
        return search_left(run, at) > 3 && (run->text[at + 3] == '-' || search_digits(run, at + 4, 2) == '-');
    if (byte < '@')
        return byte >= '0' ? byte <= ':' || byte == '=' || byte == '>'
                           : byte == '%' || byte == '\'' || byte == '(' || byte == '-';
    return byte < 'z' + 1u && byte != '[' && byte != ']';
}

/* Whether an escape of JSON whose backslash stands at `at` may be a letter of a name, or no part of it. */
static int search_escape(const search_run *run, size_t at) {
    uint32_t character = search_digits(run, at + 2, 4), low;
    if (character == UINT32_MAX)
        return 0;
    if (character < 0x80)
        return character >= ' ';
    if (character >> 10 != 0xD800 >> 10)
        return search_folds(run, character);
    for (at += 6; at < run->length && run->text[at] == '\\'; at++)
        continue;
    low = at < run->length && run->text[at] == 'u' ? search_digits(run, at + 1, 4) : UINT32_MAX;
    return low >> 10 == 0xDC00 >> 10 && search_folds(run, 0x10000 + ((character & 0x3FF) << 10 | (low & 0x3FF)));
}

static int search_letter(unsigned char c) { return (c | 0x20) >= 'a' && (c | 0x20) <= 'z'; }

static int search_word(unsigned char c) { return search_letter(c) || (c >= '0' && c <= '9') || c >= 0x80; }

/* Whether the first text of a list whose bracket stands at `at` may be a key. */
static int search_list(search_run *run, size_t at) {
    size_t escapes = 0;
    for (at++; at < run->length; at++) {
        unsigned char c = run->text[at];
        if (c == '"')
            return search_value(run, at + 1, escapes);
        if (c == '\\')
            escapes++;
        else if (c == ' ' || (escapes && (c == 'n' || c == 'r' || c == 't')))
            escapes = 0;
        else
            return escapes && c == 'u';
    }
    return 0;
}

/* Whether the word behind the `-` at `at` may be a key. */
static int search_option(const search_run *run, size_t at) {
    search_run option = *run;
    size_t end = at;
    while (end < run->length && (run->text[end] == '-' || run->text[end] == '_' || run->text[end] == '.' ||
                                 search_word(run->text[end])))
        end++;
    option.done = at;
    return search_name(&option, end);
}

/* Whether a literal of SQL may begin at `at` that belongs to a name before it. Within a word it is an apostrophe. */
static int search_literal(search_run *run, size_t at) {
    size_t i = at;
    if (i > 1 && search_letter(run->text[i - 1]))
        i--;
    return i > 0 && !search_word(run->text[i - 1]) && search_name(run, at);
}

/* Whether a list of SQL, behind IN or VALUES, may begin at `at`. */
static int search_tuple(search_run *run, size_t at) {
    size_t i = at;
    while (i > 1 && (run->text[i - 1] == ' ' || (run->text[i - 2] == '\\' && search_letter(run->text[i - 1]))))
        i -= run->text[i - 1] == ' ' ? 1 : 2;
    return i > 0 && memchr("nNsSeE", run->text[i - 1], 6) && search_name(run, at);
}

/* Whether a word may begin at `at`: behind a blank, a quote, a bracket, or the escape of a line's end. */
static int search_begins(const search_run *run, size_t at) {
    return (at > 0 && run->text[at - 1] < '-') || (at > 1 && run->text[at - 1] == 'n' && run->text[at - 2] == '\\');
}

/* Whether something at `at`, which is one of the bytes that end names or hide them, must be read. */
static int search_at(search_run *run, size_t at) {
    switch (run->text[at]) {
    case ':': return search_name(run, at) || search_named(run, at) || search_user(run, at);
    case '=':
    case '>': return search_name(run, at);
    case '[': return search_list(run, at);
    case '\'': return search_literal(run, at);
    case '(': return search_tuple(run, at);
    case '%': return search_percent(run, at);
    case '-': return search_begins(run, at) && search_option(run, at);
    default: return search_left(run, at) > 1 && run->text[at + 1] == 'u' && search_escape(run, at);
    }
}

/* Whether a byte may end a name or hide one. */
static int search_is_sign(unsigned char c) {
    switch (c) {
    case ':': case '=': case '>': case '[': case '%': case '\\': case '\'': case '(': case '-': return 1;
    default: return 0;
    }
}

/* Whether a key may stand from `at` to `end`. */
static int search_part(search_run *run, size_t at, size_t end) {
    const unsigned char *text = run->text;
    run->done = at;
#ifdef SEARCH_SSE2
    const __m128i colon = _mm_set1_epi8(':'), equals = _mm_set1_epi8('='), tag = _mm_set1_epi8('>'),
                  percent = _mm_set1_epi8('%'), bracket = _mm_set1_epi8('['), backslash = _mm_set1_epi8('\\'),
                  literal = _mm_set1_epi8('\''), tuple = _mm_set1_epi8('('), dash = _mm_set1_epi8('-'),
                  u = _mm_set1_epi8('u'), n = _mm_set1_epi8('n');
    /* The first block has no byte before it, and the last one none behind it: both are looked at one by one. */
    for (; at < 16 && at < end; at++)
        if (search_is_sign(text[at]) && search_at(run, at))
            return 1;
    for (; at < end && end - at >= 16 && run->length - at >= 17; at += 16) {
        const __m128i block = _mm_loadu_si128((const __m128i *)(text + at)),
                      next = _mm_loadu_si128((const __m128i *)(text + at + 1)),
                      before = _mm_loadu_si128((const __m128i *)(text + at - 1));
        /* Most backslashes stand before a quote, and most dashes within a word. */
        const __m128i begins = _mm_or_si128(_mm_cmpgt_epi8(dash, before), _mm_cmpeq_epi8(before, n));
        __m128i any = _mm_or_si128(_mm_and_si128(_mm_cmpeq_epi8(block, backslash), _mm_cmpeq_epi8(next, u)),
                                   _mm_and_si128(_mm_cmpeq_epi8(block, dash), begins));
        any = _mm_or_si128(any, _mm_or_si128(_mm_cmpeq_epi8(block, colon), _mm_cmpeq_epi8(block, equals)));
        any = _mm_or_si128(any, _mm_or_si128(_mm_cmpeq_epi8(block, tag), _mm_cmpeq_epi8(block, percent)));
        any = _mm_or_si128(any, _mm_or_si128(_mm_cmpeq_epi8(block, literal), _mm_cmpeq_epi8(block, tuple)));
        any = _mm_or_si128(any, _mm_cmpeq_epi8(block, bracket));
        for (unsigned bits = (unsigned)_mm_movemask_epi8(any); bits; bits &= bits - 1)
            if (search_at(run, at + (size_t)__builtin_ctz(bits)))
                return 1;
    }
#endif
    for (; at < end; at++)
        if (search_is_sign(text[at]) && search_at(run, at))
            return 1;
    return 0;
}

#endif
