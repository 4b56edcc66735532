/* Task vectors put together: pruned, their signs elected, divided, and added to the base. */

#ifndef TENSORSURGEON_TASK_VECTOR_ELECTION_H
#define TENSORSURGEON_TASK_VECTOR_ELECTION_H

#include "task_vector_cuts.h"

typedef struct {
    Span span;
    double weight;
    double scale;
    Cut cut;
} Part;

typedef struct {
    int elect;
    int normalize;
    double divisor; /* of all weights, where no signs are elected */
    double factor;
} Rule;

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

/* NaN where a difference is infinite or no number, so that no cut hides it; else a zero. */
VECTORISED static void add_flaws(const double *restrict values, Py_ssize_t n,
                                 double *restrict flaws)
{
    for (Py_ssize_t i = 0; i < n; i++)
        flaws[i] += values[i] * 0.0;
}

/* What is not updated stays as it is, minus zeros as well. */
VECTORISED static void finish(const double *restrict origin, const double *restrict sums,
                              const double *restrict weights, const double *restrict flaws,
                              Py_ssize_t n, double factor, double *restrict out)
{
    for (Py_ssize_t i = 0; i < n; i++) {
        double divisor = weights[i] == 0.0 ? 1.0 : weights[i];
        double update = sums[i] / divisor * factor + flaws[i];
        out[i] = update == 0.0 ? origin[i] : origin[i] + update;
    }
}

/* `values` has room for a block of each part. */
static void combine_block(const Span *base, Part *parts, Py_ssize_t count, const Rule *rule,
                          Py_ssize_t at, Py_ssize_t n, double *values, double *out)
{
    double origin[BLOCK], sums[BLOCK] = {0}, agreeing[BLOCK] = {0}, weights[BLOCK] = {0};
    double flaws[BLOCK] = {0};
    decode(base, at, n, origin);
    for (Py_ssize_t p = 0; p < count; p++) {
        double *own = values + p * BLOCK;
        difference(&parts[p].span, at, n, origin, own);
        add_flaws(own, n, flaws);
        prune(own, at, n, &parts[p].cut, parts[p].scale, parts[p].weight);
        add_to(own, n, sums);
    }
    if (rule->elect)
        for (Py_ssize_t p = 0; p < count; p++)
            add_agreeing(values + p * BLOCK, n, parts[p].weight, sums, agreeing, weights);
    if (!rule->elect || !rule->normalize)
        for (Py_ssize_t i = 0; i < n; i++)
            weights[i] = rule->normalize ? rule->divisor : 1.0;
    finish(origin, rule->elect ? agreeing : sums, weights, flaws, n, rule->factor, out);
}

#endif
