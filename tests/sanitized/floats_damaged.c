/* Writes floats of any bits within the range that json.h writes by itself, and reads them back, so that the sanitizer sees
 * any digit that is put outside. Arguments: how many to try; a seed. Prints how many were tried and written. */
#include <stdio.h>
#include <stdlib.h>

#include "json.h"

static uint64_t state;

static double any_float(void) {
    /* splitmix64, and an exponent from that of 1e-5 to that of 1e15. */
    uint64_t bits = state += UINT64_C(0x9e3779b97f4a7c15);
    bits = (bits ^ bits >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    bits = (bits ^ bits >> 27) * UINT64_C(0x94d049bb133111eb);
    bits ^= bits >> 31;
    return ldexp(1 + (double)(bits >> 12) / (double)(UINT64_C(1) << 52), (int)(bits % 68) - 17);
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    uint64_t wanted = strtoull(argv[1], NULL, 10), written = 0;
    state = strtoull(argv[2], NULL, 10);
    for (uint64_t tried = 0; tried < wanted; tried++) {
        double value = any_float();
        char *text = malloc(MOST_DIGITS), *end;
        if (value >= 1e-5 && value < 1e15 && value != floor(value) && (end = put_short_float(text, value))) {
            *end = 0;
            if (strtod(text, NULL) != value) return 1;
            written++;
        }
        free(text);
    }
    printf("%llu %llu\n", (unsigned long long)wanted, (unsigned long long)written);
    return 0;
}
