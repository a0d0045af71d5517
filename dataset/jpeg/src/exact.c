/* Pixels as a stock decoder gives them: chroma interpolated and converted as libjpeg-turbo does, bit for bit. */

#include <string.h>

#include "decode.h"
#include "view.h"

enum { COLUMNS = 8 };

/* Samples of a component behind the rows [top, top + high) of column x, all in pixels of the image. */
static void raise_column(const Image *image, const Component *one, int32_t x, int32_t top, int32_t high, uint8_t *out) {
    int32_t vertical = image->most_vertical / one->vertical, across = image->most_across / one->across;
    int32_t column = x / across, first = 8 * one->top;
    const uint8_t *here = one->samples + (column - 8 * one->left) * one->stride - first;
    if (!is_smooth(image, one)) {
        if (vertical == 1) memcpy(out, here + top, (size_t)high);
        else
            for (int32_t y = 0; y < high; y++) out[y] = here[(top + y) / vertical];
        return;
    }
    int32_t other = column + (x & 1 ? 1 : -1), last = one->high - 1;
    other = other < 0 ? 0 : other >= one->wide ? one->wide - 1 : other;
    const uint8_t *beside = across == 2 ? one->samples + (other - 8 * one->left) * one->stride - first : here;
    if (vertical == 1) {
        for (int32_t y = top; y < top + high; y++)
            out[y - top] = (uint8_t)((3 * here[y] + beside[y] + 1 + (x & 1)) >> 2);
        return;
    }
    for (int32_t y = top; y < top + high; y++) {
        int32_t row = y >> 1, next = row + (y & 1 ? 1 : -1);
        next = next < 0 ? 0 : next > last ? last : next;
        int32_t sum = 3 * here[row] + here[next];
        if (across == 1) out[y - top] = (uint8_t)((sum + 1 + (y & 1)) >> 2);
        else out[y - top] = (uint8_t)((3 * sum + 3 * beside[row] + beside[next] + 8 - (x & 1)) >> 4);
    }
}

static uint8_t clamp(int32_t value) { return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value); }

/* Constants of 16 fraction bits (JFIF). */
static void convert(uint8_t *luma, uint8_t *blue, uint8_t *red, int32_t size) {
    for (int32_t n = 0; n < size; n++) {
        int32_t y = luma[n], cb = blue[n] - 128, cr = red[n] - 128;
        luma[n] = clamp(y + ((91881 * cr + 32768) >> 16));
        blue[n] = clamp(y + ((-22554 * cb - 46802 * cr + 32768) >> 16));
        red[n] = clamp(y + ((116130 * cb + 32768) >> 16));
    }
}

/* The blocks of a component under a span of pixels and what its interpolation reads beside them. */
static void span(int32_t begin, int32_t size, int32_t ratio, int smooth, int32_t samples, int32_t *first,
                 int32_t *end) {
    int32_t low = begin / ratio - smooth, high = (begin + size - 1) / ratio + smooth;
    *first = (low < 0 ? 0 : low) / 8;
    *end = (high >= samples ? samples - 1 : high) / 8 + 1;
}

/* The headers, and the parts of the components under `window`: top, left, height and width; a status. */
static int open_window(Image *image, const uint8_t *data, int64_t size, const int64_t window[4], Tables *tables) {
    int status = open_image(image, data, size, tables);
    if (status) return status;
    Axis vertical = {window[0], window[2], 1, 0, 1, 0}, horizontal = {window[1], window[3], 1, 0, 1, 0};
    if (!fits(&vertical, image->header.height) || !fits(&horizontal, image->header.width)) return OUTSIDE;
    int32_t top = (int32_t)window[0], left = (int32_t)window[1], high = (int32_t)window[2], wide = (int32_t)window[3];
    for (int n = 0; n < image->components; n++) {
        Component *one = &image->component[n];
        int smooth = is_smooth(image, one);
        span(top, high, image->most_vertical / one->vertical, smooth, one->high, &one->top, &one->bottom);
        span(left, wide, image->most_across / one->across, smooth, one->wide, &one->left, &one->right);
    }
    return DONE;
}

static int decode(const uint8_t *data, int64_t size, const int64_t window[4], Tables *tables, Arena *arena,
                  uint8_t *out) {
    Image image;
    int status = open_window(&image, data, size, window, tables);
    if (status) return status;
    int32_t top = (int32_t)window[0], left = (int32_t)window[1], high = (int32_t)window[2], wide = (int32_t)window[3];
    for (int n = 0; n < image.components; n++) {
        Component *one = &image.component[n];
        one->stride = 8 * (one->bottom - one->top);
        if (!(one->samples = take(arena, (size_t)(one->stride * 8 * (one->right - one->left))))) return NO_MEMORY;
    }
    if ((status = decode_parts(&image, arena))) return status;
    uint8_t *planes[3], *plane = take(arena, 3 * COLUMNS * (size_t)high);
    if (!plane) return NO_MEMORY;
    for (int32_t x = 0; x < wide; x += COLUMNS) {
        int32_t columns = wide - x < COLUMNS ? wide - x : COLUMNS;
        for (int n = 0; n < 3; n++) {
            planes[n] = n < image.components ? plane + n * COLUMNS * high : planes[0];
            for (int32_t k = 0; n < image.components && k < columns; k++)
                raise_column(&image, &image.component[n], left + x + k, top, high, planes[n] + k * high);
        }
        if (image.components == 3 && !image.is_rgb) convert(planes[0], planes[1], planes[2], columns * high);
        for (int32_t y = 0; y < high; y++)
            for (int32_t k = 0; k < columns; k++)
                for (int n = 0; n < 3; n++) out[3 * ((int64_t)y * wide + x + k) + n] = planes[n][k * high + y];
    }
    return DONE;
}

int64_t decode_window(const uint8_t *data, int64_t size, const int64_t window[4], uint8_t *out) {
    Arena *arena = own_arena();
    Tables tables;
    forget(&tables);
    return arena ? decode(data, size, window, &tables, arena, out) : NO_MEMORY;
}

int64_t window_intervals(const uint8_t *data, int64_t size, const int64_t window[4], Interval *found, int64_t most) {
    Arena *arena = own_arena();
    Tables tables;
    Image image;
    Interval *list, *end;
    forget(&tables);
    int64_t count = -1;
    if (arena && !open_window(&image, data, size, window, &tables) && !list_intervals(&image, arena, &list, &end) &&
        end - list <= most) {
        count = end - list;
        memcpy(found, list, (size_t)count * sizeof *found);
    }
    return count;
}
