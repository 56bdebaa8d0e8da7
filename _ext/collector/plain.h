/* Reads an event as our producers write nearly all of them, without making an object of anything in it.
 *
 * Such an event has no error, no member twice, no space between its tokens, and the escapes that orjson writes. So each
 * text may be copied as it stands, and two texts are the same if their bytes are. Of any other event, and of what is no
 * JSON, plain_read says no more than that, and the code in Python does the work. That the bytes of texts are UTF-8, and
 * that an array or object in the metadata is JSON, is for the caller to see.
 */
#ifndef EPSAGON_FAST_PLAIN_H
#define EPSAGON_FAST_PLAIN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__SSE2__) && defined(__GNUC__) && !defined(EPSAGON_FAST_PORTABLE)
#include <emmintrin.h>
#endif

/* Of metadata. Each is compared with all before it. */
#define PLAIN_MEMBERS 48
/* Of a whole number, and behind a point: a time in nanoseconds has so many. */
#define PLAIN_DIGITS 19

/* Of the digits of an exponent, and of arrays and objects in each other. */
#define PLAIN_EXPONENT 3
#define PLAIN_DEPTH 32

/* PLAIN_NESTED: an array or object. */
typedef enum { PLAIN_TEXT, PLAIN_INT, PLAIN_FLOAT, PLAIN_BOOL, PLAIN_NULL, PLAIN_NESTED } plain_kind;

/* A token. Of a text what is between its quotes. */
typedef struct {
    const unsigned char *at;
    size_t length;
    plain_kind kind;
    int has_escapes;
} plain_value;

typedef struct {
    plain_value key;
    plain_value value;
} plain_member;

enum { PLAIN_ID, PLAIN_PARENT, PLAIN_ORIGIN, PLAIN_START, PLAIN_DURATION, PLAIN_ERROR, PLAIN_EXCEPTION, PLAIN_FIELDS };
enum { PLAIN_NAME, PLAIN_TYPE, PLAIN_OPERATION, PLAIN_WORDS };

typedef struct {
    plain_value fields[PLAIN_FIELDS];
    plain_value words[PLAIN_WORDS];
    plain_member members[PLAIN_MEMBERS];
    size_t count;
} plain_event;

typedef struct {
    const char *name;
    size_t length;
} plain_name;

#define PLAIN_NAMED(text) {text, sizeof(text) - 1}
static const plain_name plain_fields[PLAIN_FIELDS] = {
    PLAIN_NAMED("id"), PLAIN_NAMED("parent_id"), PLAIN_NAMED("origin"), PLAIN_NAMED("start_time"),
    PLAIN_NAMED("duration"), PLAIN_NAMED("error_code"), PLAIN_NAMED("exception"),
};
static const plain_name plain_words[PLAIN_WORDS] = {
    PLAIN_NAMED("name"), PLAIN_NAMED("type"), PLAIN_NAMED("operation"),
};

static int plain_is(const plain_value *value, const char *text, size_t length) {
    return value->length == length && memcmp(value->at, text, length) == 0;
}

static int plain_is_ascii(const unsigned char *at, size_t length) {
    uint64_t seen = 0, word;
    for (; length >= 8; at += 8, length -= 8) {
        memcpy(&word, at, 8);
        seen |= word;
    }
    for (; length; at++, length--)
        seen |= *at;
    return (seen & 0x8080808080808080u) == 0;
}

/* Returns where the next quote, backslash or control character stands, or the end. */
static const unsigned char *plain_run(const unsigned char *at, const unsigned char *end) {
#if defined(__SSE2__) && defined(__GNUC__) && !defined(EPSAGON_FAST_PORTABLE)
    for (; end - at >= 16; at += 16) {
        __m128i block = _mm_loadu_si128((const __m128i *)at);
        __m128i quotes = _mm_cmpeq_epi8(block, _mm_set1_epi8('"')), slashes = _mm_cmpeq_epi8(block, _mm_set1_epi8('\\'));
        __m128i controls = _mm_cmpeq_epi8(_mm_min_epu8(block, _mm_set1_epi8(0x1f)), block);
        int found = _mm_movemask_epi8(_mm_or_si128(_mm_or_si128(quotes, slashes), controls));
        if (found)
            return at + __builtin_ctz((unsigned)found);
    }
#endif
    while (at < end && *at != '"' && *at != '\\' && *at >= 0x20)
        at++;
    return at;
}

/* Each of the functions below returns what stands behind the token that it reads at `at`, or NULL. */

static const unsigned char *plain_text(const unsigned char *at, const unsigned char *end, plain_value *out) {
    if (at == end || *at != '"')
        return NULL;
    out->at = ++at;
    out->kind = PLAIN_TEXT;
    out->has_escapes = 0;
    for (;;) {
        at = plain_run(at, end);
        if (at == end || *at < 0x20)
            return NULL;
        if (*at == '"') {
            out->length = (size_t)(at - out->at);
            return at + 1;
        }
        out->has_escapes = 1;
        /* A slash needs no escape, and what orjson writes as \u is rare. */
        if (++at == end || *at == 0 || strchr("\"\\bfnrt", *at) == NULL)
            return NULL;
        at++;
    }
}

static const unsigned char *plain_digits(const unsigned char *at, const unsigned char *end) {
    const unsigned char *start = at;
    while (at < end && *at >= '0' && *at <= '9')
        at++;
    return at == start ? NULL : at;
}

static const unsigned char *plain_number(const unsigned char *at, const unsigned char *end, plain_value *out) {
    out->at = at;
    out->kind = PLAIN_INT;
    out->has_escapes = 0;
    if (at < end && *at == '-')
        at++;
    const unsigned char *whole = at;
    if ((at = plain_digits(at, end)) == NULL || at - whole > PLAIN_DIGITS || (*whole == '0' && at - whole > 1))
        return NULL;
    /* The whole number -0 is written without its sign. */
    if (*whole == '0' && whole != out->at && (at == end || *at != '.'))
        return NULL;
    if (at < end && *at == '.') {
        const unsigned char *part = at + 1;
        out->kind = PLAIN_FLOAT;
        if ((at = plain_digits(part, end)) == NULL || at - part > PLAIN_DIGITS)
            return NULL;
    }
    if (at < end && (*at == 'e' || *at == 'E')) {
        const unsigned char *exponent = at + 1;
        out->kind = PLAIN_FLOAT;
        if (exponent < end && (*exponent == '-' || *exponent == '+'))
            exponent++;
        if ((at = plain_digits(exponent, end)) == NULL || at - exponent > PLAIN_EXPONENT)
            return NULL;
    }
    out->length = (size_t)(at - out->at);
    return at;
}

static const unsigned char *plain_word(
    const unsigned char *at, const unsigned char *end, plain_value *out, const char *word, plain_kind kind
) {
    out->at = at;
    out->length = strlen(word);
    out->kind = kind;
    out->has_escapes = 0;
    if ((size_t)(end - at) < out->length || memcmp(at, word, out->length) != 0)
        return NULL;
    return at + out->length;
}

static const unsigned char *plain_scalar(const unsigned char *at, const unsigned char *end, plain_value *out) {
    if (at == end)
        return NULL;
    switch (*at) {
    case '"': return plain_text(at, end, out);
    case 't': return plain_word(at, end, out, "true", PLAIN_BOOL);
    case 'f': return plain_word(at, end, out, "false", PLAIN_BOOL);
    case 'n': return plain_word(at, end, out, "null", PLAIN_NULL);
    default: return plain_number(at, end, out);
    }
}

/* Finds where an array or object ends. */
static const unsigned char *plain_nested(const unsigned char *at, const unsigned char *end, plain_value *out) {
    int depth = 0;
    plain_value text;
    out->at = at;
    out->kind = PLAIN_NESTED;
    out->has_escapes = 0;
    while (at < end) {
        if (*at == '"') {
            if ((at = plain_text(at, end, &text)) == NULL)
                return NULL;
            continue;
        }
        if ((*at == '[' || *at == '{') && ++depth > PLAIN_DEPTH)
            return NULL;
        if ((*at == ']' || *at == '}') && --depth == 0) {
            out->length = (size_t)(at + 1 - out->at);
            return at + 1;
        }
        at++;
    }
    return NULL;
}

static const unsigned char *plain_member_value(const unsigned char *at, const unsigned char *end, plain_value *out) {
    return at < end && (*at == '[' || *at == '{') ? plain_nested(at, end, out) : plain_scalar(at, end, out);
}

static const unsigned char *plain_byte(const unsigned char *at, const unsigned char *end, unsigned char byte) {
    return at < end && *at == byte ? at + 1 : NULL;
}

static const unsigned char *plain_key(const unsigned char *at, const unsigned char *end, plain_value *out) {
    at = plain_text(at, end, out);
    return at == NULL ? NULL : plain_byte(at, end, ':');
}

/* Reads a scalar into the place that the key names, of those that have names. Each comes once. */
static const unsigned char *plain_named(
    const unsigned char *at, const unsigned char *end, const plain_value *key, const plain_name *names,
    plain_value *places, int count
) {
    for (int number = 0; number < count; number++) {
        if (plain_is(key, names[number].name, names[number].length))
            return places[number].at == NULL ? plain_scalar(at, end, &places[number]) : NULL;
    }
    return NULL;
}

static const unsigned char *plain_metadata(const unsigned char *at, const unsigned char *end, plain_event *out) {
    if ((at = plain_byte(at, end, '{')) == NULL)
        return NULL;
    if (at < end && *at == '}')
        return at + 1;
    for (;;) {
        if (out->count == PLAIN_MEMBERS)
            return NULL;
        plain_member *member = &out->members[out->count];
        if ((at = plain_key(at, end, &member->key)) == NULL || (at = plain_member_value(at, end, &member->value)) == NULL)
            return NULL;
        for (size_t number = 0; number < out->count; number++) {
            const plain_value *other = &out->members[number].key;
            if (plain_is(&member->key, (const char *)other->at, other->length))
                return NULL;
        }
        out->count++;
        if (at < end && *at == '}')
            return at + 1;
        if ((at = plain_byte(at, end, ',')) == NULL)
            return NULL;
    }
}

static const unsigned char *plain_resource(const unsigned char *at, const unsigned char *end, plain_event *out) {
    int has_metadata = 0;
    plain_value key;
    if ((at = plain_byte(at, end, '{')) == NULL)
        return NULL;
    for (;;) {
        if ((at = plain_key(at, end, &key)) == NULL)
            return NULL;
        if (plain_is(&key, "metadata", 8))
            at = has_metadata++ ? NULL : plain_metadata(at, end, out);
        else
            at = plain_named(at, end, &key, plain_words, out->words, PLAIN_WORDS);
        if (at == NULL)
            return NULL;
        if (at < end && *at == '}')
            return has_metadata ? at + 1 : NULL;
        if ((at = plain_byte(at, end, ',')) == NULL)
            return NULL;
    }
}

static int plain_simple(const plain_value *value) {
    return value->at != NULL && value->kind == PLAIN_TEXT && !value->has_escapes;
}

static int plain_positive(const plain_value *value) {
    return value->at != NULL && (value->kind == PLAIN_INT || value->kind == PLAIN_FLOAT) && *value->at != '-';
}

/* Says whether the fields are there, and are what one expects of an event without an error. */
static int plain_complete(const plain_event *event) {
    const plain_value *fields = event->fields;
    for (int number = 0; number < PLAIN_WORDS; number++) {
        if (!plain_simple(&event->words[number]))
            return 0;
    }
    if (!plain_simple(&fields[PLAIN_ID]) || !plain_simple(&fields[PLAIN_ORIGIN]))
        return 0;
    const plain_value *parent = &fields[PLAIN_PARENT];
    if (parent->at != NULL && parent->kind != PLAIN_NULL && !plain_simple(parent))
        return 0;
    if (fields[PLAIN_ERROR].at == NULL || !plain_is(&fields[PLAIN_ERROR], "0", 1))
        return 0;
    if (fields[PLAIN_EXCEPTION].at == NULL || fields[PLAIN_EXCEPTION].kind != PLAIN_NULL)
        return 0;
    return plain_positive(&fields[PLAIN_START]) && plain_positive(&fields[PLAIN_DURATION]);
}

/* Reads an event; returns 0 if it is another one than what stands on top. */
static int plain_read(plain_event *out, const unsigned char *at, size_t length) {
    const unsigned char *end = at + length;
    int has_resource = 0;
    plain_value key;
    memset(out->fields, 0, sizeof(out->fields));
    memset(out->words, 0, sizeof(out->words));
    out->count = 0;
    if ((at = plain_byte(at, end, '{')) == NULL)
        return 0;
    for (;;) {
        if ((at = plain_key(at, end, &key)) == NULL)
            return 0;
        if (plain_is(&key, "resource", 8))
            at = has_resource++ ? NULL : plain_resource(at, end, out);
        else
            at = plain_named(at, end, &key, plain_fields, out->fields, PLAIN_FIELDS);
        if (at == NULL)
            return 0;
        if (at < end && *at == '}')
            return at + 1 == end && has_resource && plain_complete(out);
        if ((at = plain_byte(at, end, ',')) == NULL)
            return 0;
    }
}

#endif
