/* Task vectors counted, pruned and put together, span by span: what task_vectors.py does, compiled.
 *
 * A task vector's element is model minus base, in double. Its rank is that of its magnitude rounded
 * to float32: as long as signs are left out, floats are ordered as their bits are, so that a
 * threshold is found by counting the upper and then the lower halves of these words. As in
 * _compiled.c, every function gives the bits that its twin in numpy gives.
 */

#include "_stored.h"

/* Raised with every change of results or arguments. */
#define REVISION 1

/* Elements that are worked on at a time, so that all of it stays in the cache. */
#define BLOCK 1024

#define MAGNITUDE 0x7FFFFFFF

/* ---- Differences ---- */

#define DEFINE_DECODE(NAME, WORD, DECODE)                                                          \
    VECTORISED static void decode_##NAME(const char *raw, Py_ssize_t n, double *restrict out)      \
    {                                                                                              \
        for (Py_ssize_t i = 0; i < n; i++) {                                                       \
            WORD word;                                                                             \
            memcpy(&word, raw + i * sizeof word, sizeof word);                                     \
            out[i] = DECODE(word);                                                                 \
        }                                                                                          \
    }                                                                                              \
    VECTORISED static void difference_##NAME(const char *raw, Py_ssize_t n,                        \
                                             const double *restrict base, double *restrict out)    \
    {                                                                                              \
        for (Py_ssize_t i = 0; i < n; i++) {                                                       \
            WORD word;                                                                             \
            memcpy(&word, raw + i * sizeof word, sizeof word);                                     \
            out[i] = DECODE(word) - base[i];                                                       \
        }                                                                                          \
    }

DEFINE_DECODE(bf16, uint16_t, from_bf16)
DEFINE_DECODE(f16, uint16_t, from_f16)
DEFINE_DECODE(f32, float, from_f32)
DEFINE_DECODE(f64, double, from_f64)

typedef void (*Decode)(const char *, Py_ssize_t, double *restrict);
typedef void (*Difference)(const char *, Py_ssize_t, const double *restrict, double *restrict);
static const Decode DECODE[DTYPES] = {decode_bf16, decode_f16, decode_f32, decode_f64};
static const Difference DIFFERENCE[DTYPES] = {difference_bf16, difference_f16, difference_f32,
                                              difference_f64};

VECTORISED static void ranks_of(const double *restrict values, Py_ssize_t n, uint32_t *restrict ranks)
{
    for (Py_ssize_t i = 0; i < n; i++)
        ranks[i] = bits_of_float((float)values[i]) & MAGNITUDE;
}

/* ---- Counting ---- */

static void count(const uint32_t *ranks, Py_ssize_t n, int prefix, int64_t *counts)
{
    if (prefix < 0)
        for (Py_ssize_t i = 0; i < n; i++)
            counts[ranks[i] >> 16]++;
    else
        for (Py_ssize_t i = 0; i < n; i++)
            counts[ranks[i] & 0xFFFF] += (int)(ranks[i] >> 16) == prefix;
}

/* ---- Pruning ---- */

typedef struct {
    Py_buffer raw;
    Py_buffer words; /* of no object where there are none */
    int dtype;
    double weight;
    double scale;
    uint32_t low, high, below;
    int64_t take, skip; /* of the elements at `low` and at `high`, still to be kept and left out */
} Model;

VECTORISED static uint32_t any_at(const uint32_t *restrict ranks, Py_ssize_t n, uint32_t rank)
{
    uint32_t found = 0;
    for (Py_ssize_t i = 0; i < n; i++)
        found |= ranks[i] == rank;
    return found;
}

VECTORISED static void prune_between(double *restrict values, const uint32_t *restrict ranks,
                                     Py_ssize_t n, uint32_t low, uint32_t high, double scale,
                                     double weight)
{
    for (Py_ssize_t i = 0; i < n; i++) {
        double kept = values[i] * scale * weight;
        values[i] = (ranks[i] > low) & (ranks[i] <= high) ? kept : 0.0;
    }
}

/* What lies at a threshold is kept or left out in order: the first `skip` at the upper one are left
 * out, the first `take` at the lower one are kept. */
static void prune_in_order(double *values, const uint32_t *ranks, Py_ssize_t n, Model *model)
{
    for (Py_ssize_t i = 0; i < n; i++) {
        uint32_t rank = ranks[i];
        int kept = rank > model->low && rank <= model->high;
        if (rank == model->high && model->skip) {
            model->skip--;
            kept = 0;
        } else if (rank == model->low && model->take) {
            model->take--;
            kept = 1;
        }
        values[i] = kept ? values[i] * model->scale * model->weight : 0.0;
    }
}

VECTORISED static void prune_at_random(double *restrict values, const char *restrict words,
                                       Py_ssize_t n, uint32_t below, double scale, double weight)
{
    for (Py_ssize_t i = 0; i < n; i++) {
        uint32_t word;
        memcpy(&word, words + i * sizeof word, sizeof word);
        double kept = values[i] * scale * weight;
        values[i] = word < below ? kept : 0.0;
    }
}

static void prune(double *values, Py_ssize_t at, Py_ssize_t n, Model *model)
{
    uint32_t ranks[BLOCK];
    if (model->words.obj) {
        const char *words = (const char *)model->words.buf + at * sizeof(uint32_t);
        prune_at_random(values, words, n, model->below, model->scale, model->weight);
        return;
    }
    ranks_of(values, n, ranks);
    if ((model->take && any_at(ranks, n, model->low)) ||
        (model->skip && any_at(ranks, n, model->high)))
        prune_in_order(values, ranks, n, model);
    else
        prune_between(values, ranks, n, model->low, model->high, model->scale, model->weight);
}

/* ---- Putting together ---- */

VECTORISED static void add_to(const double *restrict values, Py_ssize_t n, double *restrict sums)
{
    for (Py_ssize_t i = 0; i < n; i++)
        sums[i] += values[i];
}

/* Values whose sign is that of the sum, where no sum is a positive one. */
VECTORISED static void add_agreeing(const double *restrict values, Py_ssize_t n, double weight,
                                    const double *restrict sums, double *restrict agreeing,
                                    double *restrict weights)
{
    for (Py_ssize_t i = 0; i < n; i++) {
        int agrees = sums[i] >= 0.0 ? values[i] > 0.0 : values[i] < 0.0;
        agreeing[i] += agrees ? values[i] : 0.0;
        weights[i] += agrees ? weight : 0.0;
    }
}

VECTORISED static void finish(const double *restrict base, const double *restrict sums,
                              const double *restrict weights, Py_ssize_t n, double factor,
                              double *restrict out)
{
    for (Py_ssize_t i = 0; i < n; i++) {
        double divisor = weights[i] == 0.0 ? 1.0 : weights[i];
        out[i] = base[i] + sums[i] / divisor * factor;
    }
}

typedef struct {
    int elect;
    int normalize;
    double divisor; /* of all weights, where no signs are elected */
    double factor;
} Rule;

static void combine_block(const Py_buffer *base, int dtype, Model *models, Py_ssize_t count,
                          const Rule *rule, Py_ssize_t at, Py_ssize_t n, double *values,
                          double *out)
{
    double origin[BLOCK], sums[BLOCK] = {0}, agreeing[BLOCK] = {0}, weights[BLOCK];
    DECODE[dtype]((const char *)base->buf + at * ITEMSIZE[dtype], n, origin);
    for (Py_ssize_t m = 0; m < count; m++) {
        Model *model = models + m;
        double *own = values + m * BLOCK;
        const char *raw = (const char *)model->raw.buf + at * ITEMSIZE[model->dtype];
        DIFFERENCE[model->dtype](raw, n, origin, own);
        prune(own, at, n, model);
        add_to(own, n, sums);
    }
    for (Py_ssize_t i = 0; i < n; i++)
        weights[i] = rule->elect ? 0.0 : rule->divisor;
    if (rule->elect)
        for (Py_ssize_t m = 0; m < count; m++)
            add_agreeing(values + m * BLOCK, n, models[m].weight, sums, agreeing, weights);
    if (!rule->normalize)
        for (Py_ssize_t i = 0; i < n; i++)
            weights[i] = 1.0;
    finish(origin, rule->elect ? agreeing : sums, weights, n, rule->factor, out);
}

/* ---- The module ---- */

static int check(const char *what, int dtype, const Py_buffer *raw, Py_ssize_t n)
{
    if (dtype < 0 || dtype >= DTYPES)
        PyErr_Format(PyExc_ValueError, "%s: no dtype %d", what, dtype);
    else if (raw->len != n * ITEMSIZE[dtype])
        PyErr_Format(PyExc_ValueError, "%s: %zd bytes are not %zd elements", what, raw->len, n);
    else
        return 1;
    return 0;
}

static PyObject *tally(PyObject *module, PyObject *arguments)
{
    Py_buffer base, raw, counts;
    int base_dtype, dtype, prefix;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*iy*iiw*", &base, &base_dtype, &raw, &dtype, &prefix, &counts))
        return NULL;
    int good = dtype >= 0 && dtype < DTYPES;
    Py_ssize_t n = good ? raw.len / ITEMSIZE[dtype] : 0;
    good = check("model", dtype, &raw, n) && (!base.len || check("base", base_dtype, &base, n));
    if (good && (counts.len != 65536 * sizeof(int64_t) || prefix > 0xFFFF)) {
        PyErr_SetString(PyExc_ValueError, "counts are not 65536 words of 64 bits");
        good = 0;
    }
    if (good) {
        Py_BEGIN_ALLOW_THREADS
        double origin[BLOCK] = {0}, values[BLOCK];
        uint32_t ranks[BLOCK];
        for (Py_ssize_t at = 0; at < n; at += BLOCK) {
            Py_ssize_t now = n - at < BLOCK ? n - at : BLOCK;
            if (base.len)
                DECODE[base_dtype]((const char *)base.buf + at * ITEMSIZE[base_dtype], now, origin);
            DIFFERENCE[dtype]((const char *)raw.buf + at * ITEMSIZE[dtype], now, origin, values);
            ranks_of(values, now, ranks);
            count(ranks, now, prefix, counts.buf);
        }
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&base);
    PyBuffer_Release(&raw);
    PyBuffer_Release(&counts);
    return good ? Py_NewRef(Py_None) : NULL;
}

/* One model of `combine`; what was taken of it is given back by `release`. */
static int parse(PyObject *item, Model *model, Py_ssize_t n)
{
    PyObject *words;
    unsigned int low, high, below;
    long long take, skip;
    if (!PyTuple_Check(item)) {
        PyErr_SetString(PyExc_TypeError, "a model is no tuple");
        return 0;
    }
    if (!PyArg_ParseTuple(item, "y*iddILILOI", &model->raw, &model->dtype, &model->weight,
                          &model->scale, &low, &take, &high, &skip, &words, &below))
        return 0;
    model->low = low, model->high = high, model->below = below;
    model->take = take, model->skip = skip;
    if (!check("model", model->dtype, &model->raw, n))
        return 0;
    if (words == Py_None)
        return 1;
    if (PyObject_GetBuffer(words, &model->words, PyBUF_SIMPLE) < 0)
        return 0;
    if (model->words.len == n * (Py_ssize_t)sizeof(uint32_t))
        return 1;
    PyErr_SetString(PyExc_ValueError, "there is not one word for each element");
    return 0;
}

static void release(Model *models, Py_ssize_t count)
{
    for (Py_ssize_t m = 0; m < count; m++) {
        if (models[m].raw.obj)
            PyBuffer_Release(&models[m].raw);
        if (models[m].words.obj)
            PyBuffer_Release(&models[m].words);
    }
    PyMem_Free(models);
}

static PyObject *left_of(const Model *models, Py_ssize_t count)
{
    PyObject *left = PyTuple_New(count);
    for (Py_ssize_t m = 0; left && m < count; m++) {
        PyObject *pair =
            Py_BuildValue("(LL)", (long long)models[m].take, (long long)models[m].skip);
        if (!pair || PyTuple_SetItem(left, m, pair) < 0)
            Py_CLEAR(left);
    }
    return left;
}

static PyObject *combine(PyObject *module, PyObject *arguments)
{
    Py_buffer base, out;
    PyObject *items, *left = NULL;
    int dtype;
    Rule rule;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*iOppddw*", &base, &dtype, &items, &rule.elect,
                          &rule.normalize, &rule.divisor, &rule.factor, &out))
        return NULL;
    Py_ssize_t n = out.len / (Py_ssize_t)sizeof(double);
    Py_ssize_t count = PyTuple_Check(items) ? PyTuple_Size(items) : -1;
    Model *models = PyMem_Calloc(count > 0 ? count : 1, sizeof *models);
    double *values = PyMem_Malloc((count > 0 ? count : 1) * BLOCK * sizeof *values);
    int good = check("base", dtype, &base, n);
    if (good && count < 1) {
        PyErr_SetString(PyExc_TypeError, "models are no tuple of one or more");
        good = 0;
    }
    if (good && (!models || !values)) {
        PyErr_NoMemory();
        good = 0;
    }
    for (Py_ssize_t m = 0; good && m < count; m++)
        good = parse(PyTuple_GetItem(items, m), models + m, n);
    if (good) {
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t at = 0; at < n; at += BLOCK) {
            Py_ssize_t now = n - at < BLOCK ? n - at : BLOCK;
            combine_block(&base, dtype, models, count, &rule, at, now, values,
                          (double *)out.buf + at);
        }
        Py_END_ALLOW_THREADS
        left = left_of(models, count);
    }
    if (models)
        release(models, count > 0 ? count : 0);
    PyMem_Free(values);
    PyBuffer_Release(&base);
    PyBuffer_Release(&out);
    return left;
}

static PyMethodDef METHODS[] = {
    {"tally", tally, METH_VARARGS,
     "tally(base, base dtype, model, dtype, prefix, counts): count ranks' halves."},
    {"combine", combine, METH_VARARGS,
     "combine(base, dtype, models, elect, normalize, divisor, factor, out) -> what is left to take "
     "and to skip of each model."},
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
    .m_doc = "Task vectors counted, pruned and put together.",
    .m_methods = METHODS,
    .m_slots = SLOTS,
};

PyMODINIT_FUNC PyInit__task_vectors(void) { return PyModuleDef_Init(&MODULE); }
