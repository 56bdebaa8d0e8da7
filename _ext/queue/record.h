/* A protocol.Record without the call of its class: a named tuple is a tuple with another type. */
#ifndef EPSAGON_FAST_RECORD_H
#define EPSAGON_FAST_RECORD_H

#include <Python.h>

#include "ring.h"

#define RECORD_FIELDS 5

/* Return type(kind, flags, ordinal, trace_id, payload). `type` must be a named tuple of RECORD_FIELDS fields. */
static inline PyObject *new_record(PyTypeObject *type, const ring_record *header, PyObject *trace_id,
                                   PyObject *payload) {
    PyObject *record = PyType_GenericAlloc(type, RECORD_FIELDS);
    if (!record)
        return NULL;
    Py_INCREF(trace_id);
    Py_INCREF(payload);
    PyObject *fields[RECORD_FIELDS] = {PyLong_FromLong(header->kind), PyLong_FromLong(header->flags),
                                       PyLong_FromUnsignedLongLong(header->ordinal),
                                       trace_id, payload};
    int failed = 0;
    for (int i = 0; i < RECORD_FIELDS; i++)
        /* Takes the field over, NULL too, which leaves an empty place. */
        failed |= !fields[i] | (PyTuple_SetItem(record, i, fields[i]) < 0);
    if (failed)
        Py_CLEAR(record);
    return record;
}

#endif
