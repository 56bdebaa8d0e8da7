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

#define COMPARED_NS INT64_C(1000000000)
/* How long two clocks take that are read one after the other, if nothing comes in between. */
#define AT_ONCE_NS 500
#define TRIES 10

static inline int64_t clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static inline int64_t now_ns(void) {
    return clock_ns(CLOCK_REALTIME);
}

static inline int64_t counter_ns(void) {
    return clock_ns(COUNTER_CLOCK);
}

/* By how much the wall clock was ahead of the counter, and when the counter said so. */
static int64_t wall_ahead_ns, wall_compared_ns;

static void compare_clocks(void) {
    int64_t best_ns = INT64_MAX;
    for (int tries = 0; tries < TRIES && best_ns > AT_ONCE_NS; tries++) {
        int64_t before = counter_ns(), wall = clock_ns(CLOCK_REALTIME), after = counter_ns();
        if (after - before < best_ns) {
            best_ns = after - before;
            wall_ahead_ns = wall - before - best_ns / 2;
            wall_compared_ns = after;
        }
    }
}

/* The wall clock at a time of the counter. A look at a clock costs as much as writing a small event, so the wall clock is
   looked at once a second. If it is set meanwhile, that shows so much later. */
static inline int64_t wall_at(int64_t counter) {
    if (counter - wall_compared_ns > COMPARED_NS || !wall_compared_ns)
        compare_clocks();
    return counter + wall_ahead_ns;
}

#endif
