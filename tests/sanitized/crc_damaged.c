/* Computes the CRC-32 of any bytes in buffers of exactly their size, and compares it with one that is computed bit by bit.
 * Arguments: how many to try; a seed. Prints how many were tried, and how many had several blocks. */
#include <stdio.h>
#include <stdlib.h>

#include "crc.h"

static uint64_t state;

static uint32_t any_number(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 16);
}

static uint32_t bit_by_bit(const unsigned char *bytes, size_t length, uint32_t crc) {
    crc = ~crc;
    for (size_t at = 0; at < length; at++) {
        crc ^= bytes[at];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    uint64_t wanted = strtoull(argv[1], NULL, 10), folded = 0;
    state = strtoull(argv[2], NULL, 10) * 2 + 1;
    for (uint64_t tried = 0; tried < wanted; tried++) {
        size_t length = CRC_LEAST + any_number() % 320;
        unsigned char *bytes = malloc(length);
        for (size_t at = 0; at < length; at++) bytes[at] = (unsigned char)any_number();
        uint32_t before = any_number();
        if (crc_is_quick() && crc_of(bytes, length, before) != bit_by_bit(bytes, length, before)) return 1;
        folded += length >= 2 * CRC_LEAST;
        free(bytes);
    }
    printf("%llu %llu\n", (unsigned long long)wanted, (unsigned long long)folded);
    return 0;
}
