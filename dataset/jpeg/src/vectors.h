/* Vectors that the compiler makes of what the processor has. */

#ifndef LIMBECK_VECTORS_H
#define LIMBECK_VECTORS_H

#include "codec.h"

typedef int16_t Short8 __attribute__((vector_size(16)));

/* Rows and columns of 8 vectors of 8 exchanged. */
INLINE void transpose(Short8 x[8]) {
    Short8 a[8], b[8];
    for (int n = 0; n < 4; n++) {
        a[2 * n] = __builtin_shufflevector(x[n], x[n + 4], 0, 8, 1, 9, 2, 10, 3, 11);
        a[2 * n + 1] = __builtin_shufflevector(x[n], x[n + 4], 4, 12, 5, 13, 6, 14, 7, 15);
    }
    for (int n = 0; n < 4; n++) {
        b[2 * n] = __builtin_shufflevector(a[n], a[n + 4], 0, 8, 1, 9, 2, 10, 3, 11);
        b[2 * n + 1] = __builtin_shufflevector(a[n], a[n + 4], 4, 12, 5, 13, 6, 14, 7, 15);
    }
    for (int n = 0; n < 4; n++) {
        x[2 * n] = __builtin_shufflevector(b[n], b[n + 4], 0, 8, 1, 9, 2, 10, 3, 11);
        x[2 * n + 1] = __builtin_shufflevector(b[n], b[n + 4], 4, 12, 5, 13, 6, 14, 7, 15);
    }
}

#endif
