/* Packing: a sequential JPEG taken apart into symbols, written again and compared. Sections are those of ITU-T T.81. */

#ifndef LIMBECK_PACK_H
#define LIMBECK_PACK_H

#include <string.h>

#include "codec.h"

enum {
    MOST_BLOCKS = 10, /* of an MCU: B.2.3 */
    TABLE = 16 + 256, /* bytes of a Huffman table: counts by length, values */
    ROOM = 4096       /* bytes that hold any MCU: 10 blocks of 64 symbols of 31 bits are 2,480 */
};

/* What keeps a file from being packed: the keys of tiles.py's _PROBLEMS, which says what they mean. */
enum {
    NO_CODE = 1,
    TOO_MANY,
    TOO_LARGE,
    TOO_SHORT,
    LEFT_OVER,
    NO_RESTART,
    NO_END,
    STEPS_LENGTH,
    STEP_ZERO,
    BAD_TABLE,
    BAD_SCAN,
    NO_STEPS,
    BAD_FACTORS,
    OTHER_KIND,
    SEVERAL_SCANS,
    MORE_TABLES,
    MORE_SCANS
};

/* Fields of headers that change no pixel: `warning` is one of them, and the field's value above the lowest 8 bits. */
enum { JFIF_VERSION = 1, ADOBE_TRANSFORM, SCAN_PARAMETERS };

/* What the headers of a sequential Huffman JPEG with one scan say. Its Huffman tables stand in rows: DC 0, AC 0, DC 1,
 * AC 1. */
typedef struct {
    Header header;
    int64_t rows; /* of MCUs */
    int64_t columns;
    int64_t blocks;  /* of an MCU */
    int64_t unusual; /* whether a decoder may refuse the headers */
    int64_t warning; /* what libjpeg warns of in headers that are not, or 0 */
    uint8_t component[MOST_BLOCKS];
    uint8_t dc[MOST_BLOCKS]; /* the row of each block's table */
    uint8_t ac[MOST_BLOCKS];
    uint8_t used[4]; /* whether a block takes it */
    uint8_t tables[4][TABLE];
    uint16_t steps[4][64]; /* of each component, in zigzag order */
} Frame;

_Static_assert(sizeof(Frame) == 1784, "as many bytes as in tiles.py");

/* A symbol is `row of its table << 24 | symbol << 16 | extra bits`; RESTART stands for a restart marker. */
#define RESTART 0xFFFFFFFFu

INLINE void store_big(uint8_t *data, uint64_t word) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    memcpy(data, &word, 8);
}

/* The code of each symbol of ``table``, in that row, as `(code << extra bits) << 8 | bits with the extra ones`; the
 * rest of ``codes`` is left alone. BAD_TABLE where it is no code. */
int64_t make_codes(const uint8_t *table, int64_t row, uint64_t codes[256]);

/* How many codes of each length, at most 16 bits, symbols seen ``counts`` times get, and the symbols in the order of
 * their codes (K.2). Returns the number of symbols. */
int64_t optimal_code(const int64_t counts[256], uint8_t lengths[16], uint8_t values[256]);

int64_t pack_frame(const uint8_t *data, int64_t size, Frame *frame);
int64_t pack_walk(const uint8_t *data, int64_t size, const Frame *frame, int64_t interval, uint8_t *clean,
                  uint32_t *symbols, int64_t *results);
int64_t pack_write(const uint8_t *data, int64_t size, const Frame *frame, int64_t interval, const uint32_t *symbols,
                   int64_t number, const int64_t *counts, uint8_t *out);
int64_t pack_compare(const uint8_t *data, int64_t size, const uint8_t *stored, int64_t stored_size, int64_t interval,
                     const uint32_t *symbols, int64_t number, uint8_t *clean);

#endif
