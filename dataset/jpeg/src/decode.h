/* From the bytes of a sequential JPEG to planes of samples, as much of them as a window needs. */

#ifndef LIMBECK_DECODE_H
#define LIMBECK_DECODE_H

#include "arena.h"
#include "codec.h"

enum { LOOK = 11, TABLES = 4 };

/* What became of an image. */
enum { DONE, OTHER, DAMAGED, OUTSIDE, NO_MEMORY };

/* Huffman tables ready for decoding: DC 0, DC 1, AC 0, AC 1. `lookup` says, by the next LOOK bits, what they begin
 * with: the bits of a code and its extra bits (0 to 5), how the index of the last coefficient changes, which is first
 * or'ed with 6 to 11 and then grows by 12 to 16, and the coefficient (17 to 31). Of what it cannot decide, bits are 0,
 * the growth is 1 and the coefficient is length << 8 | symbol of a code whose extra bits are not all there, or 0. */
typedef struct {
    uint32_t lookup[TABLES][1 << LOOK];
    struct {
        uint32_t limit[18]; /* by length: one past its largest code, aligned to 16 bits */
        int32_t offset[18]; /* from a code of that length to its place in `values` */
        uint8_t values[256];
        int32_t known; /* bytes that the table was made from, 0 for none */
        uint8_t made_from[16 + 256];
    } table[TABLES];
} Tables;

typedef struct {
    int32_t high, wide;       /* samples of the whole component, without what fills up its last blocks */
    int32_t vertical, across; /* sampling factors */
    int32_t quantization, dc, ac;
    /* The part that is decoded, in blocks. */
    int32_t top, bottom, left, right;
    uint8_t *samples; /* column by column: sample (y, x) of the part is samples[x * stride + y] */
    int64_t stride;
} Component;

typedef struct {
    int32_t component, down, right; /* place in the MCU, blocks */
    int32_t dc, ac;                 /* tables */
    const int16_t *steps;
} Block;

typedef struct {
    const uint8_t *data;
    int64_t size;
    Header header;
    int32_t components;
    int32_t most_vertical, most_across; /* the largest sampling factors */
    int32_t mcu_rows, mcu_columns, blocks;
    int32_t is_rgb;
    Block block[10];
    Component component[3];
    int16_t steps[4][64]; /* quantization, natural order */
    Tables *tables;       /* kept between images, for neighbours may share them */
} Image;

/* An interval between restart markers. */
typedef struct {
    int64_t from, to;    /* its entropy-coded bytes */
    int64_t first, last; /* MCU, and one past the last that is needed */
} Interval;

void forget(Tables *tables);

/* `from` holds 16 counts by length and the values. False where the counts make no code. */
int make_table(Tables *tables, int number, const uint8_t *from, int size);

/* The headers; a status. */
int open_image(Image *image, const uint8_t *data, int64_t size, Tables *tables);

/* Whether a decoder interpolates a component (libjpeg-turbo, jdsample.c: by twos, and not of two samples or fewer). */
int is_smooth(const Image *image, const Component *one);

/* Samples of the parts of the components; a status. The caller sets each part's blocks. */
int decode_parts(Image *image, Arena *arena);

/* The intervals of entropy-coded data that decode_parts reads; a status. */
int list_intervals(const Image *image, Arena *arena, Interval **list, Interval **end);

#endif
