/* Find an event's metadata and keep its strong members, in one pass over its bytes. No Python here, so that a sanitizer
 * can run all of it on buffers of exact size.
 *
 * Strings are found 64 bytes at a time: the quotes that no backslash escapes become a mask, made without a branch (the
 * way of simdjson, https://arxiv.org/abs/1902.08318), whose bits are taken in order. So a quote that opens or closes a
 * string costs a few instructions however long the string is, and escapes cost little more than letters.
 *
 * Only what is needed is verified. On bytes that are not JSON the answer may be anything, but every read stays inside
 * [event, event + length), at most `length` bytes are written, and it ends: a position only grows.
 */
#ifndef EPSAGON_FAST_STRIP_H
#define EPSAGON_FAST_STRIP_H

#include "marks.h"

#define NOT_FOUND SIZE_MAX
#define MAX_KEYS 64
#define MAX_KEY_BYTES 63

typedef enum { STRIP_NOT_JSON, STRIP_NOTHING, STRIP_METADATA } strip_outcome;

/* The bytes before `open` and from `close` on stay; `kept` bytes of members go between them. open + kept <= close. */
typedef struct {
    size_t open, close, kept;
} strip_cut;

typedef struct {
    const unsigned char *name;
    size_t length;
} strip_key;

/* What to look for: the two members on the way to the metadata, and the keys that stay in it. */
typedef struct {
    strip_key path[2];
    strip_key strong[MAX_KEYS];
    size_t count;
    unsigned char shorter[MAX_KEY_BYTES + 2]; /* [n]: how many strong keys are shorter than n bytes */
} strip_keys;

/* Add a strong key; they come shortest first. It is ASCII without quotes or backslashes. Returns 0 if there is no room. */
static inline int strip_add_strong(strip_keys *keys, const unsigned char *name, size_t length) {
    if (keys->count == MAX_KEYS || length > MAX_KEY_BYTES) return 0;
    keys->strong[keys->count++] = (strip_key){name, length};
    for (size_t n = length + 1; n < MAX_KEY_BYTES + 2; n++) keys->shorter[n] = (unsigned char)keys->count;
    return 1;
}

typedef struct {
    const unsigned char *bytes;
    size_t length;
    size_t block;       /* where the block at hand starts */
    size_t next;        /* where the next one starts */
    uint64_t quotes;    /* its unescaped quotes */
    uint64_t escapes;   /* 1: a backslash at the block's end escapes the first byte of the next */
    size_t escape_free; /* no backslash was seen from here on */
} scanner;

/* ---- strings ---- */

/* Which bytes stand behind an odd run of backslashes. A sum's carry runs through a run to the byte behind it: if the run
 * starts at an even place and that byte lies at an odd one, or the other way round, the run is odd. */
HOT uint64_t escaped_bytes(uint64_t backslashes, uint64_t *escapes) {
    const uint64_t even = UINT64_C(0x5555555555555555);
    uint64_t first = *escapes;
    backslashes &= ~first;
    uint64_t starts = backslashes & ~(backslashes << 1);
    uint64_t behind_even = (backslashes + (starts & even)) & ~backslashes;
    uint64_t sum_of_odd = backslashes + (starts & ~even);
    *escapes = sum_of_odd < backslashes;
    return (behind_even & ~even) | (sum_of_odd & ~backslashes & even) | first;
}

HOT int next_block(scanner *s) {
    size_t left = s->length - s->next;
    block_marks marks;
    s->block = s->next;
    if (LIKELY(left >= BLOCK_BYTES)) {
        marks = find_marks(s->bytes + s->next);
        s->next += BLOCK_BYTES;
    } else if (left > 0) {
        marks = find_last_marks(s->bytes, s->length, left);
        s->next = s->length;
    } else {
        return 0;
    }
    if (marks.backslashes | s->escapes) {
        marks.quotes &= ~escaped_bytes(marks.backslashes, &s->escapes);
        s->escape_free = s->next;
    }
    s->quotes = marks.quotes;
    return 1;
}

/* Return the place behind whole blocks without quotes and backslashes, which takes half the time that next_block would. */
COLD size_t skip_letters(const unsigned char *bytes, size_t length, size_t at) {
    for (; length - at >= BLOCK_BYTES; at += BLOCK_BYTES) {
        block_bytes block = load_block(bytes + at);
        if (has_mark(&block)) break;
    }
    return at;
}

/* Return whether the block at hand has no backslash, and none behind it is escaped. */
HOT int is_escape_free(const scanner *s) { return s->escape_free != s->next; }

/* Return the index of the first unescaped quote behind `at`, where a string opens. */
HOT size_t string_end(scanner *s, size_t at) {
    size_t from = at + 1;
    while (from >= s->next)
        if (!next_block(s)) return NOT_FOUND;
    uint64_t quotes = s->quotes >> (from - s->block);
    if (quotes == 0) {
        if (!next_block(s)) return NOT_FOUND;
        /* Most strings end here. One that goes on for another block may be long, and is worth a call. */
        if (s->quotes == 0) {
            for (;;) {
                if (!next_block(s)) return NOT_FOUND;
                if (s->quotes) break;
                if (is_escape_free(s)) s->next = skip_letters(s->bytes, s->length, s->next);
            }
        }
        from = s->block;
        quotes = s->quotes;
    }
    return from + (size_t)__builtin_ctzll(quotes);
}

/* ---- values ---- */

HOT int is_space(unsigned char byte) { return byte == ' ' || byte == '\n' || byte == '\r' || byte == '\t'; }

COLD size_t skip_spaces(const unsigned char *bytes, size_t length, size_t at) {
    while (at < length && is_space(bytes[at])) at++;
    return at;
}

/* Move `*at` over white space and return the byte there; at the end 0, which stands nowhere in JSON. */
HOT unsigned char peek(const scanner *s, size_t *at) {
    if (LIKELY(*at < s->length && s->bytes[*at] > ' ')) return s->bytes[*at];
    *at = skip_spaces(s->bytes, s->length, *at);
    return *at < s->length ? s->bytes[*at] : 0;
}

/* Return the place behind whole blocks without quotes and brackets, outside of strings: what numbers are made of, and what
 * stands between them. */
COLD size_t skip_numbers(const unsigned char *bytes, size_t length, size_t at) {
    for (; length - at >= BLOCK_BYTES; at += BLOCK_BYTES) {
        block_bytes block = load_block(bytes + at);
        if (may_have_brackets(&block)) break;
    }
    return at;
}

HOT block_brackets brackets_of_block(const scanner *s) {
    size_t length = s->next - s->block;
    if (LIKELY(length == BLOCK_BYTES)) return find_brackets(s->bytes + s->block);
    return find_last_brackets(s->bytes, s->length, length);
}

/* The bits from an opening quote to the byte before the closing one. */
HOT uint64_t between_quotes(uint64_t quotes) {
    for (int places = 1; places < BLOCK_BYTES; places *= 2) quotes ^= quotes << places;
    return quotes;
}

/* Not the compiler's own, which without the processor's instruction is a call. */
HOT size_t count_bits(uint64_t bits) {
    bits -= bits >> 1 & UINT64_C(0x5555555555555555);
    bits = (bits & UINT64_C(0x3333333333333333)) + (bits >> 2 & UINT64_C(0x3333333333333333));
    bits = (bits + (bits >> 4)) & UINT64_C(0x0f0f0f0f0f0f0f0f);
    return (size_t)(bits * UINT64_C(0x0101010101010101) >> 56);
}

/* Return the place behind the bracket that closes the outermost of `*depth`; 0 if it is not among these. */
HOT size_t closing_place(block_brackets brackets, size_t *depth) {
    size_t closing = count_bits(brackets.closing);
    if (*depth > closing) {
        *depth += count_bits(brackets.opening) - closing;
        return 0;
    }
    for (uint64_t both = brackets.opening | brackets.closing; both; both &= both - 1) {
        size_t place = (size_t)__builtin_ctzll(both);
        if (brackets.opening >> place & 1) ++*depth;
        else if (--*depth == 0) return place + 1;
    }
    return 0;
}

/* Return the index behind the bracket that closes the one at `at`. Brackets are counted, so depth costs no stack; and by
 * the block, so that nesting costs no time. */
COLD size_t container_end(scanner *s, size_t at) {
    size_t depth = 0;
    while (at >= s->next)
        if (!next_block(s)) return NOT_FOUND;
    uint64_t ahead = ~UINT64_C(0) << (at - s->block), in_string = 0;
    do {
        uint64_t quotes = s->quotes & ahead;
        if (quotes == 0 && in_string) {
            if (is_escape_free(s)) s->next = skip_letters(s->bytes, s->length, s->next);
            continue;
        }
        uint64_t outside = ~(between_quotes(quotes) ^ in_string) & ahead;
        block_brackets brackets = brackets_of_block(s);
        brackets.opening &= outside;
        brackets.closing &= outside;
        ahead = ~UINT64_C(0);
        in_string = outside >> 63 ? 0 : ~UINT64_C(0);
        if (brackets.opening | brackets.closing) {
            size_t place = closing_place(brackets, &depth);
            if (place) return s->block + place;
        } else if (quotes == 0) {
            s->next = skip_numbers(s->bytes, s->length, s->next);
        }
    } while (next_block(s));
    return NOT_FOUND;
}

COLD size_t scalar_end(const unsigned char *bytes, size_t length, size_t start) {
    size_t at = start;
    while (at < length && bytes[at] != ',' && bytes[at] != '}' && !is_space(bytes[at])) at++;
    return at > start ? at : NOT_FOUND;
}

/* Return the index behind the value that starts at `at` with this byte. */
HOT size_t value_end(scanner *s, size_t at, unsigned char byte) {
    if (LIKELY(byte == '"')) {
        size_t close = string_end(s, at);
        return close == NOT_FOUND ? NOT_FOUND : close + 1;
    }
    if (byte != '{' && byte != '[') return scalar_end(s->bytes, s->length, at);
    /* A copy, so that the scanner's own address is never taken and it can live in registers. */
    scanner copy = *s;
    at = container_end(&copy, at);
    *s = copy;
    return at;
}

/* ---- keys ---- */

HOT int hex_digit(unsigned char byte) {
    if (byte >= '0' && byte <= '9') return byte - '0';
    byte |= 0x20;
    return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

/* Read the escape behind a backslash at `*at`, of which only ASCII matters. Returns -1 for any other. */
HOT int escaped_byte(const unsigned char *key, size_t length, size_t *at) {
    static const char names[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    if (*at == length) return -1;
    unsigned char byte = key[(*at)++];
    if (byte != 'u') {
        const char *name = memchr(names, byte, sizeof names - 1);
        return name ? meanings[name - names] : -1;
    }
    if (length - *at < 4) return -1;
    int code = 0;
    for (size_t end = *at + 4; *at < end; ++*at) {
        int digit = hex_digit(key[*at]);
        if (digit < 0) return -1;
        code = code << 4 | digit;
    }
    return code < 0x80 ? code : -1;
}

/* Decode a key's escapes. Returns its length; NOT_FOUND if it cannot be one that anybody looks for. */
COLD size_t decode_key(const unsigned char *key, size_t length, unsigned char *decoded) {
    size_t count = 0;
    for (size_t at = 0; at < length; count++) {
        int byte = key[at++];
        if (byte == '\\') byte = escaped_byte(key, length, &at);
        if (byte < 0 || count == MAX_KEY_BYTES) return NOT_FOUND;
        decoded[count] = (unsigned char)byte;
    }
    return count;
}

/* Return the key as it was meant: the bytes themselves or, if they hold escapes, what was written to `decoded`. */
HOT strip_key meant_key(const scanner *s, size_t start, size_t end, unsigned char *decoded) {
    strip_key key = {s->bytes + start, end - start};
    if (start < s->escape_free && memchr(key.name, '\\', key.length))
        key = (strip_key){decoded, decode_key(key.name, key.length, decoded)};
    return key;
}

/* Keys of one length mostly differ in their first byte, which spares the call. */
HOT int same_key(strip_key one, strip_key other) {
    if (one.length != other.length) return 0;
    return one.length == 0 || (*one.name == *other.name && memcmp(one.name, other.name, one.length) == 0);
}

HOT int is_strong(const strip_keys *keys, strip_key key) {
    if (key.length > MAX_KEY_BYTES) return 0;
    for (size_t i = keys->shorter[key.length]; i < keys->shorter[key.length + 1]; i++)
        if (same_key(keys->strong[i], key)) return 1;
    return 0;
}

/* ---- objects ---- */

typedef enum { MEMBER, NO_MORE, BROKEN } member_outcome;

typedef struct {
    size_t start; /* of the key, at its quote */
    strip_key key;
    unsigned char *decoded; /* room for a key that holds escapes */
    unsigned char lead;     /* the value's first byte */
} member;

/* Read a key and its colon. `*at` is behind the opening brace or a value; it moves to the value, or to the brace. */
HOT member_outcome next_member(scanner *s, size_t *at, int is_first, member *m) {
    unsigned char byte = peek(s, at);
    if (byte == '}') return NO_MORE;
    if (!is_first) {
        if (byte != ',') return BROKEN;
        ++*at;
        byte = peek(s, at);
    }
    if (byte != '"') return BROKEN;
    m->start = *at;
    size_t end = string_end(s, *at);
    if (end == NOT_FOUND) return BROKEN;
    *at = end + 1;
    if (peek(s, at) != ':') return BROKEN;
    ++*at;
    m->lead = peek(s, at);
    m->key = meant_key(s, m->start + 1, end, m->decoded);
    return MEMBER;
}

/* Move `*at` from an object's opening brace to the value of its first member of that name. */
HOT member_outcome find_member(scanner *s, size_t *at, strip_key name) {
    unsigned char decoded[MAX_KEY_BYTES];
    member m = {.decoded = decoded};
    ++*at;
    for (int is_first = 1;; is_first = 0) {
        member_outcome outcome = next_member(s, at, is_first, &m);
        if (outcome != MEMBER || same_key(m.key, name)) return outcome;
        *at = value_end(s, *at, m.lead);
        if (*at == NOT_FOUND) return BROKEN;
    }
}

/* Copy the strong members of the object that opened before `cut->open`. A comma or the brace stood behind each, so with
 * commas between them they take no more room than they did. */
HOT strip_outcome keep_strong(scanner *s, const strip_keys *keys, unsigned char *out, strip_cut *cut) {
    unsigned char decoded[MAX_KEY_BYTES];
    member m = {.decoded = decoded};
    size_t at = cut->open;
    for (int is_first = 1;; is_first = 0) {
        member_outcome outcome = next_member(s, &at, is_first, &m);
        if (outcome != MEMBER) {
            cut->close = at;
            return outcome == NO_MORE ? STRIP_METADATA : STRIP_NOT_JSON;
        }
        at = value_end(s, at, m.lead);
        if (at == NOT_FOUND) return STRIP_NOT_JSON;
        if (is_strong(keys, m.key)) {
            if (cut->kept) out[cut->kept++] = ',';
            memcpy(out + cut->kept, s->bytes + m.start, at - m.start);
            cut->kept += at - m.start;
        }
    }
}

/* Say what stripping leaves of an event, and write the members that stay to `out`, which has room for `length` bytes.
 * cut->open is 0 unless the metadata was reached. */
static strip_outcome strip_event(const unsigned char *event, size_t length, const strip_keys *keys, unsigned char *out,
                                 strip_cut *cut) {
    scanner s = {.bytes = event, .length = length};
    size_t at = 0;
    *cut = (strip_cut){0, 0, 0};
    unsigned char lead = peek(&s, &at);
    for (int depth = 0; depth < 2 && lead == '{'; depth++) {
        member_outcome outcome = find_member(&s, &at, keys->path[depth]);
        if (outcome != MEMBER) return outcome == NO_MORE ? STRIP_NOTHING : STRIP_NOT_JSON;
        lead = peek(&s, &at);
    }
    if (lead != '{') return lead ? STRIP_NOTHING : STRIP_NOT_JSON;
    cut->open = at + 1;
    return keep_strong(&s, keys, out, cut);
}

#endif
