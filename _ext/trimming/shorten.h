/* Find the values of a trace that may be shortened, the highest level at which it fits, and write its events at that.
 * Each event is read once; then what was found says how long the trace is at any level, and nothing is read again but the
 * bytes around the cuts. No Python here, so that a sanitizer can run all of it on buffers of exact size.
 *
 * As in strip.h only what is needed is verified. On bytes that are not JSON the answer may be anything, but every read
 * stays inside the event, what is written has the length that was said before, and it ends.
 */
#ifndef EPSAGON_FAST_SHORTEN_H
#define EPSAGON_FAST_SHORTEN_H

#include <stdlib.h>

#include "cuts.h"

typedef struct {
    const strip_keys *keys;
    strip_key exception, texts[2];
    cut_marks marks;
    size_t least_level, share;
} shorten_rules;

typedef struct {
    size_t start, end; /* in its event; of a strong member, from its key on */
    cut_value value;
} found_value;

typedef struct {
    const unsigned char *bytes;
    size_t length;
    size_t first, inner, outer, last; /* its values: those from `inner` to `outer` are in the metadata */
    size_t open, close, kept;         /* as strip_cut; open is 0 unless the metadata was reached */
} found_event;

typedef struct {
    found_event *events;
    found_value *values;
    size_t count, event_count, room;
} found_trace;

typedef enum { SHORTEN_NOT_JSON, SHORTEN_NO_MEMORY, SHORTEN_READ } shorten_outcome;

/* ---- reading ---- */

COLD int make_room(found_trace *trace) {
    size_t room = trace->room ? 2 * trace->room : 64;
    found_value *values = realloc(trace->values, room * sizeof *values);
    if (!values) return 0;
    trace->values = values;
    trace->room = room;
    return 1;
}

/* Note a value, with its quotes or brackets. */
HOT int note_value(found_trace *trace, const unsigned char *bytes, size_t start, size_t end, value_kind kind,
                   const cut_marks *marks) {
    if (trace->count == trace->room && !make_room(trace)) return 0;
    size_t quotes = kind == CONTAINER ? 0 : 1, length = end - start - 2 * quotes;
    cut_value value = {bytes + start + quotes, length, length, 0, length, kind};
    if (kind == STRING) find_last_mark(&value, marks);
    if (kind == TWO_ENDS) find_mark_between(&value, marks);
    if (kind == CONTAINER) value.original = length_as_text(value.text, length);
    trace->values[trace->count++] = (found_value){start, end, value};
    return 1;
}

/* Read the object that opens before `at`. Returns its end; NOT_FOUND for what is not JSON, or with `*full` set. */
static size_t read_metadata(scanner *from, size_t at, const shorten_rules *rules, found_trace *trace, found_event *event,
                            int *full) {
    unsigned char decoded[MAX_KEY_BYTES];
    member m = {.decoded = decoded};
    scanner s = *from;
    event->open = at;
    event->inner = trace->count;
    for (int is_first = 1;; is_first = 0) {
        member_outcome outcome = next_member(&s, &at, is_first, &m);
        if (outcome == BROKEN) return NOT_FOUND;
        if (outcome == NO_MORE) break;
        size_t start = at;
        at = value_end(&s, at, m.lead);
        if (at == NOT_FOUND) return NOT_FOUND;
        if (is_strong(rules->keys, m.key)) {
            event->kept += at - m.start + (event->kept > 0);
            *full |= !note_value(trace, s.bytes, m.start, at, STRONG_MEMBER, &rules->marks);
        } else if (at - start > rules->least_level + 2 && (m.lead == '"' || m.lead == '{' || m.lead == '[')) {
            value_kind kind = m.lead == '"' ? STRING : CONTAINER;
            *full |= !note_value(trace, s.bytes, start, at, kind, &rules->marks);
        }
        if (*full) return NOT_FOUND;
    }
    event->close = at;
    event->outer = trace->count;
    *from = s;
    return at + 1;
}

typedef enum { EVENT, RESOURCE, METADATA, EXCEPTION, MESSAGE, TRACEBACK, OTHER } role;

HOT role role_within(role object, strip_key key, const shorten_rules *rules) {
    if (object == RESOURCE) return same_key(key, rules->keys->path[1]) ? METADATA : OTHER;
    if (object == EXCEPTION) {
        if (same_key(key, rules->texts[0])) return MESSAGE;
        return same_key(key, rules->texts[1]) ? TRACEBACK : OTHER;
    }
    if (same_key(key, rules->keys->path[0])) return RESOURCE;
    return same_key(key, rules->exception) ? EXCEPTION : OTHER;
}

/* Read the object that opens before `at`: an event, its resource or its exception. Of members of one name the first
 * counts. Returns as read_metadata does. */
static size_t read_object(scanner *from, size_t at, role object, const shorten_rules *rules, found_trace *trace,
                          found_event *event, int *full) {
    unsigned char decoded[MAX_KEY_BYTES];
    member m = {.decoded = decoded};
    scanner s = *from;
    unsigned seen = 0;
    for (int is_first = 1;; is_first = 0) {
        member_outcome outcome = next_member(&s, &at, is_first, &m);
        if (outcome == BROKEN) return NOT_FOUND;
        if (outcome == NO_MORE) break;
        size_t start = at;
        role found = role_within(object, m.key, rules);
        if (seen >> found & 1) found = OTHER;
        seen |= 1u << found;
        if (found >= MESSAGE || m.lead != '{') {
            at = value_end(&s, at, m.lead);
        } else {
            scanner copy = s;
            at = found == METADATA ? read_metadata(&copy, at + 1, rules, trace, event, full)
                                   : read_object(&copy, at + 1, found, rules, trace, event, full);
            s = copy;
        }
        if (at == NOT_FOUND) return NOT_FOUND;
        if ((found == MESSAGE || found == TRACEBACK) && m.lead == '"' && at - start > rules->least_level * rules->share + 2)
            *full |= !note_value(trace, s.bytes, start, at, TWO_ENDS, &rules->marks);
        if (*full) return NOT_FOUND;
    }
    *from = s;
    return at + 1;
}

/* Read an event into trace->events[trace->event_count], for which there is room. */
static shorten_outcome shorten_read(found_trace *trace, const shorten_rules *rules, const unsigned char *bytes,
                                    size_t length) {
    scanner s = {.bytes = bytes, .length = length};
    size_t at = 0, first = trace->count;
    int full = 0;
    found_event event = {.bytes = bytes, .length = length, .first = first, .inner = first, .outer = first};
    unsigned char lead = peek(&s, &at);
    if (!lead) return SHORTEN_NOT_JSON;
    if (lead == '{' && read_object(&s, at + 1, EVENT, rules, trace, &event, &full) == NOT_FOUND)
        return full ? SHORTEN_NO_MEMORY : SHORTEN_NOT_JSON;
    event.last = trace->count;
    trace->events[trace->event_count++] = event;
    return SHORTEN_READ;
}

/* ---- lengths ---- */

/* Return the length that is compared with the limit: between the quotes or brackets. */
HOT size_t compared_length(const cut_value *value) { return value->kind == CONTAINER ? value->length - 2 : value->length; }

HOT size_t limit_of(const cut_value *value, const shorten_rules *rules, size_t level) {
    return value->kind == TWO_ENDS ? level * rules->share : level;
}

HOT int is_over(const cut_value *value, const shorten_rules *rules, size_t level) {
    return value->kind != STRONG_MEMBER && compared_length(value) > limit_of(value, rules, level);
}

/* Return by how many bytes a level shortens some values; add to `*count` how many they are. */
static size_t saved_by(const found_trace *trace, size_t from, size_t to, const shorten_rules *rules, size_t level,
                       size_t *count) {
    size_t saved = 0;
    for (size_t i = from; i < to; i++) {
        const cut_value *value = &trace->values[i].value;
        if (!is_over(value, rules, level)) continue;
        saved += compared_length(value) - ends_at(value, &rules->marks, limit_of(value, rules, level)).length;
        ++*count;
    }
    return saved;
}

/* ---- the level ---- */

/* Share out what is left among the values that are still over the level, until none of them gets another byte. A value at
 * its limit is nearly as long as that, and never longer, so the level is the highest or little below it. */
static size_t shared_out(const found_trace *trace, const shorten_rules *rules, size_t excess) {
    for (size_t level = rules->least_level;;) {
        size_t over = 0, shares = 0;
        for (size_t i = 0; i < trace->count; i++) {
            const cut_value *value = &trace->values[i].value;
            if (!is_over(value, rules, level)) continue;
            over += compared_length(value) - limit_of(value, rules, level);
            shares += value->kind == TWO_ENDS ? rules->share : 1;
        }
        if (over < excess + shares) return level;
        level += (over - excess) / shares;
    }
}

/* Return whether a level takes away so much. */
static int takes_away(const found_trace *trace, const shorten_rules *rules, size_t level, size_t excess) {
    size_t saved = 0, count = 0;
    for (size_t i = 0; i < trace->count && saved < excess; i++) saved += saved_by(trace, i, i + 1, rules, level, &count);
    return saved >= excess;
}

/* Return whether the least level may take away so much; in far less time than it takes to say whether it does. A value
 * that lacks a whole unit of its limit would have got that too. */
static int may_take_away(const found_trace *trace, const shorten_rules *rules, size_t excess) {
    size_t most = 0;
    for (size_t i = 0; i < trace->count; i++) {
        const cut_value *value = &trace->values[i].value;
        if (is_over(value, rules, rules->least_level))
            most += compared_length(value) - limit_of(value, rules, rules->least_level) + MAX_UNIT_BYTES;
    }
    return most >= excess;
}

/* Return the highest level that takes `excess` bytes away; 0 if none does. A higher one never takes more. */
static size_t shorten_level(const found_trace *trace, const shorten_rules *rules, size_t excess) {
    if (!may_take_away(trace, rules, excess) || !takes_away(trace, rules, rules->least_level, excess)) return 0;
    size_t level = shared_out(trace, rules, excess), step = 1;
    while (takes_away(trace, rules, level + step, excess)) {
        level += step;
        step *= 2;
    }
    /* level + step is too high. */
    for (step /= 2; step > 0; step /= 2)
        if (takes_away(trace, rules, level + step, excess)) level += step;
    return level;
}

/* ---- writing ---- */

/* Return an event's length at a level, stripped or not; add to `*count` how many values are shortened in it. */
static size_t shorten_size(const found_trace *trace, size_t number, const shorten_rules *rules, size_t level,
                           int is_stripped, size_t *count) {
    const found_event *event = &trace->events[number];
    size_t saved = saved_by(trace, event->first, event->inner, rules, level, count);
    saved += saved_by(trace, event->outer, event->last, rules, level, count);
    saved += is_stripped ? event->close - event->open - event->kept
                         : saved_by(trace, event->inner, event->outer, rules, level, count);
    return event->length - saved;
}

/* Return the length of all events at the least level, each stripped. */
static size_t shorten_stripped_size(const found_trace *trace, const shorten_rules *rules) {
    size_t size = 0, count = 0;
    for (size_t i = 0; i < trace->event_count; i++) size += shorten_size(trace, i, rules, rules->least_level, 1, &count);
    return size;
}

/* Return how many events must be stripped from the front if there is room for so many bytes more than all of them stripped
 * have. From the end, since the events that may stay are few. */
static size_t shorten_stripped_count(const found_trace *trace, const shorten_rules *rules, size_t room) {
    size_t number = trace->event_count, count = 0, level = rules->least_level;
    for (; number > 0; number--) {
        size_t more = shorten_size(trace, number - 1, rules, level, 0, &count);
        more -= shorten_size(trace, number - 1, rules, level, 1, &count);
        if (more > room) break;
        room -= more;
    }
    return number;
}

HOT unsigned char *copied(unsigned char *out, const unsigned char *from, size_t length) {
    memcpy(out, from, length);
    return out + length;
}

static unsigned char *written_as_text(unsigned char *out, const unsigned char *from, size_t length) {
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = from[i];
        if (is_special(byte)) {
            *out++ = '\\';
            if (byte < ' ') byte = byte == '\n' ? 'n' : byte == '\r' ? 'r' : 't';
        }
        *out++ = byte;
    }
    return out;
}

static unsigned char *written_number(unsigned char *out, size_t number) {
    size_t digits = digits_of(number);
    for (size_t i = digits; i > 0; number /= 10) out[--i] = (unsigned char)('0' + number % 10);
    return out + digits;
}

/* Write a value that is over its limit. */
static unsigned char *written_ends(unsigned char *out, const cut_value *value, const cut_marks *marks, size_t limit) {
    cut_ends ends = ends_at(value, marks, limit);
    const unsigned char *start = out + 1;
    *out++ = '"';
    int has_specials = value->kind == CONTAINER && value->original > value->length;
    out = has_specials ? written_as_text(out, value->text, ends.head) : copied(out, value->text, ends.head);
    size_t own = (size_t)(out - start) + ends.tail;
    out = copied(out, marks->head.name, marks->head.length);
    out = written_number(out, value->original - own);
    strip_key behind = marks->behind[value->kind == TWO_ENDS];
    out = copied(out, behind.name, behind.length);
    out = copied(out, value->text + value->length - ends.tail, ends.tail);
    *out++ = '"';
    return out;
}

/* Write an event from `*done` on to the last of some values that is over the level; move `*done` behind it. */
static unsigned char *written_values(unsigned char *out, const found_trace *trace, const found_event *event, size_t from,
                                     size_t to, const shorten_rules *rules, size_t level, size_t *done) {
    for (size_t i = from; i < to; i++) {
        const found_value *found = &trace->values[i];
        if (!is_over(&found->value, rules, level)) continue;
        out = copied(out, event->bytes + *done, found->start - *done);
        out = written_ends(out, &found->value, &rules->marks, limit_of(&found->value, rules, level));
        *done = found->end;
    }
    return out;
}

static unsigned char *written_strong(unsigned char *out, const found_trace *trace, const found_event *event) {
    int is_first = 1;
    for (size_t i = event->inner; i < event->outer; i++) {
        const found_value *found = &trace->values[i];
        if (found->value.kind != STRONG_MEMBER) continue;
        if (!is_first) *out++ = ',';
        is_first = 0;
        out = copied(out, event->bytes + found->start, found->end - found->start);
    }
    return out;
}

/* Write an event at a level, stripped or not. Returns how many bytes that were: as many as shorten_size says. */
static size_t shorten_write(const found_trace *trace, size_t number, const shorten_rules *rules, size_t level,
                            int is_stripped, unsigned char *out) {
    const unsigned char *start = out;
    const found_event *event = &trace->events[number];
    size_t done = 0;
    out = written_values(out, trace, event, event->first, event->inner, rules, level, &done);
    if (is_stripped && event->open) {
        out = copied(out, event->bytes + done, event->open - done);
        out = written_strong(out, trace, event);
        done = event->close;
    } else {
        out = written_values(out, trace, event, event->inner, event->outer, rules, level, &done);
    }
    out = written_values(out, trace, event, event->outer, event->last, rules, level, &done);
    return (size_t)(copied(out, event->bytes + done, event->length - done) - start);
}

#endif
