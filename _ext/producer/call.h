/* Calls without what Cython does around them in the limited API: a tuple of the arguments, and for `try` the saving of
   the exception that is being handled. Each costs a third of what checking an event does. */
#ifndef EPSAGON_FAST_CALL_H
#define EPSAGON_FAST_CALL_H

#include <Python.h>
#include <string.h>

/* Return an object of a type without calling its __init__. `nothing`: (). */
static inline PyObject *new_object(PyTypeObject *type, PyObject *nothing) {
    return ((newfunc)PyType_GetSlot(type, Py_tp_new))(type, nothing, NULL);
}

/* Whether an object's type has a function in a slot. */
static inline int has_slot(PyObject *object, int slot) {
    return PyType_GetSlot(Py_TYPE(object), slot) != NULL;
}

/* Whether iter(object) is the object itself, and no code of a class in Python says so. */
static inline int iterates_over_itself(PyObject *object) {
    return PyType_GetSlot(Py_TYPE(object), Py_tp_iter) == (void *)PyObject_SelfIter;
}

/* Return function(argument), or None if it raises an Exception. NULL for what must go on, as KeyboardInterrupt. */
static inline PyObject *call_or_none(PyObject *function, PyObject *argument) {
    PyObject *result = PyObject_CallFunctionObjArgs(function, argument, NULL);
    if (result || !PyErr_ExceptionMatches(PyExc_Exception))
        return result;
    PyErr_Clear();
    Py_RETURN_NONE;
}

/* Return function(a, b, c, d). */
static inline PyObject *call_of_four(PyObject *function, PyObject *a, PyObject *b, PyObject *c, PyObject *d) {
    return PyObject_CallFunctionObjArgs(function, a, b, c, d, NULL);
}

/* A builtin method that is called all the time, and the C function behind it, if it takes its arguments in the way that
   is expected. A call through the interpreter costs as much again. */
typedef struct {
    PyObject *method, *self;
    PyCFunction function;
} builtin_method;

/* `method` must live as long as the process. `flags`: METH_NOARGS, METH_O or METH_FASTCALL. */
static inline builtin_method builtin_of(PyObject *method, int flags) {
    builtin_method found = {method, NULL, NULL};
    if (PyCFunction_CheckExact(method) && PyCFunction_GetFlags(method) == flags) {
        found.self = PyCFunction_GetSelf(method);
        found.function = PyCFunction_GetFunction(method);
    }
    return found;
}

/* Return method(), of one with METH_NOARGS. */
static inline PyObject *call_of_none(const builtin_method *method) {
    return method->function ? method->function(method->self, NULL) : PyObject_CallNoArgs(method->method);
}

/* Return method(), of one with METH_FASTCALL. */
static inline PyObject *call_fast_of_none(const builtin_method *method) {
    typedef PyObject *(*fast_function)(PyObject *, PyObject *const *, Py_ssize_t);
    return method->function ? ((fast_function)(void (*)(void))method->function)(method->self, NULL, 0)
                            : PyObject_CallNoArgs(method->method);
}

/* Return method(a), of one with METH_O. */
static inline PyObject *call_of_object(const builtin_method *method, PyObject *a) {
    return method->function ? method->function(method->self, a) : PyObject_CallFunctionObjArgs(method->method, a, NULL);
}

/* Return function(a). */
static inline PyObject *call_of_one(PyObject *function, PyObject *a) {
    return PyObject_CallFunctionObjArgs(function, a, NULL);
}

/* Return function(a, b). */
static inline PyObject *call_of_two(PyObject *function, PyObject *a, PyObject *b) {
    return PyObject_CallFunctionObjArgs(function, a, b, NULL);
}

/* Return object.name(a, b, c). */
static inline PyObject *call_method_of_three(PyObject *object, PyObject *name, PyObject *a, PyObject *b, PyObject *c) {
    return PyObject_CallMethodObjArgs(object, name, a, b, c, NULL);
}

/* event(name, *, type, operation, origin): the names in this order, and what stands for those that are not given. */
#define EVENT_ARGUMENTS 4
static PyObject *(*event_body)(PyObject *name, PyObject *type, PyObject *operation, PyObject *origin);
static PyObject *event_argument_names[EVENT_ARGUMENTS], *event_argument_defaults[EVENT_ARGUMENTS];

static int event_argument(PyObject *name) {
    /* Names in programs are interned, so they nearly always are the very same object. */
    for (int at = 0; at < EVENT_ARGUMENTS; at++)
        if (event_argument_names[at] == name)
            return at;
    for (int at = 0; at < EVENT_ARGUMENTS; at++)
        if (PyUnicode_Compare(event_argument_names[at], name) == 0)
            return at;
    return -1;
}

static PyObject *event_called(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *names) {
    (void)module;
    PyObject *given[EVENT_ARGUMENTS] = {NULL};
    Py_ssize_t named = names ? PyTuple_Size(names) : 0;
    if (count > 1)
        return PyErr_Format(PyExc_TypeError, "event() takes 1 positional argument but %zd were given", count);
    if (count == 1)
        given[0] = args[0];
    for (Py_ssize_t i = 0; i < named; i++) {
        PyObject *name = PyTuple_GetItem(names, i);
        int at = event_argument(name);
        if (at < 0)
            return PyErr_Format(PyExc_TypeError, "event() got an unexpected keyword argument '%U'", name);
        if (given[at])
            return PyErr_Format(PyExc_TypeError, "event() got multiple values for argument '%U'", name);
        given[at] = args[count + i];
    }
    if (!given[0])
        return PyErr_Format(PyExc_TypeError, "event() missing 1 required positional argument: 'name'");
    for (int at = 1; at < EVENT_ARGUMENTS; at++)
        if (!given[at])
            given[at] = event_argument_defaults[at];
    return event_body(given[0], given[1], given[2], given[3]);
}

/* Return a function that calls `body`. The names, the defaults, of which the first is not used, and `doc` must live on. */
static inline PyObject *event_function(PyObject *names, PyObject *defaults, const char *doc,
                                       PyObject *(*body)(PyObject *, PyObject *, PyObject *, PyObject *)) {
    static PyMethodDef method = {"event", NULL, METH_FASTCALL | METH_KEYWORDS, NULL};
    method.ml_meth = (PyCFunction)(void (*)(void))event_called;
    method.ml_doc = doc;
    event_body = body;
    for (int at = 0; at < EVENT_ARGUMENTS; at++) {
        event_argument_names[at] = PyTuple_GetItem(names, at);
        event_argument_defaults[at] = PyTuple_GetItem(defaults, at);
    }
    return PyCFunction_NewEx(&method, NULL, NULL);
}

static PyObject *(*add_event_body)(PyObject *self, PyObject *event);

static PyObject *add_event_called(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names) {
    Py_ssize_t named = names ? PyTuple_Size(names) : 0;
    if (count + named == 1 &&
        (!named || PyUnicode_CompareWithASCIIString(PyTuple_GetItem(names, 0), "event") == 0))
        return add_event_body(self, args[0]);
    PyErr_SetString(PyExc_TypeError, "add_event() takes one argument: event");
    return NULL;
}

/* Let calls of type.add_event come straight to `body`; the descriptor checks that self is of the type. Only where Cython
   does not do as well by itself. Returns 0, or -1 with an exception. */
static inline int quicken_add_event(PyTypeObject *type, const char *doc, PyObject *(*body)(PyObject *, PyObject *)) {
    add_event_body = body;
#ifdef Py_LIMITED_API
    static PyMethodDef method = {"add_event", NULL, METH_FASTCALL | METH_KEYWORDS, NULL};
    method.ml_meth = (PyCFunction)(void (*)(void))add_event_called;
    method.ml_doc = doc;
    PyObject *descriptor = PyDescr_NewMethod(type, &method);
    if (!descriptor)
        return -1;
    int failed = PyObject_SetAttrString((PyObject *)type, "add_event", descriptor);
    Py_DECREF(descriptor);
    return failed;
#else
    (void)type, (void)doc, (void)add_event_called;
    return 0;
#endif
}

/* Return a function without arguments that calls `body` with `state`. */
static inline PyObject *function_of_none(PyObject *state, PyObject *(*body)(PyObject *, PyObject *)) {
    static PyMethodDef method = {"new_block", NULL, METH_NOARGS, NULL};
    method.ml_meth = (PyCFunction)body;
    return PyCFunction_NewEx(&method, state, NULL);
}

/* Return a function that calls `body` with `state` and its arguments. `method` must live as long as the process. */
static inline PyObject *function_of_few(PyMethodDef *method, PyObject *state,
                                        PyObject *(*body)(PyObject *, PyObject **, Py_ssize_t)) {
    method->ml_meth = (PyCFunction)(void (*)(void))body;
    method->ml_flags = METH_FASTCALL;
    return PyCFunction_NewEx(method, state, NULL);
}

/* The same of a body that takes keywords, too: a tuple of the names of the last ones, NULL if there are none. */
static inline PyObject *function_of_any(PyMethodDef *method, PyObject *state,
                                        PyObject *(*body)(PyObject *, PyObject **, Py_ssize_t, PyObject *)) {
    method->ml_meth = (PyCFunction)(void (*)(void))body;
    method->ml_flags = METH_FASTCALL | METH_KEYWORDS;
    return PyCFunction_NewEx(method, state, NULL);
}

static int (*collected_body)(PyObject *self);

static void collect(PyObject *self) {
    PyObject *kind, *error, *trace;
    PyErr_Fetch(&kind, &error, &trace);
    if (collected_body(self) < 0)
        PyErr_WriteUnraisable(self);
    PyErr_Restore(kind, error, trace);
}

/* Return a class below `base`, and let `body` have each object that is never used again while it is still whole. In the
   limited API Cython leaves out the __del__ of its classes. `name` must live as long as the process. */
static inline PyObject *finalized_class(PyObject *base, const char *name, int (*body)(PyObject *)) {
    PyType_Slot slots[] = {{Py_tp_finalize, (void *)collect}, {0, NULL}};
    PyType_Spec spec = {name, 0, 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, slots};
    collected_body = body;
    return PyType_FromSpecWithBases(&spec, base);
}

/* Return what comes next, `end` after the last one. */
static inline PyObject *next_or(PyObject *iterator, PyObject *end) {
    PyObject *next = PyIter_Next(iterator);
    return next || PyErr_Occurred() ? next : Py_NewRef(end);
}

/* Take a key out of a dict. Return whether it was there, -1 with an exception. */
static inline int take_out(PyObject *dict, PyObject *key) {
    if (PyDict_DelItem(dict, key) == 0)
        return 1;
    if (!PyErr_ExceptionMatches(PyExc_KeyError))
        return -1;
    PyErr_Clear();
    return 0;
}

/* Whether a text has ASCII alone: then it is as long in UTF-8. */
static inline int is_ascii(PyObject *text) {
    Py_ssize_t length;
    if (PyUnicode_AsUTF8AndSize(text, &length))
        return length == PyUnicode_GetLength(text);
    PyErr_Clear();
    return 0;
}

/* Return type(a, b, c, d) of a named tuple: a tuple with another type. */
static inline PyObject *new_named_tuple(PyTypeObject *type, PyObject *a, PyObject *b, PyObject *c, PyObject *d) {
    PyObject *fields[] = {a, b, c, d}, *made = PyType_GenericAlloc(type, 4);
    for (int i = 0; made && i < 4; i++) {
        Py_INCREF(fields[i]);
        PyTuple_SetItem(made, i, fields[i]);
    }
    return made;
}

/* Whether a dict may hold a `traceparent` or `tracestate` already, however it is written. */
static inline int names_context(PyObject *headers) {
    static const char *const names[] = {"traceparent", "tracestate"};
    Py_ssize_t place = 0, length;
    PyObject *key, *value;
    while (PyDict_Next(headers, &place, &key, &value)) {
        const char *text = PyUnicode_CheckExact(key) ? PyUnicode_AsUTF8AndSize(key, &length) : NULL;
        if (!text) {
            PyErr_Clear();
            return 1;
        }
        for (int i = 0; i < 2; i++) {
            size_t at = 0, size = strlen(names[i]);
            if ((size_t)length == size) {
                while (at < size && (text[at] | 0x20) == names[i][at])
                    at++;
                if (at == size)
                    return 1;
            }
        }
    }
    return 0;
}

/* Whether 16 bytes are a span id as W3C Trace Context has it; see ids.py. */
static inline int is_span_id(const char *digits) {
    int is_any = 0;
    for (int i = 0; i < 16; i++) {
        if (!((digits[i] >= '0' && digits[i] <= '9') || (digits[i] >= 'a' && digits[i] <= 'f')))
            return 0;
        is_any |= digits[i] != '0';
    }
    return is_any;
}

/* Return a header's value, None if the trace id is none. `span`: 16 digits. */
static inline PyObject *traceparent_text(PyObject *trace_id, const char *span, long flags) {
    char text[] = "00-00000000000000000000000000000000-0000000000000000-00";
    enum { VERSION = 3, TRACE = 32, SPAN = 16 };
    Py_ssize_t length;
    const char *trace = PyUnicode_CheckExact(trace_id) ? PyUnicode_AsUTF8AndSize(trace_id, &length) : NULL;
    if (!trace || length != TRACE || flags < 0 || flags > 0xff) {
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    memcpy(text + VERSION, trace, TRACE);
    memcpy(text + VERSION + TRACE + 1, span, SPAN);
    text[sizeof text - 3] = "0123456789abcdef"[flags >> 4];
    text[sizeof text - 2] = "0123456789abcdef"[flags & 15];
    return PyUnicode_FromStringAndSize(text, sizeof text - 1);
}

#endif
