/* Runs plain_read on damaged events, as strip_damaged.c runs strip_event, and writes what is plain in both encodings.
 * Prints how many were tried, how many of them are plain, and a digest of what was read and written. */
#include "damaging.h"
#include "spans.h"

static void add_value(const plain_value *value, const unsigned char *event, uint32_t length) {
    if (value->at == NULL) return;
    if (value->at < event || value->at + value->length > event + length) abort();
    add_to_digest(value->length);
    for (size_t i = 0; i < value->length; i++) add_to_digest(value->at[i]);
}

static void write_span(const plain_event *event, int is_json) {
    spans_buffer buffer = {0};
    const plain_value *fields = event->fields;
    spans_trace trace = {{0}, {0}, {0}};
    spans_id own, parent;
    if (!spans_take_trace(&trace, (const unsigned char *)"0123456789abcdef0123456789abcdef", 32)) abort();
    if (!spans_read_id(&fields[PLAIN_ID], &own)) own.hex = trace.hex, own.number = trace.numbers[0];
    int has_parent = spans_read_id(&fields[PLAIN_PARENT], &parent);
    uint64_t start = 0, took = 0;
    spans_moment(&fields[PLAIN_START], &start);
    spans_nanoseconds(&fields[PLAIN_DURATION], &took);
    spans_put_ids(&buffer, is_json, &trace, &own, has_parent ? &parent : NULL);
    spans_put_times(&buffer, is_json, start, took);
    for (size_t i = 0; i < event->count; i++) {
        const plain_value *name = &event->members[i].key, *value = &event->members[i].value;
        plain_kind kind = value->kind;
        if (kind == PLAIN_TEXT && spans_is_natural(value)) kind = PLAIN_INT;
        if (kind != PLAIN_TEXT && kind != PLAIN_BOOL && (kind != PLAIN_INT || value->length > SPANS_INT_DIGITS)) continue;
        (is_json ? spans_put_json : spans_put_protobuf)(&buffer, name, value, kind);
    }
    spans_put_end(&buffer, is_json, &event->words[PLAIN_NAME]);
    if (buffer.failed) abort();
    for (size_t i = 0; i < buffer.used; i++) add_to_digest(buffer.data[i]);
    free(buffer.data);
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    read_events(argv[1]);
    uint64_t wanted = strtoull(argv[2], NULL, 10), reached = 0;
    state = strtoull(argv[3], NULL, 10) * 2 + 1;
    for (uint64_t tried = 0; tried < wanted; tried++) {
        uint32_t length;
        unsigned char *event = spliced(&length);
        if (below(2)) flip(event, length);
        plain_event found;
        int is_plain = plain_read(&found, event, length);
        if (is_plain) {
            reached++;
            for (int i = 0; i < PLAIN_FIELDS; i++) add_value(&found.fields[i], event, length);
            for (int i = 0; i < PLAIN_WORDS; i++) add_value(&found.words[i], event, length);
            for (size_t i = 0; i < found.count; i++) {
                add_value(&found.members[i].key, event, length);
                add_value(&found.members[i].value, event, length);
            }
        }
        if (is_plain) {
            write_span(&found, 1);
            write_span(&found, 0);
        }
        free(event);
    }
    printf("%llu %llu %llx\n", (unsigned long long)wanted, (unsigned long long)reached, (unsigned long long)digest);
    for (uint32_t i = 0; i < count; i++) free(events[i]);
    return 0;
}
