/* Runs plain_read on damaged events, as strip_damaged.c runs strip_event. Prints how many were tried, how many of them
 * are plain, and a digest of what was read. */
#include "damaging.h"
#include "plain.h"

static void add_value(const plain_value *value, const unsigned char *event, uint32_t length) {
    if (value->at == NULL) return;
    if (value->at < event || value->at + value->length > event + length) abort();
    add_to_digest(value->length);
    for (size_t i = 0; i < value->length; i++) add_to_digest(value->at[i]);
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
        if (plain_read(&found, event, length)) {
            reached++;
            for (int i = 0; i < PLAIN_FIELDS; i++) add_value(&found.fields[i], event, length);
            for (int i = 0; i < PLAIN_WORDS; i++) add_value(&found.words[i], event, length);
            for (size_t i = 0; i < found.count; i++) {
                add_value(&found.members[i].key, event, length);
                add_value(&found.members[i].value, event, length);
            }
        }
        free(event);
    }
    printf("%llu %llu %llx\n", (unsigned long long)wanted, (unsigned long long)reached, (unsigned long long)digest);
    for (uint32_t i = 0; i < count; i++) free(events[i]);
    return 0;
}
