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

/* Several pieces are written with one look for room: spans_room returns a place for at most so many bytes, or NULL, and
 * spans_wrote takes what stands before `at` then. */

static unsigned char *spans_room(spans_buffer *buffer, size_t most) {
    unsigned char *at = spans_more(buffer, most);
    if (at != NULL)
        buffer->used -= most;
    return at;
}

static void spans_wrote(spans_buffer *buffer, const unsigned char *at) {
    buffer->used = (size_t)(at - buffer->data);
}

static inline unsigned char *spans_copied(unsigned char *at, const void *from, size_t length) {
    memcpy(at, from, length);
    return at + length;
}

#define SPANS_COPIED(at, text) spans_copied(at, text, sizeof(text) - 1)

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

/* Of 64 bits. */
#define SPANS_VARINT_BYTES 10
#define SPANS_DECIMAL_BYTES 20

static unsigned char *spans_decimal(unsigned char *at, uint64_t number) {
    unsigned char digits[SPANS_DECIMAL_BYTES], *first = digits + sizeof(digits);
    do
        *--first = (unsigned char)('0' + number % 10);
    while (number /= 10);
    return spans_copied(at, first, (size_t)(digits + sizeof(digits) - first));
}

static unsigned char *spans_big_endian(unsigned char *at, uint64_t number) {
    for (int shift = 56; shift >= 0; shift -= 8)
        *at++ = (unsigned char)(number >> shift);
    return at;
}

static unsigned char *spans_little_endian(unsigned char *at, uint64_t number) {
    for (int shift = 0; shift < 64; shift += 8)
        *at++ = (unsigned char)(number >> shift);
    return at;
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

static unsigned char *spans_text(unsigned char *to, const plain_value *text) {
    if (!text->has_escapes)
        return spans_copied(to, text->at, text->length);
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
    return to;
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
    const unsigned char *at = seconds->at, *end = at + seconds->length;
    uint64_t number = 0;
    size_t digits = 0, behind = 0;
    int is_behind = 0;
    for (; at < end && *at != 'e' && *at != 'E'; at++) {
        if (*at == '.') {
            is_behind = 1;
            continue;
        }
        number = number * 10 + (uint64_t)(*at - '0');
        digits++;
        behind += (size_t)is_behind;
    }
    /* A time below 10 microseconds has an exponent. */
    if (at < end) {
        if (at[1] != '-')
            return 0;
        behind += (size_t)spans_natural(at + 2, (size_t)(end - at - 2));
    }
    if (behind > 9 || digits > SPANS_SURE_DIGITS || number / tens[behind] >= SPANS_MOST_S)
        return 0;
    *out = number * tens[9 - behind];
    return 1;
}

/* shapes.moment. */
static int spans_moment(const plain_value *time, uint64_t *out) {
    if (time->kind == PLAIN_INT && (*out = spans_natural(time->at, time->length)) >= SPANS_NANOSECONDS_FROM)
        return 1;
    return spans_nanoseconds(time, out);
}

/* Of half a trace's id too. */
typedef struct {
    const unsigned char *hex;
    uint64_t number;
} spans_id;

/* What all spans of a trace have. `state`: of length 0 if it has none. */
typedef struct {
    unsigned char hex[2 * SPANS_ID_DIGITS];
    uint64_t numbers[2];
    plain_value state;
} spans_trace;

/* Reads so many lower-case hex digits; returns 0 if they are others. */
static int spans_read_hex(const unsigned char *hex, uint64_t *out) {
    uint64_t number = 0;
    for (size_t place = 0; place < SPANS_ID_DIGITS; place++) {
        unsigned digit = hex[place] - (unsigned)'0', letter = hex[place] - (unsigned)'a';
        if (digit > 9 && letter > 5)
            return 0;
        number = number << 4 | (digit <= 9 ? digit : letter + 10);
    }
    *out = number;
    return 1;
}

static void spans_write_hex(unsigned char *at, uint64_t number) {
    for (int shift = 60; shift >= 0; shift -= 4)
        *at++ = (unsigned char)"0123456789abcdef"[number >> shift & 15];
}

/* Reads a span's id; returns 0 if the text is none. Zero is none. */
static int spans_read_id(const plain_value *text, spans_id *out) {
    out->hex = text->at;
    return text->at != NULL && text->kind == PLAIN_TEXT && text->length == SPANS_ID_DIGITS
        && spans_read_hex(text->at, &out->number) && out->number;
}

/* Takes a trace's id, of hex digits; returns 0 and takes nothing if it is none. */
static int spans_take_trace(spans_trace *trace, const unsigned char *hex, size_t digits) {
    uint64_t numbers[2];
    if (digits != 2 * SPANS_ID_DIGITS || !spans_read_hex(hex, numbers) || !spans_read_hex(hex + SPANS_ID_DIGITS, numbers + 1)
        || !(numbers[0] | numbers[1]))
        return 0;
    memcpy(trace->hex, hex, digits);
    memcpy(trace->numbers, numbers, sizeof(numbers));
    return 1;
}

/* The ids of the spans that are written: a table with open addressing, in which zero is a free place. */

typedef struct {
    uint64_t *places;
    /* One less than their number, a power of two. At least one is free. */
    size_t mask;
} spans_ids;

/* Returns where an id stands, or the free place where it would stand. */
static uint64_t *spans_id_place(const spans_ids *ids, uint64_t id) {
    size_t at = (size_t)(id * 0x9e3779b97f4a7c15u >> 32) & ids->mask;
    while (ids->places[at] && ids->places[at] != id)
        at = (at + 1) & ids->mask;
    return &ids->places[at];
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

/* More than stands around a name and a value. */
#define SPANS_AROUND 64

static void spans_put_json(spans_buffer *buffer, const plain_value *name, const plain_value *value, plain_kind kind) {
    unsigned char *at = spans_room(buffer, SPANS_AROUND + name->length + value->length);
    if (at == NULL)
        return;
    if (buffer->used && at[-1] != '[')
        *at++ = ',';
    at = SPANS_COPIED(at, "{\"key\":\"");
    at = spans_copied(at, name->at, name->length);
    if (kind == PLAIN_BOOL) {
        at = SPANS_COPIED(at, "\",\"value\":{\"boolValue\":");
        at = spans_copied(at, value->at, value->length);
        at = SPANS_COPIED(at, "}}");
    } else {
        at = kind == PLAIN_TEXT ? SPANS_COPIED(at, "\",\"value\":{\"stringValue\":\"")
                                : SPANS_COPIED(at, "\",\"value\":{\"intValue\":\"");
        at = spans_copied(at, value->at, value->length);
        at = SPANS_COPIED(at, "\"}}");
    }
    spans_wrote(buffer, at);
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
    unsigned char *at = spans_room(buffer, 1 + SPANS_VARINT_BYTES + size);
    if (at == NULL)
        return;
    *at++ = 0x4a;
    at = spans_varint(at, size);
    if (name_size) {
        *at++ = 0x0a;
        at = spans_varint(at, name_size);
        at = spans_text(at, name);
    }
    *at++ = 0x12;
    at = spans_varint(at, value_size);
    if (kind == PLAIN_TEXT) {
        *at++ = 0x0a;
        at = spans_varint(at, number);
        at = spans_text(at, value);
    } else if (kind == PLAIN_INT) {
        *at++ = 0x18;
        at = spans_varint(at, number);
    } else {
        *at++ = 0x10;
        *at++ = *value->at == 't';
    }
    spans_wrote(buffer, at);
}

/* More than a span takes for its ids, beside its state, and for its times. */
#define SPANS_IDS 128
#define SPANS_TIMES (64 + 2 * SPANS_DECIMAL_BYTES)

/* What stands before and behind a span's name and kind. `parent`: NULL without one. */

static void spans_put_ids(
    spans_buffer *buffer, int is_json, const spans_trace *trace, const spans_id *own, const spans_id *parent
) {
    const plain_value *state = &trace->state;
    unsigned char *at = spans_room(buffer, SPANS_IDS + state->length);
    if (at == NULL)
        return;
    if (is_json) {
        at = SPANS_COPIED(at, "{\"traceId\":\"");
        at = spans_copied(at, trace->hex, 2 * SPANS_ID_DIGITS);
        at = SPANS_COPIED(at, "\",\"spanId\":\"");
        at = spans_copied(at, own->hex, SPANS_ID_DIGITS);
        at = SPANS_COPIED(at, "\",\"parentSpanId\":\"");
        if (parent != NULL)
            at = spans_copied(at, parent->hex, SPANS_ID_DIGITS);
        at = SPANS_COPIED(at, "\",");
    } else {
        at = SPANS_COPIED(at, "\x0a\x10");
        at = spans_big_endian(at, trace->numbers[0]);
        at = spans_big_endian(at, trace->numbers[1]);
        at = SPANS_COPIED(at, "\x12\x08");
        at = spans_big_endian(at, own->number);
        if (state->length) {
            *at++ = 0x1a;
            at = spans_varint(at, state->length);
            at = spans_copied(at, state->at, state->length);
        }
        if (parent != NULL) {
            at = SPANS_COPIED(at, "\x22\x08");
            at = spans_big_endian(at, parent->number);
        }
    }
    spans_wrote(buffer, at);
}

static void spans_put_times(spans_buffer *buffer, int is_json, uint64_t start_ns, uint64_t end_ns) {
    unsigned char *at = spans_room(buffer, SPANS_TIMES);
    if (at == NULL)
        return;
    if (is_json) {
        at = SPANS_COPIED(at, ",\"startTimeUnixNano\":\"");
        at = spans_decimal(at, start_ns);
        at = SPANS_COPIED(at, "\",\"endTimeUnixNano\":\"");
        at = spans_decimal(at, end_ns);
        at = SPANS_COPIED(at, "\",\"attributes\":[");
    } else {
        *at++ = 0x39;
        at = spans_little_endian(at, start_ns);
        *at++ = 0x41;
        at = spans_little_endian(at, end_ns);
    }
    spans_wrote(buffer, at);
}

static void spans_put_end(spans_buffer *buffer, int is_json, const plain_value *state) {
    if (!is_json)
        return;
    if (state->length) {
        spans_put(buffer, ",\"traceState\":\"", 15);
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
