/* What the ring offers to the other compiled modules: calls in C, without an object for each argument. */
#ifndef EPSAGON_FAST_CALLS_H
#define EPSAGON_FAST_CALLS_H

#include <Python.h>
#include <stdint.h>

/* The capsule's name. It changes with the struct, so that a module that was built from other sources finds nothing. */
#define RING_CALLS "epsagon_fast.queue._ring.calls/4"

typedef struct {
    /* Producer.push of bytes that may be anywhere: returns its answer. `trace_id`: TRACE_ID_BYTES. */
    int (*append)(PyObject *producer, int kind, int flags, const char *trace_id, const char *payload, uint64_t length);
    /* The same for an OPEN whose payload goes on behind the start with this number, of Producer.share; 0: it has none. */
    int (*open)(PyObject *producer, uint64_t start, const char *trace_id, const char *payload, uint64_t length);
    /* Whether the ring has its BYE: only another ring takes what opens now. */
    int (*has_left)(PyObject *producer);
    /* Whether settlements came, or the ring has refused records, since this was last asked. */
    int (*has_news)(PyObject *producer);
    /* Page.light and Page.put_out. 0, and nothing: it is no Page. */
    int (*light)(PyObject *page, const char *trace_id);
    void (*put_out)(PyObject *page, int place, const char *trace_id);
} ring_calls;

#endif
