/* Random words that depend on a key and their place alone: Philox 4x64 with ten rounds (Salmon et
 * al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), as numpy's bit generator of that name.
 */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <stdint.h>
#include <string.h>

/* Raised with every change of results or arguments. */
#define REVISION 1

#define ROUNDS 10
#define LANES 2

typedef struct {
    uint64_t low, high;
} Product;

static inline Product product_of(uint64_t left, uint64_t right)
{
#ifdef __SIZEOF_INT128__
    unsigned __int128 whole = (unsigned __int128)left * right;
    return (Product){(uint64_t)whole, (uint64_t)(whole >> 64)};
#else
    uint64_t a = left >> 32, b = (uint32_t)left, c = right >> 32, d = (uint32_t)right;
    uint64_t middle = (b * d >> 32) + (uint32_t)(a * d) + (uint32_t)(b * c);
    return (Product){left * right, a * c + (a * d >> 32) + (b * c >> 32) + (middle >> 32)};
#endif
}

/* Two counters at a time, whose chains of products do not wait for each other. */
static void philox(uint64_t counter, uint64_t key0, uint64_t key1, uint64_t out[LANES][4])
{
    uint64_t a[LANES], b[LANES] = {0}, c[LANES] = {0}, d[LANES] = {0};
    for (int lane = 0; lane < LANES; lane++)
        a[lane] = counter + 1 + lane;
    for (int i = 0; i < ROUNDS; i++) {
        for (int lane = 0; lane < LANES; lane++) {
            Product first = product_of(a[lane], 0xD2E7470EE14C6C93u);
            Product second = product_of(c[lane], 0xCA5A826395121157u);
            a[lane] = second.high ^ b[lane] ^ key0;
            b[lane] = second.low;
            c[lane] = first.high ^ d[lane] ^ key1;
            d[lane] = first.low;
        }
        key0 += 0x9E3779B97F4A7C15u;
        key1 += 0xBB67AE8584CAA73Bu;
    }
    for (int lane = 0; lane < LANES; lane++)
        out[lane][0] = a[lane], out[lane][1] = b[lane], out[lane][2] = c[lane], out[lane][3] = d[lane];
}

static PyObject *words(PyObject *module, PyObject *arguments)
{
    unsigned long long key0, key1, counter;
    Py_buffer out;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "KKKw*", &key0, &key1, &counter, &out))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    char *to = out.buf;
    Py_ssize_t left = out.len;
    uint64_t drawn[LANES][4];
    for (; left >= (Py_ssize_t)sizeof drawn; left -= sizeof drawn, counter += LANES) {
        philox(counter, key0, key1, drawn);
        memcpy(to, drawn, sizeof drawn);
        to += sizeof drawn;
    }
    philox(counter, key0, key1, drawn);
    memcpy(to, drawn, left);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&out);
    return Py_NewRef(Py_None);
}

static PyMethodDef METHODS[] = {
    {"words", words, METH_VARARGS, "words(key, key, counter, out): fill with random bits."},
    {NULL, NULL, 0, NULL},
};

static int add_constants(PyObject *module)
{
    return PyModule_AddIntConstant(module, "REVISION", REVISION);
}

static PyModuleDef_Slot SLOTS[] = {{Py_mod_exec, add_constants}, {0, NULL}};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT,
    .m_name = "tensorsurgeon.kernels._random",
    .m_doc = "Random words that depend on a key and their place alone.",
    .m_methods = METHODS,
    .m_slots = SLOTS,
};

PyMODINIT_FUNC PyInit__random(void) { return PyModuleDef_Init(&MODULE); }
