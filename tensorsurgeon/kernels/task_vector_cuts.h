/* Cuts: which elements of a task vector are kept, by their ranks or by chance. */

#ifndef TENSORSURGEON_TASK_VECTOR_CUTS_H
#define TENSORSURGEON_TASK_VECTOR_CUTS_H

#include "task_vector_ranks.h"

#include <stdbool.h>

/* Above every rank, and so that one more is no overflow. */
#define ABOVE_RANKS 0x7FFFFFFE

typedef struct {
    int32_t low, high;
    int64_t take, skip; /* of the elements at `low` and at `high`, still to be kept and left out */
    Py_buffer words;    /* of no object where the cut is by rank */
    Py_buffer limits;   /* of no object where `below` is that of all */
    uint32_t below;
} Cut;

VECTORISED static void prune_nothing(double *restrict values, Py_ssize_t n, double scale,
                                     double weight)
{
    for (Py_ssize_t i = 0; i < n; i++)
        values[i] = values[i] * scale * weight;
}

/* ---- By rank ---- */

VECTORISED static int32_t count_at(const int32_t *restrict ranks, Py_ssize_t n, int32_t rank)
{
    int32_t found = 0;
    for (Py_ssize_t i = 0; i < n; i++)
        found += ranks[i] == rank;
    return found;
}

VECTORISED static void prune_outside(double *restrict values, const int32_t *restrict ranks,
                                     Py_ssize_t n, int32_t from, int32_t to, double scale,
                                     double weight)
{
    for (Py_ssize_t i = 0; i < n; i++) {
        double kept = values[i] * scale * weight;
        values[i] = (ranks[i] >= from) & (ranks[i] <= to) ? kept : 0.0;
    }
}

static void prune_in_order(double *values, const int32_t *ranks, Py_ssize_t n, Cut *cut,
                           double scale, double weight)
{
    for (Py_ssize_t i = 0; i < n; i++) {
        int32_t rank = ranks[i];
        bool kept = rank > cut->low && rank <= cut->high;
        if (rank == cut->high && cut->skip) {
            cut->skip--;
            kept = false;
        } else if (rank == cut->low && cut->take) {
            cut->take--;
            kept = true;
        }
        values[i] = kept ? values[i] * scale * weight : 0.0;
    }
}

/* In almost every block either all elements at a threshold are kept or none is, so that order does
 * not matter and the loop becomes vector code. */
static void prune_by_rank(double *values, Py_ssize_t n, Cut *cut, double scale, double weight)
{
    uint32_t words[BLOCK];
    const int32_t *ranks = (const int32_t *)words;
    ranks_of(values, n, words);
    int32_t at_low = cut->take ? count_at(ranks, n, cut->low) : 0;
    int32_t at_high = cut->skip ? count_at(ranks, n, cut->high) : 0;
    if (at_low > cut->take || at_high > cut->skip || (cut->low >= cut->high && at_low + at_high)) {
        prune_in_order(values, ranks, n, cut, scale, weight);
        return;
    }
    int32_t from = cut->low + !cut->take, to = cut->high - !!cut->skip;
    prune_outside(values, ranks, n, from, to, scale, weight);
    cut->take -= at_low;
    cut->skip -= at_high;
}

/* ---- By chance ---- */

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

VECTORISED static void prune_at_random_each(double *restrict values, const char *restrict words,
                                            const char *restrict limits, Py_ssize_t n, double scale,
                                            double weight)
{
    for (Py_ssize_t i = 0; i < n; i++) {
        uint32_t word, limit;
        memcpy(&word, words + i * sizeof word, sizeof word);
        memcpy(&limit, limits + i * sizeof limit, sizeof limit);
        double kept = values[i] * scale * weight;
        values[i] = word < limit ? kept : 0.0;
    }
}

static const char *word_at(const Py_buffer *words, Py_ssize_t at)
{
    return (const char *)words->buf + at * sizeof(uint32_t);
}

/* Differences that start at the span's element `at` become weight * scale * what is kept of them. */
static void prune(double *values, Py_ssize_t at, Py_ssize_t n, Cut *cut, double scale, double weight)
{
    if (cut->words.obj && cut->limits.obj)
        prune_at_random_each(values, word_at(&cut->words, at), word_at(&cut->limits, at), n, scale,
                             weight);
    else if (cut->words.obj)
        prune_at_random(values, word_at(&cut->words, at), n, cut->below, scale, weight);
    else if (!cut->low && !cut->take && cut->high == ABOVE_RANKS)
        prune_nothing(values, n, scale, weight);
    else
        prune_by_rank(values, n, cut, scale, weight);
}

#endif
