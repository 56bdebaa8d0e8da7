/* Records in one piece of bytes, as the journal's frames have them: without an object for each. */
#ifndef EPSAGON_FAST_RECORDS_H
#define EPSAGON_FAST_RECORDS_H

#include <Python.h>
#include <string.h>

#include "ring.h"

/* The capsule's name. It changes with the structs, so that a module that was built from other sources finds nothing. */
#define RECORDS_CALLS "epsagon_fast.queue._ring.records/1"

/* Where a record begins, and in which run it stands: neighbours of one trace are one. */
typedef struct {
    size_t at, run;
} record_place;

/* What is in a Records. It stays as it is as long as that lives. `ids`: a list of the traces of the runs. */
typedef struct {
    const char *packed;
    const record_place *places;
    Py_ssize_t count;
    PyObject *ids;
} records_view;

typedef struct {
    /* Look into a Records. -1: it is something else, and a TypeError is set. */
    int (*look)(PyObject *records, records_view *view);
} records_calls;

static inline ring_record records_header(const records_view *view, Py_ssize_t number) {
    ring_record record;
    /* Nothing is padded here. */
    memcpy(&record, view->packed + view->places[number].at, sizeof(record));
    return record;
}

static inline const char *records_payload(const records_view *view, Py_ssize_t number) {
    return view->packed + view->places[number].at + sizeof(ring_record);
}

#endif
