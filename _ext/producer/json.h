/* Writes the JSON of events as orjson does, straight from the application's objects, without a dict or bytes in between.
 *
 * Only exact types of the interpreter are looked at, so no Python code runs, and no other thread gets the GIL: what is
 * read does not change meanwhile, and one buffer does for all. Each function returns where it stopped, or NULL if the
 * value is anything else or does not fit; then orjson or the code in Python does the work.
 */
#ifndef EPSAGON_FAST_JSON_H
#define EPSAGON_FAST_JSON_H

#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

/* Characters of JSON for one byte of a text at the most: \u001f. */
#define ESCAPED_BYTES 6
/* Room that is kept for names of fields, quotes, commas and numbers, which are not measured before they are written. */
#define JSON_MARGIN 512
/* For an event of as many bytes as a trace may have by default, however it is written. Memory that no event has needed
   is none. */
#define JSON_BYTES (ESCAPED_BYTES * 64 * 1024 + JSON_MARGIN)

/* Longer lists take the way that counts what it leaves out of them. */
#define MOST_IN_A_LIST 100
#define MOST_BYTES_IN_A_LIST 4096

/* protocol.RUNNER_ORIGIN; _fast_path.pyx compares. */
#define RUNNER "runner"
/* protocol.NANOSECONDS_FROM; _fast_path.pyx compares. */
#define NANOSECONDS_FROM 100000000000000000
/* Of a number: a sign, 17 digits, a point, zeros before or an exponent behind them. */
#define MOST_DIGITS 32
/* Behind the point of the smallest float that is written here: four zeros, and 17 digits, or 18 of a rounded number. An
   integer of 64 bits has 20. */
#define MOST_DECIMALS 22

static char json_buffer[JSON_BYTES], json_list[JSON_BYTES];
/* orjson.dumps, for numbers that are rare. */
static PyObject *json_dumps;
#define JSON_END(buffer) ((buffer) + JSON_BYTES - JSON_MARGIN)

#define PUT(at, literal) (memcpy((at), (literal), sizeof(literal) - 1), (at) + sizeof(literal) - 1)

static char *put_escape(char *at, unsigned char byte) {
    static const char digits[] = "0123456789abcdef";
    *at++ = '\\';
    switch (byte) {
    case '"': case '\\': *at++ = (char)byte; break;
    case '\b': *at++ = 'b'; break;
    case '\t': *at++ = 't'; break;
    case '\n': *at++ = 'n'; break;
    case '\f': *at++ = 'f'; break;
    case '\r': *at++ = 'r'; break;
    default:
        at = PUT(at, "u00");
        *at++ = digits[byte >> 4];
        *at++ = digits[byte & 15];
    }
    return at;
}

static inline int is_escaped(unsigned char byte) {
    return byte < 0x20 || byte == '"' || byte == '\\';
}

/* Whether one of eight bytes is to be escaped. A difference borrows from the next byte only where one is found. */
static inline int has_escaped(uint64_t word) {
    const uint64_t ones = UINT64_C(0x0101010101010101), tops = ones << 7;
    uint64_t quotes = word ^ ones * '"', slashes = word ^ ones * '\\';
    uint64_t found = ((word - ones * 0x20) & ~word) | ((quotes - ones) & ~quotes) | ((slashes - ones) & ~slashes);
    return (found & tops) != 0;
}

static char *put_each_escaped(char *at, const char *from, size_t length) {
    for (; length; from++, length--)
        if (is_escaped((unsigned char)*from))
            at = put_escape(at, (unsigned char)*from);
        else
            *at++ = *from;
    return at;
}

/* Wants room for ESCAPED_BYTES times `length`. */
static inline char *put_escaped(char *at, const char *from, size_t length) {
#if defined(__SSE2__)
    for (; length >= 16; from += 16, length -= 16) {
        __m128i block = _mm_loadu_si128((const __m128i *)from);
        __m128i quotes = _mm_cmpeq_epi8(block, _mm_set1_epi8('"')), slashes = _mm_cmpeq_epi8(block, _mm_set1_epi8('\\'));
        __m128i controls = _mm_cmpeq_epi8(_mm_min_epu8(block, _mm_set1_epi8(0x1f)), block);
        if (_mm_movemask_epi8(_mm_or_si128(_mm_or_si128(quotes, slashes), controls))) {
            at = put_each_escaped(at, from, 16);
            continue;
        }
        _mm_storeu_si128((__m128i *)at, block);
        at += 16;
    }
#endif
    for (; length >= 8; from += 8, length -= 8) {
        uint64_t word;
        memcpy(&word, from, 8);
        if (has_escaped(word)) {
            at = put_each_escaped(at, from, 8);
            continue;
        }
        memcpy(at, &word, 8);
        at += 8;
    }
    if (length >= 4) {
        /* Its first four bytes and its last four, which may be partly the same. */
        uint32_t first, last;
        memcpy(&first, from, 4);
        memcpy(&last, from + length - 4, 4);
        if (!has_escaped((uint64_t)first << 32 | last)) {
            memcpy(at, &first, 4);
            memcpy(at + length - 4, &last, 4);
            return at + length;
        }
    }
    return put_each_escaped(at, from, length);
}

/* An exact str in quotes. NULL too if it has a lone surrogate. */
static inline char *put_text(char *at, const char *end, PyObject *text) {
    Py_ssize_t length;
    const char *from = PyUnicode_AsUTF8AndSize(text, &length);
    if (!from) {
        PyErr_Clear();
        return NULL;
    }
    if (end - at < ESCAPED_BYTES * length)
        return NULL;
    *at++ = '"';
    at = put_escaped(at, from, (size_t)length);
    *at++ = '"';
    return at;
}

/* `least`: at most MOST_DECIMALS. */
static inline char *put_digits(char *at, uint64_t number, int least) {
    char digits[MOST_DECIMALS], *first = digits + sizeof digits;
    do {
        *--first = (char)('0' + number % 10);
        number /= 10;
    } while (--least > 0 || number);
    size_t count = (size_t)(digits + sizeof digits - first);
    memcpy(at, first, count);
    return at + count;
}

/* An exact int or float as orjson writes it. NULL if an int needs more than 64 bits. */
static char *put_dumped(char *at, PyObject *number) {
    PyObject *json = PyObject_CallFunctionObjArgs(json_dumps, number, NULL);
    if (!json) {
        PyErr_Clear();
        return NULL;
    }
    Py_ssize_t length = PyBytes_Size(json);
    if (length <= MOST_DIGITS)
        memcpy(at, PyBytes_AsString(json), (size_t)length);
    Py_DECREF(json);
    return length <= MOST_DIGITS ? at + length : NULL;
}

/* Wants an exact int. */
static inline char *put_integer(char *at, PyObject *number) {
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(number, &overflow);
    if (overflow)
        return put_dumped(at, number);
    if (value < 0)
        *at++ = '-';
    return put_digits(at, value < 0 ? -(uint64_t)value : (uint64_t)value, 1);
}

/* A number with `places` decimals, without zeros at its end but for the first. */
static inline char *put_decimals(char *at, uint64_t whole, uint64_t part, int places) {
    at = put_digits(at, whole, 1);
    *at++ = '.';
    while (places > 1 && part % 10 == 0) {
        part /= 10;
        places--;
    }
    return put_digits(at, part, places);
}

#define NS_PER_S UINT64_C(1000000000)

static inline void put_two_digits(char *at, uint32_t number) {
    at[0] = (char)('0' + number / 10);
    at[1] = (char)('0' + number % 10);
}

/* Whole seconds. Those of a start are mostly those of the one before. */
static inline char *put_whole_seconds(char *at, uint64_t seconds) {
    static uint64_t last;
    static char text[24];
    static size_t length;
    if (seconds < 1) {
        *at++ = '0';
        return at;
    }
    if (seconds != last) {
        length = (size_t)(put_digits(text, seconds, 1) - text);
        last = seconds;
    }
    memcpy(at, text, sizeof text);
    return at + length;
}

/* Seconds, with the nanoseconds as decimals. A clock that was put back makes them negative. */
static inline char *put_seconds(char *at, int64_t ns) {
    if (ns < 0)
        *at++ = '-';
    uint64_t size = ns < 0 ? -(uint64_t)ns : (uint64_t)ns;
    uint32_t part = (uint32_t)(size % NS_PER_S), first = part / 10000, second = part % 10000;
    at = put_whole_seconds(at, size / NS_PER_S);
    *at++ = '.';
    *at = (char)('0' + first / 10000);
    put_two_digits(at + 1, first / 100 % 100);
    put_two_digits(at + 3, first % 100);
    put_two_digits(at + 5, second / 100);
    put_two_digits(at + 7, second % 100);
    char *end = at + 9;
    while (end[-1] == '0' && end > at + 1)
        end--;
    return end;
}

#if defined(__SIZEOF_INT128__)

/* A float of 1e-5 to 1e15 with the fewest digits that mean it.
 *
 * It is m / 2^s. With k decimals the nearest number is n / 10^k, and that means the same float if it is off by less than
 * half a step, which is exact in integers: 2 * |m * 10^k - n * 2^s| < 10^k. If a k does, each larger one does.
 */
static char *put_short_float(char *at, double value) {
    static const uint64_t powers[] = {
        1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000, 1000000000, 10000000000, 100000000000};
    enum { MANTISSA_BITS = 53 };
    const unsigned __int128 most_digits = UINT64_C(1000000000000000000);
    int exponent, least = 0, most = MOST_DECIMALS;
    uint64_t mantissa = (uint64_t)ldexp(frexp(value, &exponent), MANTISSA_BITS), best = 0;
    int shift = MANTISSA_BITS - exponent;
    while (least <= most) {
        int decimals = (least + most) / 2;
        unsigned __int128 power = (unsigned __int128)powers[decimals / 2] * powers[decimals - decimals / 2];
        unsigned __int128 exact = mantissa * power;
        unsigned __int128 half = (unsigned __int128)1 << (shift - 1), nearest = (exact + half) >> shift;
        /* Of two that are as near, the even one. */
        nearest -= (nearest << shift) - exact == half && (nearest & 1);
        unsigned __int128 rounded = nearest << shift;
        int is_below = exact > rounded;
        unsigned __int128 off = is_below ? exact - rounded : rounded - exact;
        /* Below a power of two the steps are half as long. */
        unsigned halves = is_below && mantissa == UINT64_C(1) << (MANTISSA_BITS - 1) ? 4 : 2;
        if (nearest >= most_digits || off * halves < power) {
            best = nearest < most_digits ? (uint64_t)nearest : 0;
            most = decimals - 1;
        } else
            least = decimals + 1;
    }
    if (!best)
        return NULL;
    uint64_t power = least <= 18 ? powers[least / 2] * powers[least - least / 2] : most_digits;
    return put_decimals(at, least <= 18 ? best / power : 0, best % power, least);
}

#endif

/* Wants an exact float. */
static inline char *put_float(char *at, PyObject *number) {
    double value = PyFloat_AsDouble(number), size = fabs(value);
    if (!isfinite(value))
        return PUT(at, "null");
    if (signbit(value))
        *at++ = '-';
    if (size == floor(size) && size < 1e15)
        return PUT(put_digits(at, (uint64_t)size, 1), ".0");
#if defined(__SIZEOF_INT128__)
    char *end = size >= 1e-5 && size < 1e15 ? put_short_float(at, size) : NULL;
    if (end)
        return end;
#endif
    return put_dumped(at - (signbit(value) != 0), number);
}

/* A number, bool or None. NULL if it is anything else. */
static inline char *put_scalar(char *at, PyObject *value) {
    if (PyLong_CheckExact(value))
        return put_integer(at, value);
    if (value == Py_None)
        return PUT(at, "null");
    if (value == Py_True)
        return PUT(at, "true");
    if (value == Py_False)
        return PUT(at, "false");
    return PyFloat_CheckExact(value) ? put_float(at, value) : NULL;
}

/* plain.is_typed_scalar. */
static inline int keeps_type(PyObject *value) {
    int overflow = 0;
    if (PyLong_CheckExact(value))
        PyLong_AsLongLongAndOverflow(value, &overflow);
    return value != Py_None && !overflow && (!PyFloat_CheckExact(value) || isfinite(PyFloat_AsDouble(value)));
}

/* A list of texts and scalars. `keeps_types`: whether each is a typed scalar. */
static char *put_list(char *at, const char *end, PyObject *list, int *keeps_types) {
    Py_ssize_t count = PyList_Size(list);
    const char *start = at;
    *keeps_types = 1;
    if (count > MOST_IN_A_LIST)
        return NULL;
    *at++ = '[';
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *value = PyList_GetItem(list, i);
        if (i)
            *at++ = ',';
        at = PyUnicode_CheckExact(value) ? put_text(at, end, value) : put_scalar(at, value);
        if (!at || at - start > MOST_BYTES_IN_A_LIST || at > end)
            return NULL;
        *keeps_types &= keeps_type(value);
    }
    *at++ = ']';
    return at;
}

/* A value of metadata: a text as it is, anything else as the text of its JSON, or, if `typed` and it can, as its JSON. */
static inline char *put_value(char *at, const char *end, PyObject *value, int typed) {
    if (PyUnicode_CheckExact(value))
        return put_text(at, end, value);
    if (PyList_CheckExact(value)) {
        int keeps_types;
        char *list_end = put_list(json_list, JSON_END(json_list), value, &keeps_types);
        if (!list_end || end - at < ESCAPED_BYTES * (list_end - json_list))
            return NULL;
        size_t length = (size_t)(list_end - json_list);
        if (typed && keeps_types) {
            memcpy(at, json_list, length);
            return at + length;
        }
        *at++ = '"';
        at = put_escaped(at, json_list, length);
        *at++ = '"';
        return at;
    }
    if (typed && keeps_type(value))
        return put_scalar(at, value);
    *at++ = '"';
    at = put_scalar(at, value);
    if (at)
        *at++ = '"';
    return at;
}

static inline char *put_metadata(char *at, const char *end, PyObject *metadata, int typed) {
    Py_ssize_t place = 0;
    PyObject *key, *value;
    if (!PyDict_CheckExact(metadata))
        return NULL;
    *at++ = '{';
    for (int is_first = 1; PyDict_Next(metadata, &place, &key, &value); is_first = 0) {
        if (!PyUnicode_CheckExact(key))
            return NULL;
        if (!is_first)
            *at++ = ',';
        if (!(at = put_text(at, end, key)))
            return NULL;
        *at++ = ':';
        if (!(at = put_value(at, end, value, typed)) || at > end)
            return NULL;
    }
    *at++ = '}';
    return at;
}

/* Those of nearly every event; all else about them is compared in no time. _fast_path.pyx sets them. */
static PyObject *usual_origin, *usual_code;
#define USUAL_ORIGIN "},\"origin\":\"python\""

static inline char *put_field(char *at, const char *end, PyObject *text) {
    return at && PyUnicode_CheckExact(text) ? put_text(at, end, text) : NULL;
}

/* NULL if it is no int of 32 bits. */
static inline char *put_code(char *at, PyObject *error_code) {
    int overflow;
    if (error_code == usual_code)
        return PUT(at, ",\"error_code\":0,\"exception\":null");
    if (!PyLong_CheckExact(error_code))
        return NULL;
    long long code = PyLong_AsLongLongAndOverflow(error_code, &overflow);
    if (overflow || code < INT32_MIN || code > INT32_MAX)
        return NULL;
    return PUT(put_integer(PUT(at, ",\"error_code\":"), error_code), ",\"exception\":null");
}

#define SPAN_ID_DIGITS 16

/* Both digits of each byte. */
#define HEX(high) high "0" high "1" high "2" high "3" high "4" high "5" high "6" high "7" \
    high "8" high "9" high "a" high "b" high "c" high "d" high "e" high "f"
static const char hex_of_bytes[] = HEX("0") HEX("1") HEX("2") HEX("3") HEX("4") HEX("5") HEX("6") HEX("7")
    HEX("8") HEX("9") HEX("a") HEX("b") HEX("c") HEX("d") HEX("e") HEX("f");

static inline char *put_hex(char *at, uint64_t number) {
    for (int byte = SPAN_ID_DIGITS / 2 - 1; byte >= 0; byte--, number >>= 8)
        memcpy(at + 2 * byte, &hex_of_bytes[2 * (number & 0xff)], 2);
    return at + SPAN_ID_DIGITS;
}

/* The hex digits of some bytes, of no more than a trace's id. */
static inline PyObject *hex_text(const char *bytes, Py_ssize_t length) {
    char digits[2 * 16];
    for (Py_ssize_t i = 0; i < length; i++)
        memcpy(digits + 2 * i, &hex_of_bytes[2 * (unsigned char)bytes[i]], 2);
    return PyUnicode_FromStringAndSize(digits, 2 * length);
}

/* An id: a number, or, if the application has set it, a text. */
typedef struct {
    uint64_t number;
    PyObject *text;
} span_id_value;

/* Says whether a text is the empty one, which is no id: the slow path gives the event one. */
static inline int is_empty(PyObject *text) { return PyUnicode_CheckExact(text) && PyUnicode_GetLength(text) == 0; }

static inline char *put_id(char *at, const char *end, span_id_value id) {
    if (!id.number)
        return put_field(at, end, id.text);
    *at++ = '"';
    at = put_hex(at, id.number);
    *at++ = '"';
    return at;
}

/* The parent, None for the runner, and the end of an event. Returns how many bytes that has; 0: the parent is no text. */
static inline size_t put_end(char *at, const char *end, span_id_value parent_id) {
    if ((parent_id.number || parent_id.text != Py_None) && !(at = put_id(PUT(at, ",\"parent_id\":"), end, parent_id)))
        return 0;
    *at++ = '}';
    return (size_t)(at - json_buffer);
}

/* What the clock said since the epoch. `typed`: as times.py writes it. */
static inline char *put_clock(char *at, int64_t ns, int typed) {
    return typed && ns >= NANOSECONDS_FROM ? put_digits(at, (uint64_t)ns, 1) : put_seconds(at, ns);
}

/* The fields of an event's block; all borrowed. `parent_id`: None for the runner. */
typedef struct {
    span_id_value id, parent_id;
    PyObject *name, *type, *operation, *metadata, *origin, *error_code;
    int64_t started_ns, took_ns;
} timed_event;

/* What stands between an event's start and its metadata, as it was written last for these very objects. They are few in a
   program, and no text changes. The table owns them. */
#define HEADS 64
#define HEAD_BYTES 232
typedef struct {
    PyObject *name, *type, *operation;
    size_t length;
    char text[HEAD_BYTES];
} written_head;

static written_head heads[HEADS];

static inline void keep(PyObject **place, PyObject *text) {
    PyObject *before = *place;
    Py_INCREF(text);
    *place = text;
    Py_XDECREF(before);
}

static char *put_new_head(char *at, const char *end, const timed_event *event, written_head *head) {
    char *start = at;
    if (!(at = put_field(PUT(at, ",\"resource\":{\"name\":"), end, event->name)))
        return NULL;
    if (!(at = put_field(PUT(at, ",\"type\":"), end, event->type)))
        return NULL;
    if (!(at = put_field(PUT(at, ",\"operation\":"), end, event->operation)))
        return NULL;
    at = PUT(at, ",\"metadata\":");
    if (at - start <= HEAD_BYTES) {
        head->length = (size_t)(at - start);
        memcpy(head->text, start, head->length);
        keep(&head->name, event->name);
        keep(&head->type, event->type);
        keep(&head->operation, event->operation);
    }
    return at;
}

static inline char *put_head(char *at, const char *end, const timed_event *event) {
    uintptr_t mixed = (uintptr_t)event->name ^ (uintptr_t)event->type >> 3 ^ (uintptr_t)event->operation >> 7;
    written_head *head = &heads[(mixed >> 4 ^ mixed >> 10) % HEADS];
    if (head->name != event->name || head->type != event->type || head->operation != event->operation)
        return put_new_head(at, end, event, head);
    memcpy(at, head->text, head->length);
    return at + head->length;
}

/* Writes the event into json_buffer. Returns how many bytes; 0 if the way through a dict has to be taken. */
static size_t put_timed_event(const timed_event *event, int typed) {
    const char *end = JSON_END(json_buffer);
    char *at = put_id(PUT(json_buffer, "{\"id\":"), end, event->id);
    if (!at || !(at = put_head(put_clock(PUT(at, ",\"start_time\":"), event->started_ns, typed), end, event)))
        return 0;
    if (!(at = put_metadata(at, end, event->metadata, typed)))
        return 0;
    if (event->origin == usual_origin)
        at = PUT(at, USUAL_ORIGIN);
    else if (!PyUnicode_CheckExact(event->origin) || PyUnicode_CompareWithASCIIString(event->origin, RUNNER) == 0 ||
             !(at = put_field(PUT(at, "},\"origin\":"), end, event->origin)))
        return 0;
    at = put_seconds(PUT(at, ",\"duration\":"), event->took_ns);
    if (!(at = put_code(at, event->error_code)))
        return 0;
    return put_end(at, end, event->parent_id);
}

/* Writes a runner into json_buffer: an event with a text as its id, whose duration comes later. Its metadata have the form
   that they are to have. Returns how many bytes; 0 if the way through a dict has to be taken. */
static size_t put_runner(const timed_event *runner, int typed) {
    const char *end = JSON_END(json_buffer);
    char *at = put_field(PUT(json_buffer, "{\"id\":"), end, runner->id.text);
    if (!at || !(at = put_head(put_clock(PUT(at, ",\"start_time\":"), runner->started_ns, typed), end, runner)))
        return 0;
    if (!(at = put_metadata(at, end, runner->metadata, 1)))
        return 0;
    at = PUT(at, "},\"origin\":\"" RUNNER "\",\"duration\":0,\"error_code\":0,\"exception\":null");
    return put_end(at, end, runner->parent_id);
}

/* Writes what a request's runner learns at its end into json_buffer, as runner.encoded_update does. A status of 0 and a
   route without a character are none. Returns how many bytes; 0: the route is no text that JSON can have. */
static size_t put_answered(uint64_t request_bytes, uint64_t response_bytes, uint64_t status, PyObject *route) {
    char *at = PUT(json_buffer, "{\"resource\":{\"metadata\":{\"request_bytes\":\"");
    at = put_digits(at, request_bytes, 1);
    at = put_digits(PUT(at, "\",\"response_bytes\":\""), response_bytes, 1);
    *at++ = '"';
    if (status) {
        at = put_digits(PUT(at, ",\"status_code\":\""), status, 1);
        *at++ = '"';
    }
    if (!is_empty(route) && !(at = put_field(PUT(at, ",\"route\":"), JSON_END(json_buffer), route)))
        return 0;
    return (size_t)(PUT(at, "}}}") - json_buffer);
}

#define OPENED_AT_BYTES 64

/* The end of an OPEN. */
static char *put_opened_at(char *at, int64_t ns) {
    at = put_seconds(PUT(at, ",\"opened_at\":"), ns);
    *at++ = '}';
    return at;
}

/* The value of a dict's next member; NULL if there is none of that name. */
static inline PyObject *next_value(PyObject *dict, Py_ssize_t *place, PyObject *name) {
    PyObject *key, *value;
    if (!PyDict_Next(dict, place, &key, &value))
        return NULL;
    /* Names in programs are interned, so they nearly always are the very same object. */
    return key == name || (PyUnicode_CheckExact(key) && PyUnicode_Compare(key, name) == 0) ? value : NULL;
}

static inline char *put_number(char *at, PyObject *number) {
    return PyLong_CheckExact(number) ? put_integer(at, number) : PyFloat_CheckExact(number) ? put_float(at, number) : NULL;
}

static inline char *put_resource(char *at, const char *end, PyObject *resource, PyObject *names, int typed) {
    static const char *const before[] = {"{\"name\":", ",\"type\":", ",\"operation\":", ",\"metadata\":"};
    Py_ssize_t place = 0;
    if (!PyDict_CheckExact(resource) || PyDict_Size(resource) != 4)
        return NULL;
    for (int i = 0; i < 4; i++) {
        PyObject *value = next_value(resource, &place, PyTuple_GetItem(names, i));
        size_t length = strlen(before[i]);
        memcpy(at, before[i], length);
        if (!value || !(at = i < 3 ? put_field(at + length, end, value) : put_metadata(at + length, end, value, typed)))
            return NULL;
    }
    *at++ = '}';
    return at;
}

/* Writes a complete event, as protocol.py names its members and those of its resource, into json_buffer. Returns how many
   bytes; 0 if it is not complete. */
static size_t put_ready_event(PyObject *event, PyObject *names, PyObject *resource_names, span_id_value parent_id, int typed) {
    const char *end = JSON_END(json_buffer);
    PyObject *values[7];
    Py_ssize_t place = 0;
    if (!PyDict_CheckExact(event) || PyDict_Size(event) != 7)
        return 0;
    for (int i = 0; i < 7; i++)
        if (!(values[i] = next_value(event, &place, PyTuple_GetItem(names, i))))
            return 0;
    if (is_empty(values[0]))
        return 0;
    /* A runner is more than an event, and so is one with an exception. */
    if (!PyUnicode_CheckExact(values[3]) || PyUnicode_CompareWithASCIIString(values[3], RUNNER) == 0 || values[6] != Py_None)
        return 0;
    char *at = put_field(PUT(json_buffer, "{\"id\":"), end, values[0]);
    if (!at || !(at = put_number(PUT(at, ",\"start_time\":"), values[1])))
        return 0;
    if (!(at = put_resource(PUT(at, ",\"resource\":"), end, values[2], resource_names, typed)))
        return 0;
    if (!(at = put_field(PUT(at, ",\"origin\":"), end, values[3])))
        return 0;
    if (!(at = put_number(PUT(at, ",\"duration\":"), values[4])))
        return 0;
    if (!(at = put_code(at, values[5])))
        return 0;
    return put_end(at, end, parent_id);
}

/* Writes a label, [key, value], into json_buffer. Returns how many bytes; 0 if it is none, or an unusual one. */
static size_t put_label(PyObject *key, PyObject *value) {
    const char *end = JSON_END(json_buffer);
    char *at = put_field(PUT(json_buffer, "["), end, key);
    if (!at || value == Py_None)
        return 0;
    *at++ = ',';
    at = PyUnicode_CheckExact(value) ? put_text(at, end, value) : keeps_type(value) ? put_scalar(at, value) : NULL;
    if (!at)
        return 0;
    *at++ = ']';
    return (size_t)(at - json_buffer);
}

#endif
