#include "resize.h"

#include <math.h>
#include <string.h>

#include "vectors.h"

enum { LANES = 16 };

typedef uint8_t Bytes __attribute__((vector_size(LANES)));
typedef uint16_t Words __attribute__((vector_size(2 * LANES)));
typedef int16_t Signed __attribute__((vector_size(2 * LANES)));
typedef uint32_t Long __attribute__((vector_size(4 * LANES)));
typedef int32_t SignedLong __attribute__((vector_size(4 * LANES)));

/* The high 16 of 32 bits of products. */
INLINE Words times(Words samples, uint16_t weight) {
    Words weights = (Words){0} + weight;
    return __builtin_convertvector(
        (__builtin_convertvector(samples, Long) * __builtin_convertvector(weights, Long)) >> 16, Words);
}

INLINE Signed signed_times(Signed samples, int16_t constant) {
    Signed constants = (Signed){0} + constant;
    return __builtin_convertvector(
        (__builtin_convertvector(samples, SignedLong) * __builtin_convertvector(constants, SignedLong)) >> 16, Signed);
}

/* As many taps for every output, none beyond the last sample of any: weights of 0 stand at one end. */
static void even_out(Filter *filter, const int32_t *number, int32_t most) {
    for (int32_t n = 0; n < filter->count; n++) {
        uint16_t *to = filter->weights + (int64_t)n * filter->taps, *from = filter->weights + (int64_t)n * most;
        int32_t before = filter->first[n] + filter->taps - filter->high;
        before = before < 0 ? 0 : before;
        filter->first[n] -= before;
        memmove(to + before, from, (size_t)number[n] * sizeof *to);
        memset(to, 0, (size_t)before * sizeof *to);
        memset(to + before + number[n], 0, (size_t)(filter->taps - before - number[n]) * sizeof *to);
    }
}

int make_filter(Filter *filter, const Axis *axis, int32_t ratio, int smooth, int32_t samples, Arena *arena) {
    double scale = (double)axis->length / (double)axis->resized, support = scale > 1.0 ? scale : 1.0;
    int32_t most = 2 * (int32_t)ceil(support) + 3, count = (int32_t)axis->count;
    filter->count = count, filter->taps = 1, filter->low = INT32_MAX, filter->high = 0;
    filter->first = take(arena, (size_t)count * sizeof(int32_t));
    filter->weights = take(arena, (size_t)count * (size_t)most * sizeof(uint16_t));
    int32_t *number = take(arena, (size_t)count * sizeof(int32_t));
    float *sums = take(arena, (size_t)most * sizeof(float));
    if (!filter->first || !filter->weights || !number || !sums) return 0;
    float slope = (float)(1 / support);
    for (int32_t n = 0; n < count; n++) {
        double center = ((double)(axis->begin + n) + 0.5) * scale;
        int32_t low = (int32_t)(center - support + 0.5), high = (int32_t)(center + support + 0.5);
        low = low < 0 ? 0 : low, high = high > axis->length ? (int32_t)axis->length : high;
        int32_t at = (int32_t)axis->origin + low, start = at / ratio - smooth, taps = 0;
        start = start < 0 ? 0 : start;
        float away = (float)(low + 0.5 - center), total = 0;
        for (int32_t pixel = low; pixel < high; pixel++, at++, away++) {
            float weight = 1 - fabsf(away) * slope;
            int32_t tap = (ratio == 1 ? at : at / ratio) - start;
            weight = weight < 0 ? 0 : weight;
            total += weight;
            int32_t last = tap + smooth;
            last = last >= samples - start ? samples - start - 1 : last;
            while (taps <= last) sums[taps++] = 0;
            if (smooth) {
                int32_t other = tap + (at & 1 ? 1 : -1);
                sums[other < 0 ? 0 : other > last ? last : other] += 0.25f * weight;
                weight *= 0.75f;
            }
            sums[tap] += weight;
        }
        int32_t from = 0;
        while (from < taps - 1 && sums[from] <= 0) from++;
        while (taps > from + 1 && sums[taps - 1] <= 0) taps--;
        int32_t output = axis->mirror ? count - 1 - n : n;
        uint16_t *weights = filter->weights + (int64_t)output * most;
        float whole = 65536 / total;
        for (int32_t tap = from; tap < taps; tap++) {
            int32_t weight = (int32_t)(sums[tap] * whole + 0.5f);
            weights[tap - from] = (uint16_t)(weight > 65535 ? 65535 : weight);
        }
        filter->first[output] = start + from;
        number[output] = taps - from;
        if (number[output] > filter->taps) filter->taps = number[output];
        if (start + from < filter->low) filter->low = start + from;
        if (start + taps > filter->high) filter->high = start + taps;
    }
    even_out(filter, number, most);
    return 1;
}

INLINE Words column(const uint8_t *samples, int64_t stride, const uint16_t *weights, const int32_t taps) {
    Words sum = (Words){0} + (uint16_t)(taps / 2); /* what the products' lost fractions come to */
    for (int32_t tap = 0; tap < taps; tap++) {
        Bytes some;
        memcpy(&some, samples + tap * stride, sizeof some);
        sum += times(__builtin_convertvector(some, Words) << 8, weights[tap]);
    }
    return sum;
}

INLINE void columns(const Filter *filter, const uint8_t *samples, int64_t stride, int32_t origin, Plane *plane,
                    const int32_t taps) {
    int32_t last = filter->count - 1;
    for (int32_t n = 0; n <= last; n += 8) {
        for (int32_t y = 0; y < plane->rows; y += LANES) {
            Words sum[8];
#pragma GCC unroll 8
            for (int k = 0; k < 8; k++) {
                int32_t output = n + k < last ? n + k : last;
                sum[k] = column(samples + (filter->first[output] - origin) * stride + y, stride,
                                filter->weights + (int64_t)output * taps, taps);
            }
#pragma GCC unroll 2
            for (int part = 0; part < LANES; part += 8) {
                Short8 block[8];
                for (int k = 0; k < 8; k++) {
                    Signed all = (Signed)sum[k];
                    block[k] = part ? __builtin_shufflevector(all, all, 8, 9, 10, 11, 12, 13, 14, 15)
                                    : __builtin_shufflevector(all, all, 0, 1, 2, 3, 4, 5, 6, 7);
                }
                transpose(block);
                uint16_t *out = plane->samples + (y + part) * plane->stride + n;
                for (int k = 0; k < 8; k++) memcpy(out + k * plane->stride, &block[k], sizeof block[k]);
            }
        }
    }
}

void filter_columns(const Filter *filter, const uint8_t *samples, int64_t stride, int32_t origin, Plane *plane) {
    if (filter->taps == 2) columns(filter, samples, stride, origin, plane, 2);
    else if (filter->taps == 3) columns(filter, samples, stride, origin, plane, 3);
    else if (filter->taps == 4) columns(filter, samples, stride, origin, plane, 4);
    else if (filter->taps == 5) columns(filter, samples, stride, origin, plane, 5);
    else columns(filter, samples, stride, origin, plane, filter->taps);
}

INLINE Words row(const Filter *filter, int32_t output, const Plane *plane, int32_t x, const int32_t taps) {
    const uint16_t *samples = plane->samples + (filter->first[output] - plane->origin) * plane->stride + x;
    const uint16_t *weights = filter->weights + (int64_t)output * taps;
    Words sum = (Words){0} + (uint16_t)(taps / 2);
    for (int32_t tap = 0; tap < taps; tap++) {
        Words some;
        memcpy(&some, samples + tap * plane->stride, sizeof some);
        sum += times(some, weights[tap]);
    }
    return sum;
}

/* 0 to 255 from 6 fraction bits. */
INLINE Bytes clamped(Signed value) {
    value >>= 6;
    value &= ~(value >> 15);
    Signed high = value > 255;
    return __builtin_convertvector((value & ~high) | (high & 255), Bytes);
}

/* Constants of 14 fraction bits (ITU-R BT.601, JFIF). */
INLINE void convert(Words luma, Words blue, Words red, Bytes pixel[3]) {
    Signed y = (Signed)((luma + 2) >> 2) + 32;
    Signed cb = ((Signed)((blue + 2) >> 2) - 8192) * 4, cr = ((Signed)((red + 2) >> 2) - 8192) * 4;
    pixel[0] = clamped(y + signed_times(cr, 22970));
    pixel[1] = clamped(y - signed_times(cb, 5638) - signed_times(cr, 11700));
    pixel[2] = clamped(y + signed_times(cb, 29032));
}

/* LANES pixels of three planes, as they stand in memory. */
INLINE void interleave(const Bytes pixel[3], uint8_t *out) {
    Bytes a = pixel[0], b = pixel[1], c = pixel[2], mixed[3];
    mixed[0] = __builtin_shufflevector(a, b, 0, 16, 0, 1, 17, 0, 2, 18, 0, 3, 19, 0, 4, 20, 0, 5);
    mixed[0] = __builtin_shufflevector(mixed[0], c, 0, 1, 16, 3, 4, 17, 6, 7, 18, 9, 10, 19, 12, 13, 20, 15);
    mixed[1] = __builtin_shufflevector(a, b, 21, 0, 6, 22, 0, 7, 23, 0, 8, 24, 0, 9, 25, 0, 10, 26);
    mixed[1] = __builtin_shufflevector(mixed[1], c, 0, 21, 2, 3, 22, 5, 6, 23, 8, 9, 24, 11, 12, 25, 14, 15);
    mixed[2] = __builtin_shufflevector(a, b, 0, 11, 27, 0, 12, 28, 0, 13, 29, 0, 14, 30, 0, 15, 31, 0);
    mixed[2] = __builtin_shufflevector(mixed[2], c, 26, 1, 2, 27, 4, 5, 28, 7, 8, 29, 10, 11, 30, 13, 14, 31);
    memcpy(out, mixed, sizeof mixed);
}

INLINE void rows(const Filter *const filter[3], const Plane plane[3], const int kind, int32_t width, uint8_t *out,
                 int64_t stride, const int32_t luma_taps) {
    for (int32_t y = 0; y < filter[0]->count; y++) {
        for (int32_t x = 0; x < width; x += LANES) {
            Words sum[3];
            Bytes pixel[3];
            uint8_t *to = out + y * stride + 3 * x, few[3 * LANES];
            sum[0] = row(filter[0], y, &plane[0], x, luma_taps);
            for (int n = 1; n < 3; n++)
                sum[n] = kind == GRAY ? sum[0] : row(filter[n], y, &plane[n], x, filter[n]->taps);
            if (kind == YCC) convert(sum[0], sum[1], sum[2], pixel);
            else
                for (int n = 0; n < 3; n++) pixel[n] = __builtin_convertvector((sum[n] + 128) >> 8, Bytes);
            interleave(pixel, width - x < LANES ? few : to);
            if (width - x < LANES) memcpy(to, few, (size_t)(3 * (width - x)));
        }
    }
}

void filter_rows(const Filter *const filter[3], const Plane plane[3], int kind, int32_t width, uint8_t *out,
                 int64_t stride) {
    if (kind == YCC) rows(filter, plane, YCC, width, out, stride, filter[0]->taps);
    else if (kind == RGB) rows(filter, plane, RGB, width, out, stride, filter[0]->taps);
    else rows(filter, plane, GRAY, width, out, stride, filter[0]->taps);
}
