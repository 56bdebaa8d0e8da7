/* What the ring offers to the other compiled modules: calls in C, without an object for each argument. */
#ifndef EPSAGON_FAST_CALLS_H
#define EPSAGON_FAST_CALLS_H

#include <Python.h>
#include <stdint.h>

/* The capsule's name. It changes with the struct, so that a module that was built from other sources finds nothing. */
#define RING_CALLS "epsagon_fast.queue._ring.calls/3"

typedef struct {
    /* Producer.push of bytes that may be anywhere: returns its answer. `trace_id`: TRACE_ID_BYTES. */
    int (*append)(PyObject *producer, int kind, int flags, const char *trace_id, const char *payload, uint64_t length);
    /* The same for an OPEN whose payload goes on behind the start with this number, of Producer.share; 0: it has none. */
    int (*open)(PyObject *producer, uint64_t start, const char *trace_id, const char *payload, uint64_t length);
    /* Producer.load of a u64 in the header; 0 if the ring is closed. */
    uint64_t (*load)(PyObject *producer, size_t offset);
} ring_calls;

#endif
