/* The inverse DCT of one block: the accurate integer method of Loeffler, Ligtenberg and Moschytz (ICASSP 1989) in the
 * fixed point of libjpeg's `islow`, bit for bit: constants of 13 bits, 2 more bits between the passes. Lanes of a
 * vector are columns in the first pass and rows in the second. */

#ifndef LIMBECK_IDCT_H
#define LIMBECK_IDCT_H

#include <string.h>

#include "codec.h"
#include "vectors.h"

typedef int32_t Int8 __attribute__((vector_size(32)));
typedef uint16_t Product8 __attribute__((vector_size(16))); /* modulo 2^16, of any sign */
typedef uint8_t Byte8 __attribute__((vector_size(8)));

enum { CONSTANT_BITS = 13, PASS_BITS = 2 };

/* One dimension of `used` coefficients (the others are zero); x holds 8 of 16 bits, result[n] is x's sample n before
 * its shift by `shift`, rounded. The products' sums are those of islow, factored out. */
INLINE void idct_pass(const Short8 x[8], int used, int shift, int32_t bias, Int8 result[8]) {
#define WIDE(n) __builtin_convertvector(x[n], Int8)
    Int8 even[4], odd[4];
    Int8 zero = (WIDE(0) << CONSTANT_BITS) + ((1 << (shift - 1)) + bias);
    if (used <= 4) {
        Int8 inner = WIDE(2) * 10703, outer = WIDE(2) * 4433;
        even[0] = zero + inner, even[3] = zero - inner;
        even[1] = zero + outer, even[2] = zero - outer;
        odd[0] = WIDE(1) * 11363 + WIDE(3) * 9633;
        odd[1] = WIDE(1) * 9633 + WIDE(3) * -2259;
        odd[2] = WIDE(1) * 6437 + WIDE(3) * -11362;
        odd[3] = WIDE(1) * 2260 + WIDE(3) * -6436;
    } else {
        Int8 four = WIDE(4) << CONSTANT_BITS;
        Int8 sum = zero + four, difference = zero - four;
        Int8 inner = WIDE(2) * 10703 + WIDE(6) * 4433, outer = WIDE(2) * 4433 + WIDE(6) * -10704;
        even[0] = sum + inner, even[3] = sum - inner;
        even[1] = difference + outer, even[2] = difference - outer;
        odd[0] = WIDE(1) * 11363 + WIDE(3) * 9633 + WIDE(5) * 6437 + WIDE(7) * 2260;
        odd[1] = WIDE(1) * 9633 + WIDE(3) * -2259 + WIDE(5) * -11362 + WIDE(7) * -6436;
        odd[2] = WIDE(1) * 6437 + WIDE(3) * -11362 + WIDE(5) * 2261 + WIDE(7) * 9633;
        odd[3] = WIDE(1) * 2260 + WIDE(3) * -6436 + WIDE(5) * 9633 + WIDE(7) * -11363;
    }
    for (int n = 0; n < 4; n++) {
        result[n] = (even[n] + odd[n]) >> shift;
        result[7 - n] = (even[n] - odd[n]) >> shift;
    }
#undef WIDE
}

/* Blocks of so many coefficients in zigzag order, at most, are flat or have none outside the upper left 4 x 4. */
enum { FLAT = 1, CORNER = 10 };

/* Samples of a flat block, as idct_block. */
INLINE void idct_flat(const int16_t *coefficients, const int16_t *steps, uint8_t *out, int64_t stride) {
    int value = (((int16_t)(coefficients[0] * steps[0]) + 4) >> 3) + 128;
    value = value < 0 ? 0 : value > 255 ? 255 : value;
    for (int column = 0; column < 8; column++) memset(out + column * stride, value, 8);
}

/* Samples of a block, 0 to 255, written by columns: column c goes to out + c * stride. coefficients and steps, 16 bits
 * each [64], are in natural order; those of the first `used` rows and columns alone are not zero: 4 or 8. */
INLINE void idct_block(const int16_t *coefficients, const int16_t *steps, const int used, uint8_t *out,
                       int64_t stride) {
    Short8 x[8];
    Product8 product, step;
    Int8 y[8];
    for (int row = 0; row < used; row++) {
        memcpy(&product, coefficients + 8 * row, 16);
        memcpy(&step, steps + 8 * row, 16);
        x[row] = (Short8)(product * step);
    }
    idct_pass(x, used, CONSTANT_BITS - PASS_BITS, 0, y);
    for (int row = 0; row < 8; row++) x[row] = __builtin_convertvector(y[row], Short8);
    transpose(x);
    int shift = CONSTANT_BITS + PASS_BITS + 3;
    idct_pass(x, used, shift, 128 << shift, y);
    for (int column = 0; column < 8; column++) {
        Int8 low = y[column] & ~(y[column] >> 31), high = low > 255;
        Byte8 samples = __builtin_convertvector((low & ~high) | (high & 255), Byte8);
        memcpy(out + column * stride, &samples, 8);
    }
}

#endif
