/* Random bytes of the kernel. */
#ifndef EPSAGON_FAST_CHANCE_H
#define EPSAGON_FAST_CHANCE_H

#include <stddef.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

#ifndef GRND_NONBLOCK
#define GRND_NONBLOCK 1
#endif

/* Returns whether the bytes are there; else os.urandom has to be asked, as early in a machine's start. It keeps the
 * interpreter's lock, which os.urandom gives up: beside threads that compute, getting it back takes milliseconds. */
static int chance_bytes(char *target, size_t count)
{
#if defined(__linux__) && defined(SYS_getrandom)
    return syscall(SYS_getrandom, target, count, GRND_NONBLOCK) == (long)count;
#else
    (void)target, (void)count;
    return 0;
#endif
}

#endif
