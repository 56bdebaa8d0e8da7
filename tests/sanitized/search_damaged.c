/* Searches damaged events, as strip_damaged.c strips them: same arguments, then a file with the tables that search.py
 * makes. They are in buffers of exactly their size too. Prints how many were tried, in how many a sign stood behind
 * which a value may stand, and a digest of the answers. */
#include "damaging.h"
#include "sift.h"

static unsigned char *read_table(FILE *file, size_t size) {
    unsigned char *table = malloc(size);
    if (fread(table, 1, size, file) != size) abort();
    return table;
}

static int has_sign(const unsigned char *event, uint32_t length) {
    for (uint32_t i = 0; i < length; i++)
        if (strchr(":=>[%\\'(-", event[i]) && event[i]) return 1;
    return 0;
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    read_events(argv[1]);
    uint64_t wanted = strtoull(argv[2], NULL, 10), reached = 0;
    state = strtoull(argv[3], NULL, 10) * 2 + 1;
    FILE *file = fopen(argv[4], "rb");
    uint32_t size;
    if (!file || fread(&size, sizeof size, 1, file) != 1) abort();
    unsigned char *classes = read_table(file, 256), *folding = read_table(file, SEARCH_FOLDING);
    unsigned char *sieve = read_table(file, SIFT_SIZE), *states = read_table(file, size);
    fclose(file);
    for (uint64_t tried = 0; tried < wanted; tried++) {
        uint32_t length;
        unsigned char *event = spliced(&length);
        flip(event, length);
        const uint32_t *rows = (const uint32_t *)(const void *)states;
        add_to_digest((uint64_t)sift_and_search(event, length, classes, rows, folding, sieve));
        reached += (uint64_t)has_sign(event, length);
        free(event);
    }
    printf("%llu %llu %llx\n", (unsigned long long)wanted, (unsigned long long)reached, (unsigned long long)digest);
    free(classes);
    free(folding);
    free(sieve);
    free(states);
    for (uint32_t i = 0; i < count; i++) free(events[i]);
    return 0;
}
