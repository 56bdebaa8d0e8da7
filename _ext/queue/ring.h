/* Ordered access to shared memory, and a number that a forked child does not inherit. */
#ifndef EPSAGON_FAST_RING_H
#define EPSAGON_FAST_RING_H

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

/* In older headers these are missing though the kernel may know them; one that does not answers EINVAL. */
#ifdef __linux__
#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#endif

#ifndef MAP_ANONYMOUS
#define MAP_ANONYMOUS MAP_ANON
#endif

#define TRACE_ID_BYTES 16
/* Of the page that shows which traces are open; see beacon.py. */
#define PLACES 256
#define PAGE_BYTES (PLACES * TRACE_ID_BYTES)

/* layout.py's RECORD_HEADER; _ring.pyx compares. */
typedef struct {
    uint32_t length, crc;
    uint8_t kind, flags;
    uint16_t start;
    uint32_t zeros;
    uint64_t ordinal;
    char trace_id[TRACE_ID_BYTES];
} ring_record;

static inline uint64_t ring_load(const char *slot) {
    return __atomic_load_n((const uint64_t *)slot, __ATOMIC_ACQUIRE);
}

static inline void ring_store(char *slot, uint64_t value) {
    __atomic_store_n((uint64_t *)slot, value, __ATOMIC_RELEASE);
}

static inline void ring_add(char *slot, uint64_t amount) {
    __atomic_fetch_add((uint64_t *)slot, amount, __ATOMIC_RELAXED);
}

/* Touches every page now, when the ring is made, since each first touch in a push would cost a page fault. Adding zero
   is a write that cannot undo a write of the other side. */
static inline void ring_populate(char *base, size_t length) {
#ifdef MADV_POPULATE_WRITE
    if (madvise(base, length, MADV_POPULATE_WRITE) == 0)
        return;
#endif
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t at = 0; at < length; at += page)
        ring_add(base + at, 0);
}

/* The page holds this process's generation. In a new fork it holds 0, because the kernel or the hook has cleared it. The
   count is ordinary memory, so a child goes on counting and gets a number that no inherited Producer remembers. */
static uint64_t *ring_generation_page;
static uint64_t ring_generation_count;

static void ring_forget_generation(void) {
    *ring_generation_page = 0;
}

/* Returns 0, or -1 with errno. `may_wipe`: 0 uses the hook, as on a kernel that cannot wipe a page at a fork. */
static inline int ring_watch_forks(int may_wipe) {
    if (ring_generation_page)
        return 0;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *fresh = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fresh == MAP_FAILED)
        return -1;
    ring_generation_page = fresh;
#ifdef MADV_WIPEONFORK
    if (may_wipe && madvise(fresh, page, MADV_WIPEONFORK) == 0)
        return 0;
#endif
    errno = pthread_atfork(NULL, NULL, ring_forget_generation);
    if (!errno)
        return 0;
    ring_generation_page = NULL;
    munmap(fresh, page);
    return -1;
}

/* Call it only after ring_watch_forks. It never returns 0. */
static inline uint64_t ring_new_generation(void) {
    if (*ring_generation_page == 0)
        *ring_generation_page = ++ring_generation_count;
    return *ring_generation_page;
}

static inline uint64_t ring_generation(void) {
    return *(volatile uint64_t *)ring_generation_page;
}

#endif
