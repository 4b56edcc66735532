/* Products of low rank added to values, and sums of squares: what low_rank.py does, compiled.
 *
 * As in _compiled.c, every function gives the bits that its twin in numpy gives, on any processor:
 * all arithmetic is in double, each sum is taken in one order, and no product and sum are fused.
 */

#include "_stored.h"

/* Raised with every change of results or arguments: low_rank.py uses no other revision. */
#define REVISION 1

/* Columns that all rows are taken through before the next: what is gathered of them stays near. */
#define PANEL 64

/* Of a row's sum of squares, as of dot products in _compiled.c. */
#define SQUARES 512

static inline Py_ssize_t at_most(Py_ssize_t limit, Py_ssize_t n) { return n < limit ? n : limit; }

/* ---- Products ---- */

/* The sums over the rank, from its first to its last; four at a time, so that they are loaded and
 * stored less often. `panel` has PANEL columns. */
VECTORISED static void sum(const double *row, Py_ssize_t rank, const double *restrict panel,
                           double *restrict sums)
{
    Py_ssize_t k = 0;
    memset(sums, 0, PANEL * sizeof *sums);
    for (; k + 4 <= rank; k += 4, panel += 4 * PANEL)
        for (int j = 0; j < PANEL; j++) {
            double now = sums[j] + row[k] * panel[j];
            now += row[k + 1] * panel[PANEL + j];
            now += row[k + 2] * panel[2 * PANEL + j];
            sums[j] = now + row[k + 3] * panel[3 * PANEL + j];
        }
    for (; k < rank; k++, panel += PANEL)
        for (int j = 0; j < PANEL; j++)
            sums[j] += row[k] * panel[j];
}

VECTORISED static void add(const double *restrict sums, Py_ssize_t n, double factor,
                           double *restrict out)
{
    for (Py_ssize_t j = 0; j < n; j++)
        out[j] += sums[j] * factor;
}

/* `columns` and `out` begin at the first of `width` columns of theirs. */
static void add_columns(const double *rows, Py_ssize_t n, Py_ssize_t rank, const double *columns,
                        Py_ssize_t width, Py_ssize_t stride, double factor, double *panel,
                        double *out)
{
    double sums[PANEL];
    for (Py_ssize_t k = 0; k < rank; k++)
        memcpy(panel + k * PANEL, columns + k * stride, width * sizeof *panel);
    for (Py_ssize_t i = 0; i < n; i++) {
        sum(rows + i * rank, rank, panel, sums);
        add(sums, width, factor, out + i * stride);
    }
}

/* ---- Sums of squares ---- */

VECTORISED static void add_squares(const double *values, Py_ssize_t n, double *restrict sums)
{
    for (Py_ssize_t i = 0; i < n; i++)
        sums[i] += values[i] * values[i];
}

static double sum_of_squares(const double *values, Py_ssize_t n)
{
    double sums[SQUARES] = {0};
    for (Py_ssize_t start = 0; start < n; start += SQUARES)
        add_squares(values + start, at_most(SQUARES, n - start), sums);
    for (Py_ssize_t half = SQUARES / 2; half; half /= 2)
        for (Py_ssize_t i = 0; i < half; i++)
            sums[i] += sums[half + i];
    return sums[0];
}

/* ---- The module ---- */

static Py_ssize_t doubles_in(const Py_buffer *buffer)
{
    return buffer->len / (Py_ssize_t)sizeof(double);
}

static int check(const char *what, const Py_buffer *buffer, Py_ssize_t rows, Py_ssize_t columns)
{
    if (buffer->len % sizeof(double) == 0 && (uintptr_t)buffer->buf % sizeof(double) == 0 &&
        doubles_in(buffer) == rows * columns)
        return 1;
    PyErr_Format(PyExc_ValueError, "%s are not %zd x %zd doubles", what, rows, columns);
    return 0;
}

static PyObject *add_product(PyObject *module, PyObject *arguments)
{
    Py_buffer rows, columns, out;
    Py_ssize_t rank;
    double factor;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*y*ndw*", &rows, &columns, &rank, &factor, &out))
        return NULL;
    Py_ssize_t n = rank > 0 ? doubles_in(&rows) / rank : 0;
    Py_ssize_t all = rank > 0 ? doubles_in(&columns) / rank : 0;
    int good = check("rows", &rows, n, rank) && check("columns", &columns, rank, all) &&
               check("values", &out, n, all);
    double *panel = good ? PyMem_Calloc(rank > 0 ? rank : 1, PANEL * sizeof *panel) : NULL;
    if (good && !panel)
        PyErr_NoMemory();
    if (panel) {
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t first = 0; first < all; first += PANEL)
            add_columns(rows.buf, n, rank, (double *)columns.buf + first, at_most(PANEL, all - first),
                        all, factor, panel, (double *)out.buf + first);
        Py_END_ALLOW_THREADS
    }
    PyMem_Free(panel);
    PyBuffer_Release(&rows);
    PyBuffer_Release(&columns);
    PyBuffer_Release(&out);
    return panel ? Py_NewRef(Py_None) : NULL;
}

static PyObject *row_squares(PyObject *module, PyObject *arguments)
{
    Py_buffer values, sums;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*w*", &values, &sums))
        return NULL;
    Py_ssize_t n = doubles_in(&sums), width = n ? doubles_in(&values) / n : 0;
    int good = check("sums", &sums, n, 1) && check("values", &values, n, width);
    if (good) {
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t i = 0; i < n; i++)
            ((double *)sums.buf)[i] = sum_of_squares((double *)values.buf + i * width, width);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&values);
    PyBuffer_Release(&sums);
    return good ? Py_NewRef(Py_None) : NULL;
}

static PyObject *add_column_squares(PyObject *module, PyObject *arguments)
{
    Py_buffer values, sums;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*w*", &values, &sums))
        return NULL;
    Py_ssize_t width = doubles_in(&sums), n = width ? doubles_in(&values) / width : 0;
    int good = check("sums", &sums, width, 1) && check("values", &values, n, width);
    if (good) {
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t i = 0; i < n; i++)
            add_squares((double *)values.buf + i * width, width, sums.buf);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&values);
    PyBuffer_Release(&sums);
    return good ? Py_NewRef(Py_None) : NULL;
}

static PyMethodDef METHODS[] = {
    {"add_product", add_product, METH_VARARGS,
     "add_product(rows, columns, rank, factor, out): add factor * rows @ columns."},
    {"row_squares", row_squares, METH_VARARGS, "row_squares(values, sums): set each row's sum."},
    {"add_column_squares", add_column_squares, METH_VARARGS,
     "add_column_squares(values, sums): add to each column's sum."},
    {NULL, NULL, 0, NULL},
};

static int add_constants(PyObject *module)
{
    return PyModule_AddIntConstant(module, "REVISION", REVISION);
}

static PyModuleDef_Slot SLOTS[] = {{Py_mod_exec, add_constants}, {0, NULL}};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT,
    .m_name = "tensorsurgeon.kernels._low_rank",
    .m_doc = "Products of low rank added to values, and sums of squares.",
    .m_methods = METHODS,
    .m_slots = SLOTS,
};

PyMODINIT_FUNC PyInit__low_rank(void) { return PyModuleDef_Init(&MODULE); }
