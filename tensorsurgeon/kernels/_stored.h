/* What stored elements are: their dtypes, and how each is decoded to a double, exactly. */

#ifndef TENSORSURGEON_STORED_H
#define TENSORSURGEON_STORED_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__linux__) && defined(__GLIBC__) && defined(__GNUC__)
#define VECTORISED __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define VECTORISED
#endif

enum { BF16, F16, F32, F64, DTYPES };

static const Py_ssize_t ITEMSIZE[DTYPES] = {2, 2, 4, 8};

static inline float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t bits_of_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline uint64_t bits_of(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* ---- Decoding: exact ---- */

static inline double from_bf16(uint16_t word) { return float_of((uint32_t)word << 16); }

static inline double from_f16(uint16_t word)
{
    uint32_t sign = (uint32_t)(word & 0x8000) << 16;
    uint32_t rest = (uint32_t)(word & 0x7FFF) << 13;
    /* Seen as a float its exponent is 112 too small; multiplying also makes subnormals normal. */
    uint32_t finite = bits_of_float(float_of(rest) * 0x1p112f);
    uint32_t bits = rest >= 0x0F800000 ? rest | 0x7F800000 : finite;
    return float_of(sign | bits);
}

static inline double from_f32(float word) { return word; }
static inline double from_f64(double word) { return word; }

#endif
