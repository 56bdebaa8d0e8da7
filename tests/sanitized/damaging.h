/* What both programs do: read events from a file, damage them, and make a digest of the answers. */
#include <stdio.h>
#include <stdlib.h>

#include "strip.h"

#define MAX_EVENTS 4096

static unsigned char *events[MAX_EVENTS];
static uint32_t lengths[MAX_EVENTS];
static uint32_t count;
static uint64_t state;

static uint32_t below(uint32_t bound) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return bound ? (uint32_t)(state >> 16) % bound : 0;
}

static void read_events(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) abort();
    for (; count < MAX_EVENTS && fread(&lengths[count], 4, 1, file) == 1; count++) {
        events[count] = malloc(lengths[count] + 1);
        if (fread(events[count], 1, lengths[count], file) != lengths[count]) abort();
    }
    fclose(file);
    if (count == 0) abort();
}

static void fill_keys(strip_keys *keys) {
    static const char *strong[] = {"labels", "region", "item_hash", "aws.service", "aws_account", "request_trace_id"};
    keys->path[0] = (strip_key){(const unsigned char *)"resource", 8};
    keys->path[1] = (strip_key){(const unsigned char *)"metadata", 8};
    for (size_t i = 0; i < sizeof strong / sizeof *strong; i++)
        if (!strip_add_strong(keys, (const unsigned char *)strong[i], strlen(strong[i]))) abort();
}

/* One event's head, then another one's tail; either may be all or nothing. */
static unsigned char *spliced(uint32_t *length) {
    uint32_t one = below(count), other = below(count);
    uint32_t head = lengths[one], tail = 0;
    switch (below(4)) {
    case 0:
        head = below(lengths[one] + 1);
        break;
    case 1:
        head = below(lengths[one] + 1);
        tail = below(lengths[other] + 1);
    }
    unsigned char *bytes = malloc(head + tail);
    memcpy(bytes, events[one], head);
    memcpy(bytes + head, events[other] + lengths[other] - tail, tail);
    *length = head + tail;
    return bytes;
}

static void flip(unsigned char *bytes, uint32_t length) {
    static const unsigned char structure[] = "\"\\{}[],: \n\0u";
    for (uint32_t times = length ? below(4) : 0; times > 0; times--) {
        uint32_t at = below(length);
        if (below(2)) bytes[at] ^= (unsigned char)(1u << below(8));
        else bytes[at] = structure[below(sizeof structure)];
    }
}

static uint64_t digest = 1;

static void add_to_digest(uint64_t value) { digest = (digest ^ value) * UINT64_C(1099511628211); }
