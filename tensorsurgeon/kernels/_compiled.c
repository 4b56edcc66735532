/* Spans of elements decoded, summed, multiplied and rounded: what portable.py does, compiled.
 *
 * Every function gives the bits that portable.py gives, on any processor: all arithmetic is in
 * double, in the same order, and the compiler must not contract a product and a sum into one
 * rounding (-ffp-contract=off). Loops are written so that compilers turn them into vector code;
 * where the compiler can, they are built for several instruction sets and chosen when loaded.
 */

#include "_stored.h"

#include <math.h>

/* Raised with every change of results or arguments: arithmetic.py uses no other revision. */
#define REVISION 2

/* The sum of a span is taken in so many columns, which are then folded in halves. */
#define COLUMNS 512

#define DEFINE_SCALE(NAME, WORD, DECODE)                                                           \
    VECTORISED static void set_##NAME(const char *raw, Py_ssize_t n, double weight,                \
                                      double *restrict out)                                        \
    {                                                                                              \
        for (Py_ssize_t i = 0; i < n; i++) {                                                       \
            WORD word;                                                                             \
            memcpy(&word, raw + i * sizeof word, sizeof word);                                     \
            out[i] = DECODE(word) * weight;                                                        \
        }                                                                                          \
    }                                                                                              \
    VECTORISED static void add_##NAME(const char *raw, Py_ssize_t n, double weight,                \
                                      double *restrict out)                                        \
    {                                                                                              \
        for (Py_ssize_t i = 0; i < n; i++) {                                                       \
            WORD word;                                                                             \
            memcpy(&word, raw + i * sizeof word, sizeof word);                                     \
            out[i] += DECODE(word) * weight;                                                       \
        }                                                                                          \
    }

DEFINE_SCALE(bf16, uint16_t, from_bf16)
DEFINE_SCALE(f16, uint16_t, from_f16)
DEFINE_SCALE(f32, float, from_f32)
DEFINE_SCALE(f64, double, from_f64)

typedef void (*Scale)(const char *, Py_ssize_t, double, double *restrict);
static const Scale SET[DTYPES] = {set_bf16, set_f16, set_f32, set_f64};
static const Scale ADD[DTYPES] = {add_bf16, add_f16, add_f32, add_f64};

/* ---- Encoding: to nearest, ties to even; every NaN becomes the one quiet NaN ---- */

static inline uint32_t to_bf16(double value)
{
    uint32_t bits = bits_of_float((float)value);
    uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
    return (bits & 0x7FFFFFFF) > 0x7F800000 ? 0x7FC0 : rounded;
}

static inline uint64_t to_f16(double value)
{
    uint64_t bits = bits_of(value), magnitude = bits & 0x7FFFFFFFFFFFFFFF;
    uint64_t sign = (bits >> 48) & 0x8000;
    /* The exponent's bias goes from 1023 to 15, and 42 bits of the fraction are rounded away. */
    uint64_t tie = 0x1FFFFFFFFFF + ((magnitude >> 42) & 1);
    uint64_t normal = (magnitude - ((uint64_t)1008 << 52) + tie) >> 42;
    /* Below 2^-14 halves are multiples of 2^-24, to which adding 2^28 rounds. */
    uint64_t subnormal = bits_of(fabs(value) + 0x1p28) - bits_of(0x1p28);
    uint64_t rounded = magnitude < bits_of(0x1p-14) ? subnormal : normal;
    rounded = magnitude >= bits_of(65520.0) ? 0x7C00 : rounded;
    return magnitude > 0x7FF0000000000000 ? 0x7E00 : sign | rounded;
}

static inline uint32_t to_f32(double value)
{
    uint32_t bits = bits_of_float((float)value);
    return (bits & 0x7FFFFFFF) > 0x7F800000 ? 0x7FC00000 : bits;
}

static inline uint64_t to_f64(double value)
{
    uint64_t bits = bits_of(value);
    return (bits & 0x7FFFFFFFFFFFFFFF) > 0x7FF0000000000000 ? 0x7FF8000000000000 : bits;
}

/* A block at a time, so that the rare look for what was lost finds its values in the cache.
 * EXPONENT is that of infinities and NaNs. */
#define BLOCK 4096

typedef struct {
    Py_ssize_t overflowed; /* finite values that became infinite */
    Py_ssize_t nonfinite;  /* values that were infinite or no number before */
} Found;

#define DEFINE_ENCODE(NAME, WORD, EXPONENT)                                                        \
    VECTORISED static uint32_t block_##NAME(const double *values, Py_ssize_t n,                    \
                                            char *restrict raw)                                    \
    {                                                                                              \
        uint32_t infinite = 0;                                                                     \
        for (Py_ssize_t i = 0; i < n; i++) {                                                       \
            WORD word = (WORD)to_##NAME(values[i]);                                                \
            infinite |= (word & EXPONENT) == EXPONENT;                                 \
            memcpy(raw + i * sizeof word, &word, sizeof word);                                     \
        }                                                                                          \
        return infinite;                                                                           \
    }                                                                                              \
    static Found encode_##NAME(const double *values, Py_ssize_t n, char *raw)                      \
    {                                                                                              \
        Found found = {0, 0};                                                                      \
        for (Py_ssize_t start = 0; start < n; start += BLOCK) {                                    \
            Py_ssize_t stop = n - start < BLOCK ? n : start + BLOCK;                               \
            if (!block_##NAME(values + start, stop - start, raw + start * sizeof(WORD)))           \
                continue;                                                                          \
            for (Py_ssize_t i = start; i < stop; i++) {                                            \
                int infinite = (to_##NAME(values[i]) & EXPONENT) == EXPONENT;                      \
                found.nonfinite += !isfinite(values[i]);                                           \
                found.overflowed += isfinite(values[i]) && infinite;                               \
            }                                                                                      \
        }                                                                                          \
        return found;                                                                              \
    }

DEFINE_ENCODE(bf16, uint16_t, 0x7F80)
DEFINE_ENCODE(f16, uint16_t, 0x7C00)
DEFINE_ENCODE(f32, uint32_t, 0x7F800000)
DEFINE_ENCODE(f64, uint64_t, 0x7FF0000000000000)

typedef Found (*Encode)(const double *, Py_ssize_t, char *);
static const Encode ENCODE[DTYPES] = {encode_bf16, encode_f16, encode_f32, encode_f64};

/* ---- Dot products ---- */

VECTORISED static void add_products(const double *left, const double *right, Py_ssize_t n,
                                    double *restrict columns)
{
    for (Py_ssize_t i = 0; i < n; i++)
        columns[i] += left[i] * right[i];
}

static double sum_of_products(const double *left, const double *right, Py_ssize_t n)
{
    double columns[COLUMNS] = {0};
    for (Py_ssize_t start = 0; start < n; start += COLUMNS) {
        Py_ssize_t count = n - start < COLUMNS ? n - start : COLUMNS;
        add_products(left + start, right + start, count, columns);
    }
    for (Py_ssize_t half = COLUMNS / 2; half; half /= 2)
        for (Py_ssize_t i = 0; i < half; i++)
            columns[i] += columns[half + i];
    return columns[0];
}

/* ---- The module ---- */

static int check(int dtype, const Py_buffer *raw, const Py_buffer *values)
{
    Py_ssize_t n = values->len / (Py_ssize_t)sizeof(double);
    if (dtype < 0 || dtype >= DTYPES)
        PyErr_Format(PyExc_ValueError, "no dtype %d", dtype);
    else if (values->len % sizeof(double) || (uintptr_t)values->buf % sizeof(double))
        PyErr_SetString(PyExc_ValueError, "values are not doubles");
    else if (raw->len != n * ITEMSIZE[dtype])
        PyErr_Format(PyExc_ValueError, "%zd bytes are not %zd elements", raw->len, n);
    else
        return 1;
    return 0;
}

static PyObject *scale(PyObject *module, PyObject *arguments)
{
    Py_buffer raw, out;
    int dtype, add;
    double weight;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*idpw*", &raw, &dtype, &weight, &add, &out))
        return NULL;
    int good = check(dtype, &raw, &out);
    if (good) {
        Py_BEGIN_ALLOW_THREADS
        (add ? ADD : SET)[dtype](raw.buf, out.len / sizeof(double), weight, out.buf);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&raw);
    PyBuffer_Release(&out);
    return good ? Py_NewRef(Py_None) : NULL;
}

static PyObject *encode(PyObject *module, PyObject *arguments)
{
    Py_buffer values, raw;
    int dtype;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*iw*", &values, &dtype, &raw))
        return NULL;
    Found found = {0, 0};
    int good = check(dtype, &raw, &values);
    if (good) {
        Py_BEGIN_ALLOW_THREADS
        found = ENCODE[dtype](values.buf, values.len / sizeof(double), raw.buf);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&values);
    PyBuffer_Release(&raw);
    return good ? Py_BuildValue("nn", found.overflowed, found.nonfinite) : NULL;
}

static PyObject *dot(PyObject *module, PyObject *arguments)
{
    Py_buffer left, right;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*y*", &left, &right))
        return NULL;
    double found = 0;
    int good = check(F64, &left, &right) && check(F64, &right, &left);
    if (good) {
        Py_BEGIN_ALLOW_THREADS
        found = sum_of_products(left.buf, right.buf, left.len / sizeof(double));
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&left);
    PyBuffer_Release(&right);
    return good ? PyFloat_FromDouble(found) : NULL;
}

static PyMethodDef METHODS[] = {
    {"scale", scale, METH_VARARGS, "scale(raw, dtype, weight, add, out): set or add weight * raw."},
    {"encode", encode, METH_VARARGS, "encode(values, dtype, raw) -> how many overflowed, and how many were not finite."},
    {"dot", dot, METH_VARARGS, "dot(left, right) -> sum of products."},
    {NULL, NULL, 0, NULL},
};

static int add_constants(PyObject *module)
{
    return PyModule_AddIntConstant(module, "REVISION", REVISION);
}

static PyModuleDef_Slot SLOTS[] = {{Py_mod_exec, add_constants}, {0, NULL}};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT,
    .m_name = "tensorsurgeon.kernels._compiled",
    .m_doc = "The arithmetic of portable.py, compiled.",
    .m_methods = METHODS,
    .m_slots = SLOTS,
};

PyMODINIT_FUNC PyInit__compiled(void) { return PyModuleDef_Init(&MODULE); }
