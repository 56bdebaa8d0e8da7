/* Writes what plain.h has read as spans, in OTLP's JSON or in its protobuf. `otlp_json.py` and `otlp_protobuf.py` say
 * what stands where. Nothing here knows of Python.
 */
#ifndef EPSAGON_FAST_SPANS_H
#define EPSAGON_FAST_SPANS_H

#include "plain.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#define SPANS_NS_PER_S 1000000000u
/* protocol.NANOSECONDS_FROM. */
#define SPANS_NANOSECONDS_FROM 100000000000000000u
/* Whole seconds up to which nanoseconds have 64 bits. */
#define SPANS_MOST_S 18446744073u
/* shapes._EXACT_S. */
#define SPANS_EXACT_S 1000000u
/* A decimal of so many digits is the shortest one of its double. */
#define SPANS_SURE_DIGITS 15
/* Of a number that fits into 64 bits whatever its digits are, its sign among them. */
#define SPANS_INT_DIGITS 18
#define SPANS_ID_DIGITS 16

typedef struct {
    unsigned char *data;
    size_t used, room;
    int failed;
} spans_buffer;

/* Returns a place for so many more bytes, or NULL; then the buffer has failed. */
static unsigned char *spans_more(spans_buffer *buffer, size_t length) {
    if (length > buffer->room - buffer->used) {
        size_t room = buffer->used + length;
        if (buffer->failed || room < length || room > SIZE_MAX / 2) {
            buffer->failed = 1;
            return NULL;
        }
        unsigned char *data = (unsigned char *)realloc(buffer->data, 2 * room);
        if (data == NULL) {
            buffer->failed = 1;
            return NULL;
        }
        buffer->data = data;
        buffer->room = 2 * room;
    }
    unsigned char *at = buffer->data + buffer->used;
    buffer->used += length;
    return at;
}

static void spans_put(spans_buffer *buffer, const void *data, size_t length) {
    unsigned char *at = spans_more(buffer, length);
    if (at != NULL && length)
        memcpy(at, data, length);
}

#define SPANS_PUT(buffer, text) spans_put(buffer, text, sizeof(text) - 1)

static void spans_put_byte(spans_buffer *buffer, unsigned char byte) {
    unsigned char *at = spans_more(buffer, 1);
    if (at != NULL)
        *at = byte;
}

static size_t spans_varint_size(uint64_t number) {
    size_t size = 1;
    while (number >= 0x80) {
        number >>= 7;
        size++;
    }
    return size;
}

static unsigned char *spans_varint(unsigned char *at, uint64_t number) {
    while (number >= 0x80) {
        *at++ = (unsigned char)(number | 0x80);
        number >>= 7;
    }
    *at++ = (unsigned char)number;
    return at;
}

static void spans_put_varint(spans_buffer *buffer, uint64_t number) {
    unsigned char *at = spans_more(buffer, spans_varint_size(number));
    if (at != NULL)
        spans_varint(at, number);
}

static void spans_put_decimal(spans_buffer *buffer, uint64_t number) {
    unsigned char digits[20], *at = digits + sizeof(digits);
    do
        *--at = (unsigned char)('0' + number % 10);
    while (number /= 10);
    spans_put(buffer, at, (size_t)(digits + sizeof(digits) - at));
}

/* A text's bytes without its escapes. */

static size_t spans_text_size(const plain_value *text) {
    size_t escapes = 0;
    if (text->has_escapes)
        for (size_t at = 0; at < text->length; at++)
            if (text->at[at] == '\\') {
                escapes++;
                at++;
            }
    return text->length - escapes;
}

static void spans_put_text(spans_buffer *buffer, const plain_value *text) {
    if (!text->has_escapes) {
        spans_put(buffer, text->at, text->length);
        return;
    }
    unsigned char *to = spans_more(buffer, spans_text_size(text));
    if (to == NULL)
        return;
    for (size_t at = 0; at < text->length; at++) {
        unsigned char byte = text->at[at];
        if (byte == '\\') {
            byte = text->at[++at];
            switch (byte) {
            case 'b': byte = '\b'; break;
            case 'f': byte = '\f'; break;
            case 'n': byte = '\n'; break;
            case 'r': byte = '\r'; break;
            case 't': byte = '\t'; break;
            }
        }
        *to++ = byte;
    }
}

/* Numbers. */

static uint64_t spans_natural(const unsigned char *at, size_t length) {
    uint64_t number = 0;
    for (size_t place = 0; place < length; place++)
        number = number * 10 + (uint64_t)(at[place] - '0');
    return number;
}

/* The two's complement of a whole number of at most SPANS_INT_DIGITS. */
static uint64_t spans_whole(const plain_value *value) {
    return *value->at == '-' ? 0 - spans_natural(value->at + 1, value->length - 1)
                             : spans_natural(value->at, value->length);
}

/* Says whether a text or whole number is digits as a number is written. */
static int spans_is_natural(const plain_value *value) {
    if (value->length == 0 || value->length > SPANS_INT_DIGITS || (*value->at == '0' && value->length > 1))
        return 0;
    for (size_t place = 0; place < value->length; place++)
        if (value->at[place] < '0' || value->at[place] > '9')
            return 0;
    return 1;
}

/* Nanoseconds of seconds, as shapes.nanoseconds has them. Returns 0 where Python is to say it. */
static int spans_nanoseconds(const plain_value *seconds, uint64_t *out) {
    static const uint64_t tens[] = {1,           10,           100,           1000,           10000,
                                    100000,      1000000,      10000000,      100000000,      1000000000};
    if (seconds->kind == PLAIN_INT) {
        uint64_t whole = spans_natural(seconds->at, seconds->length);
        *out = whole <= SPANS_MOST_S ? whole * SPANS_NS_PER_S : 0;
        return 1;
    }
    const unsigned char *point = (const unsigned char *)memchr(seconds->at, '.', seconds->length);
    if (point == NULL)
        return 0;
    size_t before = (size_t)(point - seconds->at), behind = seconds->length - before - 1;
    if (behind > 9 || before + behind > SPANS_SURE_DIGITS || memchr(point, 'e', behind + 1) || memchr(point, 'E', behind + 1))
        return 0;
    uint64_t whole = spans_natural(seconds->at, before);
    if (whole >= SPANS_MOST_S)
        return 0;
    *out = whole * SPANS_NS_PER_S + spans_natural(point + 1, behind) * tens[9 - behind];
    return 1;
}

/* shapes.moment. */
static int spans_moment(const plain_value *time, uint64_t *out) {
    if (time->kind == PLAIN_INT && (*out = spans_natural(time->at, time->length)) >= SPANS_NANOSECONDS_FROM)
        return 1;
    return spans_nanoseconds(time, out);
}

/* Says whether a text is an id of so many hex digits, not all of them zero. */
static int spans_is_id(const plain_value *text, size_t digits) {
    int is_zero = 1;
    if (text->at == NULL || text->kind != PLAIN_TEXT || text->length != digits)
        return 0;
    for (size_t place = 0; place < digits; place++) {
        unsigned char digit = text->at[place];
        if (!((digit >= '0' && digit <= '9') || (digit >= 'a' && digit <= 'f')))
            return 0;
        is_zero &= digit == '0';
    }
    return !is_zero;
}

static unsigned char spans_nibble(unsigned char digit) {
    return (unsigned char)(digit <= '9' ? digit - '0' : digit - 'a' + 10);
}

static void spans_put_hex_as_bytes(spans_buffer *buffer, const unsigned char *hex, size_t digits) {
    unsigned char *at = spans_more(buffer, digits / 2);
    for (size_t place = 0; at != NULL && place < digits; place += 2)
        *at++ = (unsigned char)(spans_nibble(hex[place]) << 4 | spans_nibble(hex[place + 1]));
}

/* What becomes of a member of the metadata, by its name: a table with open addressing. */

typedef struct {
    const unsigned char *key;
    size_t key_length;
    const unsigned char *name;
    size_t name_length;
    int code, mark;
    /* Where the table's owner has the rest. */
    size_t number;
} spans_term;

typedef struct {
    spans_term *places;
    /* One less than their number, a power of two. At least one is free. */
    size_t mask;
} spans_terms;

static size_t spans_hash(const unsigned char *key, size_t length) {
    return length ? length * 31 + key[0] * 7u + key[length / 2] * 13u + key[length - 1] * 17u : 0;
}

/* Returns the term of a name, or the free place where it would stand. */
static spans_term *spans_place(const spans_terms *terms, const unsigned char *key, size_t length) {
    size_t at = spans_hash(key, length) & terms->mask;
    for (;; at = (at + 1) & terms->mask) {
        spans_term *term = &terms->places[at];
        if (term->key == NULL || (term->key_length == length && memcmp(term->key, key, length) == 0))
            return term;
    }
}

/* Attributes: a text, a whole number of at most SPANS_INT_DIGITS, or a bool. */

/* Puts a comma between two members of JSON's list. */
static void spans_put_comma(spans_buffer *buffer) {
    if (buffer->used && !buffer->failed && buffer->data[buffer->used - 1] != '[')
        spans_put_byte(buffer, ',');
}

static void spans_put_json(spans_buffer *buffer, const plain_value *name, const plain_value *value, plain_kind kind) {
    spans_put_comma(buffer);
    SPANS_PUT(buffer, "{\"key\":\"");
    spans_put(buffer, name->at, name->length);
    if (kind == PLAIN_BOOL) {
        SPANS_PUT(buffer, "\",\"value\":{\"boolValue\":");
        spans_put(buffer, value->at, value->length);
        SPANS_PUT(buffer, "}}");
        return;
    }
    if (kind == PLAIN_TEXT)
        SPANS_PUT(buffer, "\",\"value\":{\"stringValue\":\"");
    else
        SPANS_PUT(buffer, "\",\"value\":{\"intValue\":\"");
    spans_put(buffer, value->at, value->length);
    SPANS_PUT(buffer, "\"}}");
}

static void spans_put_protobuf(spans_buffer *buffer, const plain_value *name, const plain_value *value, plain_kind kind) {
    size_t name_size = spans_text_size(name), value_size = 2;
    uint64_t number = 0;
    if (kind == PLAIN_TEXT) {
        value_size = spans_text_size(value);
        number = value_size;
        value_size += 1 + spans_varint_size(number);
    } else if (kind == PLAIN_INT) {
        number = spans_whole(value);
        value_size = 1 + spans_varint_size(number);
    }
    size_t size = 1 + spans_varint_size(value_size) + value_size;
    if (name_size)
        size += 1 + spans_varint_size(name_size) + name_size;
    spans_put_byte(buffer, 0x4a);
    spans_put_varint(buffer, size);
    if (name_size) {
        spans_put_byte(buffer, 0x0a);
        spans_put_varint(buffer, name_size);
        spans_put_text(buffer, name);
    }
    spans_put_byte(buffer, 0x12);
    spans_put_varint(buffer, value_size);
    if (kind == PLAIN_TEXT) {
        spans_put_byte(buffer, 0x0a);
        spans_put_varint(buffer, number);
        spans_put_text(buffer, value);
    } else if (kind == PLAIN_INT) {
        spans_put_byte(buffer, 0x18);
        spans_put_varint(buffer, number);
    } else {
        spans_put_byte(buffer, 0x10);
        spans_put_byte(buffer, *value->at == 't');
    }
}

/* What stands before and behind a span's name and kind. `parent`: NULL without one. */

static void spans_put_ids(
    spans_buffer *buffer, int is_json, const unsigned char *trace, const unsigned char *own, const unsigned char *parent,
    const plain_value *state
) {
    if (is_json) {
        SPANS_PUT(buffer, "{\"traceId\":\"");
        spans_put(buffer, trace, 2 * SPANS_ID_DIGITS);
        SPANS_PUT(buffer, "\",\"spanId\":\"");
        spans_put(buffer, own, SPANS_ID_DIGITS);
        SPANS_PUT(buffer, "\",\"parentSpanId\":\"");
        if (parent != NULL)
            spans_put(buffer, parent, SPANS_ID_DIGITS);
        SPANS_PUT(buffer, "\",");
        return;
    }
    SPANS_PUT(buffer, "\x0a\x10");
    spans_put_hex_as_bytes(buffer, trace, 2 * SPANS_ID_DIGITS);
    SPANS_PUT(buffer, "\x12\x08");
    spans_put_hex_as_bytes(buffer, own, SPANS_ID_DIGITS);
    if (state->length) {
        spans_put_byte(buffer, 0x1a);
        spans_put_varint(buffer, state->length);
        spans_put(buffer, state->at, state->length);
    }
    if (parent != NULL) {
        SPANS_PUT(buffer, "\x22\x08");
        spans_put_hex_as_bytes(buffer, parent, SPANS_ID_DIGITS);
    }
}

static void spans_put_times(spans_buffer *buffer, int is_json, uint64_t start_ns, uint64_t end_ns) {
    if (is_json) {
        SPANS_PUT(buffer, ",\"startTimeUnixNano\":\"");
        spans_put_decimal(buffer, start_ns);
        SPANS_PUT(buffer, "\",\"endTimeUnixNano\":\"");
        spans_put_decimal(buffer, end_ns);
        SPANS_PUT(buffer, "\",\"attributes\":[");
        return;
    }
    uint64_t times[] = {start_ns, end_ns};
    for (int number = 0; number < 2; number++) {
        unsigned char *at = spans_more(buffer, 9);
        if (at == NULL)
            return;
        *at++ = number ? 0x41 : 0x39;
        for (int byte = 0; byte < 8; byte++)
            *at++ = (unsigned char)(times[number] >> 8 * byte);
    }
}

static void spans_put_end(spans_buffer *buffer, int is_json, const plain_value *state) {
    if (!is_json)
        return;
    if (state->length) {
        SPANS_PUT(buffer, ",\"traceState\":\"");
        spans_put(buffer, state->at, state->length);
        spans_put_byte(buffer, '"');
    }
    spans_put_byte(buffer, '}');
}

/* How many spans a part has. */

/* Inside a string the quotes have backslashes, so only a span has this. */
#define SPANS_MARK "\"startTimeUnixNano\":\""
#define SPANS_RARE 10 /* Where the mark has its rarest letter. */

static size_t spans_count_json(const unsigned char *at, size_t length) {
    const size_t size = sizeof(SPANS_MARK) - 1;
    size_t count = 0;
    if (length < size)
        return 0;
    const unsigned char *end = at + length - (size - SPANS_RARE) + 1;
    at += SPANS_RARE;
    while (at < end && (at = (const unsigned char *)memchr(at, SPANS_MARK[SPANS_RARE], (size_t)(end - at))) != NULL) {
        int is_mark = memcmp(at - SPANS_RARE, SPANS_MARK, size) == 0;
        size_t step = is_mark ? size : 1;
        count += (size_t)is_mark;
        if ((size_t)(end - at) <= step)
            break;
        at += step;
    }
    return count;
}

/* Reads the tag and the size of a member with a length; returns where it begins, or NULL. */
static const unsigned char *spans_member(const unsigned char *at, const unsigned char *end, unsigned char *tag, size_t *size) {
    uint64_t number = 0;
    int shift = 0;
    if (at == end || (*at & 0x87) != 2)
        return NULL;
    *tag = *at++;
    do {
        if (at == end || shift > 56)
            return NULL;
        number |= (uint64_t)(*at & 0x7f) << shift;
        shift += 7;
    } while (*at++ & 0x80);
    *size = (size_t)number;
    return number <= (uint64_t)(end - at) ? at : NULL;
}

/* Counts the members at the end of a way of tags; returns -1 where Python is to do it. */
static long long spans_count_members(const unsigned char *at, size_t length, const char *way) {
    const unsigned char *end = at + length;
    unsigned char tag;
    size_t size;
    long long count = 0;
    while (at < end) {
        if ((at = spans_member(at, end, &tag, &size)) == NULL)
            return -1;
        if (tag == (unsigned char)way[0]) {
            long long inside = way[1] ? spans_count_members(at, size, way + 1) : 1;
            if (inside < 0)
                return -1;
            count += inside;
        }
        at += size;
    }
    return count;
}

/* resource_spans, scope_spans, spans. */
#define SPANS_WAY "\x0a\x12\x12"

#endif
