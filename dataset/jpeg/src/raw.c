/* Windows of pixels as they are. */

#include <string.h>

#include "codec.h"

INLINE int64_t clamped(int64_t value, int64_t least, int64_t most) {
    return value < least ? least : value > most ? most : value;
}

/* Fill ``out`` [side, side, 3] with the window of ``pixels`` [height, width, 3]; what lies beyond the image is black.
 */
void padded_window(const uint8_t *pixels, const PaddedWindow *window, uint8_t *out) {
    int64_t side = window->side;
    int64_t first = clamped(-window->left, 0, side); /* the columns inside the image */
    int64_t count = clamped(window->width - window->left, first, side) - first;
    int64_t begin = window->mirror ? side - first - count : first; /* where they go */
    for (int64_t row = window->top; row < window->top + side; row++, out += 3 * side) {
        if (row < 0 || row >= window->height || !count) {
            memset(out, 0, 3 * side);
            continue;
        }
        const uint8_t *from = pixels + 3 * (row * window->width + window->left + first);
        uint8_t *to = out + 3 * begin;
        memset(out, 0, 3 * begin);
        memset(to + 3 * count, 0, 3 * (side - begin - count));
        if (!window->mirror) {
            memcpy(to, from, 3 * count);
            continue;
        }
        for (int64_t column = 0; column < count; column++)
            for (int64_t channel = 0; channel < 3; channel++)
                to[3 * column + channel] = from[3 * (count - 1 - column) + channel];
    }
}
