/* Each row's elements by their ranks among themselves, each given what a table says of its place. */

#ifndef TENSORSURGEON_TASK_VECTOR_ROWS_H
#define TENSORSURGEON_TASK_VECTOR_ROWS_H

#include "task_vector_ranks.h"

#include <stdbool.h>

/* A radix sort by digits of 8 bits, from the lowest on. */
#define DIGITS 4
#define RADIX 256

/* A rank in the upper half of a word, where it is in its row in the lower. */
typedef uint64_t Place;

static inline int digit_of(Place place, int digit) { return (place >> (32 + 8 * digit)) & 0xFF; }

static void sort_by_digit(const Place *restrict places, Py_ssize_t n, int digit,
                          const uint32_t *counts, Place *restrict out)
{
    uint32_t starts[RADIX], start = 0;
    for (int i = 0; i < RADIX; i++) {
        starts[i] = start;
        start += counts[i];
    }
    for (Py_ssize_t i = 0; i < n; i++)
        out[starts[digit_of(places[i], digit)]++] = places[i];
}

/* The places of a row in ascending order of their ranks, ties by where they are: one of the two
 * buffers, in the first of which they are given. */
static const Place *sorted_row(Place *places, Place *other, Py_ssize_t n)
{
    uint32_t counts[DIGITS][RADIX] = {{0}};
    for (Py_ssize_t i = 0; i < n; i++)
        for (int digit = 0; digit < DIGITS; digit++)
            counts[digit][digit_of(places[i], digit)]++;
    for (int digit = 0; digit < DIGITS; digit++) {
        bool constant = counts[digit][digit_of(places[0], digit)] == n;
        if (constant)
            continue;
        sort_by_digit(places, n, digit, counts[digit], other);
        Place *sorted = other;
        other = places;
        places = sorted;
    }
    return places;
}

/* Buffers for places of `columns` elements each, and the table's `columns` words. */
static void limit_rows(const Span *base, const Span *model, Py_ssize_t n, Py_ssize_t columns,
                       const uint32_t *table, Place *places, Place *other, uint32_t *out)
{
    double origin[BLOCK], values[BLOCK];
    uint32_t ranks[BLOCK];
    for (Py_ssize_t row = 0; row < n; row += columns) {
        for (Py_ssize_t at = 0; at < columns; at += BLOCK) {
            Py_ssize_t now = within_block(columns - at);
            decode(base, row + at, now, origin);
            difference(model, row + at, now, origin, values);
            ranks_of(values, now, ranks);
            for (Py_ssize_t i = 0; i < now; i++)
                places[at + i] = (Place)ranks[i] << 32 | (uint32_t)(at + i);
        }
        const Place *sorted = sorted_row(places, other, columns);
        for (Py_ssize_t i = 0; i < columns; i++)
            out[row + (uint32_t)sorted[i]] = table[i];
    }
}

#endif
