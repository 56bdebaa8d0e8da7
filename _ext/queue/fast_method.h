/* In the limited API Cython gives methods METH_FASTCALL from 3.12 on, though 3.10 has it already. Without it each call
   makes a tuple of its arguments first: a quarter of what a push then costs. */
#ifndef EPSAGON_FAST_FAST_METHOD_H
#define EPSAGON_FAST_FAST_METHOD_H

#include <Python.h>

typedef PyObject *(*fast_function)(PyObject *self, PyObject **args, Py_ssize_t count);

/* Put `function` in the place of the type's method of that name; `method` must live as long as the process. The
   descriptor checks that self is of the type. Returns 0, or -1 with an exception. */
static inline int fast_method(PyTypeObject *type, PyMethodDef *method, fast_function function) {
#ifdef Py_LIMITED_API
    method->ml_meth = (PyCFunction)(void (*)(void))function;
    method->ml_flags = METH_FASTCALL;
    PyObject *descriptor = PyDescr_NewMethod(type, method);
    if (!descriptor)
        return -1;
    int failed = PyObject_SetAttrString((PyObject *)type, method->ml_name, descriptor);
    Py_DECREF(descriptor);
    return failed;
#else
    (void)type, (void)method, (void)function;
    return 0;
#endif
}

#endif
