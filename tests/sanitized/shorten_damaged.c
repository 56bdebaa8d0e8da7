/* Shortens traces of damaged events, as strip_damaged.c strips them: same arguments, same output. What is written fills
 * buffers of exactly the size that was said before. */
#include "damaging.h"
#include "shorten.h"

#define MAX_TRACE 3

static strip_key word(const char *text) { return (strip_key){(const unsigned char *)text, strlen(text)}; }

static void fill_rules(shorten_rules *rules, const strip_keys *keys) {
    *rules = (shorten_rules){keys, word("exception"), {word("message"), word("traceback")}, .least_level = 64, .share = 4};
    rules->marks = (cut_marks){word("... "), {word(" bytes left out"), word(" bytes left out ...")}, 15};
}

static void write_events(const found_trace *trace, const shorten_rules *rules, size_t level, size_t stripped) {
    size_t count = 0;
    for (size_t i = 0; i < trace->event_count; i++) {
        size_t size = shorten_size(trace, i, rules, level, i < stripped, &count);
        if (size > trace->events[i].length) abort();
        unsigned char *out = malloc(size);
        if (shorten_write(trace, i, rules, level, i < stripped, out) != size) abort();
        for (size_t at = 0; at < size; at++) add_to_digest(out[at]);
        free(out);
    }
    add_to_digest(count);
}

/* Shorten one trace; return whether a value was found in it. */
static int shorten_trace(unsigned char *const *bytes, const uint32_t *sizes, size_t count, const shorten_rules *rules) {
    found_event room[MAX_TRACE];
    found_trace trace = {.events = room};
    size_t all = 0;
    for (size_t i = 0; i < count; i++) {
        add_to_digest(shorten_read(&trace, rules, bytes[i], sizes[i]));
        all += sizes[i];
    }
    size_t level = shorten_level(&trace, rules, 1 + below((uint32_t)all));
    add_to_digest(level);
    write_events(&trace, rules, level ? level : rules->least_level, level ? 0 : below(MAX_TRACE + 1));
    int found = trace.count > 0;
    free(trace.values);
    return found;
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    read_events(argv[1]);
    uint64_t wanted = strtoull(argv[2], NULL, 10), reached = 0;
    state = strtoull(argv[3], NULL, 10) * 2 + 1;
    strip_keys keys = {.count = 0};
    shorten_rules rules;
    fill_keys(&keys);
    fill_rules(&rules, &keys);
    for (uint64_t tried = 0; tried < wanted; tried++) {
        unsigned char *bytes[MAX_TRACE];
        uint32_t sizes[MAX_TRACE];
        size_t many = 1 + below(MAX_TRACE);
        for (size_t i = 0; i < many; i++) {
            bytes[i] = spliced(&sizes[i]);
            flip(bytes[i], sizes[i]);
        }
        reached += (uint64_t)shorten_trace(bytes, sizes, many, &rules);
        for (size_t i = 0; i < many; i++) free(bytes[i]);
    }
    printf("%llu %llu %llx\n", (unsigned long long)wanted, (unsigned long long)reached, (unsigned long long)digest);
    for (uint32_t i = 0; i < count; i++) free(events[i]);
    return 0;
}
