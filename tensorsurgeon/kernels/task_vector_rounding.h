/* Stochastic rounding: up with the probability that makes the rounded value right on average. */

#ifndef TENSORSURGEON_TASK_VECTOR_ROUNDING_H
#define TENSORSURGEON_TASK_VECTOR_ROUNDING_H

#include "_stored.h"

#include <math.h>

static inline double double_of(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

#define INFINITE 0x7FF0000000000000

/* A dtype with so many bits of FRACTION, whose normal values start at 2^(LEAST - 1023). From END on
 * values round to infinity, as nearest rounding has it, and below it never. */
#define DEFINE_STOCHASTIC(NAME, WORD, FRACTION, LEAST, END, INFINITY_WORD, NAN_WORD)               \
    VECTORISED static int64_t stochastic_##NAME(const double *restrict values, Py_ssize_t n,       \
                                                const char *restrict words, char *restrict raw)    \
    {                                                                                              \
        int64_t lost = 0;                                                                          \
        for (Py_ssize_t i = 0; i < n; i++) {                                                       \
            uint32_t word;                                                                         \
            memcpy(&word, words + i * sizeof word, sizeof word);                                   \
            uint64_t bits = bits_of(values[i]), magnitude = bits & 0x7FFFFFFFFFFFFFFF;             \
            uint64_t finite = magnitude < INFINITE ? magnitude : 0;                                \
            uint64_t exponent = finite >> 52;                                                      \
            exponent = exponent < LEAST ? LEAST : exponent;                                        \
            /* In units of the gap between neighbours: below 2^(FRACTION + 1), and exact. */       \
            double scaled = double_of(finite) * double_of((2046 + FRACTION - exponent) << 52);     \
            int32_t lower = (int32_t)scaled;                                                       \
            /* Whole numbers: word < floor(x) if and only if word + 1 <= x. */                     \
            int32_t up = (scaled - lower) * 0x1p32 >= word + 1.0;                                  \
            /* Normal values have their leading bit in the exponent, subnormal ones have none. */  \
            uint64_t rounded = ((exponent - LEAST) << FRACTION) + (uint64_t)(lower + up);          \
            rounded = rounded < INFINITY_WORD ? rounded : INFINITY_WORD - 1;                       \
            rounded = magnitude >= bits_of(END) ? INFINITY_WORD : rounded;                         \
            lost += magnitude >= bits_of(END) && magnitude < INFINITE;                             \
            rounded |= (bits >> 63) << (8 * sizeof(WORD) - 1);                                     \
            WORD found = (WORD)(magnitude > INFINITE ? NAN_WORD : rounded);                        \
            memcpy(raw + i * sizeof found, &found, sizeof found);                                  \
        }                                                                                          \
        return lost;                                                                               \
    }

/* Nearest rounding to bfloat16 goes by way of float32, and so does its end. */
DEFINE_STOCHASTIC(bf16, uint16_t, 7, 897, 0x1.feffffp127, 0x7F80, 0x7FC0)
DEFINE_STOCHASTIC(f16, uint16_t, 10, 1009, 65520.0, 0x7C00, 0x7E00)
DEFINE_STOCHASTIC(f32, uint32_t, 23, 897, 0x1.ffffffp127, 0x7F800000, 0x7FC00000)

typedef int64_t (*Stochastic)(const double *, Py_ssize_t, const char *, char *);
static const Stochastic STOCHASTIC[DTYPES] = {stochastic_bf16, stochastic_f16, stochastic_f32, NULL};

#endif
