/* What a level leaves of a value: where it may be cut, and how long it is then. `_texts.py` says the rule.
 *
 * A text is what stands between the quotes of a string. Of bytes that are not JSON or not UTF-8 any answer will do, but
 * every read stays inside [text, text + length) and it ends.
 */
#ifndef EPSAGON_FAST_CUTS_H
#define EPSAGON_FAST_CUTS_H

#include "strip.h"

/* The longest escape, that of a surrogate pair. */
#define MAX_ESCAPE_BYTES 12
/* Of a character in UTF-8, behind its first byte. */
#define MAX_CONTINUATIONS 3
/* Continuations behind an escape are no UTF-8, but are not cut off from it either. */
#define MAX_UNIT_BYTES (MAX_ESCAPE_BYTES + MAX_CONTINUATIONS)

typedef struct {
    strip_key head, behind[2]; /* [1]: of a mark between two ends */
    size_t max_digits;
} cut_marks;

typedef enum { STRONG_MEMBER, STRING, CONTAINER, TWO_ENDS } value_kind;

typedef struct {
    const unsigned char *text; /* between the quotes; of a container, its first bracket */
    size_t length;             /* of that */
    size_t head, tail;         /* of its own bytes: those before `head` and those from `tail` on; between is a mark */
    size_t original;           /* its length before it was first shortened; of a container, as a string */
    value_kind kind;
} cut_value;

/* So many bytes of the text's beginning and end, and its length with a mark. */
typedef struct {
    size_t head, tail, length;
} cut_ends;

/* ---- where a text may be cut ---- */

HOT int continues_character(unsigned char byte) { return (byte & 0xC0) == 0x80; }

/* Return whether a character begins before `at` and ends behind it. A longer run of continuations is not UTF-8: it may be
 * cut anywhere, lest each cut walk through all of it. */
HOT int is_in_character(const unsigned char *text, size_t at) {
    for (size_t back = 0; back <= MAX_CONTINUATIONS; back++) {
        if (!continues_character(text[at - back])) return back > 0;
        if (back == at) return 0;
    }
    return 0;
}

HOT int is_surrogate(const unsigned char *escape, unsigned char first) {
    return escape[0] == '\\' && escape[1] == 'u' && (escape[2] | 0x20) == 'd' &&
           (hex_digit(escape[3]) & 0xC) == first;
}

HOT size_t escape_length(const unsigned char *escape, size_t left) {
    if (left < 2) return left;
    if (escape[1] != 'u') return 2;
    if (left >= MAX_ESCAPE_BYTES && is_surrogate(escape, 0x8) && is_surrogate(escape + 6, 0xC)) return MAX_ESCAPE_BYTES;
    return left < 6 ? left : 6;
}

/* Move back from the middle of an escape to its backslash. `before` stands behind a byte that is none, so that a backslash
 * there begins an escape; what of an earlier escape lies behind it looks like letters. */
COLD size_t escape_start(const unsigned char *text, size_t length, size_t at) {
    size_t before = at > MAX_ESCAPE_BYTES ? at - MAX_ESCAPE_BYTES : 0;
    while (before > 0 && text[before - 1] == '\\') before--;
    while (before < at) {
        size_t next = before + (text[before] == '\\' ? escape_length(text + before, length - before) : 1);
        if (next > at) return before;
        before = next;
    }
    return at;
}

/* Return the last place up to `at` where a text may be cut. */
HOT size_t cut_before(const unsigned char *text, size_t length, size_t at) {
    if (at >= length) return length;
    while (is_in_character(text, at)) at--;
    size_t window = at > MAX_ESCAPE_BYTES ? MAX_ESCAPE_BYTES : at;
    return memchr(text + at - window, '\\', window) ? escape_start(text, length, at) : at;
}

/* Return the first place from `at` on where a text may be cut. */
COLD size_t cut_after(const unsigned char *text, size_t length, size_t at) {
    size_t start = cut_before(text, length, at);
    if (start >= at) return at < length ? at : length;
    at = start + (text[start] == '\\' ? escape_length(text + start, length - start) : 1);
    while (at < length && is_in_character(text, at)) at++;
    return at;
}

/* ---- a container, which becomes the text of its JSON ---- */

/* A sum, since compilers make a branch of five ors: of a sum they make many at once. */
HOT unsigned char is_special(unsigned char byte) {
    unsigned char special = byte == '"';
    special += byte == '\\';
    special += byte == '\n';
    special += byte == '\r';
    special += byte == '\t';
    return special;
}

COLD size_t length_as_text(const unsigned char *text, size_t length) {
    size_t size = length, part;
    for (; length > 0; length -= part, text += part) {
        unsigned char specials = 0;
        part = BLOCK_BYTES;
        if (length >= BLOCK_BYTES) {
            block_bytes block = load_block(text);
            if (!may_need_escapes(&block)) continue;
        }
        /* As many as a byte can count. */
        part = length < 255 ? length : 255;
        for (size_t i = 0; i < part; i++) specials += is_special(text[i]);
        size += specials;
    }
    return size;
}

/* Return how many bytes may stay of a container for so much room as a text; `*as_text`: how long they are there. */
COLD size_t cut_container(const cut_value *value, size_t room, size_t *as_text) {
    if (value->original == value->length) return *as_text = cut_before(value->text, value->length, room);
    size_t at = 0, used = 0;
    for (; at < value->length; at++) {
        size_t next = used + 1 + is_special(value->text[at]);
        if (next > room) break;
        used = next;
    }
    /* In bytes that are not UTF-8 a continuation may stand behind a quote, which takes two bytes as text. */
    for (; at < value->length && is_in_character(value->text, at); at--)
        used -= 1 + is_special(value->text[at - 1]);
    *as_text = used;
    return at;
}

/* ---- marks ---- */

HOT size_t digits_of(size_t number) {
    size_t digits = 1;
    for (; number >= 10; number /= 10) digits++;
    return digits;
}

/* Read the mark of which the number ends before `end`. Returns where it begins, NOT_FOUND if there is none. */
COLD size_t mark_start(const unsigned char *text, size_t end, const cut_marks *marks, size_t *number) {
    size_t at = end, power = 1;
    for (*number = 0; at > 0 && end - at < marks->max_digits && text[at - 1] >= '0' && text[at - 1] <= '9'; power *= 10)
        *number += power * (size_t)(text[--at] - '0');
    if (at == end || text[at] == '0' || at < marks->head.length) return NOT_FOUND;
    at -= marks->head.length;
    return memcmp(text + at, marks->head.name, marks->head.length) == 0 ? at : NOT_FOUND;
}

/* Return a value's length before it was first shortened: what is left of it, and a mark's number. No more than a mark can
 * say, or it would not be known as one the next time. */
COLD size_t length_with(size_t left, size_t number, const cut_marks *marks) {
    size_t most = 1;
    for (size_t digits = 0; digits < marks->max_digits; digits++) most *= 10;
    return left + number < most ? left + number : most - 1;
}

HOT int has_mark_behind(const cut_value *value, size_t at, strip_key behind) {
    return value->length - at >= behind.length && memcmp(value->text + at, behind.name, behind.length) == 0;
}

/* Find what an earlier cut left at the end of a string. */
HOT void find_last_mark(cut_value *value, const cut_marks *marks) {
    size_t number, behind = marks->behind[0].length;
    if (value->length < behind || !has_mark_behind(value, value->length - behind, marks->behind[0])) return;
    size_t start = mark_start(value->text, value->length - behind, marks, &number);
    if (start == NOT_FOUND) return;
    value->head = start;
    value->original = length_with(start, number, marks);
}

/* Find what an earlier cut left between two ends: the first that there is. */
COLD void find_mark_between(cut_value *value, const cut_marks *marks) {
    strip_key behind = marks->behind[1];
    size_t number;
    for (size_t at = 0; value->length - at >= behind.length; at++) {
        const unsigned char *space = memchr(value->text + at, behind.name[0], value->length - at);
        if (!space) return;
        at = (size_t)(space - value->text);
        if (!has_mark_behind(value, at, behind)) continue;
        size_t start = mark_start(value->text, at, marks, &number);
        if (start == NOT_FOUND) continue;
        value->head = start;
        value->tail = at + behind.length;
        value->original = length_with(start + value->length - value->tail, number, marks);
        return;
    }
}

/* ---- what a level leaves ---- */

/* Return a value's ends, with at most `room` bytes of its own. */
HOT cut_ends ends_within(const cut_value *value, const cut_marks *marks, size_t room) {
    int has_tail = value->kind == TWO_ENDS;
    size_t own = 0, tail = 0, head;
    if (value->kind == CONTAINER) {
        head = cut_container(value, room, &own);
    } else if (!has_tail) {
        own = head = cut_before(value->text, value->head, room);
    } else {
        size_t behind = value->length - value->tail, tail_room = room / 2;
        head = cut_before(value->text, value->head, room - tail_room);
        tail = behind - cut_after(value->text + value->tail, behind, behind > tail_room ? behind - tail_room : 0);
        own = head + tail;
    }
    size_t mark = marks->head.length + digits_of(value->original - own) + marks->behind[has_tail].length;
    return (cut_ends){head, tail, own + mark};
}

/* Return the ends of a value that is longer than the limit: as much as fits it, mark and all. */
HOT cut_ends ends_at(const cut_value *value, const cut_marks *marks, size_t limit) {
    size_t mark = marks->head.length + digits_of(value->original) + marks->behind[value->kind == TWO_ENDS].length;
    size_t room = limit - mark;
    cut_ends ends = ends_within(value, marks, room), longer;
    /* What the cuts cannot use, or a number that became shorter, leaves room. */
    while ((longer = ends_within(value, marks, ++room)).length <= limit) ends = longer;
    return ends;
}

#endif
