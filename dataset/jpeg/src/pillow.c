/* Antialiased bilinear resizing in the fixed point of Pillow: weights of 22 bits, samples rounded after each axis. */

#include <math.h>
#include <string.h>

#include "codec.h"

enum { PRECISION = 22 };

/* Weights of the triangle filter, int32 [count, most], and the first pixel of each output; most is twice the reduction,
 * rounded up, and 1. */
void triangle_weights(int64_t length, int64_t size, int64_t begin, int64_t count, int64_t most, int64_t *first,
                      int32_t *weights) {
    double scale = (double)length / (double)size, support = scale > 1.0 ? scale : 1.0;
    for (int64_t n = 0; n < count; n++, weights += most) {
        double center = ((double)(begin + n) + 0.5) * scale, total = 0.0;
        int64_t low = (int64_t)(center - support + 0.5), high = (int64_t)(center + support + 0.5);
        low = low < 0 ? 0 : low, high = high > length ? length : high;
        first[n] = low;
        for (int pass = 0; pass < 2; pass++) {
            for (int64_t place = 0; place < most; place++) {
                double weight = 1.0 - fabs(((double)(place + low) - center + 0.5) * (1.0 / support));
                weight = place < high - low && weight > 0.0 ? weight : 0.0;
                if (pass) weights[place] = (int32_t)(weight * (1.0 / total) * (1 << PRECISION) + 0.5);
                else total += weight;
            }
        }
    }
}

/* out[n] = sum over t of weights[n, t] * rows[first[n] + t], rounded; rows and outputs are of `width` bytes. */
void combine_rows(const uint8_t *rows, int64_t width, int64_t count, int64_t most, const int64_t *first,
                  const int32_t *weights, uint8_t *out) {
    int32_t total[256];
    for (int64_t n = 0; n < count; n++, weights += most) {
        for (int64_t x = 0; x < width; x += 256) {
            int64_t some = width - x < 256 ? width - x : 256;
            for (int64_t k = 0; k < some; k++) total[k] = 1 << (PRECISION - 1);
            for (int64_t tap = 0; tap < most; tap++) {
                if (!weights[tap]) continue;
                const uint8_t *row = rows + (first[n] + tap) * width + x;
                for (int64_t k = 0; k < some; k++) total[k] += row[k] * weights[tap];
            }
            for (int64_t k = 0; k < some; k++) out[n * width + x + k] = (uint8_t)(total[k] >> PRECISION);
        }
    }
}
