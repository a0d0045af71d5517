/* Antialiased resizing of one axis at a time, in fixed point of 16 bits: the same on every machine. */

#ifndef LIMBECK_RESIZE_H
#define LIMBECK_RESIZE_H

#include "arena.h"
#include "codec.h"

/* What is shown along an axis: outputs `begin` to `begin + count` of the pixels `origin` to `origin + length`, resized
 * to `resized`; mirrored, in reverse order. */
typedef struct {
    int64_t origin, length, resized, begin, count, mirror;
} Axis;

/* The samples that make each of `count` outputs: `taps` of them from `first[n]` on, by weights of 16 fraction bits, at
 * weights + n * taps. Together they lie in [low, high). */
typedef struct {
    int32_t *first;
    uint16_t *weights;
    int32_t count, taps, low, high;
} Filter;

/* The triangle filter of Pillow's `bilinear` on pixels that stand `ratio` to a sample, `samples` of which there are:
 * each pixel is the sample that it lies in, or, smooth, 3/4 of it and 1/4 of the nearest other. False: no memory. */
int make_filter(Filter *filter, const Axis *axis, int32_t ratio, int smooth, int32_t samples, Arena *arena);

/* A plane while it is resized: uint16 [rows, stride], 8 fraction bits; the first row is sample `origin`. */
typedef struct {
    uint16_t *samples;
    int64_t stride;
    int32_t origin, rows;
} Plane;

/* Samples that stand column by column, the first of which is sample `origin`, to rows of the filter's outputs. Both
 * have room for 31 more in each column and row. */
void filter_columns(const Filter *filter, const uint8_t *columns, int64_t stride, int32_t origin, Plane *plane);

/* What the three planes of a picture are. */
enum { YCC, RGB, GRAY };

/* Rows of pixels from planes whose columns are filtered: RGB, uint8 [count, width, 3], rows `stride` bytes apart. */
void filter_rows(const Filter *const filter[3], const Plane plane[3], int kind, int32_t width, uint8_t *out,
                 int64_t stride);

#endif
