/* Sums over a span, in an order that depends on its length alone. */

#ifndef TENSORSURGEON_TASK_VECTOR_SUMS_H
#define TENSORSURGEON_TASK_VECTOR_SUMS_H

#include "task_vector_cuts.h"

#include <math.h>

/* A sum is taken in so many columns, as in _compiled.c; blocks are whole rows of them. */
#define COLUMNS 512

VECTORISED static void add_row(const double *restrict values, Py_ssize_t n, double *restrict columns)
{
    for (Py_ssize_t i = 0; i < n; i++)
        columns[i] += fabs(values[i]);
}

static void add_magnitudes(const double *values, Py_ssize_t n, double *columns)
{
    for (Py_ssize_t at = 0; at < n; at += COLUMNS)
        add_row(values + at, n - at < COLUMNS ? n - at : COLUMNS, columns);
}

static double folded(double *columns)
{
    for (Py_ssize_t half = COLUMNS / 2; half; half /= 2)
        for (Py_ssize_t i = 0; i < half; i++)
            columns[i] += columns[half + i];
    return columns[0];
}

/* ---- What a cut keeps ---- */

typedef struct {
    double all, kept;
} Mass;

static Mass mass_of(const Span *base, const Span *model, Py_ssize_t n, Cut *cut)
{
    double all[COLUMNS] = {0}, kept[COLUMNS] = {0}, origin[BLOCK], values[BLOCK];
    for (Py_ssize_t at = 0; at < n; at += BLOCK) {
        Py_ssize_t now = within_block(n - at);
        decode(base, at, now, origin);
        difference(model, at, now, origin, values);
        add_magnitudes(values, now, all);
        prune(values, at, now, cut, 1.0, 1.0);
        add_magnitudes(values, now, kept);
    }
    return (Mass){folded(all), folded(kept)};
}

/* ---- What rounding loses ---- */

/* The update, and in `written` what is lost of it: that where what was written is the base. */
VECTORISED static void compare(const double *restrict origin, Py_ssize_t n,
                               const double *restrict values, double *restrict update,
                               double *restrict written)
{
    for (Py_ssize_t i = 0; i < n; i++) {
        update[i] = values[i] - origin[i];
        written[i] = written[i] == origin[i] ? update[i] : 0.0;
    }
}

typedef struct {
    double all, lost;
} Loss;

static Loss loss_of(const Span *base, const double *values, const Span *stored, Py_ssize_t n)
{
    double all[COLUMNS] = {0}, lost[COLUMNS] = {0};
    double origin[BLOCK], update[BLOCK], written[BLOCK];
    for (Py_ssize_t at = 0; at < n; at += BLOCK) {
        Py_ssize_t now = within_block(n - at);
        decode(base, at, now, origin);
        decode(stored, at, now, written);
        compare(origin, now, values + at, update, written);
        add_magnitudes(update, now, all);
        add_magnitudes(written, now, lost);
    }
    return (Loss){folded(all), folded(lost)};
}

#endif
