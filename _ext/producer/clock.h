/* The clocks of time.time and time.perf_counter, in nanoseconds. */
#ifndef EPSAGON_FAST_CLOCK_H
#define EPSAGON_FAST_CLOCK_H

#include <stdint.h>
#include <time.h>

#if defined(__APPLE__)
#define COUNTER_CLOCK CLOCK_UPTIME_RAW
#else
#define COUNTER_CLOCK CLOCK_MONOTONIC
#endif

static inline int64_t clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Seconds since the epoch. */
static inline int64_t wall_ns(void) {
    return clock_ns(CLOCK_REALTIME);
}

static inline int64_t counter_ns(void) {
    return clock_ns(COUNTER_CLOCK);
}

#endif
