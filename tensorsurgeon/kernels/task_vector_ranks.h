/* The elements of task vectors, a block at a time: differences, their ranks, and how many there are
 * of each rank. */

#ifndef TENSORSURGEON_TASK_VECTOR_RANKS_H
#define TENSORSURGEON_TASK_VECTOR_RANKS_H

#include "_stored.h"

/* Elements that are worked on at a time, so that all of it stays in the cache. */
#define BLOCK 1024

#define HALVES 65536

/* A NaN's, whatever its payload: one above infinity's. */
#define HIGHEST_RANK 0x7F800001

static inline Py_ssize_t within_block(Py_ssize_t left) { return left < BLOCK ? left : BLOCK; }

/* A span as it is stored. */
typedef struct {
    Py_buffer raw; /* without bytes where there is no base */
    int dtype;
} Span;

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
    VECTORISED static void subtract_##NAME(const char *raw, Py_ssize_t n,                          \
                                           const double *restrict base, double *restrict out)      \
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
typedef void (*Subtract)(const char *, Py_ssize_t, const double *restrict, double *restrict);
static const Decode DECODE[DTYPES] = {decode_bf16, decode_f16, decode_f32, decode_f64};
static const Subtract SUBTRACT[DTYPES] = {subtract_bf16, subtract_f16, subtract_f32, subtract_f64};

static const char *raw_at(const Span *span, Py_ssize_t at)
{
    return (const char *)span->raw.buf + at * ITEMSIZE[span->dtype];
}

static void decode(const Span *span, Py_ssize_t at, Py_ssize_t n, double *out)
{
    DECODE[span->dtype](raw_at(span, at), n, out);
}

/* model - origin, where origin is the decoded base. */
static void difference(const Span *model, Py_ssize_t at, Py_ssize_t n, const double *origin,
                       double *out)
{
    SUBTRACT[model->dtype](raw_at(model, at), n, origin, out);
}

/* ---- Ranks ---- */

/* The magnitude rounded to float32, as a word: floats without a sign are ordered as their bits are.
 * No value but 0 has rank 0, even where float32 would make it 0. */
VECTORISED static void ranks_of(const double *restrict values, Py_ssize_t n, uint32_t *restrict ranks)
{
    for (Py_ssize_t i = 0; i < n; i++) {
        uint32_t bits = bits_of_float((float)values[i]) & 0x7FFFFFFF;
        uint32_t least = values[i] != 0.0;
        bits = bits > least ? bits : least;
        ranks[i] = bits < HIGHEST_RANK ? bits : HIGHEST_RANK;
    }
}

/* Every other element is counted in the upper half of the table, where no rank belongs: to count
 * two equal ones in a row, and most of them may be 0, one word would have to be waited for. */
static void count_upper_halves(const uint32_t *ranks, Py_ssize_t n, int64_t *counts)
{
    Py_ssize_t i = 0;
    for (; i + 1 < n; i += 2) {
        counts[ranks[i] >> 16]++;
        counts[(ranks[i + 1] >> 16) + HALVES / 2]++;
    }
    if (i < n)
        counts[ranks[i] >> 16]++;
}

VECTORISED static void join_counts(int64_t *counts)
{
    for (Py_ssize_t i = 0; i < HALVES / 2; i++) {
        counts[i] += counts[i + HALVES / 2];
        counts[i + HALVES / 2] = 0;
    }
}

/* Counts the lower halves of those with this upper half; they are gathered first, since they are
 * few, and what decides is anyone's guess. */
static void count_lower_halves(const uint32_t *ranks, Py_ssize_t n, uint32_t upper, int64_t *counts)
{
    uint16_t found[BLOCK];
    Py_ssize_t gathered = 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        found[gathered] = (uint16_t)ranks[i];
        gathered += ranks[i] >> 16 == upper;
    }
    for (Py_ssize_t i = 0; i < gathered; i++)
        counts[found[i]]++;
}

#endif
