/* Find an event's metadata and keep its strong members, in one pass over its bytes. No Python here, so that a sanitizer
 * can run all of it on buffers of exact size.
 *
 * Strings are found 64 bytes at a time: a mask of the quotes that no backslash escapes is made without a branch (the
 * method is simdjson's, https://arxiv.org/abs/1902.08318) and its bits are taken in order. So a quote that opens or
 * closes a string costs a few instructions, whatever the string's length, and escapes cost no more than letters.
 *
 * Nothing is verified that is not needed: on bytes that are not JSON the answer may be anything, but every read stays
 * inside [event, event + length) and at most `length` bytes are written.
 */
#ifndef EPSAGON_FAST_STRIP_H
#define EPSAGON_FAST_STRIP_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(STRIP_PORTABLE)
/* Asked for: the sanitizer runs this path on machines that have a better one. */
#elif defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__aarch64__) && defined(__ARM_NEON) && !defined(__AARCH64EB__)
#include <arm_neon.h>
#define STRIP_NEON
#else
#define STRIP_PORTABLE
#endif

#define BLOCK_BYTES 64
#define NOT_FOUND SIZE_MAX
#define MAX_STRONG_KEYS 64

typedef enum { STRIP_NOT_JSON, STRIP_NOTHING, STRIP_METADATA } strip_outcome;

/* The bytes before `open` and from `close` on stay as they are; `kept` bytes of members stand between them. */
typedef struct {
    size_t open, close, kept;
} strip_cut;

typedef struct {
    const unsigned char *name;
    size_t length;
} strip_key;

/* Keys that stay. Each is ASCII, without quote or backslash. */
typedef struct {
    strip_key keys[MAX_STRONG_KEYS];
    size_t count;
    uint64_t lengths; /* bit n: some key is n bytes long */
} strip_strong;

typedef struct {
    const unsigned char *bytes;
    size_t length;
    size_t block;         /* where the block begins whose quotes are at hand */
    size_t next;          /* where the next one begins */
    uint64_t quotes;      /* its unescaped quotes that were not yet taken */
    uint64_t escapes;     /* 1: a backslash at the end of this block escapes the first byte of the next */
    size_t escape_free;   /* from here on no backslash has been seen */
} scanner;

/* ---- 64 bytes -> one bit each ---- */

#if defined(STRIP_PORTABLE)

static inline uint64_t load_little_endian(const unsigned char *bytes) {
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

/* Eight bytes -> the bits of those equal to the one repeated in `pattern`. The sum cannot carry into the next byte, and
 * the product gathers the eight top bits without two of them meeting. */
static inline uint64_t equal_bits(uint64_t word, uint64_t pattern) {
    const uint64_t low = UINT64_C(0x7f7f7f7f7f7f7f7f);
    uint64_t differing = word ^ pattern;
    uint64_t equal = ~(((differing & low) + low) | differing | low);
    return ((equal >> 7) * UINT64_C(0x0102040810204080)) >> 56;
}

static inline void find_marks(const unsigned char *bytes, uint64_t *quotes, uint64_t *backslashes) {
    *quotes = *backslashes = 0;
    for (int i = 0; i < BLOCK_BYTES; i += 8) {
        uint64_t word = load_little_endian(bytes + i);
        *quotes |= equal_bits(word, UINT64_C(0x2222222222222222)) << i;
        *backslashes |= equal_bits(word, UINT64_C(0x5c5c5c5c5c5c5c5c)) << i;
    }
}

#elif defined(STRIP_NEON)

/* Each byte keeps the bit of its place among eight; pairwise sums bring them together. */
static inline uint64_t equal_bits(const uint8x16_t *part, unsigned char value) {
    static const uint8_t place[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    uint8x16_t bit = vld1q_u8(place), wanted = vdupq_n_u8(value);
    uint8x16_t first = vpaddq_u8(vandq_u8(vceqq_u8(part[0], wanted), bit), vandq_u8(vceqq_u8(part[1], wanted), bit));
    uint8x16_t second = vpaddq_u8(vandq_u8(vceqq_u8(part[2], wanted), bit), vandq_u8(vceqq_u8(part[3], wanted), bit));
    uint8x16_t all = vpaddq_u8(first, second);
    return vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(all, all)), 0);
}

static inline void find_marks(const unsigned char *bytes, uint64_t *quotes, uint64_t *backslashes) {
    uint8x16_t part[4] = {vld1q_u8(bytes), vld1q_u8(bytes + 16), vld1q_u8(bytes + 32), vld1q_u8(bytes + 48)};
    *quotes = equal_bits(part, '"');
    *backslashes = equal_bits(part, '\\');
}

#else

static inline uint64_t equal_bits(const __m128i *part, char value) {
    __m128i wanted = _mm_set1_epi8(value);
    uint64_t first = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(part[0], wanted));
    uint64_t second = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(part[1], wanted));
    uint64_t third = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(part[2], wanted));
    uint64_t fourth = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(part[3], wanted));
    return first | second << 16 | third << 32 | fourth << 48;
}

static inline void find_marks(const unsigned char *bytes, uint64_t *quotes, uint64_t *backslashes) {
    const __m128i *from = (const __m128i *)bytes;
    __m128i part[4] = {_mm_loadu_si128(from), _mm_loadu_si128(from + 1), _mm_loadu_si128(from + 2), _mm_loadu_si128(from + 3)};
    *quotes = equal_bits(part, '"');
    *backslashes = equal_bits(part, '\\');
}

#endif

/* ---- strings ---- */

/* Which bytes stand behind an odd run of backslashes. A run that starts at an even place and whose end (the carry of the
 * sum) lies at an odd one is odd, and the other way round. */
static inline uint64_t escaped_bytes(scanner *s, uint64_t backslashes) {
    const uint64_t even = UINT64_C(0x5555555555555555);
    uint64_t escaped_first = s->escapes;
    backslashes &= ~escaped_first;
    uint64_t starts = backslashes & ~(backslashes << 1);
    uint64_t behind_even = (backslashes + (starts & even)) & ~backslashes;
    uint64_t sum_odd = backslashes + (starts & ~even);
    s->escapes = sum_odd < backslashes;
    return (behind_even & ~even) | (sum_odd & ~backslashes & even) | escaped_first;
}

static inline int next_block(scanner *s) {
    size_t left = s->length - s->next;
    uint64_t quotes, backslashes;
    if (left >= BLOCK_BYTES) {
        find_marks(s->bytes + s->next, &quotes, &backslashes);
    } else if (left == 0) {
        return 0;
    } else if (s->length >= BLOCK_BYTES) {
        /* The last 64 bytes, of which the first were seen before. */
        find_marks(s->bytes + s->length - BLOCK_BYTES, &quotes, &backslashes);
        quotes >>= BLOCK_BYTES - left;
        backslashes >>= BLOCK_BYTES - left;
    } else {
        unsigned char padded[BLOCK_BYTES] = {0};
        memcpy(padded, s->bytes, left);
        find_marks(padded, &quotes, &backslashes);
    }
    s->block = s->next;
    s->next += left >= BLOCK_BYTES ? BLOCK_BYTES : left;
    if (backslashes | s->escapes) {
        quotes &= ~escaped_bytes(s, backslashes);
        s->escape_free = s->next;
    }
    s->quotes = quotes;
    return 1;
}

static inline size_t next_quote(scanner *s) {
    while (s->quotes == 0)
        if (!next_block(s)) return NOT_FOUND;
    size_t at = s->block + (size_t)__builtin_ctzll(s->quotes);
    s->quotes &= s->quotes - 1;
    return at;
}

/* `at` holds a quote. In JSON it is the next one not taken, since every string before it was passed as one. */
static inline size_t string_end(scanner *s, size_t at) {
    if (next_quote(s) != at) return NOT_FOUND;
    return next_quote(s);
}

/* ---- values ---- */

static inline int is_space(unsigned char byte) { return byte == ' ' || byte == '\n' || byte == '\r' || byte == '\t'; }

static inline size_t skip_spaces(const scanner *s, size_t at) {
    while (at < s->length && is_space(s->bytes[at])) at++;
    return at;
}

/* Whether the byte at `at` (which may be the end) is this one. */
static inline int stands(const scanner *s, size_t at, char byte) {
    return at < s->length && s->bytes[at] == (unsigned char)byte;
}

/* Brackets are counted, so depth costs no stack. */
static inline size_t container_end(scanner *s, size_t at) {
    size_t depth = 0;
    for (; at < s->length; at++) {
        unsigned char byte = s->bytes[at];
        if (byte == '"') {
            at = string_end(s, at);
            if (at == NOT_FOUND) return NOT_FOUND;
        } else if (byte == '{' || byte == '[') {
            depth++;
        } else if (byte == '}' || byte == ']') {
            if (--depth == 0) return at + 1;
        }
    }
    return NOT_FOUND;
}

static inline size_t value_end(scanner *s, size_t at) {
    if (at >= s->length) return NOT_FOUND;
    if (s->bytes[at] == '"') {
        size_t close = string_end(s, at);
        return close == NOT_FOUND ? NOT_FOUND : close + 1;
    }
    if (s->bytes[at] == '{' || s->bytes[at] == '[') return container_end(s, at);
    size_t start = at;
    while (at < s->length && s->bytes[at] != ',' && s->bytes[at] != '}' && !is_space(s->bytes[at])) at++;
    return at == start ? NOT_FOUND : at;
}

/* ---- keys ---- */

static inline int hex_digit(unsigned char byte) {
    if (byte >= '0' && byte <= '9') return byte - '0';
    byte |= 0x20;
    return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

/* Decode a key that holds escapes. Returns its length, or NOT_FOUND for one that is longer than `room`, not ASCII or no
 * string of JSON's: none of these is a key that anybody looks for. */
static inline size_t decode_key(const unsigned char *key, size_t length, unsigned char *out, size_t room) {
    static const char names[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    size_t n = 0;
    for (size_t i = 0; i < length; n++) {
        unsigned char byte = key[i++];
        if (byte == '\\') {
            if (i == length) return NOT_FOUND;
            byte = key[i++];
            if (byte == 'u') {
                int code = 0;
                if (length - i < 4) return NOT_FOUND;
                for (size_t end = i + 4; i < end; i++) {
                    int digit = hex_digit(key[i]);
                    if (digit < 0) return NOT_FOUND;
                    code = code << 4 | digit;
                }
                if (code > 0x7f) return NOT_FOUND;
                byte = (unsigned char)code;
            } else {
                const char *name = memchr(names, byte, sizeof names - 1);
                if (!name) return NOT_FOUND;
                byte = (unsigned char)meant[name - names];
            }
        }
        if (n == room) return NOT_FOUND;
        out[n] = byte;
    }
    return n;
}

/* A key as it was meant: itself, or its escapes decoded into `decoded`. */
static inline strip_key plain_key(const scanner *s, size_t start, size_t end, unsigned char *decoded, size_t room) {
    strip_key key = {s->bytes + start, end - start};
    if (start < s->escape_free && memchr(key.name, '\\', key.length)) {
        key.length = decode_key(key.name, key.length, decoded, room);
        key.name = decoded;
    }
    return key;
}

static inline int same_key(const strip_key *one, const strip_key *other) {
    return one->length == other->length && memcmp(one->name, other->name, one->length) == 0;
}

static inline int is_strong(const strip_strong *strong, const strip_key *key) {
    if (key->length >= 64 || !(strong->lengths >> key->length & 1)) return 0;
    for (size_t i = 0; i < strong->count; i++)
        if (same_key(&strong->keys[i], key)) return 1;
    return 0;
}

/* ---- objects ---- */

typedef struct {
    size_t start; /* of the key's quote */
    size_t value;
    strip_key key;
    unsigned char decoded[64];
} member;

typedef enum { MEMBER, NO_MORE, BROKEN } member_outcome;

/* Read a key and its colon. `*at` is behind the opening brace or behind a value, and moves to the value or the brace. */
static inline member_outcome next_member(scanner *s, size_t *at, int first, member *m) {
    size_t start = skip_spaces(s, *at);
    if (stands(s, start, '}')) {
        *at = start;
        return NO_MORE;
    }
    if (!first) {
        if (!stands(s, start, ',')) return BROKEN;
        start = skip_spaces(s, start + 1);
    }
    if (!stands(s, start, '"')) return BROKEN;
    size_t end = string_end(s, start);
    if (end == NOT_FOUND) return BROKEN;
    size_t colon = skip_spaces(s, end + 1);
    if (!stands(s, colon, ':')) return BROKEN;
    m->start = start;
    m->key = plain_key(s, start + 1, end, m->decoded, sizeof m->decoded);
    *at = m->value = skip_spaces(s, colon + 1);
    return MEMBER;
}

/* Move `*at`, the opening brace of an object, to the value of its first member of that name. */
static inline member_outcome find_member(scanner *s, size_t *at, const strip_key *name) {
    member m;
    size_t position = *at + 1;
    for (int first = 1;; first = 0) {
        member_outcome outcome = next_member(s, &position, first, &m);
        if (outcome != MEMBER) return outcome;
        if (same_key(&m.key, name)) {
            *at = m.value;
            return MEMBER;
        }
        position = value_end(s, position);
        if (position == NOT_FOUND) return BROKEN;
    }
}

/* Copy the strong members of the object that opens before cut->open to `out`. Each was followed by a comma or the brace,
 * so with a comma between them they take no more room than where they came from. */
static inline strip_outcome keep_strong(scanner *s, const strip_strong *strong, unsigned char *out, strip_cut *cut) {
    member m;
    size_t at = cut->open;
    for (int first = 1;; first = 0) {
        member_outcome outcome = next_member(s, &at, first, &m);
        if (outcome == BROKEN) return STRIP_NOT_JSON;
        if (outcome == NO_MORE) break;
        at = value_end(s, at);
        if (at == NOT_FOUND) return STRIP_NOT_JSON;
        if (is_strong(strong, &m.key)) {
            if (cut->kept) out[cut->kept++] = ',';
            memcpy(out + cut->kept, s->bytes + m.start, at - m.start);
            cut->kept += at - m.start;
        }
    }
    cut->close = at;
    return STRIP_METADATA;
}

/* Say what stripping leaves of an event. `out` has room for `length` bytes. cut->open is 0 unless metadata was found. */
static inline strip_outcome strip_event(const unsigned char *event, size_t length, const strip_strong *strong,
                                        const strip_key path[2], unsigned char *out, strip_cut *cut) {
    scanner s = {event, length, 0, 0, 0, 0, 0};
    size_t at = skip_spaces(&s, 0);
    *cut = (strip_cut){0, 0, 0};
    if (at == length) return STRIP_NOT_JSON;
    for (int depth = 0; depth < 2; depth++) {
        if (!stands(&s, at, '{')) return STRIP_NOTHING;
        member_outcome outcome = find_member(&s, &at, &path[depth]);
        if (outcome != MEMBER) return outcome == NO_MORE ? STRIP_NOTHING : STRIP_NOT_JSON;
    }
    if (!stands(&s, at, '{')) return STRIP_NOTHING;
    cut->open = at + 1;
    return keep_strong(&s, strong, out, cut);
}

#endif
