#ifndef LIMBECK_VIEW_H
#define LIMBECK_VIEW_H

#include <time.h>

#include "resize.h"

typedef struct {
    const uint8_t *data; /* a JPEG */
    int64_t size;
    Axis vertical, horizontal;
    uint8_t *out; /* RGB, rows `stride` bytes apart */
    int64_t stride;
} View;

static inline int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* Fills the views: for each a status, and before each its row (the first is `row`) and the time in `watch`, nanoseconds
 * of the monotonic clock. The time of decoding and of resizing is added to `spent`, nanoseconds. */
void show_views(const View *views, int64_t count, int64_t row, int32_t *statuses, int64_t watch[2], int64_t spent[2]);

/* The longest side, and the greatest reduction of a view: above white, 16 bits have room for 1/256 of a level for each
 * of the 61 taps of its two filters. */
enum { LONGEST = 1 << 16, GREATEST = 30 };

/* Whether an axis lies in an image of that length. */
static inline int fits(const Axis *axis, int64_t length) {
    return axis->length > 0 && axis->length <= LONGEST && axis->origin >= 0 && axis->origin <= length - axis->length &&
           axis->resized > 0 && axis->resized <= LONGEST && axis->count > 0 && axis->begin >= 0 &&
           axis->begin <= axis->resized - axis->count;
}

#endif
