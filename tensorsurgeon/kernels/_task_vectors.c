/* The module of what task_vectors.py does, compiled; the arithmetic is in the headers.
 *
 * A task vector's element is model minus base, in double. Its rank is that of its magnitude rounded
 * to float32: as long as signs are left out, floats are ordered as their bits are, so that a
 * threshold is found by counting the upper and then the lower halves of these words. As in
 * _compiled.c, every function gives the bits that its twin in numpy gives.
 */

#include "task_vector_election.h"
#include "task_vector_ranks.h"
#include "task_vector_rounding.h"
#include "task_vector_rows.h"
#include "task_vector_sums.h"

/* Raised with every change of results or arguments: task_vectors.py uses no other revision. */
#define REVISION 3

/* ---- What is given ---- */

static Py_ssize_t elements_of(const Span *span)
{
    bool known = span->dtype >= 0 && span->dtype < DTYPES;
    return known ? span->raw.len / ITEMSIZE[span->dtype] : 0;
}

static bool check(const char *what, const Span *span, Py_ssize_t n)
{
    if (span->dtype < 0 || span->dtype >= DTYPES)
        PyErr_Format(PyExc_ValueError, "%s: no dtype %d", what, span->dtype);
    else if (span->raw.len != n * ITEMSIZE[span->dtype])
        PyErr_Format(PyExc_ValueError, "%s: %zd bytes are not %zd elements", what, span->raw.len, n);
    else
        return true;
    return false;
}

/* Whether these are `n` elements that can be used in place. */
static bool check_array(const char *what, const Py_buffer *array, Py_ssize_t n, Py_ssize_t size)
{
    if (array->len == n * size && (uintptr_t)array->buf % size == 0)
        return true;
    PyErr_Format(PyExc_ValueError, "%s are not %zd words of %zd bytes", what, n, size);
    return false;
}

static bool words_of(PyObject *object, Py_ssize_t n, Py_buffer *words)
{
    if (object == Py_None)
        return true;
    return PyObject_GetBuffer(object, words, PyBUF_SIMPLE) == 0 &&
           check_array("words", words, n, sizeof(uint32_t));
}

/* What was taken of it is given back by `release_cut`, also where this fails. */
static bool parse_cut(PyObject *given, Py_ssize_t n, Cut *cut)
{
    PyObject *words, *limits;
    unsigned int low, high;
    long long take, skip;
    if (!PyArg_ParseTuple(given, "ILILOIO", &low, &take, &high, &skip, &words, &cut->below, &limits))
        return false;
    cut->low = low < ABOVE_RANKS ? (int32_t)low : ABOVE_RANKS;
    cut->high = high < ABOVE_RANKS ? (int32_t)high : ABOVE_RANKS;
    cut->take = take;
    cut->skip = skip;
    return words_of(words, n, &cut->words) && words_of(limits, n, &cut->limits);
}

static void release(Py_buffer *buffer)
{
    if (buffer->obj)
        PyBuffer_Release(buffer);
}

static void release_cut(Cut *cut)
{
    release(&cut->words);
    release(&cut->limits);
}

/* ---- The functions ---- */

static PyObject *tally(PyObject *module, PyObject *arguments)
{
    Span base, model;
    Py_buffer counts;
    int upper;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*iy*iiw*", &base.raw, &base.dtype, &model.raw, &model.dtype,
                          &upper, &counts))
        return NULL;
    Py_ssize_t n = elements_of(&model);
    bool good = check("model", &model, n) && (!base.raw.len || check("base", &base, n)) &&
                check_array("counts", &counts, HALVES, sizeof(int64_t));
    if (good) {
        Py_BEGIN_ALLOW_THREADS
        double origin[BLOCK] = {0}, values[BLOCK];
        uint32_t ranks[BLOCK];
        for (Py_ssize_t at = 0; at < n; at += BLOCK) {
            Py_ssize_t now = within_block(n - at);
            if (base.raw.len)
                decode(&base, at, now, origin);
            difference(&model, at, now, origin, values);
            ranks_of(values, now, ranks);
            if (upper < 0)
                count_upper_halves(ranks, now, counts.buf);
            else
                count_lower_halves(ranks, now, (uint32_t)upper, counts.buf);
        }
        if (upper < 0)
            join_counts(counts.buf);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&base.raw);
    PyBuffer_Release(&model.raw);
    PyBuffer_Release(&counts);
    return good ? Py_NewRef(Py_None) : NULL;
}

static bool parse_part(PyObject *given, Py_ssize_t n, Part *part)
{
    PyObject *cut;
    if (!PyTuple_Check(given)) {
        PyErr_SetString(PyExc_TypeError, "a part is no tuple");
        return false;
    }
    return PyArg_ParseTuple(given, "y*iddO!", &part->span.raw, &part->span.dtype, &part->weight,
                            &part->scale, &PyTuple_Type, &cut) &&
           check("model", &part->span, n) && parse_cut(cut, n, &part->cut);
}

static PyObject *left_of(const Part *parts, Py_ssize_t count)
{
    PyObject *left = PyList_New(count);
    for (Py_ssize_t p = 0; left && p < count; p++) {
        const Cut *cut = &parts[p].cut;
        PyObject *pair = Py_BuildValue("(LL)", (long long)cut->take, (long long)cut->skip);
        if (!pair || PyList_SetItem(left, p, pair) < 0)
            Py_CLEAR(left);
    }
    return left;
}

static PyObject *combine(PyObject *module, PyObject *arguments)
{
    Span base;
    Py_buffer out;
    PyObject *given, *left = NULL;
    Rule rule;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*iO!ppddw*", &base.raw, &base.dtype, &PyTuple_Type, &given,
                          &rule.elect, &rule.normalize, &rule.divisor, &rule.factor, &out))
        return NULL;
    Py_ssize_t n = elements_of(&base), count = PyTuple_Size(given);
    Part *parts = PyMem_Calloc(count, sizeof *parts);
    double *values = PyMem_Malloc(count * BLOCK * sizeof *values);
    bool good = check("base", &base, n) && check_array("values", &out, n, sizeof(double));
    if (good && (!parts || !values)) {
        PyErr_NoMemory();
        good = false;
    }
    for (Py_ssize_t p = 0; good && p < count; p++)
        good = parse_part(PyTuple_GetItem(given, p), n, parts + p);
    if (good) {
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t at = 0; at < n; at += BLOCK)
            combine_block(&base, parts, count, &rule, at, within_block(n - at), values,
                          (double *)out.buf + at);
        Py_END_ALLOW_THREADS
        left = left_of(parts, count);
    }
    for (Py_ssize_t p = 0; parts && p < count; p++) {
        release(&parts[p].span.raw);
        release_cut(&parts[p].cut);
    }
    PyMem_Free(parts);
    PyMem_Free(values);
    PyBuffer_Release(&base.raw);
    PyBuffer_Release(&out);
    return left;
}

static PyObject *mass(PyObject *module, PyObject *arguments)
{
    Span base, model;
    PyObject *given;
    Cut cut = {0};
    Mass found = {0};
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*iy*iO!", &base.raw, &base.dtype, &model.raw, &model.dtype,
                          &PyTuple_Type, &given))
        return NULL;
    Py_ssize_t n = elements_of(&model);
    bool good = check("model", &model, n) && check("base", &base, n) && parse_cut(given, n, &cut);
    if (good) {
        Py_BEGIN_ALLOW_THREADS
        found = mass_of(&base, &model, n, &cut);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&base.raw);
    PyBuffer_Release(&model.raw);
    release_cut(&cut);
    if (!good)
        return NULL;
    return Py_BuildValue("(ddLL)", found.all, found.kept, (long long)cut.take, (long long)cut.skip);
}

static PyObject *row_limits(PyObject *module, PyObject *arguments)
{
    Span base, model;
    Py_buffer table, out;
    Place *places = NULL;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*iy*iy*w*", &base.raw, &base.dtype, &model.raw, &model.dtype,
                          &table, &out))
        return NULL;
    Py_ssize_t n = elements_of(&model), columns = table.len / (Py_ssize_t)sizeof(uint32_t);
    bool good = check("model", &model, n) && check("base", &base, n) &&
                check_array("limits", &out, n, sizeof(uint32_t)) &&
                check_array("the table's", &table, columns, sizeof(uint32_t));
    if (good && (columns == 0 || n % columns || columns > UINT32_MAX)) {
        PyErr_Format(PyExc_ValueError, "%zd elements are not rows of %zd", n, columns);
        good = false;
    }
    if (good && !(places = PyMem_Malloc(2 * columns * sizeof *places))) {
        PyErr_NoMemory();
        good = false;
    }
    if (good) {
        Py_BEGIN_ALLOW_THREADS
        limit_rows(&base, &model, n, columns, table.buf, places, places + columns, out.buf);
        Py_END_ALLOW_THREADS
    }
    PyMem_Free(places);
    PyBuffer_Release(&base.raw);
    PyBuffer_Release(&model.raw);
    PyBuffer_Release(&table);
    PyBuffer_Release(&out);
    return good ? Py_NewRef(Py_None) : NULL;
}

static PyObject *lost(PyObject *module, PyObject *arguments)
{
    Span base, written;
    Py_buffer values;
    Loss found = {0};
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*iy*y*i", &base.raw, &base.dtype, &values, &written.raw,
                          &written.dtype))
        return NULL;
    Py_ssize_t n = elements_of(&base);
    bool good = check("base", &base, n) && check("written", &written, n) &&
                check_array("values", &values, n, sizeof(double));
    if (good) {
        Py_BEGIN_ALLOW_THREADS
        found = loss_of(&base, values.buf, &written, n);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&base.raw);
    PyBuffer_Release(&values);
    PyBuffer_Release(&written.raw);
    return good ? Py_BuildValue("(dd)", found.all, found.lost) : NULL;
}

static PyObject *stochastic(PyObject *module, PyObject *arguments)
{
    Span stored;
    Py_buffer values, words;
    int64_t infinite = 0;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*iy*w*", &values, &stored.dtype, &words, &stored.raw))
        return NULL;
    Py_ssize_t n = values.len / (Py_ssize_t)sizeof(double);
    bool good = check("stored", &stored, n) && check_array("values", &values, n, sizeof(double)) &&
                check_array("words", &words, n, sizeof(uint32_t));
    if (good && !STOCHASTIC[stored.dtype]) {
        PyErr_Format(PyExc_ValueError, "dtype %d rounds nothing", stored.dtype);
        good = false;
    }
    if (good) {
        Py_BEGIN_ALLOW_THREADS
        infinite = STOCHASTIC[stored.dtype](values.buf, n, words.buf, stored.raw.buf);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&values);
    PyBuffer_Release(&words);
    PyBuffer_Release(&stored.raw);
    return good ? PyLong_FromLongLong(infinite) : NULL;
}

/* ---- The module ---- */

static PyMethodDef METHODS[] = {
    {"tally", tally, METH_VARARGS,
     "tally(base, dtype, model, dtype, upper, counts): count ranks' halves."},
    {"combine", combine, METH_VARARGS,
     "combine(base, dtype, parts, elect, normalize, divisor, factor, out) -> what is left to take "
     "and to skip of each part."},
    {"mass", mass, METH_VARARGS,
     "mass(base, dtype, model, dtype, cut) -> magnitudes' sums, of all and of what is kept; what is "
     "left to take and to skip."},
    {"row_limits", row_limits, METH_VARARGS,
     "row_limits(base, dtype, model, dtype, table, out): the table's words by rows' ranks."},
    {"lost", lost, METH_VARARGS,
     "lost(base, dtype, values, written, dtype) -> updates' sums, of all and of what is lost."},
    {"stochastic", stochastic, METH_VARARGS,
     "stochastic(values, dtype, words, raw) -> how many overflowed."},
    {NULL, NULL, 0, NULL},
};

static int add_constants(PyObject *module)
{
    return PyModule_AddIntConstant(module, "REVISION", REVISION);
}

static PyModuleDef_Slot SLOTS[] = {{Py_mod_exec, add_constants}, {0, NULL}};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT,
    .m_name = "tensorsurgeon.kernels._task_vectors",
    .m_doc = "Task vectors counted, pruned and put together; stochastic rounding.",
    .m_methods = METHODS,
    .m_slots = SLOTS,
};

PyMODINIT_FUNC PyInit__task_vectors(void) { return PyModuleDef_Init(&MODULE); }
