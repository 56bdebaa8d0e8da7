/* Cython gives methods METH_FASTCALL from 3.12 of the limited API on, though 3.10 has it already. Without it each call
   makes a tuple of its arguments first. */
#ifndef EPSAGON_FAST_FAST_METHOD_H
#define EPSAGON_FAST_FAST_METHOD_H

#include <Python.h>

typedef PyObject *(*fast_function)(PyObject *self, PyObject **args, Py_ssize_t count);

/* `method` must live as long as the process. The result checks that self is of `type`. */
static inline PyObject *fast_method(PyTypeObject *type, PyMethodDef *method, fast_function function) {
    method->ml_meth = (PyCFunction)(void (*)(void))function;
    method->ml_flags = METH_FASTCALL;
    return PyDescr_NewMethod(type, method);
}

#endif
