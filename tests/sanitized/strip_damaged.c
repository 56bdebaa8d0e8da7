/* Runs strip_event on damaged events, each in a buffer of exactly its size, so that the sanitizer sees any byte read or
 * written outside. Arguments: a file of events, each after its length in four bytes; how many to try; a seed.
 * Prints how many were tried, in how many of them the metadata was reached, and a digest of all answers. */
#include "damaging.h"

static void add_answer(strip_outcome outcome, const strip_cut *cut, const unsigned char *out, uint32_t length) {
    add_to_digest(outcome);
    if (outcome != STRIP_METADATA) return;
    if (cut->open + cut->kept > cut->close || cut->close > length) abort();
    add_to_digest(cut->open);
    add_to_digest(cut->close);
    for (size_t i = 0; i < cut->kept; i++) add_to_digest(out[i]);
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    read_events(argv[1]);
    uint64_t wanted = strtoull(argv[2], NULL, 10), reached = 0;
    state = strtoull(argv[3], NULL, 10) * 2 + 1;
    strip_keys keys = {.count = 0};
    fill_keys(&keys);
    for (uint64_t tried = 0; tried < wanted; tried++) {
        uint32_t length;
        unsigned char *event = spliced(&length), *out;
        flip(event, length);
        out = malloc(length);
        strip_cut cut;
        strip_outcome outcome = strip_event(event, length, &keys, out, &cut);
        add_answer(outcome, &cut, out, length);
        reached += cut.open > 0;
        free(event);
        free(out);
    }
    printf("%llu %llu %llx\n", (unsigned long long)wanted, (unsigned long long)reached, (unsigned long long)digest);
    for (uint32_t i = 0; i < count; i++) free(events[i]);
    return 0;
}
