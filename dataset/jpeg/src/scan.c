/* Where the entropy-coded bytes of a scan lie, T.81 B.1.1.5 and F.1.2.3. */

#include <string.h>

#include "decode.h"

int64_t unstuff(const uint8_t *data, int64_t size, int64_t position, uint8_t *out, int64_t *count) {
    uint8_t *begin = out;
    while (position < size) {
        const uint8_t *found = memchr(data + position, 0xFF, (size_t)(size - position));
        int64_t plain = found ? found - data - position : size - position;
        memcpy(out, data + position, (size_t)plain);
        out += plain;
        position += plain;
        int64_t after = position + 1;
        while (after < size && data[after] == 0xFF) /* fill bytes */
            after++;
        if (after >= size || data[after] != 0) break;
        *out++ = 0xFF;
        position = after + 1;
    }
    *count = out - begin;
    return position;
}

/* Whether a marker begins in the 64 bytes from `data` on: FF before neither 00 nor FF. */
static int has_marker(const uint8_t *data) {
    uint8_t found = 0;
    for (int n = 0; n < 64; n++) found |= (uint8_t)((data[n] == 0xFF) & (data[n + 1] != 0));
    return found;
}

/* Ends of the first `count` of all `intervals`, each where its marker begins; false where they are missing or out of
 * turn. */
static int find_ends(const Image *image, int64_t intervals, int64_t count, int64_t *ends) {
    const uint8_t *data = image->data;
    int64_t found = 0, at = image->header.scan;
    while (found < count && at + 1 < image->size) {
        int64_t stop = image->size - 1 - at < 64 ? image->size - 1 : at + 64;
        if (stop == at + 64 && !has_marker(data + at)) {
            at = stop;
            continue;
        }
        for (; at < stop && found < count; at++) {
            const uint8_t *full = memchr(data + at, 0xFF, (size_t)(stop - at));
            if (!full) {
                at = stop;
                break;
            }
            at = full - data;
            if (data[at + 1] == 0 || data[at + 1] == 0xFF) continue;
            if (found < intervals - 1 && data[at + 1] != (0xD0 | (found & 7))) return 0;
            ends[found++] = at;
        }
    }
    return found == count;
}

int list_intervals(const Image *image, Arena *arena, Interval **list, Interval **end) {
    int32_t top = INT32_MAX, bottom = 0, left = INT32_MAX, right = 0; /* MCUs */
    for (int n = 0; n < image->components; n++) {
        const Component *one = &image->component[n];
        if (one->top / one->vertical < top) top = one->top / one->vertical;
        if (one->left / one->across < left) left = one->left / one->across;
        if ((one->bottom - 1) / one->vertical >= bottom) bottom = (one->bottom - 1) / one->vertical + 1;
        if ((one->right - 1) / one->across >= right) right = (one->right - 1) / one->across + 1;
    }
    int64_t columns = image->mcu_columns, mcus = columns * image->mcu_rows;
    int64_t size = image->header.restart ? image->header.restart : mcus;
    int64_t intervals = (mcus + size - 1) / size, count = ((bottom - 1) * columns + right - 1) / size + 1;
    if (count > image->size) return OTHER;
    int64_t *ends = take(arena, (size_t)count * sizeof *ends);
    Interval *next = *list = take(arena, (size_t)count * sizeof **list);
    if (!ends || !next) return NO_MEMORY;
    if (!find_ends(image, intervals, count, ends)) return OTHER;
    if (count == intervals && image->data[ends[count - 1] + 1] != 0xD9) return OTHER;
    for (int64_t row = top; row < bottom; row++) {
        int64_t first = row * columns + left, last = row * columns + right;
        for (int64_t number = first / size; number <= (last - 1) / size; number++) {
            int64_t start = number * size, stop = start + size < last ? start + size : last;
            if (next > *list && next[-1].first == start) {
                next[-1].last = stop;
                continue;
            }
            *next++ = (Interval){number ? ends[number - 1] + 2 : image->header.scan, ends[number], start, stop};
        }
    }
    *end = next;
    return DONE;
}
